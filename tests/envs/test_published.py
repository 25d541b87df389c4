"""The published families against loops of plain MuJoCo, world by world, with the published formulas and models.

The models are Gymnasium's files, changed by hand where a task changes them; nothing here goes through a family's code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from families import columns

from metarl.core.registry import make_family
from metarl.core.tasks import Tasks
from metarl.sim.mujoco.mujoco_env import MujocoEnv, compile_spec

ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
STEPS = 200
CHEETAH_JOINTS = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")


def draw(name, n, split="train"):
    return make_family(name).space.sample(split, n, np.random.default_rng(7))


def randoms(steps, worlds, size, seed=0):
    return 2 * torch.rand(steps, worlds, size, generator=torch.Generator().manual_seed(seed)) - 1


def plain(file, *, forces=False):
    """A model of Gymnasium's; with a sensor that makes MuJoCo compute the body forces."""
    spec = mujoco.MjSpec.from_file(str(ASSETS / file))
    if forces:
        spec.body("torso").add_site(name="sensed")
        spec.add_sensor(type=mujoco.mjtSensor.mjSENS_FORCE, objtype=mujoco.mjtObj.mjOBJ_SITE, objname="sensed")
    return compile_spec(spec)


def refreshed(model):
    """What MuJoCo derives from masses and the like follows the changes."""
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


# half-cheetah


def cheetah_model(task):
    model = plain("half_cheetah.xml")
    mass, friction, damping = (task.get(name, 1.0) for name in ("mass", "friction", "damping"))
    model.body_mass[:] *= mass
    model.body_inertia[:] *= mass
    model.geom_friction[:, 0] *= friction
    for joint in CHEETAH_JOINTS:
        model.dof_damping[model.joint(joint).dofadr[0]] *= damping
    model.actuator_gear[:, 0] *= task.get("signs", 1.0)
    if task.get("dead_joint", -1.0) >= 0:
        model.actuator_gainprm[model.actuator(CHEETAH_JOINTS[int(task["dead_joint"])]).id] = 0.0
    return refreshed(model)


def cheetah_reward(model, data, before, action, task):
    v = (data.qpos[0] - before) / 0.05
    if "velocity" in task:
        return -abs(v - task["velocity"]) - 0.05 * np.sum(action**2)
    return task.get("direction", 1.0) * v - 0.05 * np.sum(action**2)


def cheetah_obs(model, data):
    current = mujoco.MjData(model)
    current.qpos[:], current.qvel[:] = data.qpos, data.qvel
    mujoco.mj_forward(model, current)
    return np.concatenate((data.qpos[1:], data.qvel, current.body("torso").xpos))


# ant


def ant_model(task):
    model = plain("ant.xml", forces=True)
    mass = task.get("mass", 1.0)
    model.body_mass[:] *= mass
    model.body_inertia[:] *= mass
    model.geom_friction[:, 0] *= task.get("friction", 1.0)
    model.dof_damping[6:] *= task.get("damping", 1.0)
    model.actuator_gainprm[:, 0] *= task.get("strength", 1.0)
    dead = task.get("dead_leg", -1.0)
    for motor in range(model.nu):
        if model.joint(model.actuator_trnid[motor, 0]).name in (f"hip_{dead + 1:.0f}", f"ankle_{dead + 1:.0f}"):
            model.actuator_gainprm[motor] = 0.0
    return refreshed(model)


def ant_contacts(data):
    return 0.5e-3 * np.sum(np.clip(data.cfrc_ext, -1, 1) ** 2)


def ant_running(model, data, before, action, task):
    angle = task.get("direction", 0.0)
    v = (data.qpos[:2] - before) / 0.05
    forward = v @ (np.cos(angle), np.sin(angle))
    return forward - 0.5 * np.sum(action**2) - ant_contacts(data) + 1.0


def ant_going(model, data, before, action, task):
    return -np.sum(np.abs(data.qpos[:2] - task["goal"])) - 0.1 * np.sum(action**2) - ant_contacts(data)


def ant_searching(model, data, before, action, task):
    distance = np.linalg.norm(data.qpos[:2] - task["goal"])
    felt = 1.0 - distance if distance <= 0.75 else -0.75
    return felt - 0.01 * np.sum(action**2) - ant_contacts(data)


def ant_obs(model, data):
    return np.concatenate((data.qpos[2:], data.qvel))


def ant_place_obs(model, data):
    return np.concatenate((data.qpos, data.qvel, np.clip(data.cfrc_ext, -1, 1).ravel()))


def ant_over(data):
    return not 0.2 <= data.qpos[2] <= 1.0


# humanoid


def mass_centre(model, data):
    return (model.body_mass[:, None] * data.xipos).sum(axis=0)[:2] / model.body_mass.sum()


def humanoid_reward(model, data, before, action, task):
    moved = mass_centre(model, data) - before
    progress = 0.25 * moved @ (np.cos(task["direction"]), np.sin(task["direction"])) / 0.003
    impact = min(0.5e-6 * np.sum(data.cfrc_ext**2), 10)
    return progress - 0.1 * np.sum((0.4 * action) ** 2) - impact + 5.0


def humanoid_obs(model, data):
    derived = (data.cinert, data.cvel, data.qfrc_actuator, data.cfrc_ext)
    return np.concatenate((data.qpos[2:], data.qvel, *(field.ravel() for field in derived)))


def humanoid_over(data):
    return data.qpos[2] < 1.0 or data.qpos[2] > 2.0


# walker and hopper


def params_model(file):
    def model(task):
        model = plain(file)
        fields = (model.body_mass, model.body_inertia, model.geom_friction, model.dof_damping)
        for field, name in zip(fields, ("mass", "inertia", "friction", "damping"), strict=True):
            field[:] *= np.reshape(task[name], field.shape)
        return refreshed(model)

    return model


def params_reward(model, data, before, action, task):
    return (data.qpos[0] - before) / 0.008 + 1.0 - 1e-3 * np.sum(action**2)


def params_obs(model, data):
    return np.concatenate((data.qpos[1:], np.clip(data.qvel, -10, 10)))


def walker_over(data):
    return not (0.8 < data.qpos[1] < 2.0 and -1.0 < data.qpos[2] < 1.0)


def hopper_over(data):
    state = np.concatenate((data.qpos, data.qvel))
    return not (np.abs(state[2:]).max() < 100 and data.qpos[1] > 0.7 and abs(data.qpos[2]) < 0.2)


def never(data):
    return False


@dataclass(frozen=True)
class Published:
    """A family in plain MuJoCo."""

    tasks: Tasks
    model: Callable[[Any], mujoco.MjModel]
    reward: Callable[..., float]
    observe: Callable[..., np.ndarray]
    over: Callable[[mujoco.MjData], bool] = never
    before: Callable[..., Any] = lambda model, data: data.qpos[0]
    """What the reward needs to know of the state before the step."""
    substeps: int = 5
    control: float = 1.0
    """Control per action."""
    gains: tuple[float, ...] = (1.0, 0.5, 0.3)
    """How large the random actions are in each world, in turn: the gentler, the longer a robot stands."""


def place(model, data):
    return data.qpos[:2].copy()


def cheetah(**tasks):
    return Published(columns(**tasks), cheetah_model, cheetah_reward, cheetah_obs)


def ant(tasks, reward=ant_running, observe=ant_obs, over=ant_over):
    return Published(tasks, ant_model, reward, observe, over, place, gains=(1.0, 0.7, 0.3))


PUBLISHED = {
    "half-cheetah-vel": cheetah(velocity=[0.5, 2.5]),
    "half-cheetah-dir": cheetah(direction=[-1.0, 1.0]),
    "half-cheetah-body": cheetah(
        mass=[1.0, 1.7, 0.6], friction=[1.0, 0.6, 1.8], damping=[1.0, 0.7, 1.5], dead_joint=[-1.0, 4.0, 0.0]
    ),
    "half-cheetah-crippled": cheetah(dead_joint=[1.0, 5.0, 0.0]),
    "half-cheetah-signs": cheetah(signs=[[1.0, -1.0, 1.0, 1.0, -1.0, 1.0], [-1.0] * 6]),
    "ant-dir-2d": ant(draw("ant-dir-2d", 3)),
    "ant-goal-sparse": ant(columns(goal=[[0.7, 0.1], [-0.2, 0.6], [2.0, 1.0]]), ant_searching, ant_place_obs, never),
    "ant-dir": ant(columns(direction=[0.0, np.pi, np.pi])),
    "ant-goal": ant(draw("ant-goal", 3), ant_going, ant_place_obs, never),
    "ant-body": ant(draw("ant-body", 3)),
    "ant-crippled": ant(columns(dead_leg=[0.0, 2.0, 3.0])),
    "humanoid-dir": Published(
        draw("humanoid-dir", 3),
        lambda task: plain("humanoid.xml", forces=True),
        humanoid_reward,
        humanoid_obs,
        humanoid_over,
        mass_centre,
        control=0.4,
        gains=(1.0, 0.3, 0.0),
    ),
    "walker-params": Published(
        draw("walker-params", 6), params_model("walker2d.xml"), params_reward, params_obs, walker_over, substeps=4
    ),
    "hopper-params": Published(
        draw("hopper-params", 6), params_model("hopper.xml"), params_reward, params_obs, hopper_over, substeps=4
    ),
}


def plain_run(published, model, start, actions, task):
    """Rewards and observations of one world up to the end of its episode, and whether it ended by the rules."""
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = start["qpos"], start["qvel"]
    mujoco.mj_forward(model, data)
    data.qacc_warmstart[:] = start["qacc_warmstart"]
    rewards, observations = [], []
    for action in actions:
        before, data.ctrl[:] = published.before(model, data), published.control * action
        for _ in range(published.substeps):
            mujoco.mj_step(model, data)
        rewards.append(published.reward(model, data, before, action, task))
        observations.append(published.observe(model, data))
        if published.over(data):
            return rewards, observations, True
    return rewards, observations, False


@pytest.mark.parametrize("name", PUBLISHED)
def test_rewards_observations_and_ends_equal_those_of_plain_mujoco(name):
    """Over 200 steps; where an episode ends early, its successor is followed from its start."""
    published, num_worlds = PUBLISHED[name], len(PUBLISHED[name].tasks)
    env = MujocoEnv(make_family(name), num_worlds, episodes_per_trial=1, threads=1)
    env.begin(published.tasks, key=5)
    gains = torch.tensor([published.gains[world % len(published.gains)] for world in range(num_worlds)])
    actions = gains[:, None] * randoms(STEPS, num_worlds, env.action_size)
    states, steps = [], []
    for action in actions:
        states.append({field: env.physics.bind(field).numpy().copy() for field in ("qpos", "qvel", "qacc_warmstart")})
        steps.append(env.step(action))
    rewards = torch.stack([sum(step.reward_terms.values()) for step in steps], dim=1).numpy()
    observations = torch.stack([step.final_obs for step in steps], dim=1).numpy()
    terminated = torch.stack([step.terminated for step in steps], dim=1).numpy()
    for world, task in enumerate(published.tasks.rows()):
        model, applied, t = published.model(task), actions[:, world].double().numpy(), 0
        while t < STEPS:
            start = {field: values[world] for field, values in states[t].items()}
            expected, seen, ended = plain_run(published, model, start, applied[t:], task)
            episode = slice(t, t + len(expected))
            np.testing.assert_allclose(rewards[world, episode], expected, rtol=0, atol=1e-9)
            np.testing.assert_allclose(observations[world, episode], seen, rtol=1e-6, atol=1e-6)
            assert terminated[world, episode].tolist() == [False] * (len(expected) - 1) + [ended]
            t += len(expected)
    assert terminated.any() == (published.over is not never)


@pytest.mark.parametrize("name", ["point-goal", "point-goal-sparse"])
def test_the_point_moves_by_a_tenth_of_the_action(name):
    """In closed form. Half the worlds head for their goals, for those of the sparse family are not found by chance."""
    num_worlds, steps = 32, 20
    tasks = draw(name, num_worlds)
    env = MujocoEnv(make_family(name), num_worlds, episodes_per_trial=1, threads=1)
    env.begin(tasks, key=5)
    x = env.physics.bind("qpos").clone()
    (task,) = tasks.values.values()
    goal = task if name == "point-goal" else torch.stack((task.cos(), task.sin()), dim=1)
    rewarded = 0
    for noise in randoms(steps, num_worlds, 2):
        ahead = ((goal - x) / 0.1).clamp(-1, 1).float()
        action = torch.where(torch.arange(num_worlds)[:, None] % 2 == 0, noise, (ahead + 0.3 * noise).clamp(-1, 1))
        step = env.step(action)
        x = x + 0.1 * action.double()
        distance = (x - goal).square().sum(dim=1).sqrt()
        near = distance <= 0.2
        reward = -distance if name == "point-goal" else torch.where(near, 1 - distance, 0.0)
        torch.testing.assert_close(sum(step.reward_terms.values()), reward, rtol=0, atol=1e-9)
        torch.testing.assert_close(step.final_obs.double(), x, rtol=0, atol=1e-6)
        rewarded += int(near.sum())
    assert step.truncated.all()
    assert 0 < rewarded < steps * num_worlds


def test_the_wind_carries_the_point_until_it_is_met():
    """In closed form: 0.1 a + w in each step. In half the worlds the point heads for its goal against the wind."""
    tasks, goal = draw("point-wind", 16), torch.tensor([0.0, 1.0], dtype=torch.float64)
    env = MujocoEnv(make_family("point-wind"), 16, episodes_per_trial=1, threads=1)
    env.begin(tasks, key=5)
    x, rewarded = env.physics.bind("qpos").clone(), torch.zeros(16)
    for noise in randoms(75, 16, 2):
        ahead = ((goal - x - tasks["wind"]) / 0.1).clamp(-1, 1).float()
        action = torch.where(torch.arange(16)[:, None] % 2 == 0, noise, ahead)
        step = env.step(action)
        x = x + 0.1 * action.double() + tasks["wind"]
        near = (x - goal).norm(dim=1) <= 0.03
        torch.testing.assert_close(step.final_obs.double(), x, rtol=0, atol=1e-6)
        assert torch.equal(step.reward, near.float())
        rewarded += step.reward
    assert (rewarded[1::2] > 0).all()
    assert (rewarded[0::2] < rewarded[1::2]).all()


@pytest.mark.parametrize("x", [4.9, 5.1, -4.9, -5.1])
def test_the_sparse_half_cheetah_earns_nothing_near_its_start(x):
    env, dense = (
        MujocoEnv(make_family(name), 2, threads=1) for name in ("half-cheetah-dir-sparse", "half-cheetah-dir")
    )
    for worlds in (env, dense):
        worlds.begin(columns(direction=[1.0, -1.0]), key=1)
        worlds.physics.bind("qpos")[:, 0] = x
        worlds.physics.bind("qvel")[:, 0] = 0.5
    action = randoms(1, 2, 6)[0]
    step, usual = env.step(action), dense.step(action)
    assert torch.equal(step.reward_terms["control"], usual.reward_terms["control"])
    assert usual.reward_terms["forward"].abs().min() > 0.1
    expected = usual.reward_terms["forward"] if abs(x) > 5.0 else torch.zeros(2, dtype=torch.float64)
    assert torch.equal(step.reward_terms["forward"], expected)


def test_sixteen_combinations_of_signs_are_held_out():
    space = make_family("half-cheetah-signs").space
    train, ood = (set(map(tuple, space.fixed(split, 64)["signs"].tolist())) for split in ("train", "ood"))
    assert (len(train), len(ood), len(train | ood)) == (48, 16, 64)
    assert all(np.mean([signs[motor] for signs in ood]) == 0.0 for motor in range(6))


def test_a_turned_motor_accelerates_its_joint_the_other_way():
    env = MujocoEnv(make_family("half-cheetah-signs"), 3, threads=1)
    env.begin(columns(signs=[[1.0] * 6, [1.0, 1.0, -1.0, 1.0, 1.0, 1.0], [1.0] * 6]), key=0)
    env.physics.set_state(env.physics.get_state()[:1].repeat(3, 1))
    env.physics.bind("qpos")[:, 1] = 1.0  # in the air
    env.physics.bind("ctrl")[:2, 2] = 0.1
    env.physics.step(1)
    foot = env.physics.bind("qvel")[:, 5].clone()  # of the back leg
    gained = foot[:2] - foot[2]
    assert gained[0] > 0.1
    assert gained[1] == pytest.approx(-float(gained[0]), rel=0.02)


# where an episode begins


def first_state(name, num_worlds=256):
    env = MujocoEnv(make_family(name), num_worlds, threads=1)
    obs = env.begin(draw(name, num_worlds), key=0)
    return obs.double(), env.physics.bind("qpos"), env.physics.bind("qvel"), torch.from_numpy(env.physics.model.qpos0)


@pytest.mark.parametrize(
    ("name", "position", "velocity"),
    [
        ("half-cheetah-vel", 0.1, None),
        ("ant-dir", 0.1, None),
        ("ant-goal", 0.1, None),
        ("humanoid-dir", 0.01, 0.01),
        ("walker-params", 0.005, 0.005),
        ("hopper-params", 0.005, 0.005),
        ("point-goal", 1.0, 0.0),
        ("point-goal-sparse", 0.001, 0.0),
    ],
)
def test_an_episode_begins_near_the_models_own_pose(name, position, velocity):
    """Uniform to ±`position` and ±`velocity`; N(0, 0.1²) in the velocities for None."""
    _, qpos, qvel, pose = first_state(name)
    noise = qpos - pose
    assert noise.abs().max() <= position
    assert noise.std() == pytest.approx(position / 3**0.5, rel=0.05)
    assert qvel.std() == pytest.approx(0.1 if velocity is None else velocity / 3**0.5, rel=0.05, abs=1e-12)
    assert velocity is None or qvel.abs().max() <= velocity


def test_the_first_observation_of_the_half_cheetah_is_its_perturbed_standing_pose():
    obs, qpos, qvel, _ = first_state("half-cheetah-vel")
    torch.testing.assert_close(obs[:, :17], torch.cat((qpos[:, 1:], qvel), dim=1), rtol=0, atol=1e-6)
    torch.testing.assert_close(obs[:, 17], qpos[:, 0], rtol=0, atol=1e-6)
    assert not obs[:, 18].any()
    torch.testing.assert_close(obs[:, 19], 0.7 + qpos[:, 1], rtol=0, atol=1e-6)


# where others have gone wrong


def test_the_two_directions_of_the_ant_are_opposite():
    """VariBAD's lie 115 degrees apart, those of the code published with PEARL anywhere."""
    angles = make_family("ant-dir").space.fixed("train", 2)["direction"]
    headings = torch.stack((angles.cos(), angles.sin()))
    torch.testing.assert_close(headings[:, 0], -headings[:, 1], rtol=0, atol=1e-12)
    env = MujocoEnv(make_family("ant-dir"), 2, threads=1)
    env.begin(columns(direction=angles.tolist()), key=0)
    env.physics.set_state(env.physics.get_state()[:1].repeat(2, 1))
    for action in randoms(20, 1, 8):
        forward, backward = env.step(action.repeat(2, 1)).reward_terms["progress"].tolist()
        assert forward == pytest.approx(-backward, abs=1e-12)
        assert forward != 0


@pytest.mark.parametrize(
    ("name", "file", "count"), [("walker-params", "walker2d.xml", 65), ("hopper-params", "hopper.xml", 41)]
)
def test_every_number_of_the_body_has_a_factor_of_its_own(name, file, count):
    task = make_family(name).space.sample("train", 1, np.random.default_rng(0)).rows()[0]
    assert sum(len(factors) for factors in task.values()) == count
    assert len({factor for factors in task.values() for factor in factors}) == count
    model, body = plain(file), params_model(file)(task)
    for field in ("body_mass", "body_inertia", "geom_friction", "dof_damping"):
        present = getattr(model, field) != 0
        assert (getattr(model, field)[present] != getattr(body, field)[present]).all()


@pytest.mark.parametrize(("name", "base"), [("mass", 1.5), ("inertia", 1.5), ("friction", 1.5), ("damping", 1.3)])
def test_the_factors_are_powers_with_uniform_exponents(name, base):
    factors = make_family("walker-params").space.sample("train", 1000, np.random.default_rng(0))[name]
    exponents = factors.log() / np.log(base)
    assert exponents.abs().max() <= 3
    assert exponents.std() == pytest.approx(3 / 3**0.5, rel=0.02)


@pytest.mark.parametrize(("name", "first"), [("ant-goal", 29), ("humanoid-dir", 292)])
def test_contacts_are_felt(name, first):
    """In most of the field's code, run with MuJoCo 2 or later, all of these observations are zero."""
    env = MujocoEnv(make_family(name), 1, threads=1)
    env.begin(draw(name, 1), key=0)
    obs = torch.cat([env.step(torch.zeros(1, env.action_size)).obs for _ in range(20)])
    forces = obs[:, first : first + 84].reshape(20, 14, 6)
    assert (forces != 0).any(dim=2).any(dim=0).sum() >= 2  # bodies that touch the ground
    assert not forces[:, 0].any()


@pytest.mark.parametrize(("name", "held_out"), [("half-cheetah-crippled", 0.0), ("ant-crippled", 3.0)])
def test_training_never_breaks_what_is_held_out(name, held_out):
    space = make_family(name).space
    (parameter,) = space.parameters
    assert held_out not in space.sample("train", 1000, np.random.default_rng(0))[parameter]
    assert set(space.sample("ood", 100, np.random.default_rng(0))[parameter].tolist()) == {held_out}


# pictures


@pytest.mark.parametrize(
    ("name", "distance"), [("ant-dir", 100.0), ("humanoid-dir", 100.0), ("point-goal-sparse", 1.0)]
)
def test_a_mark_lies_in_the_direction_of_the_task(name, distance):
    tasks = draw(name, 3)
    env = MujocoEnv(make_family(name), 3, threads=1)
    env.begin(tasks, key=0)
    (angles,) = tasks.values.values()
    for world, angle in enumerate(angles.tolist()):
        mark = env.physics.data_of(world).site("goal")
        heading = np.array([np.cos(angle), np.sin(angle)])
        assert mark.xpos[:2] == pytest.approx(distance * heading, abs=1e-9)
        assert mark.xmat.reshape(3, 3)[:2, 0] == pytest.approx(heading, abs=1e-9)


@pytest.mark.parametrize("name", ["ant-goal", "point-goal"])
def test_a_mark_lies_at_the_goal(name):
    tasks = draw(name, 2)
    env = MujocoEnv(make_family(name), 2, threads=1)
    env.begin(tasks, key=0)
    for world in range(2):
        assert env.physics.data_of(world).site("goal").xpos[:2].tolist() == tasks["goal"][world].tolist()
