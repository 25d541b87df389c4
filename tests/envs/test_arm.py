"""The arm families against a loop of plain MuJoCo, and the physics their tasks promise."""

import math
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch
from families import columns

from metarl.core.registry import make_family
from metarl.core.tasks import Tasks
from metarl.sim.mujoco.mujoco_env import MujocoEnv, compile_spec

XML = Path(__file__).parents[2] / "envs" / "assets" / "arm.xml"
STEPS, SUBSTEPS, GRAVITY = 100, 10, 9.81
GOALS = [[0.1, -0.1, 0.05], [-0.2, 0.1, -0.25]]


def trial_env(name, worlds, episodes=1):
    return MujocoEnv(make_family(name), worlds, episodes_per_trial=episodes, threads=1)


def begin(name, tasks, key=5):
    env = trial_env(name, len(tasks))
    return env, env.begin(tasks, key)


def play(env, actions):
    """Rewards (worlds, steps) in double precision and observations (worlds, steps, size)."""
    steps = [env.step(action) for action in actions]
    rewards = torch.stack([sum(step.reward_terms.values()) for step in steps], dim=1)
    return rewards.numpy(), torch.stack([step.final_obs for step in steps], dim=1).numpy()


def random_actions(worlds, steps=STEPS):
    return 2 * torch.rand(steps, worlds, 6, generator=torch.Generator().manual_seed(0)) - 1


def nominal(name, worlds):
    return make_family(name).space.nominal(worlds)


def place_of(model, data, qpos):
    data.qpos[: len(qpos)] = qpos
    mujoco.mj_kinematics(model, data)
    return data.site("tool").xpos.copy()


def close(distance):
    return 0.5 * (1.0 - math.tanh(distance / 0.1))


def reach_reward(data, tool, action, task):
    distance = np.linalg.norm(tool - np.array([0.5, 0.0, 0.35]) - task["goal"])
    return -distance + close(distance) - 0.01 * np.sum(action**2)


def push_reward(data, tool, action, task):
    puck = data.qpos[6:9]
    distance = np.linalg.norm(puck[:2] - data.mocap_pos[0, :2])
    return -distance + close(distance) - 0.2 * np.linalg.norm(tool - puck) - 0.01 * np.sum(action**2)


def reach_observation(data, tool):
    return np.concatenate((data.qpos[:6], data.qvel[:6], tool))


def push_observation(data, tool):
    return np.concatenate((reach_observation(data, tool), data.qpos[6:8], data.qvel[6:8], data.mocap_pos[0, :2]))


def model_of(name, task):
    """The file's model without what the family leaves out, changed by hand."""
    spec = mujoco.MjSpec.from_file(str(XML))
    for body in ("puck", "target") if name == "arm-reach" else ("workspace",):
        spec.delete(spec.body(body))
    model = compile_spec(spec)
    if name == "arm-push":
        puck = model.body("puck").id
        model.body_mass[puck] *= task["mass"]
        model.body_inertia[puck] *= task["mass"]
        model.geom("puck").friction[0] *= task["friction"]
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


@pytest.mark.parametrize(
    ("name", "tasks", "reward", "observation"),
    [
        ("arm-reach", columns(goal=GOALS), reach_reward, reach_observation),
        ("arm-push", columns(mass=[0.5, 2.0], friction=[2.0, 0.6]), push_reward, push_observation),
    ],
)
def test_rewards_and_observations_equal_those_of_plain_mujoco(name, tasks, reward, observation):
    env, _ = begin(name, tasks)
    start = {field: env.physics.bind(field).numpy().copy() for field in ("qpos", "mocap_pos")}
    actions = random_actions(len(tasks))
    rewards, seen = play(env, actions)
    for world, task in enumerate(tasks.rows()):
        model = model_of(name, task)
        data, now = mujoco.MjData(model), mujoco.MjData(model)
        data.qpos[:], data.mocap_pos[:] = start["qpos"][world], start["mocap_pos"][world]
        for t, action in enumerate(actions[:, world].double().numpy()):
            data.ctrl[:] = 1.5 * action
            for _ in range(SUBSTEPS):
                mujoco.mj_step(model, data)
            tool = place_of(model, now, data.qpos)
            assert rewards[world, t] == pytest.approx(reward(data, tool, action, task), abs=1e-9)
            np.testing.assert_allclose(seen[world, t], observation(data, tool), rtol=1e-6, atol=1e-6)


def test_random_actions_move_the_puck():
    """So that the comparison above covers contact."""
    env, first = begin("arm-push", columns(mass=[0.5, 2.0], friction=[2.0, 0.6]))
    seen = play(env, random_actions(2))[1]
    assert np.abs(seen[:, -1, 15:17] - first[:, 15:17].numpy()).max() > 0.01


def slide(tasks, speed, steps=80):
    """Distances the pucks slide with a start at `speed`, the arm at rest [m]."""
    env, _ = begin("arm-push", tasks)
    env.physics.bind("qvel")[:, 6] = speed
    start = env.physics.bind("qpos")[:, 6].clone()
    for _ in range(steps):
        env.step(torch.zeros(len(tasks), 6))
    assert env.physics.bind("qvel")[:, 6].abs().max() < 1e-3
    return env.physics.bind("qpos")[:, 6] - start


def test_a_sliding_puck_is_slowed_by_friction_times_gravity_whatever_its_mass():
    ratio = torch.tensor([0.25, 0.5, 1.0, 1.0, 1.0, 2.0], dtype=torch.float64)
    tasks = Tasks({"mass": torch.tensor([1.0, 1.0, 0.4, 1.0, 4.0, 1.0], dtype=torch.float64), "friction": ratio})
    expected = 0.5**2 / (2 * 0.1 * ratio * GRAVITY)
    torch.testing.assert_close(slide(tasks, 0.5), expected, rtol=0.02, atol=0.002)


def test_the_same_force_moves_a_heavy_or_rough_puck_less():
    env, first = begin("arm-push", columns(mass=[1.0, 2.0, 1.0], friction=[1.0, 1.0, 2.0]))
    force = env.physics.bind("xfrc_applied")[:, env.physics.model.body("puck").id]
    force[:, 0] = 4.0  # [N]: above the sliding friction of them all
    for t in range(20):
        if t == 4:
            force.zero_()
        step = env.step(torch.zeros(3, 6))
    light, heavy, rough = (step.obs[:, 15] - first[:, 15]).tolist()
    assert light > 0.05
    assert 0.0 < heavy < 0.7 * light
    assert 0.0 < rough < 0.7 * light


def test_a_heavy_puck_slows_the_arm_that_pushes_it():
    env, _ = begin("arm-push", columns(mass=[0.4, 2.5], friction=[2.0, 2.0]))
    for field, width in (("qpos", 13), ("mocap_pos", 3)):  # world 1 starts as world 0 does
        env.physics.bind(field).reshape(2, width)[1] = env.physics.bind(field).reshape(2, width)[0]
    for _ in range(2):  # shoulder forward, elbow up, wrist level: the tool moves forward and has just met the puck
        step = env.step(torch.tensor([[0.0, 0.6, -1.0, 0.4, 0.0, 0.0]]).repeat(2, 1))
    light, heavy = step.obs[:, 17].tolist()
    assert light > 0.2
    assert heavy < 0.8 * light


@pytest.mark.parametrize("split", ["train", "test", "ood"])
def test_every_goal_is_within_reach(split):
    """Damped least squares from the start pose comes within 1 mm, inside the joints' ranges and above the table."""
    model = model_of("arm-reach", {})
    data, jacobian = mujoco.MjData(model), np.zeros((3, model.nv))
    low, high = model.jnt_range.T
    for task in make_family("arm-reach").space.fixed(split, 40).rows():
        goal, data.qpos[:] = np.array([0.5, 0.0, 0.35]) + task["goal"], 0.0
        for _ in range(300):
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            error = goal - data.site("tool").xpos
            if np.linalg.norm(error) < 1e-3:
                break
            mujoco.mj_jacSite(model, data, jacobian, None, model.site("tool").id)
            step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-3 * np.eye(3), 0.5 * error)
            data.qpos[:] = np.clip(data.qpos + step, low, high)
        mujoco.mj_forward(model, data)
        assert np.linalg.norm(error) < 1e-3, task
        assert data.ncon == 0, task


@pytest.mark.parametrize("name", ["arm-reach", "arm-push"])
def test_without_a_command_the_arm_holds_its_pose(name):
    env, first = begin(name, nominal(name, 4))
    seen = play(env, torch.zeros(STEPS, 4, 6))[1]
    drift = np.abs(seen - first[:, None].numpy())
    assert drift[:, :, :6].max() < 1e-3  # [rad]
    assert drift[:, :, 12:15].max() < 1e-3  # [m]
    assert drift[:, :, 15:].max(initial=0.0) < 1e-3  # the puck, its speed and its target


def test_a_command_is_a_velocity():
    env, _ = begin("arm-reach", nominal("arm-reach", 6))
    for _ in range(10):
        step = env.step(torch.eye(6) * 0.4)
    torch.testing.assert_close(step.obs[:, 6:12].diagonal(), torch.full((6,), 0.6), rtol=0.05, atol=0.0)


def test_the_target_changes_between_episodes_and_the_task_does_not():
    env = trial_env("arm-push", 3, episodes=2)
    first = env.begin(columns(mass=[0.5, 1.0, 2.0], friction=[0.6, 1.0, 2.0]), key=0)
    masses = [env.physics.model_of(world).body("puck").mass[0] for world in range(3)]
    for _ in range(STEPS):
        step = env.step(torch.zeros(3, 6))
    assert step.truncated.all()
    assert torch.equal(step.final_obs[:, 19:], first[:, 19:])
    assert (step.obs[:, 19:] != first[:, 19:]).all()
    assert len(torch.cat((first, step.obs))[:, 19:].unique(dim=0)) == 6
    assert [env.physics.model_of(world).body("puck").mass[0] for world in range(3)] == masses == [0.5, 1.0, 2.0]


def test_the_goal_and_the_target_are_shown_where_they_are():
    env, _ = begin("arm-reach", columns(goal=GOALS))
    for world, goal in enumerate(GOALS):
        np.testing.assert_allclose(env.physics.data_of(world).site("goal").xpos, np.add((0.5, 0.0, 0.35), goal))
    env, first = begin("arm-push", nominal("arm-push", 2))
    for world in range(2):
        shown = env.physics.data_of(world).body("target").xpos
        np.testing.assert_allclose(shown[:2], first[world, 19:], atol=1e-6)
        assert 0.0 < shown[2] < 0.003


def test_the_start_poses_are_clear_of_table_and_puck():
    for name in ("arm-reach", "arm-push"):
        env, _ = begin(name, nominal(name, 64))
        for world in range(64):
            data = env.physics.data_of(world)
            arm = {data.model.geom(geom).name for geom in data.contact.geom.ravel()} - {"table", "puck"}
            assert not arm
