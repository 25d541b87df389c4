"""What a real robot adds to a simulator, as a family declares it: late commands, poor sensors, pushes, sudden faults.

    disturbances = (
        ActionLatency(Uniform(0.0, 0.04)),               # drawn for each episode [s]
        Sensor("gyro", noise=0.2),                       # the same always [rad/s]
        EncoderOffset("offset"),                         # the task parameter of that name
        Fault(("motor",), onset=Uniform(1.0, 3.0)),      # the task's weak motor is sound until then
    )

A **magnitude** is a number, a distribution (`Uniform`, `LogUniform`, `Choice`) that is drawn from anew in each episode,
or the name of a task parameter. All draws are functions of a world's key, stream, episode and step, so that what
happens in one world never depends on another, and a run that is resumed goes on as it would have.

A policy sees none of it but through what it senses. Its own last command is what it commanded, not what arrived.
Oracles and privileged critics see the present values (`TrialEnv.privileged`): its part `fault` is 1 while a `Fault` is
on, and 0 else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.core.distributions import Choice, Distribution, LogUniform, Uniform
from metarl.core.errors import UserError, unknown_name
from metarl.core.info import Part
from metarl.core.tasks import TaskSpace


@dataclass(frozen=True)
class EachWorld:
    """A number for each world, the same throughout: how a sweep asks for many at once."""

    values: tuple[float, ...]


Magnitude = float | Distribution | EachWorld | str
"""Fixed, drawn anew for each episode, or the name of a task parameter."""


@dataclass(frozen=True)
class Disturbance:
    """One thing that goes wrong."""

    shown: ClassVar[tuple[str, ...]] = ()
    """Its magnitudes that oracles see where they are drawn for each episode."""

    def magnitudes(self) -> dict[str, Magnitude]:
        """Each of its magnitudes by its name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.type == "Magnitude"}

    def size(self, magnitude: str, parts: Mapping[str, Part]) -> int:
        """How many numbers a magnitude is, given the parts of the observation."""
        return 1

    def problems(self, space: TaskSpace, parts: Mapping[str, Part]) -> Iterator[str]:
        """What of it does not fit a family with these task parameters and parts."""
        for name, value in self.magnitudes().items():
            if isinstance(value, str) and value not in space.parameters:
                yield str(unknown_name("task parameter", value, space.parameters))
            elif not isinstance(value, str | float | int | Uniform | LogUniform | Choice | EachWorld):
                kinds = "a number, Uniform, LogUniform, Choice or the name of a task parameter"
                yield f"{name} = {value!r} must be {kinds}"


@dataclass(frozen=True)
class ActionLatency(Disturbance):
    """Commands arrive late, and may get lost: until the next one arrives the motors follow the last that did.

    A command takes effect on a physics step, in the midst of a control step if need be. An episode begins with the
    command that `reset` wrote, as if it had been in force for long.
    """

    shown = ("seconds",)
    seconds: Magnitude
    """From observation to effect [s]."""
    jitter: Magnitude = 0.0
    """Half width of a uniform deviation, drawn for each command [s]."""
    lost: Magnitude = 0.0
    """Share of commands that never arrive."""


@dataclass(frozen=True)
class OfPart(Disturbance):
    """A disturbance of one part of the observation."""

    part: str
    """Name of the part."""

    def size(self, magnitude: str, parts: Mapping[str, Part]) -> int:
        """See `Disturbance.size`."""
        return parts[self.part].size if magnitude in ("bias", "offset") else 1

    def problems(self, space: TaskSpace, parts: Mapping[str, Part]) -> Iterator[str]:
        """See `Disturbance.problems`."""
        if self.part not in parts:
            yield str(unknown_name("part of the observation", self.part, parts))
        yield from super().problems(space, parts)


@dataclass(frozen=True)
class Sensor(OfPart):
    """What one sensor does to its part of the observation."""

    shown = ("bias", "latency")
    noise: Magnitude = 0.0
    """Standard deviation of white noise, in the part's unit."""
    bias: Magnitude = 0.0
    """Added to it throughout an episode; each number has its own."""
    latency: Magnitude = 0.0
    """Age of what is observed [s]; between two control steps it is interpolated."""
    lost: Magnitude = 0.0
    """Share of samples that do not come: the last one is seen again."""


@dataclass(frozen=True)
class EncoderOffset(OfPart):
    """Joints are not at the angle that their encoders say, neither to the policy nor to the servos that use them.

    The part's elements are named as the joints. A servo's shifted target stays within its `ctrlrange`.
    """

    shown = ("offset",)
    part: str = "joint_position"
    offset: Magnitude = 0.0
    """Measured less true angle, each joint's own [rad]."""


@dataclass(frozen=True)
class ImuTilt(Disturbance):
    """The inertial sensor is mounted askew: it measures vectors in a frame turned by a roll, then a pitch angle."""

    shown = ("angle",)
    angle: Magnitude
    """Of the two [rad]."""
    parts: tuple[str, ...] = ("gyro", "gravity")
    """The vectors that it measures."""

    def size(self, magnitude: str, parts: Mapping[str, Part]) -> int:
        """See `Disturbance.size`."""
        return 2

    def problems(self, space: TaskSpace, parts: Mapping[str, Part]) -> Iterator[str]:
        """See `Disturbance.problems`."""
        for name in self.parts:
            if name not in parts:
                yield str(unknown_name("part of the observation", name, parts))
            elif parts[name].size != 3:
                yield f"the part '{name}' has {parts[name].size} numbers, a vector has 3"
        yield from super().problems(space, parts)


@dataclass(frozen=True)
class Kick(Disturbance):
    """From time to time the robot, on a free joint, is thrown in a random horizontal direction."""

    speed: Magnitude
    """Change of its velocity, each time's own [m/s]."""
    every: Magnitude
    """Time from the start or a kick to the next, each time's own [s]."""


@dataclass(frozen=True)
class Force(Disturbance):
    """A horizontal force on a body."""

    body: str
    newton: Magnitude
    """Where it is drawn, anew for each `hold` [N]."""
    hold: Magnitude = float("inf")
    """How long one draw lasts [s]."""
    axis: Literal[0, 1] = 1
    """0 ahead, 1 to the left, as the body faces."""
    onset: Magnitude = 0.0
    """When it begins [s]."""
    duration: Magnitude = float("inf")
    """How long it lasts [s]."""

    @property
    def is_timed(self) -> bool:
        """It is there for a part of an episode only."""
        return not (self.onset == 0.0 and self.duration == float("inf"))

    def problems(self, space: TaskSpace, parts: Mapping[str, Part]) -> Iterator[str]:
        """See `Disturbance.problems`."""
        if self.axis not in (0, 1):
            yield f"axis = {self.axis!r} must be 0, ahead, or 1, to the left"
        yield from super().problems(space, parts)


@dataclass(frozen=True)
class OfParameters(Disturbance):
    """A disturbance that changes task parameters within an episode.

    The family's functions are given their present values, as its variations are; `reset` alone is given the task's own.
    """

    parameters: tuple[str, ...]
    """Names of the task parameters."""

    def problems(self, space: TaskSpace, parts: Mapping[str, Part]) -> Iterator[str]:
        """See `Disturbance.problems`."""
        names: Any = self.parameters
        if not isinstance(names, tuple) or not names:
            yield f"parameters = {names!r} must be a tuple of names, as ({names!r},)"
            return
        for name in names:
            if name not in space.parameters:
                yield str(unknown_name("task parameter", name, space.parameters))
        yield from super().problems(space, parts)


@dataclass(frozen=True)
class Fault(OfParameters):
    """The robot is as it should be, its task parameters nominal, until something breaks: then they are the task's.

    A motor that dies, a payload that is put on, ground that turns to ice: whatever a variation can make of them.
    """

    onset: Magnitude = 0.0
    """When it begins [s]."""
    duration: Magnitude = float("inf")
    """How long it lasts [s]."""
    at_start: float = 0.0
    """Share of episodes in which it is there from the start."""

    def problems(self, space: TaskSpace, parts: Mapping[str, Part]) -> Iterator[str]:
        """See `Disturbance.problems`."""
        yield from super().problems(space, parts)
        for name in self.parameters:
            if name in space.parameters and space.parameters[name].nominal is None:
                yield f"the task parameter '{name}' needs a nominal value, which it has without the fault"


@dataclass(frozen=True)
class Redrawn(OfParameters):
    """Task parameters change again and again, unseen: an episode begins with the task's own, others follow.

    They come from the distribution of the split that the task's own value belongs to.
    """

    every: Magnitude
    """Seconds, each time's own; or metres between the borders of a grid on the ground that the robot stands on."""
    of: Literal["time", "distance"] = "time"

    def problems(self, space: TaskSpace, parts: Mapping[str, Part]) -> Iterator[str]:
        """See `Disturbance.problems`."""
        yield from super().problems(space, parts)
        if self.of == "distance" and isinstance(self.every, Distribution):
            yield f"every = {self.every.describe()} of a distance must be a number or a task parameter"
        for name in self.parameters:
            for support in (
                (space.parameters[name].train, space.parameters[name].ood) if name in space.parameters else ()
            ):
                if not isinstance(support, Uniform | LogUniform | Choice | None):
                    yield f"the task parameter '{name}' is drawn from {support.describe()}, which cannot be redrawn"


@dataclass(frozen=True)
class Drift(OfParameters):
    """Task parameters change steadily from the task's own value: a battery that sags, say, or a motor that heats up."""

    to: Magnitude
    """What they are in the end."""
    seconds: Magnitude
    """When they are there [s]."""
    every: float = 0.5
    """They change in steps of this [s]."""


def require(space: TaskSpace, observation: Sequence[Part], disturbances: Any) -> None:
    """`UserError` for disturbances that cannot be, or do not fit the family."""
    if not isinstance(disturbances, list | tuple) or not all(isinstance(one, Disturbance) for one in disturbances):
        raise UserError("disturbances must be a tuple of Disturbances, as (ActionLatency(0.02),)")
    parts = {part.name: part for part in observation}
    for disturbance in disturbances:
        for problem in disturbance.problems(space, parts):
            raise UserError(f"the disturbance {type(disturbance).__name__}: {problem}")
    if sum(isinstance(one, ActionLatency) for one in disturbances) > 1:
        raise UserError("disturbances has two of ActionLatency: commands arrive only once")


def reads(disturbances: Sequence[Disturbance]) -> set[str]:
    """Task parameters that are magnitudes of disturbances."""
    return {value for one in disturbances for value in one.magnitudes().values() if isinstance(value, str)}


def drawn(support: Distribution, unit: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Draws from a distribution, given uniform ones from [0, 1)."""
    match support:
        case Uniform(low=low, high=high):
            return low + (high - low) * unit
        case LogUniform(low=low, high=high):
            return low * (high / low) ** unit
        case Choice(values=values):
            chosen = torch.full_like(unit, values[0])
            for number, value in enumerate(values[1:], start=1):  # no index that a device would have to be given
                chosen = torch.where(unit * len(values) >= number, value, chosen)
            return chosen
    raise UserError(f"{support.describe()} cannot be drawn from within an episode")


def bounds(magnitude: Magnitude, space: TaskSpace) -> tuple[float, float]:
    """Least and largest value of a magnitude, over all splits."""
    match magnitude:
        case str():
            own = space.parameters[magnitude]
            found = [bounds(support, space) for support in (own.train, own.ood) if support is not None]
            return min(low for low, _ in found), max(high for _, high in found)
        case Uniform(low=low, high=high) | LogUniform(low=low, high=high):
            return low, high
        case Choice(values=values) | EachWorld(values=values):
            return min(values), max(values)
        case float() | int():
            return float(magnitude), float(magnitude)
    raise UserError(f"{magnitude.describe()} has no bounds that are known")
