"""Divergence, noticed before it does harm: one check of all that an update step would use."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float32
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
    """Lets an update step pass if its loss, gradient and parameters are finite; `Diverged` after a few in a row.

    On a GPU nobody waits for the answer: `flag` gives it to an optimiser that leaves the step out, and `read` tells
    later how many were.
    """

    def __init__(self, hint: str = "try a lower learning_rate") -> None:
        self._hint = hint
        self._in_a_row = 0
        # On the device: steps in a row that did not pass, the most of these, all that did not, all.
        self._unread: Tensor | None = None
        self.skipped = 0
        """Steps that did not pass."""
        self.passed = 0
        """Steps that did."""

    def passes(self, *tensors: Tensor) -> bool:
        """Whether the step is to be taken."""
        return self.count(all_finite(tensors))

    def flag(self, tensors: Iterable[Tensor]) -> Float32[Tensor, ""]:
        """1 where the step is to be left out, else 0, on the device."""
        return (~torch.stack(torch._foreach_norm(list(tensors))).sum().isfinite()).float()

    def note(self, bad: Float32[Tensor, ""]) -> None:
        """Take note of a step by its flag, in place."""
        if self._unread is None:
            self._unread = torch.zeros(4, device=bad.device)
        row, most, skipped, noted = self._unread.unbind()
        row.add_(1.0).mul_(bad)
        most.copy_(torch.maximum(most, row))
        skipped.add_(bad)
        noted.add_(1.0)

    def read(self) -> None:
        """Catch up on what was noted: counts it, or raises `Diverged`; waits for the device."""
        if self._unread is None:
            return
        _, most, skipped, noted = self._unread.tolist()
        self._unread[1:].zero_()
        self.skipped += int(skipped)
        self.passed += int(noted - skipped)
        if most >= PATIENCE:
            self._unread.zero_()
            raise self._diverged()

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
            raise self._diverged()
        return sound

    def _diverged(self) -> Diverged:
        return Diverged(
            f"the training diverged: loss or gradient of {PATIENCE} update steps in a row were not finite; {self._hint}"
        )
