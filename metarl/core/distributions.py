"""Distributions a task parameter may be drawn from. `metarl.core.tasks` has them too."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

Value = float | list[float]
"""The value of a task parameter: a number, or a point."""


@runtime_checkable
class Distribution(Protocol):
    """What one task parameter is drawn from."""

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` draws: shape (n,), or (n, d) for points."""
        ...

    def contains(self, value: Value) -> bool:
        """Whether `value` lies in the support."""
        ...

    def describe(self) -> str:
        """The distribution in one short phrase."""
        ...


@runtime_checkable
class Graded(Protocol):
    """A distribution that has a lowest or nearest value, so that a curriculum can widen it from there."""

    def easiest(self, share: float) -> Distribution:
        """The easiest `share` in (0, 1] of it."""
        ...


@dataclass(frozen=True)
class Uniform:
    """U[low, high); `size` independent ones for a vector."""

    low: float
    high: float
    size: int | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"Uniform needs low < high, got [{self.low}, {self.high})")

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Shape (n,) or (n, size)."""
        return rng.uniform(self.low, self.high, _shape(n, self.size))

    def contains(self, value: Value) -> bool:
        """Closed interval, the upper end counts; every element of a vector must lie in it."""
        return _all_within(value, self.low, self.high, self.size)

    def describe(self) -> str:
        """Return a short form such as `U(0, 3)`."""
        return f"U({self.low:g}, {self.high:g}){_power(self.size)}"

    def easiest(self, share: float) -> Uniform:
        """Return the part of the distribution from `low` upwards."""
        return replace(self, high=self.low + share * (self.high - self.low))


@dataclass(frozen=True)
class LogUniform:
    """Uniform in the logarithm: doubling and halving are equally likely around 1; `size` of them for a vector."""

    low: float
    high: float
    size: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(f"LogUniform needs 0 < low < high, got [{self.low}, {self.high})")

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Shape (n,) or (n, size)."""
        return np.exp(rng.uniform(math.log(self.low), math.log(self.high), _shape(n, self.size)))

    def contains(self, value: Value) -> bool:
        """Closed interval, the upper end counts; every element of a vector must lie in it."""
        return _all_within(value, self.low, self.high, self.size)

    def describe(self) -> str:
        """Return a short form such as `logU(0.5, 2)`."""
        return f"logU({self.low:g}, {self.high:g}){_power(self.size)}"


@dataclass(frozen=True)
class Box:
    """A vector, uniform between a low and a high for each of its numbers."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(f"Box needs low < high for each number, got {self.low} and {self.high}")

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Shape (n, size)."""
        return rng.uniform(self.low, self.high, (n, len(self.low)))

    def contains(self, value: Value) -> bool:
        """Closed intervals."""
        return (
            isinstance(value, list)
            and len(value) == len(self.low)
            and all(low <= x <= high for x, low, high in zip(value, self.low, self.high, strict=True))
        )

    def describe(self) -> str:
        """Return a short form such as `U of 4 ranges`."""
        return f"U of {len(self.low)} ranges"


def _shape(n: int, size: int | None) -> tuple[int, ...]:
    return (n,) if size is None else (n, size)


def _power(size: int | None) -> str:
    """Return the exponent of a vector's short form, such as ` ^24`."""
    return "" if size is None else f" ^{size}"


def _all_within(value: Value, low: float, high: float, size: int | None) -> bool:
    if size is None:
        return isinstance(value, int | float) and low <= value <= high
    return isinstance(value, list) and len(value) == size and all(low <= element <= high for element in value)


@dataclass(frozen=True)
class Choice:
    """One of finitely many numbers, equally likely."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("Choice needs at least one value")

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Shape (n,)."""
        return np.asarray(self.values, dtype=np.float64)[rng.integers(len(self.values), size=n)]

    def contains(self, value: Value) -> bool:
        """Membership, to the precision of a float32."""
        return isinstance(value, int | float) and any(
            math.isclose(value, own, rel_tol=1e-6, abs_tol=1e-9) for own in self.values
        )

    def describe(self) -> str:
        """Return a short form such as `one of -1, 1`."""
        return "one of " + ", ".join(f"{value:g}" for value in self.values)

    def easiest(self, share: float) -> Choice:
        """The first ones listed, at least one."""
        return Choice(self.values[: max(1, math.ceil(share * len(self.values)))])


@dataclass(frozen=True)
class Points:
    """One of finitely many points, equally likely."""

    values: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if not self.values or len({len(value) for value in self.values}) > 1:
            raise ValueError("Points needs at least one point, and as many numbers in each")

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Shape (n, size)."""
        return np.asarray(self.values, dtype=np.float64)[rng.integers(len(self.values), size=n)]

    def contains(self, value: Value) -> bool:
        """Membership, to the precision of a float32."""
        return isinstance(value, list) and any(
            len(value) == len(own) and np.allclose(value, own, rtol=1e-6, atol=1e-9) for own in self.values
        )

    def describe(self) -> str:
        """Return a short form such as `one of 48 points`."""
        return f"one of {len(self.values)} points"


@dataclass(frozen=True)
class Angle:
    """A heading, uniform on [low, high) [rad]; the full circle by default."""

    low: float = 0.0
    high: float = 2.0 * math.pi

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"Angle needs low < high, got [{self.low}, {self.high})")

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Shape (n,)."""
        return rng.uniform(self.low, self.high, n)

    def contains(self, value: Value) -> bool:
        """Modulo a full turn."""
        if not isinstance(value, int | float):
            return False
        return (value - self.low) % (2.0 * math.pi) <= self.high - self.low

    def describe(self) -> str:
        """Return a short form such as `angle in [0, 6.28)`."""
        return f"angle in [{self.low:.3g}, {self.high:.3g})"


@dataclass(frozen=True)
class Disc:
    """A point in the plane, uniform in area between two radii (an annulus; a disc for `inner` = 0)."""

    radius: float
    inner: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.inner < self.radius:
            raise ValueError(f"Disc needs 0 <= inner < radius, got {self.inner} and {self.radius}")

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Shape (n, 2)."""
        angle = rng.uniform(0.0, 2.0 * math.pi, n)
        radius = np.sqrt(rng.uniform(self.inner**2, self.radius**2, n))
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)

    def contains(self, value: Value) -> bool:
        """Closed annulus."""
        return isinstance(value, list) and len(value) == 2 and self.inner <= math.hypot(*value) <= self.radius

    def describe(self) -> str:
        """Return a short form such as `disc of radius 3`."""
        ring = f" outside {self.inner:g}" if self.inner else ""
        return f"disc of radius {self.radius:g}{ring}"

    def easiest(self, share: float) -> Disc:
        """The nearest `share` of its area."""
        return Disc(math.sqrt(self.inner**2 + share * (self.radius**2 - self.inner**2)), self.inner)


@dataclass(frozen=True)
class Ball:
    """A point in space, uniform in volume between two radii (a shell; a ball for `inner` = 0)."""

    radius: float
    inner: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.inner < self.radius:
            raise ValueError(f"Ball needs 0 <= inner < radius, got {self.inner} and {self.radius}")

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Shape (n, 3)."""
        direction = rng.normal(size=(n, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        return direction * np.cbrt(rng.uniform(self.inner**3, self.radius**3, (n, 1)))

    def contains(self, value: Value) -> bool:
        """Closed shell."""
        return isinstance(value, list) and len(value) == 3 and self.inner <= math.hypot(*value) <= self.radius

    def describe(self) -> str:
        """Return a short form such as `ball of radius 3`."""
        shell = f" outside {self.inner:g}" if self.inner else ""
        return f"ball of radius {self.radius:g}{shell}"

    def easiest(self, share: float) -> Ball:
        """The nearest `share` of its volume."""
        return Ball(math.cbrt(self.inner**3 + share * (self.radius**3 - self.inner**3)), self.inner)
