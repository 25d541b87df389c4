"""Divergence, noticed before it does harm: one check of all that an update step would use."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from metarl.core.errors import Diverged
from metarl.core.types import Metrics

PATIENCE = 3
"""Update steps in a row that may be left out before a training counts as diverged."""


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every number is finite, and its square still is: Adam's second moments are squares.

    The tensors' norms are computed in one fused call, and the answer is waited for once.
    """
    return bool(torch.stack(torch._foreach_norm(list(tensors))).sum().isfinite())


def finite_only(metrics: Metrics) -> Metrics:
    """The metrics without those that are not finite, as those of an update step that was left out."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


class Guard:
    """Lets an update step pass if its loss, gradient and parameters are finite; `Diverged` after a few in a row."""

    def __init__(self, hint: str = "try a lower learning_rate") -> None:
        self._hint = hint
        self._in_a_row = 0
        self.skipped = 0
        """Steps that did not pass."""
        self.passed = 0
        """Steps that did."""

    def passes(self, *tensors: Tensor) -> bool:
        """Whether the step is to be taken."""
        return self.count(all_finite(tensors))

    def metrics(self) -> Metrics:
        """How many steps were taken and how many left out since this was last asked."""
        found = {"train/gradient_steps": float(self.passed), "train/skipped_updates": float(self.skipped)}
        self.passed = self.skipped = 0
        return found

    def count(self, sound: bool) -> bool:
        """Take note of a step that is sound or not; returns the same."""
        self._in_a_row = 0 if sound else self._in_a_row + 1
        self.skipped += not sound
        self.passed += sound
        if self._in_a_row >= PATIENCE:
            raise Diverged(
                f"the training diverged: loss or gradient of {PATIENCE} update steps in a row were not finite; "
                f"{self._hint}"
            )
        return sound
