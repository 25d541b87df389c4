"""Task parameters as a report draws them: one number per task, the training range, and how return depends on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from metarl.core import seeding
from metarl.core.tasks import Choice, Distribution, LogUniform, Parameter, TaskSpace, Value

_POINT = 3
"""Vectors up to this length are places, longer ones many numbers of a kind."""
_CATEGORIES = 16
"""More values than these are drawn as numbers."""
_BINS, _PER_BIN = 8, 5
_DRAWS = 4096


@dataclass(frozen=True)
class Axis:
    """A task parameter as the x axis of a figure."""

    name: str
    label: str
    """With what was made of a vector, and the unit."""
    help: str
    train: str
    """Its distribution in training, in words."""
    ood: str | None
    span: tuple[float, float] | None
    """The training range; None where it is not known."""
    logarithmic: bool = False
    categories: tuple[tuple[float, str, bool], ...] = ()
    """Of a parameter with few values: value, label, and whether it is among those of training."""
    size: int | None = None
    """Length of a vector."""
    geometric: bool = False
    """A long vector is summarised by its geometric mean."""

    def value(self, value: Value) -> float:
        """Where a task stands on the axis."""
        if not isinstance(value, list):
            return float(value)
        if len(value) <= _POINT:
            return float(np.linalg.norm(value))
        return float(np.exp(np.log(value).mean()) if self.geometric else np.mean(value))


def axes_of(space: TaskSpace | None, tasks: Sequence[dict[str, Any]]) -> list[Axis]:
    """An axis per parameter of the tasks; without a task space (a family that is not to be had here) less is known."""
    names = list(tasks[0]) if tasks else []
    known = space.parameters if space is not None else {}
    return [_axis(name, known.get(name), [task[name] for task in tasks if name in task]) for name in names]


def _axis(name: str, parameter: Parameter | None, values: Sequence[Value]) -> Axis:
    size = len(values[0]) if isinstance(values[0], list) else None
    geometric = size is not None and size > _POINT and all(np.min(value) > 0 for value in values)
    label = name
    if size is not None:
        summary = "geometric mean of" if geometric else "mean of"
        label = f"{name}: distance from 0" if size <= _POINT else f"{name}: {summary} {size}"
    if parameter is None:
        return Axis(name, label, "", "", None, None, size=size, geometric=geometric)
    categories = _categories(parameter, values) if size is None else ()
    unit = "" if categories or parameter.unit in ("index", "") else f" [{parameter.unit}]".replace("[1]", "[ratio]")
    axis = Axis(
        name,
        label + unit,
        parameter.help,
        parameter.train.describe(),
        parameter.ood.describe() if parameter.ood is not None else None,
        None,
        isinstance(parameter.train, LogUniform),
        categories,
        size,
        geometric,
    )
    return _with_span(axis, parameter.train)


def _with_span(axis: Axis, train: Distribution) -> Axis:
    low, high = getattr(train, "low", None), getattr(train, "high", None)
    if axis.categories:
        return axis
    if axis.size is None and isinstance(low, float | int) and isinstance(high, float | int):
        span = (float(low), float(high))
    else:  # the range of a summary, or of a user's own distribution: by drawing
        drawn = [axis.value(value) for value in train.sample(_DRAWS, seeding.rng(0, "report")).tolist()]
        span = (min(drawn), max(drawn))
    return Axis(**{**vars(axis), "span": span})


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
    """Mean returns of first and last episode per category, or in up to 8 bins of equally many tasks."""
    if axis.categories:
        groups = [np.flatnonzero(np.isclose(x, value)) for value, _, _ in axis.categories]
    else:
        groups = np.array_split(np.argsort(x, kind="stable"), max(1, min(_BINS, len(x) // _PER_BIN)))
    return [
        {"x": float(x[g].mean()), "first": float(first[g].mean()), "last": float(last[g].mean()), "tasks": len(g)}
        for g in groups
        if len(g)
    ]
