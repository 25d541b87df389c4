"""The quadrupeds with disturbances: torques, commands, forces and grip are what their tables say, when they say."""

import pytest
import torch
from families import columns

from metarl.core import seeding
from metarl.envs.quadruped import MOTORS, REACH, STAND
from metarl.envs.quadruped_disturbed import (
    QuadrupedCommandWide,
    QuadrupedFaults,
    QuadrupedHiddenActuation,
    QuadrupedPatches,
    QuadrupedSigns,
)
from metarl.sim.disturbances import Fault
from metarl.sim.mujoco.mujoco_env import MujocoEnv
from metarl.sim.variations import FAULTS


class Soon(QuadrupedFaults):
    disturbances = (Fault(("motor",), onset=0.1),)


def test_motors_break_at_their_onset_as_their_kind_says():
    """Standing; all are asked to bend, knees and hips, from the start on."""
    knee = MOTORS.index("FL_knee")
    env = MujocoEnv(Soon(), 5, episodes_per_trial=1, threads=1)
    kinds = [0.0, 1.0, 2.0, 3.0, 0.0]
    env.begin(columns(kind=kinds, motor=[float(knee)] * 4 + [-1.0]), 1, torch.zeros(5, dtype=torch.long))
    force, seen = env.physics.bind("actuator_force", fresh=False), []
    action = torch.full((5, 12), 0.3)
    for t in range(6):
        assert env.privileged()[:, -1].tolist() == [float(t >= 5)] * 4 + [float(t >= 5)]
        env.step(action)
        seen.append(force.clone())
    assert torch.equal(seen[4], seen[4][:1].expand(5, 12))
    dead, locked, turned, limb, sound = seen[5]
    assert dead[knee] == 0.0
    assert bool((limb[:3] == 0.0).all())
    assert bool((limb[3:] != 0.0).all())
    assert turned[knee] < 0.0 < sound[knee] - 3.0
    assert locked[knee] == 0.0
    held, free = (env.physics.bind("qvel")[world, 6 + knee].abs() for world in (1, 0))
    assert held < 0.1 < 0.3 < free
    assert FAULTS == ("dead", "locked", "reversed", "dead limb")


def test_a_fault_breaks_no_rule_of_a_gait():
    env = MujocoEnv(QuadrupedFaults(), 2, threads=1)
    env.begin(env.family.space.sample("ood", 2, seeding.rng(0, "test")), 0)
    step = env.step(torch.zeros(2, 12))
    assert not {"limp", "patter", "duty"} & set(step.reward_terms)
    assert env.physics.bind("userdata")[:, :2].tolist() == [[0.6, 0.0]] * 2


def test_a_leg_that_turns_round_does_what_the_mirrored_command_would():
    class AtOnce(QuadrupedSigns):
        disturbances = (Fault(("signs",), onset=0.0),)

    env = MujocoEnv(AtOnce(), 2, episodes_per_trial=1, threads=1)
    env.begin(columns(signs=[[1.0, -1.0, 1.0, 1.0], [1.0] * 4]), 1, torch.zeros(2, dtype=torch.long))
    action = torch.linspace(-0.5, 0.5, 12).repeat(2, 1)
    action[1, 3:6] *= -1.0
    for _ in range(5):
        env.step(action)
    qpos = env.physics.bind("qpos")
    assert torch.allclose(qpos[0], qpos[1], atol=1e-9)
    assert env.privileged()[:, :4].tolist() == [[1.0, -1.0, 1.0, 1.0], [1.0] * 4]


def test_hidden_actuation_delays_shifts_and_tilts():
    env = MujocoEnv(QuadrupedHiddenActuation(), 3, threads=1)
    nominal = env.family.space.nominal(3)
    values = {name: value.clone() for name, value in nominal.values.items()}
    values["latency"][1] = 0.06
    values["offset"][2], values["tilt"][2] = 0.1, torch.tensor([0.1, 0.0])
    obs = env.begin(columns(**{name: value.tolist() for name, value in values.items()}), 0, torch.zeros(3).long())
    torch.testing.assert_close(obs[2, 6:18] - obs[0, 6:18], torch.full((12,), 0.1))
    assert torch.atan2(obs[2, 4], -obs[2, 5]) - torch.atan2(obs[0, 4], -obs[0, 5]) == pytest.approx(-0.1, abs=0.01)
    force = env.physics.bind("actuator_force", fresh=False)
    action, differ = torch.full((3, 12), 0.5), []
    for _ in range(5):
        step = env.step(action)
        differ.append(bool(((force[1] - force[0]).abs() > 5.0).any()))
        torch.testing.assert_close(env.physics.bind("ctrl"), (STAND + 0.5 * REACH).expand(3, 12))
        assert step.final_obs.shape == (3, 32), "what it did is not shown"
    assert differ[:3] == [True] * 3


def test_patches_change_the_grip_and_the_side_force_under_a_robot():
    env = MujocoEnv(QuadrupedPatches(), 2, threads=1)
    tasks = columns(friction=[0.3, 0.3], force=[0.0, 20.0])
    env.begin(tasks, 3, torch.zeros(2).long())
    foot, applied = env.physics.model.geom("FL_foot").id, env.physics.bind("xfrc_applied")
    trunk, qpos = env.physics.model.body("trunk").id, env.physics.bind("qpos")

    def grip():
        return [float(env.physics.model_of(world).geom_friction[foot, 0]) for world in range(2)]

    env.step(torch.zeros(2, 12))
    assert grip() == [0.3, 0.3]
    assert applied[:, trunk, 1].tolist() == pytest.approx([0.0, 20.0], abs=0.5)
    qpos[0, 0] += 1.0
    env.step(torch.zeros(2, 12))
    assert grip()[1] == 0.3
    assert 0.2 <= grip()[0] <= 1.2
    assert grip()[0] != 0.3
    for _ in range(150):
        env.step(torch.zeros(2, 12))
    assert applied[1, trunk, 1] != pytest.approx(20.0, abs=1.0)
    assert applied[:, trunk].abs().max() <= 25.0


def test_a_wide_command_changes_after_2_to_4_seconds_and_is_what_is_rewarded():
    env = MujocoEnv(QuadrupedCommandWide(), 20, threads=1)
    tasks = env.family.space.sample("train", 20, seeding.rng(0, "test"))
    env.begin(tasks, 3)
    shown, rewards = [], []
    for _ in range(205):
        shown.append(env.privileged()[:, -2:])
        rewards.append(env.step(torch.zeros(20, 12)).reward_terms["turn"])
    shown, rewards = torch.stack(shown), torch.stack(rewards)
    first = (shown != shown[0]).any(dim=2).double().argmax(dim=0)
    assert 100 <= int(first.min()) < int(first.max()) <= 200
    for reward, turn in ((rewards[60], tasks["turn"]), (rewards[-1], shown[-1, :, 1].double())):  # they stand
        torch.testing.assert_close(reward, 1.0 / (1.0 + (turn / 0.5) ** 2), atol=0.02, rtol=0)
