"""Disturbances from a TOML file, upon those that a family declares: a robot made harder, or more like the real one.

    only = true                                # without those that the family declares; false unless told

    [action_latency]
    seconds = { uniform = [0.0, 0.04] }        # drawn anew for each episode
    jitter = 0.005                             # the same always

    [[sensor]]
    part = "gyro"
    noise = 0.2

    [motor_strength]                           # of any robot: no task parameter is needed
    value = 0.8
    over = 10.0                                # a battery that sags within 10 s

    [payload]
    value = { uniform = [1.0, 3.0] }
    onset = { uniform = [1.0, 3.0] }           # put on in mid-episode

A table changes the fields it names of what the family declares of the same kind, and of the same part, body or
parameters; else it is another disturbance. A magnitude is a number, a distribution, or a task parameter's name.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import reprlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from metarl.core.distributions import Choice, LogUniform, Uniform
from metarl.core.errors import UserError, unknown_name
from metarl.core.info import Part
from metarl.sim import variations
from metarl.sim.altered import Altered
from metarl.sim.disturbances import (
    ActionLatency,
    Disturbance,
    Drift,
    EncoderOffset,
    Fault,
    Force,
    ImuTilt,
    Kick,
    Magnitude,
    Redrawn,
    Sensor,
    require,
)
from metarl.sim.family import Family, MujocoFamily

_DECLARED: dict[str, type[Disturbance]] = {
    "action_latency": ActionLatency,
    "sensor": Sensor,
    "encoder_offset": EncoderOffset,
    "imu_tilt": ImuTilt,
    "kick": Kick,
    "force": Force,
    "fault": Fault,
    "redrawn": Redrawn,
    "drift": Drift,
}


class Alteration(NamedTuple):
    """How a file's table becomes a variation with a value of its own."""

    variation: type[Any]
    unit: str = "1"
    nominal: float = 1.0
    fixed: Mapping[str, Any] = {}
    """Fields of the variation that the table's name decides."""
    help: str = ""


ALTERATIONS = {
    "motor_strength": Alteration(variations.MotorStrength),
    "p_gain": Alteration(variations.ServoGain, fixed={"gain": "P"}),
    "d_gain": Alteration(variations.ServoGain, fixed={"gain": "D"}),
    "joint_damping": Alteration(variations.JointDamping),
    "joint_friction": Alteration(variations.FrictionLoss, "N·m", 0.0, help="dry friction, added to the joints'"),
    "armature": Alteration(variations.Armature),
    "mass": Alteration(variations.BodyMass),
    "payload": Alteration(variations.Payload, "kg", 0.0, help="carried by the robot's body"),
    "friction": Alteration(variations.Friction),
    "gravity": Alteration(variations.Gravity),
    "slope": Alteration(variations.GravityTilt, "rad", 0.0, help="of the ground, uphill"),
}
"""Alterations by the name of their table: ratios, but for those with a unit."""
EXTERNAL = (ActionLatency, Sensor, ImuTilt)
"""What can be done to a simulator that is not ours: to its commands and its observations."""
_DISTRIBUTIONS = {"uniform": Uniform, "log_uniform": LogUniform, "choice": Choice}
_SHARES = ("lost", "at_start")
_SIGNED = ("value", "bias", "offset", "angle", "newton", "to", "axis", "at")


def disturbed(family: Family, text: str) -> Family:
    """The family with what a file's text says, itself where that is empty; `UserError` for what cannot be."""
    if not text:
        return family
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the disturbances are not valid TOML: {error}") from None
    only = content.pop("only", False)
    if not isinstance(only, bool):
        raise UserError(f"disturbances: only = {only!r} must be true or false")
    made = with_disturbances(family, _joined(() if only else family.disturbances, _read(content, family)))
    object.__setattr__(made, "mirror", None)  # whether left and right are alike under these, nobody has said
    return made


def with_disturbances(family: Family, disturbances: Any) -> Family:
    """The family with these in place of its own; `UserError` where they are none, or do not fit it."""
    if not isinstance(family, MujocoFamily):
        require_external(disturbances)
    whole = (Part("observation", 1, "1"),)  # of an environment that declares no parts; its size is not known here
    require(family.space, family.observation or whole, disturbances)
    made = copy.copy(family)
    object.__setattr__(made, "disturbances", tuple(disturbances))  # a family is sealed; this is another one
    return made


def require_external(disturbances: Any) -> None:
    """`UserError` for what cannot be done to a simulator that is not ours."""
    for one in disturbances if isinstance(disturbances, list | tuple) else ():
        if not isinstance(one, EXTERNAL):
            own = next((name for name, kind in _DECLARED.items() if isinstance(one, kind)), "")
            name = own or getattr(one, "label", type(one).__name__)
            known = ", ".join(name for name, kind in _DECLARED.items() if issubclass(kind, EXTERNAL))
            raise UserError(
                f"the disturbance {name} needs a MujocoFamily: of an environment with a simulator of its own, commands "
                f"and observations alone can be disturbed, by {known}"
            )


def _read(content: Mapping[str, Any], family: Family) -> Iterator[tuple[Disturbance, dict[str, Any]]]:
    """Each disturbance of a file, with the fields that it names."""
    for kind, tables in content.items():
        if kind not in _DECLARED and kind not in ALTERATIONS:
            raise UserError(f"disturbances: {unknown_name('disturbance', kind, [*_DECLARED, *ALTERATIONS])}")
        for number, table in enumerate(tables if isinstance(tables, list) else [tables]):
            if not isinstance(table, dict):
                raise UserError(f"disturbances: {kind} = {reprlib.repr(table)} must be a table, as [{kind}]")
            label = kind if number == 0 else f"{kind}_{number + 1}"
            yield _altered(label, kind, table, family) if kind in ALTERATIONS else _declared(kind, table)


def _declared(kind: str, table: Mapping[str, Any]) -> tuple[Disturbance, dict[str, Any]]:
    values = _values(kind, table, _hints(_DECLARED[kind]))
    whole = {"seconds": 0.0} | values if kind == "action_latency" else values
    return _DECLARED[kind](**_required(kind, _DECLARED[kind], whole)), values


def _altered(label: str, kind: str, table: Mapping[str, Any], family: Family) -> tuple[Disturbance, dict[str, Any]]:
    entry = ALTERATIONS[kind]
    left_out = {"parameter", "fields", "aside", "variation", "nominal", *entry.fixed}
    own = {name: hint for name, hint in _hints(entry.variation).items() if name not in left_out}
    outer = {name: hint for name, hint in _hints(Altered).items() if name not in left_out}
    values = _values(kind, table, own | outer)
    chosen = {name: value for name, value in values.items() if name in own} | dict(entry.fixed)
    if "body" in own:
        chosen["body"] = values.get("body") or root_body(family)
    if "at" in own:
        chosen.setdefault("at", (0.0, 0.0, 0.0))
    variation = entry.variation(parameter=label, **chosen)
    changed = {name: value for name, value in values.items() if name in outer}
    changed |= {"variation": variation, "nominal": entry.nominal}
    return Altered(**_required(kind, Altered, changed)), changed


def root_body(family: Family) -> str:
    """Name of the first body of the model that can move."""
    if isinstance(family, MujocoFamily):
        for body in family.spec().worldbody.bodies:
            if len(body.joints) and body.name:
                return str(body.name)
    raise UserError("disturbances: the payload needs a body = ..., as the robot's first body has no name")


def _hints(kind: type[Any]) -> dict[str, Any]:
    """Types of the fields."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _values(kind: str, table: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The table's values by field, as those are to be."""
    made = {}
    for name, value in table.items():
        if name not in known:
            raise UserError(f"disturbances, [{kind}]: {unknown_name('option', name, known)}")
        made[name] = _value(f"disturbances, [{kind}]: {name} = {reprlib.repr(value)}", name, value, known[name])
    return made


def _value(where: str, name: str, value: Any, hint: Any) -> Any:
    """A field's value of the type that is declared of it."""
    if hint == Magnitude:
        made = _magnitude(where, value)
        _require_range(where, name, made)
        return made
    if hint is float:
        if not _is_number(value) or value < 0.0 or (name in _SHARES and value > 1.0):
            raise UserError(f"{where} must be a number {'in [0, 1]' if name in _SHARES else 'of at least 0'}")
        return float(value)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise UserError(f"{where} must be {' or '.join(map(repr, get_args(hint)))}")
        return value
    if hint is str:
        if not isinstance(value, str):
            raise UserError(f"{where} must be a text")
        return value
    if name == "at":
        if not (isinstance(value, list) and len(value) == 3 and all(_is_number(x) for x in value)):
            raise UserError(f"{where} must be three numbers [m]")
        return tuple(map(float, value))
    if not (isinstance(value, list) and value and all(isinstance(x, str) for x in value)):
        raise UserError(f"{where} must be a list of names")
    return tuple(value)


def _magnitude(where: str, value: Any) -> Magnitude:
    """A number, a name, or the distribution that a table like { uniform = [0, 1] } stands for."""
    if isinstance(value, str):
        return value
    if _is_number(value):
        return float(value)
    if not isinstance(value, dict) or len(value) != 1:
        raise UserError(f"{where} must be a number, {{ uniform = [low, high] }}, or the name of a task parameter")
    ((name, numbers),) = value.items()
    if name not in _DISTRIBUTIONS:
        raise UserError(f"{where}: {unknown_name('distribution', name, _DISTRIBUTIONS)}")
    if not (isinstance(numbers, list) and numbers and all(_is_number(x) and math.isfinite(x) for x in numbers)):
        raise UserError(f"{where}: {name} must be a list of finite numbers")
    numbers = [float(x) for x in numbers]
    try:
        return Choice(tuple(numbers)) if name == "choice" else _DISTRIBUTIONS[name](*numbers)
    except (ValueError, TypeError):
        raise UserError(f"{where}: {name} must be [low, high] with low < high") from None


def _require_range(where: str, name: str, value: Magnitude) -> None:
    """`UserError` for times and sizes below zero, and shares above one."""
    if isinstance(value, str) or name in _SIGNED:
        return
    low, high = (value, value) if isinstance(value, float) else (min(_ends(value)), max(_ends(value)))
    if low < 0.0 or (name in _SHARES and high > 1.0):
        raise UserError(f"{where} must be {'in [0, 1]' if name in _SHARES else 'at least 0'}")


def _ends(value: Any) -> tuple[float, ...]:
    return value.values if isinstance(value, Choice) else (value.low, value.high)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _required(kind: str, made: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values; `UserError` where one without a default is missing."""
    for field in dataclasses.fields(made):
        if field.default is dataclasses.MISSING and field.name not in values:
            raise UserError(f"disturbances, [{kind}]: {field.name} is missing")
    return values


def _joined(declared: Sequence[Disturbance], given: Iterator[tuple[Disturbance, dict[str, Any]]]) -> list[Disturbance]:
    """Those that are declared with what the file changes of them, then the file's others."""
    found, free = list(declared), set(range(len(declared)))
    for one, values in given:
        like = [i for i in sorted(free) if type(found[i]) is type(one) and target(found[i]) == target(one)]
        if like:
            found[like[0]] = dataclasses.replace(found[like[0]], **values)
            free.discard(like[0])
        else:
            found.append(one)
    return found


def target(one: Disturbance) -> tuple[Any, ...]:
    """What a disturbance acts on; of an alteration not how it is called."""
    names = ("part", "parts", "body", "axis", "parameters", "of")
    variation = getattr(one, "variation", None)
    altered = None if variation is None else dataclasses.replace(variation, parameter="")
    return (*(getattr(one, name, None) for name in names), altered)
