"""What a simulator may be wrong about, one quantity at a time: the axes along which the physics of a family is swept.

Task parameters that a variation or a disturbance reads are axes of their own, over their training range and beyond it.
What no parameter of the family decides comes upon its tasks by disturbances: latency, noise, strength, and so on.
What makes the simulator itself (time step, integrator, solver, back end) is another model, or another program.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mujoco
import numpy as np

from metarl.core.distributions import Choice, LogUniform, Uniform
from metarl.core.errors import UserError, unknown_name
from metarl.core.tasks import Parameter
from metarl.sim.altered import Altered
from metarl.sim.disturbance_files import ALTERATIONS, root_body, target
from metarl.sim.disturbances import ActionLatency, Disturbance, Sensor, bounds, reads
from metarl.sim.family import MujocoFamily
from metarl.sim.mujoco.mujoco_env import compile_spec
from metarl.sim.mujoco.physics import PHYSICS
from metarl.sim.variations import Payload

JITTERED = 0.02
"""Latency about which jitter is swept [s]."""
_NOT_SENSED = ("previous_action", "command")  # what a robot knows without a sensor
_TRIED = {
    "motor_strength": (0.4, 0.55, 0.7, 0.85, 1.0, 1.15),
    "p_gain": (0.5, 0.7, 0.85, 1.0, 1.2, 1.5),
    "d_gain": (0.25, 0.5, 1.0, 1.5, 2.0),
    "friction": (0.25, 0.5, 0.75, 1.0, 1.5),
    "joint_damping": (0.25, 0.5, 1.0, 2.0, 4.0),
    "joint_friction": (0.0, 0.1, 0.2, 0.4, 0.8),
    "armature": (0.25, 0.5, 1.0, 2.0, 4.0),
    "mass": (0.7, 0.85, 1.0, 1.15, 1.3),
    "slope": (-0.2, -0.1, 0.0, 0.1, 0.2),
    "payload": (0.0, 0.1, 0.2, 0.3, 0.4),  # shares of the robot's mass
}
"""Values of `ALTERATIONS`."""
_QUICK = ("latency", "noise", "motor_strength", "friction", "payload")
_FEW, _MANY = 3, 6  # values of an axis


@dataclass(frozen=True)
class Knob:
    """A magnitude of a disturbance that an axis sets; where a family does not declare the disturbance, it is added."""

    disturbance: Disturbance
    magnitude: str
    neutral: float
    """What changes nothing, in worlds of other axes."""
    factor: float = 1.0
    """It is set to this times the axis' value."""
    constant: float | None = None
    """Or to this, wherever the axis is swept."""

    def declared(self, disturbances: Sequence[Disturbance]) -> int | None:
        """Where a list of disturbances has it."""
        wanted = type(self.disturbance), target(self.disturbance)
        return next((i for i, one in enumerate(disturbances) if (type(one), target(one)) == wanted), None)


@dataclass(frozen=True, eq=False)
class Axis:
    """One quantity, and the values at which a policy is tried: of a task parameter, unless something else sets them."""

    name: str
    unit: str
    help: str
    values: tuple[float, ...]
    trained: tuple[float, float] | None = None
    """The range that the policy was trained in; None where it never varied."""
    labels: tuple[str, ...] = ()
    """What values are called that are no quantities."""
    known: tuple[bool, ...] = ()
    """Which of those the policy was trained in."""
    own: int | None = None
    """Place of the value that the family has without being swept."""
    knobs: tuple[Knob, ...] = ()
    """Disturbances that set it."""
    options: tuple[Mapping[str, Any], ...] = ()
    """Or options of the model, for each value."""
    physics: tuple[str, ...] = ()
    """Or back ends."""

    @property
    def is_task(self) -> bool:
        """It is a task parameter."""
        return not (self.knobs or self.options or self.physics)

    def label(self, place: int) -> str:
        """How a value is called."""
        return self.labels[place] if self.labels else f"{self.values[place]:.3g}"

    def in_training(self, place: int) -> bool:
        """Whether the policy was trained there."""
        if self.labels:
            return self.known[place]
        if self.trained is None:
            return place == self.own
        return self.trained[0] - 1e-9 <= self.values[place] <= self.trained[1] + 1e-9


def axes_of(family: MujocoFamily, chosen: Sequence[str] = (), quick: bool = False) -> list[Axis]:
    """The axes of a family; those named `chosen` alone, as `friction` or `latency=0,0.02`, if any are.

    Raises `UserError` for a name that is none, and for values of what has no quantity.
    """
    model = compile_spec(family.spec())
    every = (
        *_of_tasks(family),
        *_of_commands(family),
        *_of_sensors(family),
        *_of_robot(family, model),
        *_of_model(family, model),
    )
    found = {axis.name: axis for axis in every}
    if chosen:
        return [_chosen(word, found) for word in chosen]
    return [_fewer(axis) for axis in found.values() if axis.is_task or axis.name in _QUICK] if quick else list(every)


def _chosen(word: str, found: Mapping[str, Axis]) -> Axis:
    name, equals, text = word.partition("=")
    if name not in found:
        raise unknown_name("sweep", name, found)
    axis = found[name]
    if not equals:
        return axis
    if axis.labels:
        raise UserError(f"--sweep {word}: {name} has no quantity, it is tried as {', '.join(axis.labels)}")
    try:
        values = tuple(float(value) for value in text.split(","))
    except ValueError:
        raise UserError(f"--sweep {word} must be {name}=NUMBER,NUMBER,...") from None
    if not all(map(np.isfinite, values)):
        raise UserError(f"--sweep {word}: its values must be finite")
    own = None if axis.own is None else axis.values[axis.own]
    made = replace(axis, values=values, own=values.index(own) if own in values else None)
    return replace(made, options=tuple({"timestep": value} for value in values)) if axis.options else made


def _fewer(axis: Axis) -> Axis:
    """The axis with a few of its values."""
    if len(axis.values) <= _FEW or axis.labels:
        return axis
    kept = sorted({round(i) for i in np.linspace(0, len(axis.values) - 1, _FEW)} | {axis.own or 0})
    own = None if axis.own is None else kept.index(axis.own)
    return replace(axis, values=tuple(axis.values[i] for i in kept), own=own)


def _of_tasks(family: MujocoFamily) -> Iterator[Axis]:
    """Task parameters that change the robot or its world."""
    physical = reads(family.disturbances).union(*(variation.parameters for variation in family.variations))
    for name, own in family.space.parameters.items():
        if name not in physical:
            continue
        if isinstance(own.train, Choice):
            values = tuple(dict.fromkeys([*own.train.values, *(own.ood.values if isinstance(own.ood, Choice) else ())]))
            known = tuple(value in own.train.values for value in values)
            labels = tuple(own.label(value) or f"{value:g}" for value in values)
            yield Axis(name, own.unit, own.help, values, labels=labels, known=known)
        elif isinstance(own.train, Uniform | LogUniform) and own.train.size is None:
            yield Axis(name, own.unit, own.help, _beyond(own), bounds(own.train, family.space))


def _beyond(own: Parameter) -> tuple[float, ...]:
    """Values from a parameter's training range and beyond it: to where its `ood` reaches, or half as far again."""
    ends = [(one.low, one.high) for one in (own.train, own.ood) if isinstance(one, Uniform | LogUniform)]
    low, high = min(one for one, _ in ends), max(one for _, one in ends)
    if own.ood is None:
        low, high = (0.5 * low if low >= 0.0 else low - 0.25 * (high - low)), high + 0.25 * (high - low)
    if isinstance(own.train, LogUniform):
        return tuple(np.geomspace(low, high, _MANY).round(4).tolist())
    return tuple(np.linspace(low, high, _MANY).round(4).tolist())


def _of_commands(family: MujocoFamily) -> Iterator[Axis]:
    """What happens to commands on their way."""
    latency = ActionLatency(0.0)
    declared = next((one for one in family.disturbances if isinstance(one, ActionLatency)), None)
    for name, magnitude, unit, text, values in (
        ("latency", "seconds", "s", "from observation to effect", (0.0, 0.01, 0.02, 0.03, 0.04, 0.06)),
        ("jitter", "jitter", "s", "half width of the latency", (0.0, 0.005, 0.01, 0.02)),
        ("lost", "lost", "1", "share of commands that never arrive", (0.0, 0.1, 0.2, 0.4)),
    ):
        known = 0.0 if declared is None else getattr(declared, magnitude)
        if isinstance(known, str):
            continue  # a task parameter
        also = (Knob(latency, "seconds", 0.0, constant=JITTERED),) if name == "jitter" and declared is None else ()
        text += f", about {JITTERED:g} s" if also else ""
        trained = None if known == 0.0 else bounds(known, family.space)
        own = 0 if known == 0.0 and not also else None
        yield Axis(name, unit, text, values, trained, own=own, knobs=(Knob(latency, magnitude, 0.0), *also))


def _of_sensors(family: MujocoFamily) -> Iterator[Axis]:
    """What happens to what is sensed."""
    sensed = [part for part in family.observation if part.name not in _NOT_SENSED]
    declared = {one.part: one for one in family.disturbances if isinstance(one, Sensor)}
    for name, magnitude, unit, text, values in (
        ("noise", "noise", "1", "of each part, relative to how much it varies", (0.0, 0.05, 0.1, 0.2, 0.4)),
        ("stale", "latency", "s", "age of what is sensed", (0.0, 0.02, 0.04, 0.06)),
        ("dropped", "lost", "1", "share of samples that do not come", (0.0, 0.1, 0.2, 0.4)),
    ):
        if not sensed or any(isinstance(getattr(one, magnitude), str) for one in declared.values()):
            continue
        own = 0 if all(getattr(one, magnitude) == 0.0 for one in declared.values()) else None
        knobs = tuple(Knob(Sensor(part.name), magnitude, 0.0) for part in sensed)
        yield Axis(name, unit, text, values, own=own, knobs=knobs)


def _of_robot(family: MujocoFamily, model: mujoco.MjModel) -> Iterator[Axis]:
    """What a robot may be that its model is not, where no task parameter says so."""
    decided = {type(variation) for variation in family.variations if len(variation.parameters) == 1}
    scalar = {name for name, own in family.space.parameters.items() if getattr(own.train, "size", None) is None}
    decided &= {type(one) for one in family.variations if scalar.issuperset(one.parameters)}
    for name, values in _TRIED.items():
        entry = ALTERATIONS.get(name)
        if entry is None or entry.variation in decided:
            continue
        fields = dict(entry.fixed)
        if entry.variation is Payload:
            try:
                fields |= {"body": root_body(family), "at": (0.0, 0.0, 0.0)}
            except UserError:
                continue
            values = tuple(float(f"{share * model.body_mass.sum():.2g}") for share in values)
        made = Altered(entry.variation(parameter=name, **fields), entry.nominal, entry.nominal)
        declared = next((one for one in family.disturbances if target(one) == target(made)), None)
        trained = None if declared is None else bounds(declared.magnitudes()["value"], family.space)
        own = values.index(entry.nominal) if declared is None else None
        text = entry.help or f"ratio of {name.replace('_', ' ')}"
        yield Axis(name, entry.unit, text, values, trained, own=own, knobs=(Knob(made, "value", entry.nominal),))


def _of_model(family: MujocoFamily, model: mujoco.MjModel) -> Iterator[Axis]:
    """Another simulator: other time steps, integrators and solvers, another back end."""
    number, step = family.num_substeps(model), family.control_step
    counts = sorted({max(1, number // 2), number, 2 * number, 4 * number}, reverse=True)
    steps = tuple(step / count for count in counts)
    options = tuple({"timestep": value} for value in steps)
    yield Axis("timestep", "s", "of the physics", steps, own=counts.index(number), options=options)
    for name, kinds in (
        ("integrator", mujoco.mjtIntegrator),
        ("solver", mujoco.mjtSolver),
        ("cone", mujoco.mjtCone),
    ):
        members = [member for member in kinds.__members__.values() if not member.name.startswith("mjN")]
        labels = tuple(member.name.rpartition("_")[2].lower() for member in members)
        values = tuple(float(int(member)) for member in members)
        here = values.index(float(getattr(model.opt, name)))
        known = tuple(i == here for i in range(len(values)))
        given = tuple({name: int(member)} for member in members)
        yield Axis(name, "", "MuJoCo's", values, labels=labels, known=known, own=here, options=given)
    names = tuple(name for name in PHYSICS if name != "warp" or importlib.util.find_spec("mujoco_warp"))
    if len(names) > 1:
        places = tuple(map(float, range(len(names))))
        known = tuple(name == "mujoco" for name in names)
        yield Axis("physics", "", "back end", places, None, names, known, own=known.index(True), physics=names)
