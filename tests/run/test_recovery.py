"""Time to recover from a fault, on curves whose answer is known."""

import json

import numpy as np
import pytest
import torch
from families import Rail, columns
from robots import info_of

from metarl.core.info import Part
from metarl.rl.scripted import ZeroPolicy
from metarl.run.evaluate import _place_of, evaluate
from metarl.run.placing import placed
from metarl.run.records import EvaluationRecord
from metarl.run.recovery import Recovery, around_onsets, reached, time_to_recover
from metarl.run.tables import _recovery
from metarl.sim.mujoco.mujoco_env import MujocoEnv

FLAT = np.full(20, 10.0)


@pytest.mark.parametrize(
    ("after", "window", "steps"),
    [
        (np.full(30, 10.0), 5, 0),  # no loss
        (np.full(30, 9.5), 5, 0),  # within a tenth
        (np.repeat([0.0, 10.0], 15), 1, 15),
        (np.repeat([0.0, 10.0], 15), 5, 15),  # 4 of 5 at the full reward are 80 %
        (np.repeat([8.0, 10.0], 15), 5, 13),  # the first 5 steps with a mean of 9
        (np.concatenate((np.full(5, 10.0), np.zeros(10), np.full(15, 10.0))), 5, 15),  # it falls only after a while
        (np.linspace(0.0, 8.0, 30), 5, None),
    ],
)
def test_a_fault_s_cost_by_hand(after, window, steps):
    assert time_to_recover(np.concatenate((FLAT, after)), 20, window) == steps


def test_a_level_below_zero_and_one_of_an_oracle():
    loss = np.concatenate((np.full(20, -10.0), np.repeat([-30.0, -10.9], 10)))
    assert time_to_recover(loss, 20, 2) == 10
    limping = np.concatenate((FLAT, np.repeat([2.0, 6.0], 10)))
    assert time_to_recover(limping, 20, 2) is None
    oracle = np.concatenate((FLAT, np.repeat([3.0, 6.5], 10)))
    assert reached(oracle, 20) == 6.5
    assert time_to_recover(limping, 20, 2, level=6.5) == 10
    with pytest.raises(ValueError, match="longer than the 20 after"):
        time_to_recover(limping, 20, 21)


def test_onsets_are_aligned_and_a_fall_forfeits_the_rest():
    """Two worlds of 20 steps, 0.5 s each: faults at steps 5 and 6; the second falls three steps after."""
    reward, fault = np.ones((20, 2)), np.zeros((20, 2), bool)
    ended = np.zeros((20, 2), bool)
    ended[19] = True
    fault[5:, 0] = fault[6:, 1] = True
    reward[5:, 0] = 0.5
    reward[6:9, 1] = 0.25
    ended[8, 1] = True
    found = around_onsets(reward, fault, ended, 0.5, 20)
    assert (found.onset, found.num_onsets) == (2, 2)
    assert found.reward[:2].tolist() == [2.0, 2.0], "per second"
    assert found.reward[2:5].tolist() == [0.75] * 3 and found.reward[5:].tolist() == [0.5] * (len(found.reward) - 5)
    again = Recovery.from_json(json.loads(json.dumps(found.to_json())))
    assert (again.reward == found.reward).all() and again.num_onsets == 2 and again.seconds() is None


def test_beside_oracles_it_is_what_they_reach_that_is_recovered():
    """After the fault two oracles reach 4 and 6: 90 % of 5, 1.5 s after the onset."""

    def record(*levels):
        reward = np.concatenate((np.full(10, 10.0), np.repeat(levels, 15)))
        returns = np.array([[1.0], [2.0]])
        recovery = Recovery(10, reward, 0.1, 4)
        return EvaluationRecord(tasks=columns(goal=[0.0, 1.0]), returns=returns, recovery=recovery, provenance={})

    ours, oracles = record(1.0, 4.6), [("a", record(2.0, 4.0)), ("b", record(2.0, 6.0))]
    found = placed(ours, [("m", record(0.0, 0.0))], oracles)
    assert found.standing.seconds_to_recover == pytest.approx(1.5) and ours.recovery.seconds() is None
    again = EvaluationRecord.from_json(json.loads(json.dumps(found.to_json() | {"split": "test"})))
    assert again.standing == found.standing
    assert [line for line in _recovery(found) if "1.50 s after its onset" in line]
    never = placed(record(1.0, 1.2), [("m", record(0.0, 0.0))], oracles)
    assert (
        never.standing.seconds_to_recover is None
        and "the oracle reaches after it, not reached" in list(_recovery(never))[-1]
    )


def test_a_fault_from_the_start_or_none_has_no_onset():
    ended = np.zeros((20, 1), bool)
    for fault in (np.ones((20, 1), bool), np.zeros((20, 1), bool)):
        assert around_onsets(np.ones((20, 1)), fault, ended, 0.1, 20) is None


def test_an_evaluation_measures_it_where_the_family_tells_of_faults(monkeypatch):
    """A rail on which standing pays until a fault, at the third of six steps, costs half of it."""

    class Faulty(Rail):
        control_step, episode_steps = 0.5, 12

        def reward(self, physics, before, action, tasks):
            return {"stand": torch.where(on(physics.num_worlds), 0.5, 1.0).double()}

    steps = []

    def on(n):
        return torch.full((n,), len(steps) % 12 >= 4)

    class FaultyEnv(MujocoEnv):
        def step(self, action):
            found = super().step(action)
            steps.append(1)
            return found

        def privileged(self):
            return torch.stack((super().privileged()[:, 0], on(self.num_worlds).float()), dim=1)

    def make(family, n, **options):
        env = FaultyEnv(family, n, **options)
        env.info = type(env.info)(**vars(env.info) | {"privileged": (Part("goal", 1, "m"), Part("fault", 1, "1"))})
        return env

    monkeypatch.setattr("metarl.run.evaluate.make_env", make)
    found = evaluate(ZeroPolicy(info_of(2, 1)), Faulty(edge=9.0), columns(goal=[0.0, 0.5]), 2, threads=1).recovery
    assert found.num_onsets == 4 and found.onset == 2
    assert found.reward.tolist() == [2.0] * 2 + [1.0] * 6 and found.seconds() is None
    assert _place_of("fault", info_of(2, 1)) is None
