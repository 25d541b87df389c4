"""The evaluator: what it measures, what it keeps, and what it prints of it."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from families import Rail, columns
from rich.console import Console
from robots import info_of

from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.types import Segment
from metarl.rl.policy import PolicyModule
from metarl.rl.scripted import RandomPolicy, ZeroPolicy
from metarl.run.collect import collect
from metarl.run.evaluate import compared, evaluate, evaluate_subject, improvement
from metarl.run.records import EvaluationRecord, Origin
from metarl.run.statistics import interquartile_mean, summarize, worst_decile
from metarl.run.subject import Subject
from metarl.run.tables import comparison_table, record_table
from metarl.sim.mujoco.mujoco_env import MujocoEnv

RECORDED = Path(__file__).parents[2] / "experiments" / "results" / "vel-s1" / "eval"


def evaluation(returns, reward_by_step=None, control_step=0.5):
    """One of which only returns and rewards matter."""
    returns = np.asarray(returns, np.float64)
    reward = returns.mean(axis=0) if reward_by_step is None else np.asarray(reward_by_step, np.float64)
    return EvaluationRecord(
        tasks=columns(goal=[0.0] * len(returns)),
        returns=returns,
        reward_by_step=reward,
        episode_steps=len(reward) // returns.shape[1],
        control_step=control_step,
        split="test",
        provenance={"command": "metarl eval"},
    )


def printed(table):
    """What a person sees of a table, 80 characters wide."""
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    return console.file.getvalue()


def test_the_delta_s_interval_is_paired_by_task():
    """Tasks differ by hundreds, the gain is 10 on each: the interval of the difference must not see the spread."""
    first = np.linspace(-500, 500, 50)
    found = evaluation(np.stack((first, first + 10.0), axis=1)).summary
    assert found.adaptation_delta == pytest.approx((10.0, 10.0, 10.0))
    assert found.adaptation_curve[0].high - found.adaptation_curve[0].low > 100.0


def test_the_reward_by_step_is_the_mean_over_tasks_at_each_step():
    tasks = Rail.space.fixed("test", 5)
    found = evaluate(RandomPolicy(info_of(2, 1)), Rail(edge=9.0), tasks, 3, seed=4, threads=1)
    env = MujocoEnv(Rail(edge=9.0), 5, episodes_per_trial=3, threads=1)
    rollout = collect(env, RandomPolicy(info_of(2, 1)), tasks, seeding.key(4, "evaluate"), deterministic=True)
    np.testing.assert_allclose(found.reward_by_step, rollout.reward.double().mean(dim=1))
    np.testing.assert_allclose(found.returns, rollout.episode_returns(3))
    assert (found.episode_steps, found.control_step) == (4, 0.02)
    assert float(found.reward_by_step.sum()) == pytest.approx(float(found.returns.mean(axis=0).sum()))


def test_the_file_holds_every_return_and_what_they_come_to():
    returns = np.random.default_rng(0).normal([0.0, 9.0], size=(20, 2))
    content = json.loads(json.dumps(evaluation(returns, [0.0, 0.0, 2.0, 7.0]).to_json()))
    assert content["returns"] == returns.tolist()
    for episode in range(2):
        assert content["adaptation_curve"][episode]["mean"] == pytest.approx(returns[:, episode].mean())
        assert content["iqm"][episode]["value"] == interquartile_mean(returns[:, episode])
        assert content["iqm"][episode]["low"] < content["iqm"][episode]["value"] < content["iqm"][episode]["high"]
        assert content["worst_decile"][episode] == worst_decile(returns[:, episode])
    assert content["time_to_adapt"] == {"episodes": 1.0, "steps": 2, "seconds": 1.0}
    assert content["reward_by_step"] == {"seconds": [0.25, 0.75, 1.25, 1.75], "reward": [0.0, 0.0, 2.0, 7.0]}


def test_a_long_trial_s_reward_is_kept_thinned(monkeypatch):
    """Three episodes of five steps at two points each: stretches of two and three steps, none across episodes."""
    monkeypatch.setattr("metarl.run.records._POINTS", 6)
    reward = np.concatenate([np.arange(5.0), 10.0 + np.arange(5.0), 20.0 + np.arange(5.0)])
    thinned = evaluation(np.zeros((4, 3)), reward, control_step=1.0).to_json()["reward_by_step"]
    assert thinned["reward"] == [0.5, 3.0, 10.5, 13.0, 20.5, 23.0]
    assert thinned["seconds"] == [1.0, 3.5, 6.0, 8.5, 11.0, 13.5]


def test_a_gain_that_may_be_chance_is_no_adaptation():
    """The mean gains 1; where tasks scatter by 20 that is nothing, where they scatter by 0.1 it is certain."""
    noise = np.random.default_rng(0).normal(size=30)
    noise -= noise.mean()
    by_step = [0.0, 0.0, 0.5, 0.5]
    assert evaluation(np.stack((np.zeros(30), 1.0 + 20.0 * noise), axis=1), by_step).time_to_adapt is None
    assert evaluation(np.stack((np.zeros(30), 1.0 + 0.1 * noise), axis=1), by_step).time_to_adapt.steps == 2


def test_a_recorded_evaluation_is_summarized_from_its_returns():
    """Files of before there were interquartile means have all that these need."""
    for path in RECORDED.glob("*.json"):
        content = json.loads(path.read_text())
        found = summarize(*[np.array(content["returns"])] * 2).to_json()
        for key in ("adaptation_curve", "adaptation_delta"):
            assert found[key] == content[key]
        assert len(found["iqm"]) == len(content["adaptation_curve"])


def test_two_policies_compare_task_by_task():
    """At a goal within reach of its start pushing costs more than it gains: doing nothing wins on every task."""
    tasks = columns(goal=[0.0] * 12)
    zero, random = (
        evaluate(policy(info_of(2, 1)), Rail(edge=9.0), tasks, 2, threads=1) for policy in (ZeroPolicy, RandomPolicy)
    )
    assert [tuple(chance) for chance in improvement(zero, random)] == [(1.0, 1.0, 1.0)] * 2
    assert [tuple(chance) for chance in improvement(zero, zero)] == [(0.5, 0.5, 0.5)] * 2


def test_the_tables_say_what_was_measured():
    """Twenty tasks, each with the same return: intervals are points. Three significant figures of the largest."""
    ours, theirs = evaluation([[-12.34, 1.0]] * 20, [-12.34, 1.0]), evaluation([[-2.0, 0.5]] * 20)
    lines = printed(record_table(ours)).splitlines()
    assert max(map(len, lines)) <= 80
    assert "│            1 │ -12.3 [-12.3, -12.3] │ -12.3 [-12.3, -12.3] │        -12.3 │" in lines
    assert any("last − first │ +13.3 [+13.3, +13.3]" in line for line in lines)
    assert lines[-1] == "time to adapt: 0.50 s (1 steps, 1.00 episodes) for 90 % of last − first"
    shown = printed(comparison_table(compared(ours, theirs, "runs/theirs"), theirs, "runs/ours"))
    assert "how likely runs/ours does better than runs/theirs on a task" in shown
    assert "│       1 │ -12.3 │   -2.0 │ 0.00 [0.00, 0.00] │" in shown
    assert "│       2 │   1.0 │    0.5 │ 1.00 [1.00, 1.00] │" in shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1652.3, "1652 [1652, 1652]"),
        (-0.04, "-0.040 [-0.040, -0.040]"),
        (0.0, "0 [0, 0]"),
        (-1e-9, "0.000 [0.000, 0.000]"),
    ],
)
def test_numbers_have_three_significant_figures(value, shown):
    assert f" {shown} │" in printed(evaluation([[value]] * 4))


def segment(reward, episode_start):
    """A segment of which only reward and episode starts matter."""
    reward, start = torch.tensor(reward).T.contiguous(), torch.tensor(episode_start).T.contiguous()
    obs, flags = torch.zeros(*reward.shape, 1), torch.zeros_like(start)
    kept = (obs, obs, obs, reward, flags, flags, flags, start, flags, flags, obs[0])
    return Segment(*kept, torch.zeros(reward.shape, dtype=torch.long), {}, None, None)


def test_episode_returns_count_whole_episodes_whenever_they_end():
    """World 0 runs two episodes of three steps; world 1 falls after one, then after two, and has a third to spare."""
    reward = [[1.0, 1.0, 1.0, 2.0, 2.0, 2.0], [5.0, 1.0, 1.0, 9.0, 9.0, 9.0]]
    starts = [[True, False, False, True, False, False], [True, True, False, True, False, False]]
    expected = torch.tensor([[3.0, 6.0], [5.0, 2.0]], dtype=torch.float64)
    assert torch.equal(segment(reward, starts).episode_returns(2), expected)


# ------------------------------------------------------------------------------- failed tasks, and what is comparable


class Fragile(Rail):
    """A rail on which a push makes the world of a goal above 0.5 diverge."""

    def observe(self, physics, tasks):
        parts = super().observe(physics, tasks)
        broken = (parts["velocity"] != 0.0) & (tasks["goal"][:, None] > 0.5)
        return parts | {"velocity": torch.where(broken, float("inf"), parts["velocity"])}


class Push(PolicyModule):
    """A constant action."""

    def __init__(self, action, info=None):
        super().__init__(info or info_of(2, 1))
        self.action = action

    def act(self, obs, state, noise, deterministic=False):
        return torch.full((len(obs), 1), self.action), state


def test_a_task_whose_physics_diverges_counts_as_the_worst():
    """Steps of a diverged world return 0, more than any sound one: a task was the better the sooner it broke."""
    tasks = columns(goal=[-0.2, 0.9, -0.8, 0.7])
    found = evaluate(Push(0.5), Fragile(edge=9.0), tasks, 2, threads=1)
    assert found.failed.tolist() == [False, True, False, True]
    assert (found.returns[[1, 3]] == found.returns[2]).all() and (found.returns[2] < found.returns[0]).all()
    assert float(found.reward_by_step.sum()) == pytest.approx(float(found.returns[[0, 2]].mean(axis=0).sum()))
    other = evaluate(Push(1.0), Rail(edge=9.0), tasks, 2, threads=1)
    assert other.returns.mean() < found.returns.mean(), "it pushes harder, and loses on each sound task"
    assert [chance.value for chance in improvement(found, other)] == [0.5, 0.5], "but wins those where ours failed"
    assert [chance.value for chance in improvement(found, found)] == [0.5, 0.5]
    assert "2 of 4 tasks failed, as their physics diverged" in printed(record_table(found))
    again = EvaluationRecord.from_json(found.to_json())
    assert again.failed.tolist() == found.failed.tolist() and again.summary == found.summary


def test_an_old_file_s_diverged_tasks_count_as_the_worst_too():
    content = evaluation([[1.0, 2.0], [-5.0, -4.0], [0.0, 0.0]]).to_json()
    content |= {"format": 2, "diverged": [0, 0, 7], "num_diverged": 7}
    found = EvaluationRecord.from_json(content)
    assert found.returns.tolist() == [[1.0, 2.0], [-5.0, -4.0], [-5.0, -4.0]]
    assert found.summary.adaptation_curve[0].value == pytest.approx(-3.0)


def test_where_every_task_diverges_nothing_is_measured():
    subject = Subject(Push(0.5), Fragile(), Origin(), 2)
    with pytest.raises(UserError, match="the physics of all 2 tasks diverged under this policy: no return is measured"):
        evaluate_subject(subject, columns(goal=[0.9, 0.8]), "test", ["eval"])
    assert np.isnan(evaluate(Push(0.5), Fragile(), columns(goal=[0.9, 0.8]), 2, threads=1).returns).all()


@pytest.mark.parametrize("action", [float("nan"), float("inf")])
def test_actions_that_are_no_numbers_are_refused(action):
    with pytest.raises(UserError, match=r"^this policy cannot be played: its actions are not finite numbers$"):
        evaluate(Push(action), Rail(), columns(goal=[0.9, 0.8]), 2, threads=1)


class Explorer(PolicyModule):
    """Samples in episode 1, as MAML, and never learns anything: by its mean action it stands, which is best."""

    def __init__(self):
        super().__init__(replace(info_of(2, 1), samples_first=True))

    def initial_state(self, n, device="cpu"):
        return Episodes(torch.zeros(n))

    def act(self, obs, state, noise, deterministic=False):
        return torch.where((state.number[:, None] > 0) & deterministic, 0.0, noise), state

    def end_episode(self, state, worlds):
        return Episodes(state.number + worlds)


class Episodes(NamedTuple):
    number: torch.Tensor


def test_what_samples_first_is_compared_by_episodes_that_are_both_sampled():
    """Sampled actions cost return: from a sampled first to a mean last episode there is a gain, and nothing learnt."""
    tasks = columns(goal=np.linspace(-1.0, 1.0, 40).tolist())
    subject = Subject(Explorer(), Rail(edge=9.0), Origin(agent="maml", samples_first=True), 2)
    record = evaluate_subject(subject, tasks, "test", ["eval"])
    assert (record.returns[:, 1] - record.returns[:, 0]).mean() > 1.0
    assert record.played == ["sampled", "mean"]
    gain = record.summary.adaptation_delta
    assert gain.low < 0.0 < gain.high and record.time_to_adapt is None
    assert gain.value == pytest.approx((record.sampled[:, 1] - record.sampled[:, 0]).mean())
    shown = printed(record_table(record))
    for words in ("1 sampled │", "2 mean │", "2 sampled │", "last − first is of episodes that are both sampled"):
        assert words in shown
    again = EvaluationRecord.from_json(json.loads(json.dumps(record.to_json())))
    assert again.played == record.played and again.summary == record.summary
    throughout = evaluate_subject(subject, tasks, "test", ["eval"], deterministic=False)
    assert throughout.sampled is None and throughout.summary.adaptation_delta == gain


def test_an_old_file_of_what_samples_first_claims_no_gain():
    content = evaluation([[0.0, 5.0], [1.0, 6.0]]).to_json() | {"format": 2, "agent": "maml-trpo"}
    del content["samples_first"], content["adapts"], content["task_visible"]
    found = EvaluationRecord.from_json(content)
    assert found.samples_first and found.summary.adaptation_delta is None and found.time_to_adapt is None
    assert "last − first: not known" in printed(record_table(found))
    assert EvaluationRecord.from_json(content | {"deterministic": False}).summary.adaptation_delta.value == 5.0


@pytest.mark.parametrize(
    ("agent", "role"), [("ppo", "memoryless"), ("ppo-oracle", "oracle"), ("rl2", "adapting"), ("mine", "adapting")]
)
def test_an_old_file_s_role_is_that_of_the_table(agent, role):
    content = evaluation([[0.0, 5.0]]).to_json() | {"format": 2, "agent": agent}
    del content["samples_first"], content["adapts"], content["task_visible"]
    assert EvaluationRecord.from_json(content).role == role
