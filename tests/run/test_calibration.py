"""Beliefs held against the truth: on numbers made to measure, and of a policy that knows how far it is off."""

import json
import math

import numpy as np
import pytest
import torch
from families import Rail
from robots import info_of

from metarl.core.info import element_names
from metarl.core.registry import make_family
from metarl.rl.scripted import ZeroPolicy
from metarl.run.calibration import Calibration, _Knowable, calibration, measured
from metarl.run.records import Origin
from metarl.sim.make import make_env


def test_gaussian_beliefs_cover_nine_tenths_and_err_by_their_deviation():
    """Truths N(0, 2²) seen with an error of N(0, 0.5²): known to a quarter of what was unknown."""
    random = torch.Generator().manual_seed(0)
    truth = 2.0 * torch.randn(4000, 2, generator=random)
    mean = truth + 0.5 * torch.randn(truth.shape, generator=random)
    for factor, coverage in ((1.0, 0.9), (0.5, 0.589)):
        found = measured(("a", "b"), (0.0,), [(truth, mean, torch.full_like(mean, 0.5 * factor))])
        assert found.error == pytest.approx(0.25, abs=0.01)
        assert found.coverage == pytest.approx(coverage, abs=0.02)


def test_numbers_that_never_differ_are_left_out():
    truth = torch.stack((torch.zeros(6), torch.arange(6.0)), dim=1)
    found = measured(("same", "other"), (0.0,), [(truth, torch.full_like(truth, 2.5), torch.ones_like(truth))])
    assert found.names == ("other",)
    assert found.error.tolist() == [[1.0]]
    assert measured(("same",), (0.0,), [(truth[:, :1],) * 3]) is None


def test_what_does_not_count_is_left_out_and_an_instant_without_any_shows_a_dash():
    truth = torch.tensor([[0.0], [math.nan], [2.0]])
    nothing = torch.full((3, 1), math.nan)
    mean, std = torch.tensor([[1.0], [9.0], [3.0]]), torch.ones(3, 1)
    found = measured(("a",), (0.0, 1.0), [(truth, mean, std), (nothing, mean, std)])
    assert found.error[0].tolist() == [1.0]
    assert found.coverage[0].tolist() == [1.0]
    assert math.isnan(found.error[1, 0])
    again = Calibration.from_json(json.loads(json.dumps(found.to_json())))
    np.testing.assert_array_equal(again.error, found.error)


class Halfway(ZeroPolicy):
    """Believes in a goal halfway to where it is, and is sure to 0.01."""

    def beliefs(self, state):
        return 0.5 * Rail.space.fixed("test", 5)["goal"].float()[:, None], torch.full((5, 1), 0.01)


def test_a_policys_beliefs_are_held_against_the_tasks_of_its_trials():
    tasks = Rail.space.fixed("test", 5)
    found = calibration(Halfway(info_of(2, 1)), Rail(), tasks, 2, seconds=0.05, origin=Origin())
    assert found.names == ("goal",)
    assert found.seconds == pytest.approx((0.0, 0.04, 0.14))
    goal = tasks["goal"]
    expected = math.sqrt(float((0.5 * goal).square().mean())) / float(goal.std(unbiased=False))
    assert found.error[:, 0].tolist() == pytest.approx([expected] * 3, rel=1e-5)
    assert found.coverage[:, 0].tolist() == [float((0.5 * goal.abs() <= 0.01645).double().mean())] * 3
    assert "after 0.04 s" in [column.header for column in found.table().columns]


def test_a_policy_without_beliefs_has_no_calibration():
    assert calibration(ZeroPolicy(info_of(2, 1)), Rail(), Rail.space.fixed("test", 2), 1, origin=Origin()) is None


class Seer(ZeroPolicy):
    """Believes that a fault is on, that it is nothing, and that a command is half of what it is."""

    def beliefs(self, state):
        return torch.zeros(40, 5), torch.ones(40, 5)


def test_a_fault_counts_from_when_it_has_come():
    family = make_family("quadruped-signs")
    found = calibration(
        Seer(info_of(30, 12)), family, family.space.fixed("test", 40), 1, seconds=0.5, origin=Origin(episode_steps=200)
    )
    assert found.seconds == pytest.approx((0.0, 0.5, 3.98))  # some are broken from the start, and stay so
    signs, fault = [i for i, name in enumerate(found.names) if name.startswith("signs")], found.names.index("fault")
    assert found.coverage[:, signs].tolist() == [[1.0] * 4] * 3  # |±1 - 0| < 1.64 whenever they count
    assert found.error[1, signs].min() > 0.9
    assert found.error[0, fault] > 0.5  # it has come as often as not


def test_how_a_motor_is_broken_counts_from_when_it_is():
    """Which motor comes with the fault, and in what way it is broken shows no sooner; that nothing is, shows."""
    family = make_family("quadruped-faults")
    with make_env(family, 2) as env:
        names = element_names(env.info.privileged)
    truth = torch.zeros(2, len(names))
    truth[1, names.index("fault")] = 1.0
    sound, broken = _Knowable(family, names)(truth)
    assert [name for name, number in zip(names, sound.tolist(), strict=True) if not math.isnan(number)] == ["fault"]
    assert torch.equal(broken, truth[1])


class Changing(ZeroPolicy):
    """Knows nothing, and is sure of it."""

    def beliefs(self, state):
        return torch.zeros(100, 5), torch.ones(100, 5)


@pytest.mark.parametrize(("num_episodes", "last"), [(1, 3.98), (2, 4.0)])
def test_a_time_that_few_tasks_come_to_unchanged_is_left_out(num_episodes, last):
    """Each episode breaks a leg of most robots anew: few of a hundred walk two episodes, of 200 steps, unchanged."""
    family = make_family("quadruped-signs")
    tasks, origin = family.space.fixed("test", 100), Origin(episode_steps=200)
    found = calibration(Changing(info_of(30, 12)), family, tasks, num_episodes, seconds=(1.0, 4.0), origin=origin)
    assert found.seconds[-1] == pytest.approx(last)
