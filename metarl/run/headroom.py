"""What knowing the task is worth, and how much of it a policy recovers; NumPy alone.

headroom = oracle − memoryless policy, and recovered = (ours − memoryless) / headroom, all on the same tasks. Returns
are matrices with a row per seed of training and a column per task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from metarl.core import seeding
from metarl.run.statistics import RESAMPLES, Interval, counts, percentile_interval

Returns = Float[np.ndarray, "_S N"]
TASK_MATTERS = 0.25
"""Headroom, as a share of the oracle's return, from which on adapting to the task pays."""
_LITTLE = 0.05
"""A headroom of less than this share of what the oracle's training gained is little."""
_AT_ONCE = 500
"""Resamples at once: bounds the memory, whatever the number of tasks."""


@dataclass(frozen=True)
class Headroom:
    """The return that a policy shown the task has ahead of one that knows nothing of it."""

    memoryless: tuple[float, ...]
    """Mean return of each seed of the memoryless policy."""
    oracle: tuple[float, ...]
    """Mean return of each seed of the oracle."""
    value: Interval
    """Oracle − memoryless."""
    share: Interval
    """The same in units of the oracle's return, without its sign."""

    @property
    def measured(self) -> bool:
        """Whether the interval lies above zero: where it does not, nothing can be said to be recovered of it."""
        return self.value.low > 0.0

    def tells(self, gained: float) -> bool:
        """Whether its share of the oracle's return says anything, after a training that `gained` so much return.

        A share of a return near zero is large whatever knowing the task is worth, as where the reward is sparse and
        both policies have learnt no more than to stand still.
        """
        return self.share.value < TASK_MATTERS or self.value.value >= _LITTLE * gained

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Headroom:
        """Inverse of `dataclasses.asdict`, also after JSON."""
        low, high = (tuple(map(float, content[name])) for name in ("memoryless", "oracle"))
        return Headroom(low, high, Interval(*content["value"]), Interval(*content["share"]))


@dataclass(frozen=True)
class Recovered:
    """The share of a headroom that a policy recovers."""

    ours: tuple[float, ...]
    """Mean return of each seed."""
    by_seed: tuple[float, ...]
    """Share of each seed, of the headroom between the means of the two others; empty without a measured headroom."""
    value: Interval | None
    """Share of their mean; None where no headroom was measured."""

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Recovered:
        """Inverse of `dataclasses.asdict`, also after JSON."""
        value = content["value"]
        ours, by_seed = (tuple(map(float, content[name])) for name in ("ours", "by_seed"))
        return Recovered(ours, by_seed, None if value is None else Interval(*value))


def headroom(memoryless: Returns, oracle: Returns, seed: int = 0) -> Headroom:
    """Headroom with its 95 % intervals by a bootstrap on two levels; see `two_level`."""
    groups = [memoryless, oracle]
    value = two_level(groups, lambda low, high: high - low, seed)
    share = two_level(groups, lambda low, high: (high - low) / np.maximum(np.abs(high), 1e-12), seed)
    return Headroom(_by_seed(memoryless), _by_seed(oracle), value, share)


def recovered(ours: Returns, memoryless: Returns, oracle: Returns, seed: int = 0) -> Recovered:
    """(ours − memoryless) / headroom, its interval that of the ratio: each resample redraws all three at once."""
    means = _by_seed(ours)
    if not headroom(memoryless, oracle, seed).measured:
        return Recovered(means, (), None)
    low, high = float(memoryless.mean()), float(oracle.mean())
    value = two_level([ours, memoryless, oracle], lambda own, low, high: (own - low) / (high - low), seed)
    return Recovered(means, tuple((mean - low) / (high - low) for mean in means), value)


def two_level(groups: Sequence[Returns], statistic: Callable[..., Any], seed: int = 0) -> Interval:
    """`statistic` of the groups' mean returns, and its 95 % percentile interval over seeds and tasks.

    Each resample redraws the tasks, the same for all groups since they met the same ones, and the seeds of each group
    by themselves (a bootstrap on two levels: Davison & Hinkley 1997, section 3.8). A group with one seed contributes
    no spread of seeds, and one with two or three less than there is. Raises `ValueError` where the tasks differ.
    """
    sizes = {group.shape[1] for group in groups}
    if len(sizes) != 1 or any(group.ndim != 2 or 0 in group.shape for group in groups):
        raise ValueError(
            f"all groups need the same tasks, and a seed at least, got {[group.shape for group in groups]}"
        )
    rng, found = seeding.rng(seed, "bootstrap"), []
    for start in range(0, RESAMPLES, _AT_ONCE):
        size = min(_AT_ONCE, RESAMPLES - start)
        tasks = counts(sizes.copy().pop(), rng, size)
        means = [_weighted(group, counts(len(group), rng, size), tasks) for group in groups]
        found.append(statistic(*means))
    return percentile_interval(float(statistic(*(group.mean() for group in groups))), np.concatenate(found))


def _weighted(group: Returns, seeds: Float64[np.ndarray, "R _S"], tasks: Float64[np.ndarray, "R N"]) -> Any:
    return ((seeds @ group) * tasks).sum(axis=1) / group.size


def _by_seed(group: Returns) -> tuple[float, ...]:
    return tuple(float(mean) for mean in group.mean(axis=1))


def gained(returns: Float[np.ndarray, "P"]) -> float:
    """The return that a training gained: the mean of its learning curve's last fifth − that of its first twentieth."""
    return float(returns[-max(1, len(returns) // 5) :].mean() - returns[: max(1, len(returns) // 20)].mean())


def still_rising(returns: Float[np.ndarray, "P"], scale: float = 0.0) -> float:
    """How much of its whole rise a learning curve made in its last fifth: 0 where it does not surely rise any more.

    The last fifth's rise is that of the straight line of least squares through it, if that is more than two of its
    standard errors; the whole one, from the mean of the curve's first twentieth to the line's end, or `scale` where
    that is more, as for a curve that has nothing to rise for.
    """
    last, first = returns[-max(3, len(returns) // 5) :], returns[: max(1, len(returns) // 20)]
    place = np.arange(len(last)) - (len(last) - 1) / 2
    slope, level = np.polyfit(place, last, 1)
    error = np.sqrt(np.square(last - level - slope * place).sum() / max(1, len(last) - 2) / np.square(place).sum())
    rise, whole = slope * (len(last) - 1), max(scale, float(level + slope * place[-1] - first.mean()))
    if slope <= 2.0 * error:
        return 0.0
    return float(rise / whole) if whole > 0.0 else np.inf
