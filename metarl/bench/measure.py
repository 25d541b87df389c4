"""Measuring: contenders take turns, and what counts are the medians of their ratios to the first of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

ROUNDS = 5


@dataclass(frozen=True)
class Done:
    """A piece of work that was done."""

    steps: int
    """Control steps it took, or took in."""
    times: Mapping[str, float] = field(default_factory=dict)
    """Time of each of its phases, where it reports them [s]."""


Work = Callable[[], Done]


@dataclass(frozen=True)
class Row:
    """One measurement."""

    family: str
    name: str
    num_worlds: int
    steps_per_second: float
    """Control steps per second, all worlds together: median of the rounds."""
    ratio: float
    """Ratio to the first contender of the same comparison: median of the rounds' ratios."""
    shares: Mapping[str, float]
    """Share of each phase in the time that the work accounts for; empty where it reports none."""


def compare(family: str, num_worlds: int, contenders: Mapping[str, Work], seconds: float) -> list[Row]:
    """A row per contender, each measured `ROUNDS` times in turns, for at least `seconds` in all."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    times: dict[str, dict[str, float]] = {name: {} for name in contenders}
    for work in contenders.values():
        work()  # warm up
    for _ in range(ROUNDS):
        for name, work in contenders.items():
            rates[name].append(rate(work, seconds / ROUNDS, times[name]))
    first = next(iter(rates.values()))
    rows = []
    for name, measured in rates.items():
        ratio = statistics.median(own / reference for own, reference in zip(measured, first, strict=True))
        total = sum(times[name].values())
        shares = {part: spent / total for part, spent in times[name].items()}
        rows.append(Row(family, name, num_worlds, statistics.median(measured), ratio, shares))
    return rows


def rate(work: Work, seconds: float, times: dict[str, float] | None = None) -> float:
    """Steps per second of `work`, done once and until `seconds` are over; adds where the time went to `times`."""
    steps, begun = 0, time.perf_counter()
    while not steps or time.perf_counter() - begun < seconds:
        done = work()
        steps += done.steps
        if times is not None:
            times |= {part: times.get(part, 0.0) + spent for part, spent in done.times.items()}
    return steps / (time.perf_counter() - begun)
