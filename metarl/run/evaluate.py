"""The one evaluator: returns per task and episode on fixed tasks, what they come to, and how two policies compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from rich.console import Console
from rich.table import Table
from torch import Tensor

from metarl.core import seeding
from metarl.core.tasks import Tasks
from metarl.rl.policy import Policy
from metarl.run.collect import trial_steps
from metarl.run.pretrained import PREFIX
from metarl.run.statistics import (
    AdaptationTime,
    Interval,
    Summary,
    probability_of_improvement,
    summarize,
    time_to_adapt,
)
from metarl.sim.family import Family
from metarl.sim.make import make_env

_POINTS = 400
"""Of the reward over a trial's time that a file keeps; an episode has at least one."""


@dataclass(frozen=True)
class Evaluation:
    """Returns of a policy on a list of tasks."""

    tasks: Tasks
    returns: Float64[Tensor, "N K"]
    """Undiscounted return of each task's first K episodes."""
    reward_by_step: Float64[Tensor, "T"]
    """Mean over tasks of the reward at each control step of the trial."""
    control_step: float
    """Length of one [s]."""
    num_diverged: int
    """Control steps in which the physics of a world diverged."""

    @property
    def episode_steps(self) -> int:
        """Time limit of an episode [control steps]."""
        return len(self.reward_by_step) // self.returns.shape[1]

    @cached_property
    def summary(self) -> Summary:
        """Means, interquartile means and worst deciles per episode, and the gain of the last on the first."""
        return summarize(self.returns.numpy())

    @cached_property
    def time_to_adapt(self) -> AdaptationTime | None:
        """See `statistics.time_to_adapt`; None too where the interval of the gain does not lie above zero."""
        if not self.summary.adaptation_delta.low > 0.0:
            return None
        return time_to_adapt(self.reward_by_step.numpy(), self.episode_steps, self.control_step)

    def to_json(self) -> dict[str, Any]:
        """Every return, with the summary."""
        return {
            **self.summary.to_json(),
            "time_to_adapt": None if self.time_to_adapt is None else asdict(self.time_to_adapt),
            "num_diverged": self.num_diverged,
            "episode_steps": self.episode_steps,
            "control_step": self.control_step,
            "reward_by_step": self._thinned(),
            "tasks": self.tasks.rows(),
            "returns": self.returns.tolist(),
        }

    def _thinned(self) -> dict[str, list[float]]:
        """Reward per step over the trial's time: means of stretches none of which spans two episodes."""
        num_episodes, steps = self.returns.shape[1], self.episode_steps
        per_episode = min(steps, max(1, _POINTS // num_episodes))
        cuts = np.arange(per_episode) * steps // per_episode
        starts = (np.arange(num_episodes)[:, None] * steps + cuts).ravel()
        ends = np.append(starts[1:], num_episodes * steps)
        reward = np.add.reduceat(self.reward_by_step.numpy(), starts) / (ends - starts)
        return {"seconds": ((starts + ends) / 2 * self.control_step).tolist(), "reward": reward.tolist()}


def evaluate(
    policy: Policy[Any],
    family: Family,
    tasks: Tasks,
    num_episodes: int,
    *,
    seed: int = 0,
    deterministic: bool = True,
    threads: int = 0,
) -> Evaluation:
    """Run one trial of `num_episodes` episodes on each task, all at once."""
    returns = torch.zeros(len(tasks), num_episodes + 1, dtype=torch.float64)  # the last column: episodes beyond K
    episode, num_diverged = torch.zeros(len(tasks), 1, dtype=torch.long), 0
    with make_env(family, len(tasks), episodes_per_trial=num_episodes, threads=threads) as env:
        by_step = torch.zeros(env.trial_steps, dtype=torch.float64)
        for t, now in enumerate(trial_steps(env, policy, tasks, seeding.key(seed, "evaluate"), deterministic)):
            reward = now.step.reward.double()
            by_step[t] = reward.mean()
            returns.scatter_add_(1, episode, reward[:, None])
            episode = (episode + now.step.ended[:, None]).clamp(max=num_episodes)
            num_diverged += int(now.step.diverged.sum())
    return Evaluation(tasks, returns[:, :num_episodes].clone(), by_step, family.control_step, num_diverged)


def improvement(ours: Evaluation, theirs: Evaluation) -> list[Interval]:
    """How likely ours does better on a task, per episode; both met the same tasks."""
    columns = zip(ours.returns.T.numpy(), theirs.returns.T.numpy(), strict=True)
    return [probability_of_improvement([x], [y]) for x, y in columns]


def print_table(evaluation: Evaluation, title: str, console: Console) -> None:
    """The adaptation curve as a table, and how long adaptation took."""
    summary = evaluation.summary
    digits = _digits(summary.adaptation_curve)
    table = _table(title, ("episode", "mean [95 % interval]", "IQM [95 % interval]", "worst decile"))
    episodes = zip(summary.adaptation_curve, summary.iqm, summary.worst_decile, strict=True)
    for number, (mean, iqm, worst) in enumerate(episodes, start=1):
        table.add_row(str(number), _cell(mean, digits), _cell(iqm, digits), f"{worst:z.{digits}f}")
    if evaluation.returns.shape[1] > 1:
        table.add_section()
        table.add_row("last − first", _cell(summary.adaptation_delta, digits, "+"))
    console.print(table)
    console.print("IQM: mean of the middle half of the tasks; worst decile: of their lowest tenth")
    if evaluation.returns.shape[1] > 1:
        console.print(_adaptation(evaluation.time_to_adapt))
    if evaluation.num_diverged:
        console.print(f"{evaluation.num_diverged} steps diverged; each ended its episode")


def print_comparison(
    runs: tuple[Path, Path], evaluations: tuple[Evaluation, Evaluation], chances: Sequence[Interval], console: Console
) -> None:
    """Mean returns of two runs side by side, and how likely the first does better on a task."""
    ours, theirs = (evaluation.summary.adaptation_curve for evaluation in evaluations)
    digits = _digits([*ours, *theirs])
    table = _table(
        f"both on the same {len(evaluations[0].tasks)} tasks",
        ("episode", *(run.name.removeprefix(PREFIX) for run in runs), "P [95 % interval]"),
    )
    for number, (x, y, chance) in enumerate(zip(ours, theirs, chances, strict=True), start=1):
        table.add_row(str(number), f"{x.value:z.{digits}f}", f"{y.value:z.{digits}f}", _cell(chance, 2))
    console.print(table)
    console.print(f"P: how likely {runs[0]} does better than {runs[1]} on a task")


def _adaptation(time: AdaptationTime | None) -> str:
    if time is None:
        return "time to adapt: none, as the last episode is not surely better than the first"
    return (
        f"time to adapt: {time.seconds:.2f} s ({time.steps} steps, {time.episodes:.2f} episodes) "
        "for 90 % of last − first"
    )


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _digits(curve: Sequence[Interval]) -> int:
    """Decimals that give the largest value three significant figures, at most three."""
    largest = max(abs(point.value) for point in curve)
    return int(np.clip(2 - np.floor(np.log10(largest)), 0, 3)) if largest else 0


def _cell(interval: Interval, digits: int, sign: str = "") -> str:
    """Estimate and interval; rich takes a bare bracket for markup."""
    value, low, high = (f"{number:{sign}z.{digits}f}" for number in interval)
    return f"{value} \\[{low}, {high}]"
