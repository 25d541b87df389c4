"""Statistics of returns over tasks and runs: intervals, robust means, improvement, and how long adaptation takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from metarl.core import seeding

RESAMPLES = 10_000
"""Number of resamples of every bootstrap."""
_PERCENTILES = (2.5, 97.5)
_DRAWS_AT_ONCE = 1_000_000
"""Bounds the memory of a bootstrap, whatever the number of tasks."""

Statistic = Callable[[Float64[np.ndarray, "*R n"]], Float64[np.ndarray, "*R"] | float]
"""Reduces the last axis: tasks. Those in front are resamples."""


class Interval(NamedTuple):
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self, name: str = "value") -> dict[str, float]:
        """Return plain data, with the estimate under `name`."""
        return {name: self.value, "low": self.low, "high": self.high}

    @staticmethod
    def from_json(content: Mapping[str, Any], name: str = "value") -> Interval:
        """Inverse of `to_json`."""
        return Interval(float(content[name]), float(content["low"]), float(content["high"]))


def mean(values: Float[np.ndarray, "*R n"]) -> Float[np.ndarray, "*R"] | float:
    """Mean over the last axis."""
    return values.mean(axis=-1)  # type: ignore[no-any-return]


def interquartile_mean(values: Float[np.ndarray, "*R n"]) -> Float[np.ndarray, "*R"] | float:
    """Mean of the middle half of the last axis: the IQM of Agarwal et al. 2021 (arXiv:2108.13264, section 4.3).

    A quarter of the values, rounded down, is left out at either end. Unlike the median it uses half of the data, and
    unlike the mean no single task can move it far.
    """
    size, cut = values.shape[-1], values.shape[-1] // 4  # importing scipy.stats takes half a second
    middle = np.partition(values, (cut, size - cut - 1), axis=-1)[..., cut : size - cut]
    return middle.mean(axis=-1)  # type: ignore[no-any-return]


def worst_decile(values: Float[np.ndarray, "n"]) -> float:
    """Mean of the lowest tenth of the tasks, rounded up to whole ones: what the robot is worth where it is worst."""
    size = -(-len(values) // 10)
    return float(np.partition(values, size - 1)[:size].mean())


def bootstrap_interval(runs: Sequence[Float[np.ndarray, "_n"]], statistic: Statistic, seed: int = 0) -> Interval:
    """`statistic` of all values, and its 95 % percentile interval by a bootstrap over runs and tasks.

    `runs` hold the returns of a seed of training each, a value per task, all on the same tasks. Each resample redraws
    the runs and, the same for all of them, the tasks (two levels: Davison & Hinkley 1997, section 3.8; resampling
    tasks alone says nothing of other seeds). With one run this is the plain bootstrap over tasks (Efron 1979), and
    with two or three the spread of seeds is underestimated still.
    """
    if not runs or any(len(values) == 0 for values in runs):
        raise ValueError("a bootstrap needs at least one run, and a value in each")
    if len(set(map(len, runs))) > 1:
        raise ValueError(f"a bootstrap needs the same tasks in each run, got {[len(values) for values in runs]}")
    returns = np.stack([np.asarray(values, np.float64) for values in runs])
    (num_runs, num_tasks), found = returns.shape, []
    rng, size = seeding.rng(seed, "bootstrap"), max(1, _DRAWS_AT_ONCE // returns.size)
    for start in range(0, RESAMPLES, size):
        shape = min(size, RESAMPLES - start)
        tasks = rng.integers(num_tasks, size=(shape, 1, num_tasks))
        chosen = rng.integers(num_runs, size=(shape, num_runs, 1)) if num_runs > 1 else np.zeros((1, 1, 1), np.int64)
        found.append(np.asarray(statistic(returns[chosen, tasks].reshape(shape, -1))))
    return percentile_interval(float(statistic(returns.ravel())), np.concatenate(found))


def percentile_interval(value: float, resamples: Float64[np.ndarray, "R"]) -> Interval:
    """An estimate with the 95 % percentile interval of its resamples."""
    low, high = np.percentile(resamples, _PERCENTILES)
    return Interval(value, float(low), float(high))


def mean_interval(values: Float[np.ndarray, "n"], seed: int = 0) -> Interval:
    """Mean over the tasks of one run, and its 95 % bootstrap interval."""
    return bootstrap_interval([values], mean, seed)


@dataclass(frozen=True)
class Summary:
    """What an evaluation's returns come to, per episode."""

    adaptation_curve: list[Interval]
    """Mean over tasks."""
    iqm: list[Interval]
    """Interquartile mean over tasks."""
    worst_decile: list[float]
    """Mean over the tenth of the tasks on which the episode went worst."""
    adaptation_delta: Interval | None
    """Last minus first episode, task by task: mean over tasks. None where the two were not played in the same way."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data in the form of the files of `metarl eval`."""
        return {
            "adaptation_curve": [point.to_json("mean") for point in self.adaptation_curve],
            "iqm": [point.to_json() for point in self.iqm],
            "worst_decile": self.worst_decile,
            "adaptation_delta": self.adaptation_delta and self.adaptation_delta.to_json("mean"),
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Summary:
        """Inverse of `to_json`."""
        return Summary(
            [Interval.from_json(point, "mean") for point in content["adaptation_curve"]],
            [Interval.from_json(point) for point in content["iqm"]],
            [float(value) for value in content["worst_decile"]],
            content["adaptation_delta"] and Interval.from_json(content["adaptation_delta"], "mean"),
        )


def summarize(returns: Float[np.ndarray, "N K"], paired: Float[np.ndarray, "N K"] | None, seed: int = 0) -> Summary:
    """Summary of one run's returns, a row per task and a column per episode.

    The gain is that of `paired`, whose episodes were all played in the same way; without it there is none.
    """
    return Summary(
        [mean_interval(column, seed) for column in returns.T],
        [bootstrap_interval([column], interquartile_mean, seed) for column in returns.T],
        [worst_decile(column) for column in returns.T],
        None if paired is None else mean_interval(paired[:, -1] - paired[:, 0], seed),
    )


def probability_of_improvement(
    ours: Sequence[Float[np.ndarray, "..."]], theirs: Sequence[Float[np.ndarray, "..."]], seed: int = 0
) -> Interval:
    """How likely ours beats theirs on a task: P(X > Y) + P(X = Y) / 2 (Agarwal et al. 2021, section 4.3).

    Each entry holds one family's returns: a row per run and a column per task, or a vector for a single run. Both
    sides met the same tasks in the same order, and a task is compared only with itself: tasks differ in what can be
    earned on them, often by more than two algorithms do. On one task all pairs of runs are compared (the U of Mann &
    Whitney 1947 over its maximum), then tasks are averaged, then families, each family counting the same.

    The interval is a bootstrap in which each family's tasks and, by themselves, the runs of either side are resampled;
    runs of which there is only one contribute no spread. Raises `ValueError` where tasks or families do not match.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"both sides need the same families, got {len(ours)} and {len(theirs)}")
    rng = seeding.rng(seed, "bootstrap")
    values, resamples = [], []
    for x, y in zip(map(np.atleast_2d, ours), map(np.atleast_2d, theirs), strict=True):
        wins = _wins(x, y)
        of_x, of_y, of_tasks = (counts(n, rng) for n in wins.shape)
        values.append(wins.mean())
        by_task = np.einsum("ri,rj->rij", of_x, of_y).reshape(RESAMPLES, -1) @ wins.reshape(-1, wins.shape[2])
        resamples.append((by_task * of_tasks).sum(axis=1) / wins.size)
    return percentile_interval(float(np.mean(values)), np.mean(resamples, axis=0))


def _wins(x: Float[np.ndarray, "I M"], y: Float[np.ndarray, "J N"]) -> Float64[np.ndarray, "I J M"]:
    """1 where a run of x beats a run of y on a task, 1/2 where they are equal."""
    if x.shape[1] != y.shape[1] or 0 in (*x.shape, *y.shape):
        raise ValueError(f"both sides need the same tasks, got {x.shape[1]} and {y.shape[1]}")
    x, y = x[:, None, :], y[None, :, :]
    return np.asarray((1.0 + (x > y) - (x < y)) / 2.0)


def counts(n: int, rng: np.random.Generator, size: int = RESAMPLES) -> Float64[np.ndarray, "R n"]:
    """How often each of `n` units is in each of `size` resamples."""
    return rng.multinomial(n, np.full(n, 1.0 / n), size=size).astype(np.float64)


def worst_counted(returns: Float[np.ndarray, "N K"], failed: Bool[np.ndarray, "N"]) -> Float64[np.ndarray, "N K"]:
    """Returns in which each failed task counts as the worst of the sound ones, or as its own where that is lower.

    Episode by episode; NaN where no task is sound, and nothing was measured.
    """
    if not failed.any():
        return returns
    if failed.all():
        return np.full_like(returns, np.nan)
    worst = np.minimum(returns, returns[~failed].min(axis=0))
    return np.where(failed[:, None], worst, returns)


@dataclass(frozen=True)
class AdaptationTime:
    """How long a policy plays on a task before it does as well as it ever will."""

    episodes: float
    """Time to adapt [lengths of an episode]."""
    steps: int
    """Time to adapt [control steps]."""
    seconds: float
    """Time to adapt of the robot [s]."""


def time_to_adapt(
    reward_by_step: Float[np.ndarray, "T"], episode_steps: int, control_step: float = 1.0, share: float = 0.9
) -> AdaptationTime | None:
    """First moment from which an episode's worth of time returns 90 % of what the last episode gained on the first.

    With F(t) the reward of the H = `episode_steps` steps that follow step t of the trial, it is the least t with
    F(t) ≥ F(0) + 0.9 (F(T − H) − F(0)); None where the last episode is no better than the first. `reward_by_step` is
    a mean over tasks, `control_step` in [s].

    F(0), F(H), ..., F(T − H) are the returns of the episodes (where none ends early), and F joins them. As each of its
    windows holds every moment of an episode once, a robot's setting off from rest is no adaptation: a policy that
    does the same in all episodes has no time to adapt, however it sets off. Returns may be negative. An exploring
    policy that jumps after two episodes gets a little less than two; one that adapts within its first second, the
    moment at which it has paid 90 % of what ignorance cost it in all.

    From returns alone: the adaptation curve with `episode_steps` = 1, resolved to whole episodes.
    """
    total = np.concatenate(([0.0], np.cumsum(reward_by_step, dtype=np.float64)))
    ahead = total[episode_steps:] - total[:-episode_steps]
    if len(ahead) < 2 or not ahead[-1] > ahead[0]:
        return None
    steps = int(np.argmax(ahead >= ahead[0] + share * (ahead[-1] - ahead[0])))
    return AdaptationTime(steps / episode_steps, steps, steps * control_step)
