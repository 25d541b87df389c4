"""The quadruped: its model against the public figures, its observation and reward against plain formulas."""

import mujoco
import numpy as np
import pytest
import torch
from families import columns
from scipy.spatial.transform import Rotation

from metarl.envs.quadruped import LEGS, MOTORS, REACH, STAND
from metarl.envs.quadruped_tasks import (
    QuadrupedBody,
    QuadrupedCommand,
    QuadrupedCrippled,
    QuadrupedTerrain,
    QuadrupedVel,
)
from metarl.sim.mujoco.mujoco_env import MujocoEnv, compile_spec

NOMINAL = {"payload": 0.0, "centre": 0.0, "friction": 1.0, "strength": 1.0, "damping": 1.0}


def body_env(num_worlds=6, **values):
    """Worlds with the nominal body but for some parameters, given per world."""
    env = MujocoEnv(QuadrupedBody(), num_worlds, episodes_per_trial=2, threads=1)
    env.begin(columns(**{k: values.get(k, [v] * num_worlds) for k, v in NOMINAL.items()}), key=3)
    return env


def moving(env, num_steps=30):
    """The last step of some random motion, and what it was given."""
    actions = torch.rand(num_steps, env.num_worlds, 12, generator=torch.Generator().manual_seed(0)) - 0.5
    before = None
    for action in actions:
        before = {name: env.physics.bind(name).clone() for name in ("ctrl", "qpos", "qvel")}
        before["feet"] = env.physics.bind("site_xpos", fresh=False)[:, :4].clone()
        step = env.step(action)
    return step, action, before


def test_the_model_has_the_size_of_a_go1():
    model = compile_spec(QuadrupedBody().spec())
    assert model.nu == model.nv - 6 == 12
    assert [model.actuator(i).name for i in range(12)] == list(MOTORS)
    assert model.actuator_forcerange[:3, 1].tolist() == [23.7, 23.7, 35.55]
    assert model.body("trunk").mass[0] == pytest.approx(5.2)
    assert 12.0 < model.body_mass.sum() < 13.5
    for leg in LEGS:
        assert abs(model.body(f"{leg}_thigh").pos[1]) == 0.08
        assert model.body(f"{leg}_calf").pos[2] == -0.213
        assert model.geom(f"{leg}_foot").pos[2] == -0.213
    shapes = {mujoco.mjtGeom(kind).name for kind in model.geom_type}
    assert shapes <= {"mjGEOM_PLANE", "mjGEOM_SPHERE", "mjGEOM_CAPSULE", "mjGEOM_CYLINDER", "mjGEOM_BOX"}


def test_an_action_is_a_servo_target_around_the_standing_pose():
    env = body_env(3)
    action = torch.tensor([0.0, 1.0, -1.0])[:, None].expand(3, 12)
    env.step(action)
    expected = STAND + torch.tensor([0.0, 1.0, -1.0])[:, None] * REACH
    torch.testing.assert_close(env.physics.bind("ctrl"), expected)


def test_it_stands_still_for_an_episode_when_asked_for_nothing():
    env = body_env(8)
    for _ in range(249):
        step = env.step(torch.zeros(8, 12))
        assert not step.terminated.any()
    qpos, qvel = env.physics.bind("qpos"), env.physics.bind("qvel")
    assert (qpos[:, 2] > 0.24).all()
    assert qpos[:, :2].norm(dim=1).max() < 0.1
    assert qvel.abs().max() < 0.05


def test_the_observation_is_what_its_table_says():
    env = body_env()
    step, action, _ = moving(env)
    assert env.observation_size == 44
    qpos, qvel = env.physics.bind("qpos").numpy(), env.physics.bind("qvel").numpy()
    down = Rotation.from_quat(qpos[:, 3:7], scalar_first=True).inv().apply([0.0, 0.0, -1.0])
    expected = np.concatenate(
        (qvel[:, 3:6], down, qpos[:, 7:] - STAND.numpy(), qvel[:, 6:], action, env.physics.bind("userdata")[:, :2]),
        axis=1,
    )
    np.testing.assert_allclose(step.final_obs.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_the_tracking_reward_follows_the_published_formula():
    env = body_env()
    step, action, before = moving(env)
    qpos, qvel = env.physics.bind("qpos").numpy(), env.physics.bind("qvel").numpy()
    command = env.physics.bind("userdata")[:, :2].numpy()
    velocity = Rotation.from_quat(qpos[:, 3:7], scalar_first=True).inv().apply(qvel[:, :3])
    error = (velocity[:, 0] - command[:, 0]) ** 2 + velocity[:, 1] ** 2
    terms = {name: term.numpy() for name, term in step.reward_terms.items()}
    np.testing.assert_allclose(terms["velocity"], 2.0 * np.exp(-error / 0.25), atol=1e-9)
    np.testing.assert_allclose(terms["turn"], np.exp(-((qvel[:, 5] - command[:, 1]) ** 2) / 0.25), atol=1e-9)
    previous = (before["ctrl"] - STAND) / REACH
    change = (action.double() - previous).square().sum(dim=1).numpy()
    np.testing.assert_allclose(terms["jerk"] / change, np.full(6, terms["jerk"][0] / change[0]), rtol=1e-9)
    assert all((terms[name] <= 0).all() for name in set(terms) - {"velocity", "turn"})


def test_a_command_is_drawn_for_each_episode_and_kept_in_it():
    env = body_env()
    command = env.physics.bind("userdata")[:, :2]
    first = command.clone()
    assert len(first.unique(dim=0)) == 6
    for _ in range(249):
        env.step(torch.zeros(6, 12))
    assert torch.equal(command, first)
    env.step(torch.zeros(6, 12))
    assert not (command == first).any()


def test_the_goal_of_quadruped_command_is_rewarded_and_not_shown():
    env = MujocoEnv(QuadrupedCommand(), 2, episodes_per_trial=1, threads=1)
    tasks = columns(velocity=[0.0, 1.0], turn=[0.0, 0.0])
    obs = env.begin(tasks, key=0)
    assert obs.shape == (2, 42)
    for _ in range(50):
        step = env.step(torch.zeros(2, 12))
    assert step.reward_terms["velocity"][0] > 1.9
    assert step.reward_terms["velocity"][1] == pytest.approx(2.0 * np.exp(-4.0), abs=0.02)


def test_the_goal_of_quadruped_vel_is_rewarded_with_a_long_tail():
    env = MujocoEnv(QuadrupedVel(), 3, episodes_per_trial=1, threads=1)
    obs = env.begin(columns(velocity=[0.0, 1.0, -1.0]), key=0)
    assert obs.shape == (3, 42)
    for _ in range(50):
        step = env.step(torch.zeros(3, 12))
    assert step.reward_terms["velocity"][0] > 1.9
    assert step.reward_terms["velocity"][1:].tolist() == pytest.approx([2.0 / 5.0] * 2, abs=0.03)
    assert (step.reward_terms["turn"] > 0.9).all()


@pytest.mark.parametrize(("angle", "falls"), [(50, False), (70, True), (180, True)])
def test_an_episode_ends_with_a_fall(angle, falls):
    env = body_env(1)
    quaternion = Rotation.from_euler("x", angle, degrees=True).as_quat(scalar_first=True)
    env.physics.bind("qpos")[:, 2] = 1.0
    env.physics.bind("qpos")[:, 3:7] = torch.from_numpy(quaternion)
    assert env.step(torch.zeros(1, 12)).terminated.item() is falls


def test_an_episode_ends_when_the_trunk_is_on_the_ground():
    env = body_env(1)
    qpos = env.physics.bind("qpos")
    qpos[:, 2] = 0.08
    qpos[:, 7:] = torch.tensor([0.0, 1.5, -2.7] * 4)
    assert env.step(torch.ones(1, 12)).terminated.item()


def test_a_payload_weighs_on_the_legs_and_ice_lets_them_slip():
    env = body_env(3, payload=[0.0, 5.0, 0.0], friction=[1.0, 1.0, 0.15])
    for _ in range(100):
        env.step(torch.zeros(3, 12))
    height = env.physics.bind("qpos")[:, 2]
    assert height[1] < height[0] - 0.005
    weight = env.physics.model_of(1).body_mass.sum() - env.physics.model_of(0).body_mass.sum()
    assert weight == pytest.approx(5.0)
    env.physics.bind("qvel")[:, 1] = 1.0
    start = env.physics.bind("qpos")[:, 1].clone()
    for _ in range(50):
        env.step(torch.zeros(3, 12))
    slid = env.physics.bind("qpos")[:, 1] - start
    assert slid[2] > slid[0] + 0.05


def test_a_dead_knee_gives_way():
    env = MujocoEnv(QuadrupedCrippled(), 2, episodes_per_trial=1, threads=1)
    env.begin(columns(motor=[-1.0, float(MOTORS.index("FL_knee"))], strength=[0.0, 0.0]), key=0)
    for _ in range(50):
        env.step(torch.zeros(2, 12))
    bend = env.physics.bind("qpos")[:, 7 + MOTORS.index("FL_knee")]
    assert bend[1] < bend[0] - 0.3


def test_the_ground_of_quadruped_terrain_is_under_its_feet():
    """Put down 3 m ahead of the start, it comes to rest as high as the stairs there: 9 of 8 cm up, or down."""
    env = MujocoEnv(QuadrupedTerrain(), 3, episodes_per_trial=1, threads=1)
    kinds = QuadrupedTerrain.ground.kinds
    terrain = [float(kinds.index(name)) for name in ("blocks", "stairs-up", "stairs-down")]
    env.begin(columns(terrain=terrain, difficulty=[0.0, 0.5, 0.5], shift=[0.0] * 3), key=0)
    stairs = 0.5 * 0.16 * 9  # of 0.3 m, from 0.5 m ahead of the start
    env.physics.bind("qpos")[:, 0] += 3.05
    env.physics.bind("qpos")[:, 2] += torch.tensor([0.02, stairs + 0.1, -stairs + 0.1])
    for _ in range(25):
        assert not env.step(torch.zeros(3, 12)).terminated.any()
    height = env.physics.bind("qpos")[:, 2]
    assert height[1] - height[0] == pytest.approx(stairs, abs=0.1)
    assert height[2] - height[0] == pytest.approx(-stairs, abs=0.1)
