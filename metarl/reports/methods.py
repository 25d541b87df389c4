"""Groups runs into methods: the seeds of one algorithm in one configuration are pooled."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from metarl.run.records import EvaluationRecord
from metarl.run.run import Run, short
from metarl.run.statistics import Interval, probability_of_improvement

_NO_DIFFERENCE = ("seed", "threads", "checkpoint_minutes", "validation_tasks")
"""Options that may differ within a method."""


@dataclass(frozen=True)
class Pooled:
    """Evaluations of a method's runs on the same tasks in the same way."""

    evaluations: tuple[EvaluationRecord, ...]
    runs: tuple[Run, ...]
    """The run of each evaluation, in the same order."""

    @property
    def one(self) -> EvaluationRecord:
        """The first evaluation, for what all of them share."""
        return self.evaluations[0]

    def column(self, episode: int) -> list[Float64[np.ndarray, "N"]]:
        """Returns of one episode (counted from 0, or backwards from -1): an array per run."""
        return [evaluation.returns[:, episode] for evaluation in self.evaluations]


@dataclass(frozen=True)
class Method:
    """Runs that differ in their seed only."""

    label: str
    """The agent's name, with that of its runs where an agent has several configurations on a family."""
    agent: str
    runs: tuple[Run, ...]
    differs: dict[str, Any]
    """Options in which it differs from the agent's other methods on the family, with its values."""
    pools: tuple[Pooled, ...]
    """Its evaluations, pooled by split and kind of actions."""

    def headline(self, split: str) -> Pooled | None:
        """The evaluation by which methods are compared: with mean actions if there is one."""
        return next((pool for pool in self.pools if pool.one.split == split), None)


def methods_of(runs: Sequence[Run]) -> tuple[list[Method], list[str]]:
    """The methods of one family's runs, sorted by label, and remarks on runs that were left out."""
    groups: dict[str, dict[int, Run]] = {}
    remarks = []
    for run in sorted(runs, key=lambda run: -run.train_steps):
        options = {k: v for k, v in run.config_values.items() if k not in _NO_DIFFERENCE}
        group = groups.setdefault(json.dumps(options, sort_keys=True, default=str), {})
        twin = group.setdefault(run.config_values["seed"], run)
        if twin is not run:
            remarks.append(f"{run.name} has the configuration and seed of {twin.name}: it is left out of all figures.")
    kept = [tuple(group[seed] for seed in sorted(group)) for group in groups.values()]
    return sorted((_method(group, kept) for group in kept), key=lambda method: method.label), remarks


def improvement(ours: Pooled | None, theirs: Pooled | None) -> Interval | None:
    """Probability that ours returns more in the last episode of a task; None if the tasks are not the same."""
    if ours is None or theirs is None or ours.one.tasks.rows() != theirs.one.tasks.rows():
        return None
    x, y = ([np.array([evaluation.ranked[:, -1] for evaluation in pool.evaluations])] for pool in (ours, theirs))
    return probability_of_improvement(x, y)


def _method(group: tuple[Run, ...], groups: Sequence[tuple[Run, ...]]) -> Method:
    agent = short(group[0].config_values["agent"])
    rivals = [other for other in groups if short(other[0].config_values["agent"]) == agent]
    if len(rivals) == 1:
        return Method(agent, agent, group, {}, _pools(group))
    name = _stem(group)
    if not name or Counter(map(_stem, rivals))[name] > 1:
        name = ", ".join(run.name for run in group)
    flat = [_flat(other[0].config_values) for other in rivals]
    differs = {k: v for k, v in _flat(group[0].config_values).items() if any(other.get(k) != v for other in flat)}
    return Method(f"{agent} ({name})", agent, group, differs, _pools(group))


def _stem(runs: Sequence[Run]) -> str:
    """The common beginning of the runs' names: `dir` for dir-s1 and dir-s2."""
    names = [run.name for run in runs]
    same = next((n for n, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), None)
    return names[0] if len(names) == 1 else min(names, key=len)[:same].removesuffix("s").rstrip("-_. ")


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    learner = config.get("learner")
    options = config | (learner if isinstance(learner, dict) else {})
    return {k: v for k, v in options.items() if k not in ("learner", *_NO_DIFFERENCE)}


def _pools(runs: Sequence[Run]) -> tuple[Pooled, ...]:
    """Pool the evaluations after the trainings' ends by split and kind of actions, without the split `train`.

    If runs were evaluated in several ways, the way that most runs share counts, then that with most tasks and episodes.
    """
    found: dict[tuple[str, bool], dict[str, list[tuple[EvaluationRecord, Run]]]] = {}
    for run in runs:
        newest = max((evaluation.train_steps for evaluation in run.evaluations), default=0)
        for evaluation in run.evaluations:
            if evaluation.train_steps == newest and evaluation.split != "train":
                ways = found.setdefault((evaluation.split, evaluation.deterministic), {})
                way = json.dumps([evaluation.seed, evaluation.returns.shape, evaluation.tasks.rows()])
                ways.setdefault(way, []).append((evaluation, run))
    choices = [max(ways.values(), key=lambda pairs: (len(pairs), pairs[0][0].returns.shape)) for ways in found.values()]
    order = {"test": 0, "ood": 1}
    return tuple(
        sorted(
            (Pooled(*zip(*pairs, strict=True)) for pairs in choices),
            key=lambda pool: (order.get(pool.one.split, 2), pool.one.split, not pool.one.deterministic),
        )
    )
