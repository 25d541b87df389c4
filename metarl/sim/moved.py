"""What a simulator hands to `TrialEnv`: the result of a control step, and cameras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor


@runtime_checkable
class Cameras(Protocol):
    """Film some worlds of a running trial. The next trial has models of its own, and needs new ones."""

    def draw(self, which: Sequence[int] | None = None) -> list[UInt8[np.ndarray, "H W 3"]]:
        """A picture of each world, or of those at these places among them, as it is now."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


@dataclass(frozen=True)
class Moved:
    """The result of one control step in all worlds, ahead of any restart."""

    obs: Float32[Tensor, "N S"]
    reward_terms: Mapping[str, Float[Tensor, "N"]]
    """The reward is their sum."""
    terminated: Bool[Tensor, "N"] | None
    """Worlds whose episode ended by the family's rules. None, here and below, means certainly no world."""
    truncated: Bool[Tensor, "N"] | None
    """Worlds whose episode ended by a time limit of the simulator's own, ahead of the family's."""
    diverged: Bool[Tensor, "N"] | None
    """Worlds whose step must not be learnt from."""


def either(one: Bool[Tensor, "N"] | None, other: Bool[Tensor, "N"] | None) -> Bool[Tensor, "N"] | None:
    """Their union, None being empty."""
    if one is None or other is None:
        return other if one is None else one
    return one | other
