"""Task parameters as axes of figures: a number per task, the training range, and how return depends on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from metarl.core import seeding
from metarl.core.tasks import Choice, LogUniform, Parameter, Value

_POINT = 3
"""Vectors up to this length are positions; longer ones are many numbers of one kind."""
_CATEGORIES = 16
"""A parameter with more values than this is drawn as a number."""
_BINS, _PER_BIN = 8, 5
_DRAWS = 4096


@dataclass(frozen=True)
class Axis:
    """A task parameter as the x axis of a figure."""

    name: str
    label: str
    """The name, how a vector is reduced to a number, and the unit."""
    help: str = ""
    train: str = ""
    """The distribution in training, as text."""
    ood: str | None = None
    span: tuple[float, float] | None = None
    """The training range; None where it is not known."""
    logarithmic: bool = False
    categories: tuple[tuple[float, str, bool], ...] = ()
    """For a parameter with few values: each value, its label, and whether it occurs in training."""
    size: int | None = None
    """Length of the parameter if it is a vector."""
    geometric: bool = False
    """Whether a long vector is reduced to its geometric mean."""

    def value(self, value: Value) -> float:
        """The position of a task on the axis."""
        if not isinstance(value, list):
            return float(value)
        if len(value) <= _POINT:
            return float(np.linalg.norm(value))
        return float(np.exp(np.log(value).mean()) if self.geometric else np.mean(value))


def axes_of(known: Mapping[str, Parameter], tasks: Sequence[dict[str, Any]]) -> list[Axis]:
    """An axis per parameter of the tasks; of a parameter that is not known the ranges are missing."""
    names = list(tasks[0]) if tasks else []
    return [_axis(name, known.get(name), [task[name] for task in tasks if name in task]) for name in names]


def _axis(name: str, parameter: Parameter | None, values: Sequence[Value]) -> Axis:
    size = len(values[0]) if isinstance(values[0], list) else None
    geometric = size is not None and size > _POINT and all(np.min(value) > 0 for value in values)
    label = name
    if size is not None:
        summary = f"{'geometric mean' if geometric else 'mean'} of {size}"
        label += ": distance from 0" if size <= _POINT else f": {summary}"
    axis = Axis(name, label, size=size, geometric=geometric)
    if parameter is None:
        return axis
    categories = _categories(parameter, values) if size is None else ()
    plain = categories or parameter.unit in ("index", "")
    return replace(
        axis,
        label=label + ("" if plain else f" [{parameter.unit}]".replace("[1]", "[ratio]")),
        help=parameter.help,
        train=parameter.train.describe(),
        ood=parameter.ood.describe() if parameter.ood is not None else None,
        span=None if categories else _span(axis, parameter),
        logarithmic=isinstance(parameter.train, LogUniform),
        categories=categories,
    )


def _span(axis: Axis, parameter: Parameter) -> tuple[float, float]:
    low, high = getattr(parameter.train, "low", None), getattr(parameter.train, "high", None)
    if axis.size is None and isinstance(low, float | int) and isinstance(high, float | int):
        return float(low), float(high)
    # the range of a reduced vector, or of a user's own distribution, is found by drawing
    drawn = [axis.value(value) for value in parameter.train.sample(_DRAWS, seeding.rng(0, "report")).tolist()]
    return min(drawn), max(drawn)


def _categories(parameter: Parameter, values: Sequence[Value]) -> tuple[tuple[float, str, bool], ...]:
    if not parameter.labels and not isinstance(parameter.train, Choice):
        return ()
    numbers = {float(value) for value in values if not isinstance(value, list)}
    for support in (parameter.train, parameter.ood):
        numbers |= set(support.values) if isinstance(support, Choice) else set()
    if len(numbers) > _CATEGORIES:
        return ()
    return tuple(
        (v, parameter.label(v) or f"{v:g}".replace("-", "−"), parameter.train.contains(v)) for v in sorted(numbers)
    )


def trend(
    axis: Axis, x: Float64[np.ndarray, "N"], first: Float64[np.ndarray, "N"], last: Float64[np.ndarray, "N"]
) -> list[dict[str, int | float]]:
    """Mean returns of the first and the last episode per category, or in up to 8 bins of equally many tasks."""
    if axis.categories:
        groups = [np.flatnonzero(np.isclose(x, value)) for value, _, _ in axis.categories]
    else:
        groups = np.array_split(np.argsort(x, kind="stable"), max(1, min(_BINS, len(x) // _PER_BIN)))
    return [
        {"x": float(x[g].mean()), "first": float(first[g].mean()), "last": float(last[g].mean()), "tasks": len(g)}
        for g in groups
        if len(g)
    ]
