"""What a report shows over a trial's time, and over two task parameters at once, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float64

from metarl.core.files import read_json
from metarl.reports.axes import Axis
from metarl.reports.methods import Method
from metarl.run.calibration import Calibration, plain
from metarl.run.recovery import pooled
from metarl.run.run import Run

BELIEFS = "beliefs.json"
"""Name of the file in a run's folder."""
_FIRST = 4.0
"""What is shown of an episode [s]."""
_POINTS = 100
_CELLS = 6
"""Cells along a number's axis."""


def rewards(methods: Sequence[Method], control_step: float | None) -> list[dict[str, Any]]:
    """Reward per step in the first seconds of the first and the last episode of a test task, by method."""
    shown = []
    for method in methods:
        pool = method.headline("test")
        known = [one.reward_by_step for one in pool.evaluations if one.reward_by_step is not None] if pool else []
        step = control_step or (pool.one.control_step if pool else 0.0)
        if pool is None or not known or not step:
            continue
        episodes = pool.one.returns.shape[1]
        reward = np.mean(known, axis=0).reshape(episodes, -1)
        length = min(reward.shape[1], max(2, round(_FIRST / step)))
        cuts = np.linspace(0, length, min(length, _POINTS) + 1).round().astype(int)
        first, last = ([float(row[a:b].mean()) for a, b in pairwise(cuts)] for row in (reward[0], reward[-1]))
        seconds = ((cuts[:-1] + cuts[1:]) / 2 * step).tolist()
        shown.append({"label": method.label, "seconds": seconds, "first": first, "last": last, "episodes": episodes})
    return shown


def recoveries(methods: Sequence[Method]) -> list[dict[str, Any]]:
    """Reward per second around the onset of a fault in mid-episode, and the time to recover from it, by method."""
    found = {}
    for method in methods:
        pool = method.headline("test")
        known = [one.recovery for one in pool.evaluations if one.recovery is not None] if pool else []
        if pool is not None and (mean := pooled(known)) is not None:
            found[method.label] = (pool.one.role, mean)
    oracle = next((recovery for role, recovery in found.values() if role == "oracle"), None)
    return [
        {
            "label": label,
            "seconds": ((np.arange(len(one.reward)) - one.onset) * one.control_step).tolist(),
            "reward": one.reward.tolist(),
            "onsets": one.num_onsets,
            "to_recover": one.seconds(oracle),
            "of": "the oracle's reward after it" if oracle else "its own reward before it",
        }
        for label, (_, one) in found.items()
    ]


def beliefs_of(run: Run) -> Calibration | None:
    """How wrong the beliefs of a run's policy are over a trial's time; None where nobody has measured it."""
    file = run.path / BELIEFS
    return Calibration.from_json(read_json(file), str(file)) if file.is_file() else None


def errors(methods: Sequence[Method]) -> list[dict[str, Any]]:
    """Error of what a policy believes of its task over the trial's time, 1 being that of knowing nothing."""
    shown = []
    for method in methods:
        known = [found for run in method.runs if (found := beliefs_of(run)) is not None]
        known = [one for one in known if (one.names, one.seconds) == (known[0].names, known[0].seconds)]
        if known:
            error = np.mean([one.error for one in known], axis=0)
            overall = np.mean([one.overall for one in known], axis=0).tolist()
            by_name = dict(zip(known[0].names, plain(error.T), strict=True))
            seconds = list(known[0].seconds)
            shown.append({"label": method.label, "seconds": seconds, "error": overall, "by_name": by_name})
    return shown


def surface(axes: Sequence[Axis], parameters: Sequence[Mapping[str, Any]], methods: Sequence[Method]) -> Any:
    """Mean return of the last episode over the two parameters that matter most, by method; None with fewer."""
    worth = {p["name"]: max((_spread(one) for one in p["returns"]), default=0.0) for p in parameters}
    chosen = sorted(sorted(axes, key=lambda axis: -worth.get(axis.name, 0.0))[:2], key=lambda axis: axes.index(axis))
    pools = [
        (method.label, found)
        for method in methods
        if (found := [pool for split in ("test", "ood") if (pool := method.headline(split)) is not None])
    ]
    if len(chosen) < 2 or not pools:
        return None
    tasks = [task for _, found in pools for pool in found for task in pool.one.tasks.rows()]
    edges = [_edges(axis, np.array([axis.value(task[axis.name]) for task in tasks])) for axis in chosen]
    maps = []
    for label, found in pools:
        rows = [task for pool in found for task in pool.one.tasks.rows()]
        at = [np.array([axis.value(task[axis.name]) for task in rows]) for axis in chosen]
        places = [np.clip(np.searchsorted(e, x, "right") - 1, 0, len(e) - 2) for e, x in zip(edges, at, strict=True)]
        last = np.concatenate([np.mean(pool.column(-1), axis=0) for pool in found])
        total, count = np.zeros([len(e) - 1 for e in edges]), np.zeros([len(e) - 1 for e in edges])
        np.add.at(total, tuple(places), last)
        np.add.at(count, tuple(places), 1)
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        maps.append({"label": label, "returns": plain(mean)})
    named = [
        {"name": axis.name, "label": axis.label, "edges": e.tolist(), "categories": [c[1] for c in axis.categories]}
        for axis, e in zip(chosen, edges, strict=True)
    ]
    return {"axes": named, "maps": maps}


def _spread(returns: Mapping[str, Any]) -> float:
    means = [bin["last"] for bin in returns["trend"]]
    return max(means) - min(means) if min(returns["x"]) < max(returns["x"]) else 0.0


def _edges(axis: Axis, x: Float64[np.ndarray, "N"]) -> Float64[np.ndarray, "E"]:
    """Where the cells of an axis begin and end: one per category, or equally many for equal stretches."""
    if axis.categories:
        values = np.array([value for value, _, _ in axis.categories])
        middles = (values[:-1] + values[1:]) / 2
        return np.concatenate(([values[0] - 0.5], middles, [values[-1] + 0.5]))
    low, high = float(x.min()), float(x.max())
    if low == high:
        return np.array([low - 0.5, high + 0.5])
    return np.geomspace(low, high, _CELLS + 1) if axis.logarithmic and low > 0 else np.linspace(low, high, _CELLS + 1)
