"""The one evaluator: returns per task and episode on fixed tasks, and the adaptation curve with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from rich.console import Console
from rich.table import Table
from torch import Tensor

from metarl import seeding
from metarl.rl.learner import Policy
from metarl.run.collect import trial_steps
from metarl.sim.family import TaskFamily
from metarl.sim.worlds import make_trials
from metarl.tasks import Tasks

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Evaluation:
    """Returns of a policy on a list of tasks."""

    tasks: Tasks
    returns: Float64[Tensor, "N K"]
    """Undiscounted return of each task's first K episodes."""
    num_diverged: int
    """Control steps in which the physics of a world diverged."""

    def curve(self, seed: int = 0) -> list[tuple[float, float, float]]:
        """Adaptation curve: mean over tasks and its 95 % interval, per episode."""
        return [mean_interval(column.numpy(), seed) for column in self.returns.T]

    def adaptation_delta(self, seed: int = 0) -> tuple[float, float, float]:
        """Last minus first episode: mean over tasks and its 95 % interval."""
        return mean_interval((self.returns[:, -1] - self.returns[:, 0]).numpy(), seed)

    def to_json(self) -> dict[str, Any]:
        """Every return, with the summary."""
        return {
            "adaptation_curve": [dict(zip(("mean", "low", "high"), point, strict=True)) for point in self.curve()],
            "adaptation_delta": dict(zip(("mean", "low", "high"), self.adaptation_delta(), strict=True)),
            "num_diverged": self.num_diverged,
            "tasks": self.tasks.rows(),
            "returns": self.returns.tolist(),
        }


def evaluate(
    policy: Policy[Any],
    family: TaskFamily,
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
    with make_trials(family, len(tasks), episodes_per_trial=num_episodes, threads=threads) as env:
        for now in trial_steps(env, policy, tasks, seeding.generator(seed, "evaluate"), deterministic):
            returns.scatter_add_(1, episode, now.step.reward.double()[:, None])
            episode = (episode + now.step.ended[:, None]).clamp(max=num_episodes)
            num_diverged += int(now.step.diverged.sum())
    return Evaluation(tasks, returns[:, :num_episodes].clone(), num_diverged)


def mean_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Mean and its 95 % percentile bootstrap interval (10,000 resamples over tasks; Efron 1979)."""
    rng = seeding.rng(seed, "bootstrap")
    resampled = values[rng.integers(len(values), size=(_RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(resampled, (2.5, 97.5))
    return float(values.mean()), float(low), float(high)


def print_table(evaluation: Evaluation, title: str, console: Console) -> None:
    """The adaptation curve as a table."""
    table = Table(title=title, title_justify="left")
    table.add_column("episode", justify="right")
    table.add_column("return", justify="right")
    table.add_column("95 % interval", justify="right")
    for number, (mean, low, high) in enumerate(evaluation.curve(), start=1):
        table.add_row(str(number), f"{mean:.1f}", f"[{low:.1f}, {high:.1f}]".replace("[", "\\["))
    if evaluation.returns.shape[1] > 1:
        mean, low, high = evaluation.adaptation_delta()
        table.add_section()
        table.add_row("last − first", f"{mean:+.1f}", f"[{low:+.1f}, {high:+.1f}]".replace("[", "\\["))
    console.print(table)
    if evaluation.num_diverged:
        console.print(f"{evaluation.num_diverged} steps diverged; each ended its episode")
