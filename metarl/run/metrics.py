"""Metrics of an iteration: what was collected, and what its updates say."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from metarl.core.types import Metrics, Segment

_COUNTED = ("rollout/diverged", "train/gradient_steps", "train/skipped_updates")
"""Metrics that are counts."""


def together(rows: Sequence[Metrics]) -> dict[str, float]:
    """The metrics of an iteration of those of its updates: returns are of the last, times and counts are sums."""
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name] for row in rows if name in row]
        if name.startswith("rollout/return") or name == "rollout/adaptation_delta":
            found[name] = values[-1]
        else:
            over = len(rows) if name.startswith("physics/") else len(values)
            found[name] = sum(values) / (1 if name.startswith("time/") or name in _COUNTED else over)
    return found


def rollout_metrics(segment: Segment, returns: Float64[Tensor, "N K"]) -> Metrics:
    """Mean return of the first and the last episode, their difference, and of all control steps what went on in them.

    `reward` is per control step and `terminated` counts ends other than by time, as falls, per 1,000 of them: a policy
    that learns to fall has short episodes, whose returns say little.
    """
    first, last = returns[:, 0].mean(), returns[:, -1].mean()
    steps = (segment.reward.mean(), 1000.0 * segment.terminated.float().mean(), segment.diverged.sum())
    values = torch.stack((first, last, last - first, *(value.to(first.dtype) for value in steps))).tolist()
    names = ("return_first", "return_last", "adaptation_delta", "reward", "terminated", "diverged")
    return {f"rollout/{name}": value for name, value in zip(names, values, strict=True)}
