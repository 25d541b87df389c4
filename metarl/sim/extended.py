"""Families with further task parameters, by ready variations, and with narrower ones: what a log was found to say.

`quadruped-body+joint_friction` names quadruped-body with one more parameter, wherever a family is named.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import mujoco

from metarl.core.distributions import Box, Uniform
from metarl.core.errors import UserError, unknown_name
from metarl.core.tasks import Parameter, TaskSpace
from metarl.sim.family import Family, MujocoFamily
from metarl.sim.mirror import symmetry_of
from metarl.sim.variations import BodyMass, Friction, JointDamping, ModelField, MotorStrength, Payload, Variation

READY: dict[str, tuple[Parameter, Variation | None]] = {
    "payload": (Parameter(Uniform(0.0, 5.0), unit="kg", nominal=0.0, help="0.1 m above the base's origin"), None),
    "mass": (Parameter(Uniform(0.5, 2.0), unit="1", nominal=1.0, help="of all bodies, ratio"), BodyMass("mass")),
    "strength": (
        Parameter(Uniform(0.5, 1.2), unit="1", nominal=1.0, help="of all motors, ratio"),
        MotorStrength("strength"),
    ),
    "friction": (Parameter(Uniform(0.2, 1.5), unit="1", nominal=1.0, help="of all geoms, ratio"), Friction("friction")),
    "joint_friction": (
        Parameter(Uniform(0.0, 5.0), unit="1", nominal=1.0, help="dry friction of all joints, ratio"),
        ModelField("joint_friction", "dof_frictionloss"),
    ),
    "joint_damping": (
        Parameter(Uniform(0.2, 5.0), unit="1", nominal=1.0, help="viscous damping of all joints, ratio"),
        JointDamping("joint_damping"),
    ),
    "armature": (
        Parameter(Uniform(0.3, 3.0), unit="1", nominal=1.0, help="inertia of all rotors, ratio"),
        ModelField("armature", "dof_armature"),
    ),
}
"""What any robot may have as a task parameter, and the variation that makes it so; None where that needs the model."""


def with_parameters(name: str, found: object, added: Sequence[str]) -> type[MujocoFamily]:
    """The family of the class `found` with more parameters; `UserError` where there is no such variation."""
    if not (isinstance(found, type) and issubclass(found, MujocoFamily)):
        raise UserError(f"'{name}' is no MuJoCo family: only to one can {', '.join(added)} be added")
    parameters, variations = dict(found.space.parameters), list(found.variations)
    for one in added:
        if one not in READY:
            raise unknown_name("parameter that can be added", one, READY)
        if one in parameters:
            raise UserError(f"'{name}' has a task parameter '{one}' of its own: leave +{one} out")
        parameter, variation = READY[one]
        parameters[one] = parameter
        variations.append(variation or Payload(one, _base(found().spec()), at=(0.0, 0.0, 0.1)))
    members: dict[str, object] = {"space": TaskSpace(parameters), "variations": tuple(variations)}
    # Whatever is added is of all joints, motors and bodies, or on the middle of the base: as symmetric as before.
    members["mirror"] = symmetry_of(found)
    members |= {"__module__": found.__module__, "__doc__": found.__doc__}
    return cast("type[MujocoFamily]", cast(Any, type(found))(found.__name__, (found,), members))


def narrowed(family: Family, ranges: Sequence[str]) -> Family:
    """The family with the ranges of some parameters replaced, as by ("payload=1.5:1.9", "strength.2=0.7:0.8").

    Its `train` and `test` splits are drawn uniformly from them; `ood` stays. `UserError` for what is no such range.
    """
    parameters = dict(family.space.parameters)
    boxes: dict[str, Any] = {}
    for text in ranges:
        name, low, high = _range(text)
        name, _, index = name.partition(".")
        if name not in parameters:
            raise unknown_name("task parameter", name, parameters)
        parameter, size = parameters[name], family.space.nominal()[name][0].numel()
        if parameter.labels:
            raise UserError(f"the range {text}: '{name}' is an index and has no range")
        if bool(index) != (family.space.nominal()[name].dim() > 1) or (index and not _fits(index, size)):
            raise UserError(
                f"the range {text}: '{name}' is {size} numbers, which are named {name}.0 to {name}.{size - 1}"
            )
        if not index:
            parameters[name] = replace(parameter, train=Uniform(low, high))
            continue
        box = boxes.setdefault(name, _box(parameter, size))
        box[0][int(index)], box[1][int(index)] = low, high
        parameters[name] = replace(parameter, train=Box(tuple(box[0]), tuple(box[1])))
    if not ranges:
        return family
    made = copy.copy(family)
    object.__setattr__(made, "space", TaskSpace(parameters))  # a family is sealed; this is another one
    symmetry = symmetry_of(family)
    own = family.space.parameters
    if symmetry is not None and any(parameters[name] != own[name] for name in symmetry.parameters if name in own):
        object.__setattr__(made, "mirror", None)  # the image of a task may lie beyond
    return made


def _range(text: str) -> tuple[str, float, float]:
    name, _, ends = text.partition("=")
    try:
        low, high = (float(end) for end in ends.split(":"))
    except ValueError:
        low = high = 0.0
    if not (name and low < high):
        raise UserError(f"'{text}' is no range of a task parameter: write NAME=LOW:HIGH, as payload=1.5:1.9")
    return name, low, high


def _fits(index: str, size: int) -> bool:
    return index.isdecimal() and int(index) < size


def _box(parameter: Parameter, size: int) -> tuple[list[float], list[float]]:
    low, high = getattr(parameter.train, "low", None), getattr(parameter.train, "high", None)
    if isinstance(low, int | float) and isinstance(high, int | float):
        return [low] * size, [high] * size
    if isinstance(parameter.train, Box):
        return list(parameter.train.low), list(parameter.train.high)
    raise UserError(f"a task parameter that is drawn from {parameter.train.describe()} has no ranges")


def _base(spec: mujoco.MjSpec) -> str:
    """The body that carries all others: that of the free joint, or the first."""
    free = [joint for joint in spec.joints if joint.type == mujoco.mjtJoint.mjJNT_FREE]
    body = free[0].parent if free else spec.worldbody.first_body()
    return str(body.name)
