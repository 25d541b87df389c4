"""A simulated robot's task comes back from its log."""

import json

import numpy as np
import pytest

import metarl
from metarl.core.errors import UserError
from metarl.core.registry import make_family
from metarl.core.tasks import load_ranges, load_tasks
from metarl.sysid.cutting import filtering, typical_noise
from metarl.sysid.identify import unknowns_of
from metarl.sysid.plant import Plant
from metarl.sysid.simulated import simulated_log


def test_a_play_follows_the_worlds_of_the_family():
    """The plant's robot is the family's: same states, same commands, same observations as in a trial."""
    import torch

    from metarl.sim.make import make_env

    family = make_family("quadruped-body")
    tasks = family.space.fixed("test", 2)
    plant = Plant(family, family.control_step, threads=1)
    with make_env(family, 2, threads=1) as env:
        seen = [env.begin(tasks, key=0)]
        state = env.physics.bind("qpos").numpy().copy(), env.physics.bind("qvel").numpy().copy()
        commands = []
        for _ in range(5):
            seen.append(env.step(0.3 * torch.randn(2, 12, generator=torch.Generator().manual_seed(1))).obs)
            commands.append(env.physics.bind("ctrl").numpy().copy())
    played = plant.play(tasks, *state, np.stack(commands, axis=1))
    measured = [i for i, name in enumerate(plant.names) if name.startswith(("gyro", "gravity", "joint_"))]
    own = torch.stack(seen, dim=1).numpy()[:, :, measured]
    np.testing.assert_allclose(played[:, :, measured], own, atol=1e-5)


def test_a_hung_robot_stays_where_it_hangs():
    family = make_family("quadruped-body")
    down = np.array([0.2, 0.0, -0.98])
    plant = Plant(family, family.control_step, "hung", down, threads=1)
    rest = np.tile(plant.rest, (1, 1)), np.zeros((1, plant.model.nv))
    played = plant.play(family.space.nominal(), *rest, np.tile(plant.model.key_ctrl[0], (1, 25, 1)))
    gravity = [plant.names.index(f"gravity.{axis}") for axis in "xyz"]
    np.testing.assert_allclose(played[0, :, gravity].T, np.tile(down / np.linalg.norm(down), (26, 1)), atol=0.02)


def test_unknowns_are_numbers_that_shape_the_model():
    names = [one.label for one in unknowns_of(make_family("quadruped-body"))]
    assert names == ["payload", "centre", "friction", "strength", "damping"]
    with pytest.raises(UserError, match="it is a choice"):
        unknowns_of(make_family("quadruped-crippled"), ("motor",))
    with pytest.raises(UserError, match="no property of the model"):
        unknowns_of(make_family("quadruped-command"), ("velocity",))
    with pytest.raises(UserError, match="did you mean 'payload'"):
        unknowns_of(make_family("quadruped-body"), ("pay_load",))


def test_a_motor_s_strength_comes_back_from_a_hung_robot(tmp_path):
    family = "quadruped-body+joint_friction"
    log = simulated_log(make_family(family), {"strength": 0.78}, seconds=5.0, base="hung", seed=1)
    path = tmp_path / "found.json"
    found = metarl.identify(
        family, log, output=path, parameters=["strength"], base="hung", max_shots=7, starts=1, threads=1
    )
    (strength,) = found.estimates
    assert strength.value == pytest.approx(0.78, rel=0.1)
    assert strength.low < 0.78 < strength.high
    assert found.held_out[0] < found.held_out[1]
    space = make_family(family).space
    tasks = load_tasks(path, family, space)
    assert tasks["strength"].item() == pytest.approx(strength.value)
    (text,) = load_ranges(path, space)  # the others keep their ranges
    low, high = (float(end) for end in text.removeprefix("strength=").split(":"))
    assert low < strength.low < strength.high < high
    assert json.loads(path.read_text())["intervals"]["strength"] == [strength.low, strength.high]


def test_a_standing_robot_s_body_comes_back_from_squats():
    """The experiment of docs/identify.md, on one short log: it holds the truth within 10 % and within its intervals."""
    family = "quadruped-body+joint_friction"
    truth = {"payload": 1.7, "strength": 0.78, "joint_friction": 2.2}
    log = simulated_log(make_family(family), truth, seconds=5.0, seed=1)
    found = metarl.identify(family, log, parameters=list(truth), starts=1, threads=1)
    for one in found.estimates:
        assert one.value == pytest.approx(truth[one.unknown.name], rel=0.1)
        assert one.low < truth[one.unknown.name] < one.high
        assert one.high - one.low < 0.5 * truth[one.unknown.name]
    assert found.held_out[0] == pytest.approx(1.0, abs=0.1)


def test_a_filter_knows_what_contacts_hold_and_follows_a_robot_whose_start_it_does_not_know():
    """With the true task, a replay that began elsewhere is at the robot's after the run-up."""
    family = make_family("quadruped-body")
    log = simulated_log(family, {}, seconds=2.0, noise={}, seed=0)
    plant = Plant(family, log.period, threads=1)
    seen, command = log.matrix(plant.names), log.matrix([f"target.{name}" for name in plant.targets])[:-1]
    noise = np.where(plant.tells, typical_noise(plant, seen), np.inf)
    off = plant.rest[None].copy()
    off[0, 2] += 0.01
    off[0, 7:] += 0.03
    task, still = family.space.nominal(1), np.zeros((1, plant.model.nv))
    gains = filtering(plant, noise, len(command))
    kept = plant.play(task, off, still, command[None], seen[None], gains)[0]
    joints = [i for i, name in enumerate(plant.names) if name.startswith("joint_position")]
    assert np.abs(kept - seen)[0, joints].max() > 0.02
    assert np.abs(kept - seen)[-20:, joints].max() < 1e-3
