"""Where policies stand between one that knows nothing of the task and one that is shown it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from metarl.run.headroom import Headroom, Recovered, headroom, recovered
from metarl.run.records import EvaluationRecord, Standing
from metarl.run.recovery import pooled

Named = Sequence[tuple[str, EvaluationRecord]]
"""Evaluations with the names of their runs."""


def placed(ours: EvaluationRecord, memoryless: Named, oracle: Named) -> EvaluationRecord:
    """Ours, with where it stands between memoryless policies and oracles, a seed each, on the same tasks."""

    def returns(named: Named, episode: int) -> Float64[np.ndarray, "S N"]:
        return np.stack([record.returns[:, episode] for _, record in named])

    low, high = returns(memoryless, -1), returns(oracle, -1)
    theirs = [record.recovery for _, record in oracle if record.recovery is not None]
    standing = Standing(
        memoryless=tuple(name for name, _ in memoryless),
        oracle=tuple(name for name, _ in oracle),
        headroom=headroom(low, high),
        recovered=recovered(ours.returns[None, :, -1], low, high),
        recovered_first=recovered(ours.returns[None, :, 0], returns(memoryless, 0), returns(oracle, 0)),
        seconds_to_recover=None if ours.recovery is None else ours.recovery.seconds(pooled(theirs)),
    )
    return ours.having(standing=standing)


@dataclass(frozen=True)
class Placing:
    """A family's headroom between two of its methods, and what the adapting ones recover of it."""

    memoryless: str
    """The memoryless method with the highest mean return."""
    oracle: str
    """The oracle with the highest mean return."""
    headroom: Headroom
    recovered: Mapping[str, Recovered]
    """By method: those that adapt, on the same tasks."""


def placing(methods: Mapping[str, Sequence[EvaluationRecord]]) -> Placing | None:
    """Place methods, each with the evaluations of its seeds, by the return of their last episode.

    None where there is no memoryless method or no oracle that met the same tasks.
    """
    best: dict[str, str] = {}
    last = {name: np.stack([record.returns[:, -1] for record in records]) for name, records in methods.items()}
    for name, records in methods.items():
        role = records[0].role
        if role not in best or last[name].mean() > last[best[role]].mean():
            best[role] = name
    if not {"memoryless", "oracle"} <= best.keys():
        return None
    low, high = best["memoryless"], best["oracle"]
    tasks = methods[low][0].tasks.rows()
    if methods[high][0].tasks.rows() != tasks:
        return None
    found = {
        name: recovered(last[name], last[low], last[high])
        for name, records in methods.items()
        if records[0].role == "adapting" and records[0].tasks.rows() == tasks
    }
    return Placing(low, high, headroom(last[low], last[high]), found)
