"""Runs into methods: seeds of one algorithm in one configuration are pooled, everything else stands by itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
from jaxtyping import Float64

from metarl.run.records import EvaluationRecord
from metarl.run.run import Run, short
from metarl.run.statistics import (
    Interval,
    bootstrap_interval,
    interquartile_mean,
    probability_of_improvement,
    worst_decile,
)

SAMPLES_FIRST = ("maml-trpo",)
"""Agents that sample before they adapt even where the mean action is asked for: their gain is of sampled actions."""
_NO_DIFFERENCE = ("seed", "threads", "checkpoint_minutes", "validation_tasks")
"""Options that make no other method."""


@dataclass(frozen=True)
class Method:
    """Runs that differ in their seed only."""

    label: str
    """The agent's name, with that of its runs where an agent has several configurations on a family."""
    runs: tuple[Run, ...]
    differs: dict[str, Any]
    """Options in which it differs from the agent's other methods on the family, with its values."""

    @property
    def agent(self) -> str:
        """The algorithm."""
        return short(self.runs[0].config_values["agent"])

    @property
    def seeds(self) -> list[int]:
        """Of the trainings."""
        return [run.config_values["seed"] for run in self.runs]


@dataclass(frozen=True)
class Pooled:
    """Evaluations of a method's runs on the same tasks in the same way."""

    evaluations: tuple[EvaluationRecord, ...]
    runs: tuple[Run, ...]
    """Whose they are, in the same order."""

    @property
    def one(self) -> EvaluationRecord:
        """Any of them: for what they share."""
        return self.evaluations[0]

    def column(self, episode: int) -> list[Float64[np.ndarray, "N"]]:
        """Returns of an episode, counted from 0 or backwards from -1: a stratum per run."""
        return [evaluation.returns[:, episode] for evaluation in self.evaluations]

    def by_task(self, episode: int) -> Float64[np.ndarray, "N"]:
        """Return of each task, mean over runs."""
        return np.asarray(np.mean(self.column(episode), axis=0))

    def curve(self) -> list[Interval]:
        """Adaptation curve: interquartile mean over runs and tasks with its 95 % interval, per episode."""
        return [bootstrap_interval(self.column(k), interquartile_mean) for k in range(self.one.returns.shape[1])]

    def gain(self) -> Interval:
        """Last minus first episode of the same task."""
        differences = [e.returns[:, -1] - e.returns[:, 0] for e in self.evaluations]
        return bootstrap_interval(differences, interquartile_mean)

    def worst(self) -> float:
        """Mean return of the last episode on the worst tenth of the tasks, seeds pooled."""
        return worst_decile(np.concatenate(self.column(-1)))


def methods_of(runs: Sequence[Run]) -> tuple[list[Method], list[str]]:
    """The methods of one family's runs, and remarks on runs that were left out."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_key(run), []).append(run)
    kept, remarks = [], []
    for group in groups.values():
        best: dict[int, Run] = {}
        for run in sorted(group, key=lambda run: -run.train_steps):
            if (seed := run.config_values["seed"]) in best:
                twin = best[seed]
                remarks.append(
                    f"{run.name} has the configuration and seed of {twin.name}: it is left out of all figures."
                )
            best.setdefault(seed, run)
        kept.append(tuple(sorted(best.values(), key=lambda run: run.config_values["seed"])))
    return [_method(group, kept) for group in kept], remarks


def pooled(method: Method) -> list[Pooled]:
    """A method's evaluations by split and kind of actions, at the end of its trainings; `train` is not among them.

    Where runs were evaluated in several ways, that which most of them share; then that of most tasks and episodes.
    """
    found: dict[tuple[str, bool], dict[str, list[tuple[EvaluationRecord, Run]]]] = {}
    for run in method.runs:
        newest = max((evaluation.train_steps for evaluation in run.evaluations), default=0)
        for evaluation in run.evaluations:
            if evaluation.train_steps == newest and evaluation.split != "train":
                ways = found.setdefault((evaluation.split, evaluation.deterministic), {})
                ways.setdefault(_way(evaluation), []).append((evaluation, run))
    choices = [max(ways.values(), key=lambda pairs: (len(pairs), pairs[0][0].returns.shape)) for ways in found.values()]
    pools = [Pooled(*zip(*pairs, strict=True)) for pairs in choices]
    order = {"test": 0, "ood": 1}
    return sorted(pools, key=lambda pool: (order.get(pool.one.split, 2), pool.one.split, not pool.one.deterministic))


def headline(pools: Sequence[Pooled], split: str) -> Pooled | None:
    """A split's evaluation to compare methods by: with the policy's mean actions where there is one."""
    return next((pool for pool in pools if pool.one.split == split), None)


def improvement(ours: Pooled, theirs: Pooled) -> Interval | None:
    """Probability that ours returns more in the last episode of a task; None where the tasks are not the same."""
    if ours.one.tasks.rows() != theirs.one.tasks.rows():
        return None
    return probability_of_improvement([np.array(ours.column(-1))], [np.array(theirs.column(-1))])


def _key(run: Run) -> str:
    return json.dumps(
        {k: v for k, v in run.config_values.items() if k not in _NO_DIFFERENCE}, sort_keys=True, default=str
    )


def _way(evaluation: EvaluationRecord) -> str:
    return json.dumps([evaluation.seed, evaluation.returns.shape, evaluation.tasks.rows()])


def _method(group: tuple[Run, ...], groups: Sequence[tuple[Run, ...]]) -> Method:
    agent = short(group[0].config_values["agent"])
    rivals = [other for other in groups if short(other[0].config_values["agent"]) == agent]
    if len(rivals) == 1:
        return Method(agent, group, {})
    names = [_stem(other) for other in rivals]
    name = _stem(group)
    if Counter(names)[name] > 1 or not name:
        name = ", ".join(run.name for run in group)
    flat = [_flat(other[0].config_values) for other in rivals]
    mine = _flat(group[0].config_values)
    differs = {k: v for k, v in mine.items() if k not in _NO_DIFFERENCE and any(o.get(k) != v for o in flat)}
    return Method(f"{agent} ({name})", group, differs)


def _stem(runs: Sequence[Run]) -> str:
    """What the runs' names begin with: `dir` of dir-s1 and dir-s2."""
    if len(runs) == 1:
        return runs[0].name
    columns = takewhile(lambda letters: len(set(letters)) == 1, zip(*(run.name for run in runs), strict=False))
    return "".join(letters[0] for letters in columns).removesuffix("s").rstrip("-_. ")


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    learner = config.get("learner")
    return {k: v for k, v in config.items() if k != "learner"} | (learner if isinstance(learner, dict) else {})
