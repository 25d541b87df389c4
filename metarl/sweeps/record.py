"""What a sweep has found, as data, as a table, and as a gate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from rich.console import Group
from rich.table import Table
from rich.text import Text

from metarl.run.records import Origin
from metarl.run.statistics import Interval, mean_interval
from metarl.sweeps.axes import Axis

FORMAT = 1
"""Format of the files."""


@dataclass(frozen=True, eq=False)
class Point:
    """A policy on the tasks of a sweep, at one value of one axis."""

    returns: Float64[np.ndarray, "N K"]
    """A task whose physics diverged counts as the worst; not finite where all have."""
    falls: Int64[np.ndarray, "N"]
    """In the whole trial."""
    failed: Bool[np.ndarray, "N"]
    """Tasks whose physics diverged."""

    @property
    def last(self) -> Interval:
        """Mean return of the last episode, with its 95 % interval over tasks."""
        return mean_interval(self.returns[:, -1])

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        sound = bool(np.isfinite(self.returns).all())
        return {
            "return": self.last.to_json("mean") if sound else None,
            "first_return": float(self.returns[:, 0].mean()) if sound else None,
            "falls": float(self.falls.mean()),
            "failed": int(self.failed.sum()),
            "returns": self.returns.tolist() if sound else None,
        }


@dataclass(frozen=True, eq=False)
class Swept:
    """One policy along all axes."""

    name: str
    """Its run, `pretrained:NAME`, or the agent."""
    origin: Origin
    nominal: Point
    """In the family as it is."""
    points: Mapping[str, Sequence[Point]]
    """By axis, one for each of its values."""

    def share(self, point: Point) -> float:
        """The point's return relative to the nominal one: 1 where they are equal, 0.8 where a fifth of it is lost."""
        own = float(self.nominal.returns[:, -1].mean())
        return 1.0 + (float(point.returns[:, -1].mean()) - own) / max(abs(own), 1e-9)


@dataclass(frozen=True, eq=False)
class GapRecord:
    """Policies on one family in physics that they were not trained in."""

    family: str
    split: str
    num_tasks: int
    episodes: int
    control_step: float
    episode_steps: int
    seed: int
    axes: Sequence[Axis]
    policies: Sequence[Swept]
    skipped: Mapping[str, str]
    """Axes that could not be swept, and why."""
    provenance: Mapping[str, Any]

    def below(self, share: float) -> list[str]:
        """Points where a policy's return is below that share of its nominal one, a sentence each."""
        found = []
        for policy in self.policies:
            for axis in self.axes:
                for place, point in enumerate(policy.points.get(axis.name, ())):
                    if not policy.share(point) >= share:  # so that what is not a number is below
                        where = f"{axis.name} = {axis.label(place)} {axis.unit}".rstrip(" 1")
                        found.append(f"{policy.name}, {where}: {policy.share(point):.2f} of the nominal return")
        return found

    def to_json(self) -> dict[str, Any]:
        """Every return, as plain data."""
        return {
            "format": FORMAT,
            **{name: getattr(self, name) for name in ("family", "split", "num_tasks", "episodes", "control_step")},
            **{name: getattr(self, name) for name in ("episode_steps", "seed")},
            "axes": [_axis(axis) for axis in self.axes],
            "skipped": dict(self.skipped),
            "policies": [
                {
                    "name": policy.name,
                    **asdict(policy.origin),
                    "role": policy.origin.role,
                    "nominal": policy.nominal.to_json(),
                    "points": {
                        name: [point.to_json() | {"of_nominal": _finite(policy.share(point))} for point in points]
                        for name, points in policy.points.items()
                    },
                }
                for policy in self.policies
            ],
            "provenance": dict(self.provenance),
        }

    def __rich__(self) -> Group:
        return Group(_table(self), *map(Text, _notes(self)))


def _axis(axis: Axis) -> dict[str, Any]:
    places = range(len(axis.values))
    return {
        **{name: getattr(axis, name) for name in ("name", "unit", "help", "own")},
        "trained": None if axis.trained is None else list(axis.trained),
        "values": list(axis.values),
        "labels": [axis.label(place) for place in places],
        "in_training": [axis.in_training(place) for place in places],
        "is_quantity": not axis.labels,
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _table(record: GapRecord) -> Table:
    seconds = record.episode_steps * record.control_step
    title = f"{record.family}: {record.num_tasks} {record.split} tasks, episode {record.episodes} of {seconds:g} s"
    table = Table(title=title, title_justify="left")
    table.add_column("swept", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    for policy in record.policies:
        name = policy.name.removeprefix("pretrained:").rpartition("/")[2]
        table.add_column(f"{name}\nreturn, of nominal, falls", justify="right")
    table.add_row("as it is", "", *(_cell(policy, policy.nominal) for policy in record.policies))
    for axis in record.axes:
        table.add_section()
        unit = "" if axis.unit in ("", "1", "index") else f" [{axis.unit}]"
        for place in range(len(axis.values)):
            mark = "·" if axis.in_training(place) else " "
            cells = [
                _cell(policy, policy.points[axis.name][place]) if axis.name in policy.points else "–"
                for policy in record.policies
            ]
            table.add_row(f"{axis.name}{unit}" if place == 0 else "", f"{axis.label(place)} {mark}", *cells)
    return table


def _cell(policy: Swept, point: Point) -> str:
    if not np.isfinite(point.returns).all():
        return "diverged"
    return f"{point.last.value:.4g}  {policy.share(point):5.2f}  {point.falls.mean():5.2f}"


def _notes(record: GapRecord) -> Iterator[str]:
    yield "· within the training range; of nominal: return of the last episode relative to the robot as it is"
    yield "falls: per task, in the whole trial; every point has the same tasks and draws"
    for name, reason in record.skipped.items():
        yield f"{name} is not swept: {reason}"
