"""A robot that is not as its task says: any variation, by a magnitude of its own, throughout an episode or in part.

    disturbances = (
        Altered(MotorStrength("motor_strength"), Uniform(0.7, 1.0)),          # drawn for each episode
        Altered(MotorStrength("battery"), 0.8, over=10.0),                    # sags within 10 s
        Altered(Payload("load", "trunk", at=(0, 0, 0.1)), 3.0, nominal=0.0, onset=Uniform(1.0, 3.0)),
    )

No task parameter is needed: the name that the variation is given tells one from another, and an oracle what it sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from metarl.core.info import Part
from metarl.core.tasks import Tasks, TaskSpace
from metarl.sim.disturbances import Disturbance, Magnitude, bounds
from metarl.sim.variation import OfOneParameter, Variation
from metarl.sim.variations import Payload


@dataclass(frozen=True)
class Altered(Disturbance):
    """What a variation makes of a value, upon what the task makes of the robot."""

    shown = ("value",)
    variation: OfOneParameter | Payload
    """What it changes; its `parameter` is a name of its own, and no task parameter."""
    value: Magnitude
    """What the variation is given, as a ratio of strength, or a mass [kg]."""
    nominal: float = 1.0
    """The value that changes nothing: 1 of a ratio, 0 of a mass or an angle."""
    onset: Magnitude = 0.0
    """When it begins [s]."""
    duration: Magnitude = float("inf")
    """How long it lasts [s]."""
    at_start: float = 0.0
    """Share of episodes in which it is there from the start."""
    over: Magnitude = 0.0
    """Time in which it grows from nothing to its value [s]: a battery that sags; in steps of 0.5 s."""

    @property
    def label(self) -> str:
        """What it is called."""
        return self.variation.parameter

    @property
    def is_fault(self) -> bool:
        """It begins or ends within an episode, so that there is something to recover from."""
        return not (self.onset == 0.0 and self.duration == float("inf"))

    def problems(self, space: TaskSpace, parts: Mapping[str, Part]) -> Iterator[str]:
        """See `Disturbance.problems`."""
        made: Any = self.variation
        if not isinstance(made, OfOneParameter | Payload):
            yield f"{made!r} must be a variation of one number, as MotorStrength('motor_strength')"
        elif made.parameters != (made.parameter,):
            yield f"{type(made).__name__} reads {', '.join(made.parameters)}, it may read one number only"
        yield from super().problems(space, parts)


def hidden_name(number: int) -> str:
    """Of disturbance `number`, the name by which its variation finds its value; no task parameter has it."""
    return f"disturbance {number}"


def altered(disturbances: Sequence[Disturbance]) -> list[tuple[int, Altered]]:
    """Those that are of this kind, each with its number."""
    return [(i, one) for i, one in enumerate(disturbances) if isinstance(one, Altered)]


def all_variations(variations: Sequence[Variation], disturbances: Sequence[Disturbance]) -> tuple[Variation, ...]:
    """A family's own, then those of its disturbances."""
    own: list[Any] = [replace(one.variation, parameter=hidden_name(i)) for i, one in altered(disturbances)]
    return (*variations, *own)


def extremes(tasks: Tasks, disturbances: Sequence[Disturbance], space: TaskSpace) -> list[Tasks]:
    """The tasks with the least values that alterations may have upon them, and with the largest."""
    found, all_of_them = [], altered(disturbances)
    for end in (0, 1) if all_of_them else ():
        values = dict(tasks.values)
        for i, one in all_of_them:
            if isinstance(one.value, str):
                values[hidden_name(i)] = tasks[one.value]
            else:
                own = torch.full((len(tasks),), bounds(one.value, space)[end], dtype=torch.float64)
                values[hidden_name(i)] = own
        found.append(Tasks(values))
    return found or [tasks]
