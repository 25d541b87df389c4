"""How soon each RL² is where the RL² of before it was told the task in training ends, by the curves of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from metarl.run.run import Run

BASELINE = "rl2"
"""One update per trial, without a critic and a head that are told the task."""
SHARE = 0.9
_SMOOTHED = 5
"""Points of a recorded curve of at most 200 that are averaged: returns of one iteration are noisy."""


def table(families: Mapping[str, Mapping[str, Sequence[Run]]]) -> str:
    """A row per family with a baseline, a column per other RL²: its steps as a share of the baseline's."""
    known = {place: agents for place, agents in families.items() if BASELINE in agents}
    others = (f"{BASELINE}-oracle", f"{BASELINE}-short")
    ours = {
        place: [name for name in agents if name.startswith(f"{BASELINE}-") and not name.startswith(others)]
        for place, agents in known.items()
    }
    names = sorted({name for found in ours.values() for name in found})
    rows = []
    for place, agents in known.items():
        if not ours[place]:
            continue
        level = float(np.mean([_level(run) for run in agents[BASELINE]]))
        base = _until(agents[BASELINE], level)
        assert base is not None, "a curve reaches nine tenths of its own rise"
        cells = [_share(_until(agents[name], level), base) if name in agents else "" for name in names]
        rows.append("| " + " | ".join((place, f"{base / 1e6:.1f} M steps", *cells)) + " |")
    head = "| " + " | ".join(("family", BASELINE, *names)) + " |"
    return "\n".join((head, "|---" * (2 + len(names)) + "|", *rows))


def _share(steps: float | None, base: float) -> str:
    return "not reached" if steps is None else f"{steps / base:.2f}"


def _level(run: Run) -> float:
    """Where nine tenths of a curve's rise are made, from its first hundredth to the mean of its last tenth."""
    _, returns = curve(run)
    start, end = returns[: max(1, len(returns) // 100)].mean(), returns[-max(1, len(returns) // 10) :].mean()
    return float(start + SHARE * (end - start))


def _until(runs: Sequence[Run], level: float) -> float | None:
    """Control steps until smoothed curves are at a level, mean over the seeds; None where one of them never is."""
    found = []
    for run in runs:
        steps, returns = curve(run)
        smooth = np.convolve(returns, np.full(_SMOOTHED, 1 / _SMOOTHED), mode="valid")
        reached = np.flatnonzero(smooth >= level)
        if not len(reached):
            return None
        found.append(steps[reached[0] + _SMOOTHED - 1])
    return float(np.mean(found))


def curve(run: Run) -> tuple[Float64[np.ndarray, "P"], Float64[np.ndarray, "P"]]:
    """Control steps, and the mean return of the last episode in training."""
    steps, returns = ([row[key] for row in run.metrics] for key in ("total_steps", "rollout/return_last"))
    return np.array(steps), np.array(returns)
