"""Ranges in which `metarl tune` searches: a learner's configuration declares them beside its fields, as `search`.

    search: ClassVar[Mapping[str, Range]] = {"learning_rate": FloatRange(1e-4, 3e-3, log=True)}

Imports neither torch nor Optuna.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from metarl.core.errors import UserError

Value: TypeAlias = bool | int | float | str


@dataclass(frozen=True)
class FloatRange:
    """Real numbers from `low` to `high`; uniform in their logarithm with `log`."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _require_order(self)

    def contains(self, value: object) -> bool:
        """Whether `value` is a number in the range."""
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def ends(self) -> tuple[Value, ...]:
        """The outermost values."""
        return float(self.low), float(self.high)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (", log" if self.log else "")


@dataclass(frozen=True)
class IntRange:
    """Whole numbers from `low` to `high`, both included; uniform in their logarithm with `log`."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        _require_order(self)

    def contains(self, value: object) -> bool:
        """Whether `value` is a whole number in the range."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def ends(self) -> tuple[Value, ...]:
        """The outermost values."""
        return self.low, self.high

    def __str__(self) -> str:
        return f"{self.low} to {self.high}" + (", log" if self.log else "")


@dataclass(frozen=True)
class Options:
    """A few values without an order."""

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.values, tuple) or len(set(self.values)) < 2:
            raise UserError(f"values = {self.values!r} of Options must be a tuple of at least two different values")

    def contains(self, value: object) -> bool:
        """Whether `value` is one of them, and of their type: True is not 1."""
        return any(value == own and isinstance(value, bool) == isinstance(own, bool) for own in self.values)

    def ends(self) -> tuple[Value, ...]:
        """All of them."""
        return self.values

    def __str__(self) -> str:
        return " | ".join(str(value) for value in self.values)


Range: TypeAlias = FloatRange | IntRange | Options


def _require_order(bounds: FloatRange | IntRange) -> None:
    """`UserError` unless low < high, both finite, and above 0 where the range is logarithmic."""
    finite = math.isfinite(bounds.low) and math.isfinite(bounds.high)
    if not finite or bounds.low >= bounds.high or (bounds.log and bounds.low <= 0):
        raise UserError(f"{bounds!r}: low must be below high, and above 0 with log")
