"""The half-cheetah families against a loop of plain MuJoCo, world by world, with the published formulas."""

from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from families import columns

from metarl.registry import make_family
from metarl.sim.trials import TrialEnv, compile_spec

XML = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "half_cheetah.xml"
JOINTS = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")
STEPS, SUBSTEPS = 200, 5


def plain_model():
    return compile_spec(mujoco.MjSpec.from_file(str(XML)))


def body_model(mass, friction, damping, dead_joint):
    """A body changed by hand."""
    model = plain_model()
    model.body_mass[:] *= mass
    model.body_inertia[:] *= mass
    model.geom_friction[:, 0] *= friction
    for joint in JOINTS:
        model.dof_damping[model.joint(joint).dofadr[0]] *= damping
    if dead_joint >= 0:
        model.actuator_gainprm[model.actuator(JOINTS[int(dead_joint)]).id] = 0.0
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def velocity_reward(v, a, task):
    return -abs(v - task["velocity"]) - 0.05 * np.sum(a**2)


def direction_reward(v, a, task):
    return task["direction"] * v - 0.05 * np.sum(a**2)


def forward_reward(v, a, task):
    return v - 0.05 * np.sum(a**2)


def plain_run(model, qpos, qvel, actions, reward, task):
    """Rewards and observations of one world; velocity by differences of the torso's position over 0.05 s."""
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = qpos, qvel
    rewards, observations = [], []
    for action in actions:
        before, data.ctrl[:] = data.qpos[0], action
        for _ in range(SUBSTEPS):
            mujoco.mj_step(model, data)
        rewards.append(reward((data.qpos[0] - before) / 0.05, action, task))
        seen = mujoco.MjData(model)
        seen.qpos[:], seen.qvel[:] = data.qpos, data.qvel
        mujoco.mj_forward(model, seen)
        observations.append(np.concatenate((seen.qpos[1:], seen.qvel, seen.body("torso").xpos)))
    return np.array(rewards), np.array(observations)


def changed_body(task):
    return body_model(**task)


def same_body(task):
    return plain_model()


@pytest.mark.parametrize(
    ("name", "tasks", "reward", "model"),
    [
        ("half-cheetah-vel", columns(velocity=[0.5, 2.5]), velocity_reward, same_body),
        ("half-cheetah-dir", columns(direction=[-1.0, 1.0]), direction_reward, same_body),
        (
            "half-cheetah-body",
            columns(
                mass=[1.0, 1.7, 0.6], friction=[1.0, 0.6, 1.8], damping=[1.0, 0.7, 1.5], dead_joint=[-1.0, 4.0, 0.0]
            ),
            forward_reward,
            changed_body,
        ),
    ],
)
def test_rewards_and_observations_equal_those_of_plain_mujoco(name, tasks, reward, model):
    env = TrialEnv(make_family(name), len(tasks), episodes_per_trial=1, threads=1)
    env.begin(tasks, key=5)
    starts = [env.physics.bind(field).numpy().copy() for field in ("qpos", "qvel")]
    actions = 2 * torch.rand(STEPS, len(tasks), 6, generator=torch.Generator().manual_seed(0)) - 1
    steps = [env.step(action) for action in actions]
    rewards = torch.stack([sum(step.reward_terms.values()) for step in steps], dim=1).numpy()
    observations = torch.stack([step.final_obs for step in steps], dim=1).numpy()
    for world, task in enumerate(tasks.rows()):
        applied = actions[:, world].double().numpy()
        expected, seen = plain_run(model(task), starts[0][world], starts[1][world], applied, reward, task)
        np.testing.assert_allclose(rewards[world], expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(observations[world], seen, rtol=1e-6, atol=1e-6)
    assert steps[-1].truncated.all()


def test_the_first_observation_is_the_perturbed_standing_pose():
    env = TrialEnv(make_family("half-cheetah-vel"), 64, threads=1)
    obs = env.begin(env.family.space.nominal(64), key=0).double()
    assert env.observation_size == 20
    assert obs[:, :8].abs().max() <= 0.1
    assert abs(obs[:, :8].std() - 0.1 / 3**0.5) < 0.01
    assert abs(obs[:, 8:17].std() - 0.1) < 0.02
    assert obs[:, 17].abs().max() <= 0.1
    assert not obs[:, 18].any()
    torch.testing.assert_close(obs[:, 19], 0.7 + obs[:, 0], rtol=0, atol=1e-6)
