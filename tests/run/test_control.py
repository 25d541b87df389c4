"""Controls: what they do to a state, and that an adaptation loses by them."""

from typing import NamedTuple

import pytest
import torch
from families import Rail, columns
from robots import info_of
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.types import Transition
from metarl.rl.policy import PolicyModule
from metarl.rl.scripted import ZeroPolicy
from metarl.run.control import Control, Interfered, others
from metarl.run.evaluate import evaluate_subject
from metarl.run.records import EvaluationRecord, Origin
from metarl.run.subject import Subject
from metarl.run.tables import control_table


class Seen(NamedTuple):
    """How far the goal was off when a world stood still."""

    distance: Tensor
    count: Tensor


class Nudge(PolicyModule):
    """Stands for a step, then pushes by as much as it saw that the goal is off: its one memory."""

    def initial_state(self, n, device="cpu"):
        return Seen(torch.zeros(n), torch.zeros(n))

    def act(self, obs, state, noise, deterministic=False):
        return state.distance[:, None].clamp(0.0, 1.0), state

    def observe(self, state, transition):
        seen = -transition.reward - transition.action[:, 0].abs()
        return Seen(torch.where(state.count == 0, seen, state.distance), state.count + 1)


def states(control, tasks, num_steps):
    """The counts that act sees, step by step; a control step is 0.1 s."""
    policy = Nudge(info_of(2, 1))
    played, shown = Interfered(policy, control, tasks, 0.1), []
    state, obs = played.initial_state(len(tasks)), torch.zeros(len(tasks), 2)
    state = state._replace(distance=torch.arange(len(tasks)).float())
    for _ in range(num_steps):
        _, state = played.act(obs, state, torch.zeros(len(tasks), 1))
        shown.append(state)
        reward = torch.zeros(len(tasks))
        kept = state.distance
        state = played.observe(state, Transition(obs, torch.zeros(len(tasks), 1), reward, obs, reward.bool()))
        state = state._replace(distance=kept)
    return shown


TASKS = columns(goal=[0.0, 1.0, 2.0])


def test_a_wipe_comes_every_so_often_or_once():
    every = states(Control("wipe", 0.2), TASKS, 6)
    assert [int(state.count[0]) for state in every] == [0, 1, 0, 1, 0, 1]
    once = states(Control("wipe", 0.2, once=True), TASKS, 6)
    assert [int(state.count[0]) for state in once] == [0, 1, 0, 1, 2, 3]


def test_a_swap_hands_each_world_the_state_of_another():
    rows = [state.distance.tolist() for state in states(Control("swap", 0.3, once=True), TASKS, 5)]
    assert rows[:3] == [[0.0, 1.0, 2.0]] * 3 and rows[3] == rows[4]
    assert sorted(rows[3]) == [0.0, 1.0, 2.0] and all(a != b for a, b in zip(rows[3], rows[0], strict=True))


@pytest.mark.parametrize("kinds", ["ab", "aabb", "abcab", "aaabbc", "abcdefg", "ccabab"])
def test_the_other_world_has_another_task_wherever_that_can_be(kinds):
    found = others(kinds).tolist()
    assert sorted(found) == list(range(len(kinds)))
    assert all(kinds[i] != kinds[j] for i, j in enumerate(found))


def test_with_one_kind_in_the_majority_or_alone_it_is_another_world_still():
    assert sorted(others("aaab").tolist()) == [0, 1, 2, 3]
    assert all(i != j for i, j in enumerate(others("aaaa").tolist()))


def test_an_adaptation_loses_by_wipes_and_swaps_and_a_nominal_task_is_another():
    """Goals at 0 and 0.8 m: who pushes by what it saw stays at one and gets nearer to the other."""
    tasks = columns(goal=[0.0, 0.8] * 4)
    family = Rail(edge=9.0)
    subject = Subject(Nudge(info_of(2, 1)), family, Origin(agent="nudge"), 1)
    controls = [Control("wipe", 0.02), Control("swap", 0.04, once=True), Control("nominal")]
    record = evaluate_subject(subject, tasks, "test", ["eval"], controls=controls)
    wiped, swapped, nominal = (one.returns[:, -1] for one in record.controls)
    plain = record.returns[:, -1]
    stood = evaluate_subject(Subject(ZeroPolicy(info_of(2, 1)), family, Origin(), 1), tasks, "test", [])
    assert wiped == pytest.approx(stood.returns[:, 0], abs=1e-9), "wiped at every step it never acts by what it saw"
    assert swapped.mean() < plain.mean()
    assert nominal == pytest.approx(plain[::2].mean(), abs=0.1), "the nominal goal is at 0"
    again = EvaluationRecord.from_json(record.to_json())
    assert [one.label for one in again.controls] == ["wipe every 0.02 s", "swap after 0.04 s", "nominal task"]
    assert (again.controls[1].returns == record.controls[1].returns).all()
    assert control_table(again).renderables


def test_what_keeps_no_state_has_nothing_to_wipe():
    subject = Subject(ZeroPolicy(info_of(2, 1)), Rail(), Origin(), 1)
    with pytest.raises(UserError, match="nothing to wipe: this policy keeps no state within a trial"):
        evaluate_subject(subject, TASKS, "test", [], controls=[Control("wipe")])
    assert len(evaluate_subject(subject, TASKS, "test", [], controls=[Control("nominal")]).controls) == 1
    with pytest.raises(UserError, match=r"unknown control 'wpie' \(did you mean 'wipe'\?\)"):
        Control("wpie")
    with pytest.raises(UserError, match="seconds"):
        Control("wipe", 0.0)
