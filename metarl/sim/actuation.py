"""Variations of what drives a robot: the strength of its motors, weak motors, and joints that are dead or locked.

What the fields of an actuator mean depends on its type. The numbers that its force is proportional to, for each type of
gain and bias that MuJoCo has:

    fixed, affine   the gain; the bias where it is affine (servos, dampers, cylinders, adhesion)
    pid             the integral gain, and the affine bias that holds the other two
    so3             gain and bias (orientation servos)
    muscle          peak force and `scale`, in gain and bias; not its ranges of length and velocity
    dcmotor         1 / resistance, the gains of its controller, the limit on the current's rate, and what it takes to
                    heat it: stall torque and slope of the torque-speed curve scale, its no-load speed and temperature
                    stay, as do cogging and LuGre friction

Force limits stand at the actuator, at its joint and at its tendon. Gains of types that only a program knows (`user`,
plugins), torques fed forward past all gains, and gravity compensation that counts as a motor's are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple

import mujoco
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.tasks import Tasks
from metarl.sim.variation import (
    OfOneParameter,
    OfOneRatio,
    constant,
    dofs,
    joints_between,
    label,
    object_ids,
    require_ratio,
    tendon_joints,
)

_GAIN, _BIAS, _TRN = mujoco.mjtGain, mujoco.mjtBias, mujoco.mjtTrn
_DIRECT = (int(_TRN.mjTRN_JOINT), int(_TRN.mjTRN_JOINTINPARENT))
_SO3 = int(_TRN.mjTRN_SO3)
_DC = int(_GAIN.mjGAIN_DCMOTOR)
_CONTROLLERS = (int(_GAIN.mjGAIN_PID), _DC)
_PEAK = (2, 3)  # of a muscle: its peak force, and what gives it where that is negative
_GAINS: dict[int, tuple[int, ...]] = {
    **dict.fromkeys((int(_GAIN.mjGAIN_FIXED), int(_GAIN.mjGAIN_PID), int(_GAIN.mjGAIN_SO3)), (0,)),
    **{int(_GAIN.mjGAIN_AFFINE): (0, 1, 2), int(_GAIN.mjGAIN_MUSCLE): _PEAK, _DC: (4, 5, 6)},
}
_BIASES: dict[int, tuple[int, ...]] = {
    **dict.fromkeys((int(_BIAS.mjBIAS_NONE), int(_BIAS.mjBIAS_DCMOTOR)), ()),
    **dict.fromkeys((int(_BIAS.mjBIAS_AFFINE), int(_BIAS.mjBIAS_SO3)), (0, 1, 2)),
    int(_BIAS.mjBIAS_MUSCLE): _PEAK,
}
_PROPORTIONAL: tuple[tuple[str, str, dict[int, tuple[int, ...]], bool], ...] = (
    ("actuator_gainprm", "actuator_gaintype", _GAINS, False),
    ("actuator_biasprm", "actuator_biastype", _BIASES, False),
    ("actuator_dynprm", "actuator_dyntype", {int(mujoco.mjtDyn.mjDYN_DCMOTOR): (1, 3)}, False),
    ("actuator_gainprm", "actuator_gaintype", {_DC: (0,)}, True),
    ("actuator_dynprm", "actuator_gaintype", {_DC: (2,)}, True),
)
"""Of each field, by an actuator's type, the numbers that its force is proportional to, or to one over them (the
electrical and the thermal resistance of a DC motor, which grow as it weakens)."""
_LEAST = 1e-9  # what is left of a dead motor whose resistance would be infinite, or whose states would be missing
_FEEDFORWARD = 4  # bit of `actuator_ctrlspec`: mjINPUT_FF, which the bindings do not export
_LOCK = 1e4  # [N·m]: far above any motor here; a friction-loss constraint, so the solver stays well conditioned
_HARD = (0.9999, 0.9999, 0.001, 0.5, 2.0)  # solimp at MuJoCo's limit: at its default 0.9 the lock creeps [rad/s]
_FORCE = ("actuator_gainprm", "actuator_biasprm", "actuator_dynprm")
_LIMITS = ("actuator_forcerange", "jnt_actfrcrange", "tendon_actfrcrange")


@dataclass(frozen=True)
class MotorStrength(OfOneRatio):
    """Force of actuators at the same state and control: gain, bias and all force limits scale together.

    So servos weaken as motors do. Damping and armature of an actuator are no force of its own, and stay.
    """

    actuators: tuple[str, ...] | None = None
    """Names; None for every actuator."""
    fields: tuple[str, ...] = (*_FORCE, *_LIMITS)

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N *d"]) -> None:
        """`value`: ratio to the pristine force."""
        motors = object_ids(model, "actuator", self.actuators)
        entries = forces(model, motors) + limits(model, motors, together=True)
        weaken(live, entries, value[:, None].expand(-1, len(motors)))


@dataclass(frozen=True)
class MotorSigns(OfOneParameter):
    """Which way motors turn their joints, by the sign of their gears. Of a servo, target and force both turn round."""

    actuators: tuple[str, ...]
    fields: tuple[str, ...] = ("actuator_gear",)

    def require(self, model: mujoco.MjModel, tasks: Tasks) -> None:
        """See `Variation`."""
        signs, number = tasks[self.parameter], len(self.actuators)
        if signs.shape[1:] != (number,) or not bool((signs.abs() == 1.0).all()):
            raise UserError(f"task parameter '{self.parameter}' must be a sign, 1 or -1, for each of {number} motors")

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N d"]) -> None:
        """`value`: the signs, in the order of `actuators`."""
        motors = constant(object_ids(model, "actuator", self.actuators), value.device)
        live["actuator_gear"][:, motors, 0] *= value


@dataclass(frozen=True)
class WeakMotor:
    """One of several motors has lost part of its force: gain, bias and force limits, as in `MotorStrength`."""

    motor: str
    """The task parameter that tells which: an index into `actuators`, -1 for none."""
    strength: str
    """The task parameter that tells what is left of its force, 0 (dead) to 1."""
    actuators: tuple[str, ...]
    fields: tuple[str, ...] = MotorStrength.fields
    scales: ClassVar[bool] = True

    @property
    def parameters(self) -> tuple[str, ...]:
        """Both."""
        return (self.motor, self.strength)

    @property
    def indices(self) -> Mapping[str, range]:
        """The motor's."""
        return {self.motor: range(-1, len(self.actuators))}

    def require(self, model: mujoco.MjModel, tasks: Tasks) -> None:
        """See `Variation`."""
        require_ratio(self.strength, tasks[self.strength])

    def apply(self, model: mujoco.MjModel, live: Mapping[str, Tensor], tasks: Tasks) -> None:
        """See `Variation.apply`."""
        motors, weak = object_ids(model, "actuator", self.actuators), tasks[self.motor]
        is_weak = weak.round()[:, None] == torch.arange(len(motors), device=weak.device)
        entries = forces(model, motors) + limits(model, motors, together=False)
        weaken(live, entries, torch.where(is_weak, tasks[self.strength][:, None], 1.0))


@dataclass(frozen=True)
class JointFault(OfOneParameter):
    """One of several joints is broken: its motor is `dead`, or the joint is `locked` where the episode begins."""

    joints: tuple[str | tuple[str, ...], ...]
    """What may break, a joint or several joints at once; the parameter is an index into it, -1 for none."""
    mode: Literal["dead", "locked"] = "dead"

    @property
    def fields(self) -> tuple[str, ...]:
        """A dead motor has no gain or bias; a locked joint has hard friction that no motor can overcome."""
        return _FORCE if self.mode == "dead" else ("dof_frictionloss", "dof_solimp")

    @property
    def indices(self) -> Mapping[str, range]:
        """The joint's."""
        return {self.parameter: range(-1, len(self.joints))}

    def require(self, model: mujoco.MjModel, tasks: Tasks) -> None:
        """See `Variation`."""
        for number in range(len(self.joints)):
            self.joints_of(model, number)
        if self.mode == "locked" and model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_FRICTIONLOSS:
            raise UserError("no joint can be locked, as the model's option flag disables frictionloss: enable it")

    @property
    def scales(self) -> bool:
        """A dead motor does; see `Variation`."""
        return self.mode == "dead"

    def joints_of(self, model: mujoco.MjModel, number: int) -> tuple[int, ...]:
        """Indices of the joints that are number `number`; `UserError` names an unknown one."""
        names = self.joints[number]
        return object_ids(model, "joint", (names,) if isinstance(names, str) else names)

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N *d"]) -> None:
        """`value`: index of what is broken, -1 for none."""
        for number in range(len(self.joints)):
            joints, broken = self.joints_of(model, number), value.round() == number
            if self.mode == "locked":
                lock(live, constant(dofs(model, joints), value.device), broken[:, None])
            else:
                motors = own_motors(model, joints)
                weaken(live, forces(model, motors), (~broken)[:, None].to(value.dtype).expand(-1, len(motors)))


def lock(
    live: Mapping[str, Tensor],
    index: Int64[Tensor, "n"],
    broken: Bool[Tensor, "N m"],
    impedance: tuple[float, ...] = _HARD,
) -> None:
    """Stop degrees of freedom in the worlds where they are `broken`, each or (m = 1) all together."""
    loss, solimp = live["dof_frictionloss"], live["dof_solimp"]
    loss[:, index] += _LOCK * broken.to(loss.dtype)
    hard = constant(impedance, solimp.device, solimp.dtype)
    solimp[:, index] = torch.where(broken[:, :, None], hard, solimp[:, index])


@lru_cache(maxsize=32)
def own_motors(model: mujoco.MjModel, joints: tuple[int, ...]) -> tuple[int, ...]:
    """Actuators that act on one of the joints, not through a tendon or site; `UserError` for a joint without one."""
    own = {
        i: target
        for i, (kind, (target, other)) in enumerate(_transmissions(model))
        if target in joints and (kind in _DIRECT or (kind == _SO3 and other < 0))
    }
    for joint in set(joints) - set(own.values()):
        through = [label(model, "actuator", i) for i in range(model.nactuator) if joint in driven_joints(model, i)]
        what = f"only {', '.join(through)} moves it with others: use WeakMotor" if through else "nothing drives it"
        raise UserError(f"{label(model, 'joint', joint)} has no motor of its own that could be dead: {what}")
    return tuple(own)


def _transmissions(model: mujoco.MjModel) -> list[tuple[int, list[int]]]:
    """Kind and two targets of every actuator."""
    return list(zip(model.actuator_trntype.tolist(), model.actuator_trnid.tolist(), strict=True))


def driven_joints(model: mujoco.MjModel, actuator: int) -> set[int]:
    """Joints on which the actuator can exert a force."""
    kind, (target, other) = _transmissions(model)[actuator]
    if kind == int(_TRN.mjTRN_TENDON):
        return tendon_joints(model, target)
    if kind == int(_TRN.mjTRN_BODY):
        return joints_between(model, (0, target))
    if kind in (int(_TRN.mjTRN_SLIDERCRANK), int(_TRN.mjTRN_SITE)) or (kind == _SO3 and other >= 0):
        bodies = (int(model.site_bodyid[target]), int(model.site_bodyid[other]) if other >= 0 else 0)
        return joints_between(model, bodies)
    return {target}


class Entries(NamedTuple):
    """Single numbers of one field, to be scaled each by the factor of an actuator."""

    field: str
    inverse: bool
    """They are divided by the factor."""
    elements: tuple[int, ...]
    columns: tuple[int, ...]
    positions: tuple[int, ...]
    """Of each number's actuator among the chosen."""
    least: tuple[float, ...]
    """Of each number, the smallest factor that it bears."""


def weaken(live: Mapping[str, Tensor], entries: tuple[Entries, ...], factor: Float[Tensor, "N n"]) -> None:
    """Scale numbers by `factor` per world and actuator; a field that is not there is zero, and stays."""
    device = factor.device
    for field, inverse, elements, columns, positions, least in entries:
        if field in live:
            own = factor[:, constant(positions, device)]
            if any(least):
                own = torch.maximum(own, constant(least, device, own.dtype))
            live[field][:, constant(elements, device), constant(columns, device)] *= 1.0 / own if inverse else own


@lru_cache(maxsize=32)
def forces(model: mujoco.MjModel, motors: tuple[int, ...]) -> tuple[Entries, ...]:
    """What the forces of actuators ahead of any limit are proportional to; `UserError` where it is not known."""
    for motor in motors:
        _require_known(model, motor)
    # MuJoCo takes a controller whose gain is zero for one without the gain's state.
    least = [_LEAST if int(model.actuator_gaintype[motor]) in _CONTROLLERS else 0.0 for motor in motors]
    found = []
    for field, by, columns, inverse in _PROPORTIONAL:
        kinds = getattr(model, by).tolist()
        rows = [(motor, i, at, least[at]) for at, motor in enumerate(motors) for i in columns.get(kinds[motor], ())]
        if rows:
            found.append(Entries(field, inverse, *_columns(rows)))
    return tuple(found)


def _columns(rows: list[tuple[int, int, int, float]]) -> Any:
    return zip(*rows, strict=True)


def _require_known(model: mujoco.MjModel, actuator: int) -> None:
    """`UserError` for an actuator whose force cannot be scaled."""
    name, gain = label(model, "actuator", actuator), int(model.actuator_gaintype[actuator])
    is_plugin, bias = model.actuator_plugin[actuator] >= 0, int(model.actuator_biastype[actuator])
    if is_plugin or gain not in _GAINS or bias not in _BIASES:
        kind = "a plugin" if is_plugin else "of type 'user'"
        raise UserError(f"the strength of {name} cannot vary, as it is {kind} and its force is computed by a program")
    if gain in _CONTROLLERS and model.actuator_ctrlspec[actuator] & _FEEDFORWARD:
        raise UserError(
            f"the strength of {name} cannot vary, as its input 'ff' feeds a force forward that no gain scales: leave "
            "'ff' out, and use a motor for it"
        )
    for joint in driven_joints(model, actuator):
        if model.jnt_actgravcomp[joint]:
            raise UserError(
                f"the strength of {name} cannot vary, as {label(model, 'joint', joint)} has actuatorgravcomp, so that "
                "a force which no gain scales counts as its own: leave it out"
            )


@lru_cache(maxsize=32)
def limits(model: mujoco.MjModel, motors: tuple[int, ...], *, together: bool) -> tuple[Entries, ...]:
    """Force limits at actuators, joints and tendons that bound the actuators.

    `UserError` where a limit bounds the sum of several forces that do not vary `together`.
    """
    driven = [driven_joints(model, i) for i in range(model.nactuator)]
    pulled = [{target} if kind == int(_TRN.mjTRN_TENDON) else set() for kind, (target, _) in _transmissions(model)]
    bounds = {"actuator_forcerange": [(motor, at) for at, motor in enumerate(motors)]}
    for field, kind, limited, acts_on in (
        ("jnt_actfrcrange", "joint", model.jnt_actfrclimited, driven),
        ("tendon_actfrcrange", "tendon", model.tendon_actfrclimited, pulled),
    ):
        bounds[field] = []
        for element in limited.nonzero()[0].tolist():
            acting = [i for i in range(model.nactuator) if element in acts_on[i]]
            varied = [i for i in acting if i in motors]
            if varied and len(acting) > 1 and not (together and varied == acting):
                names = ", ".join(label(model, "actuator", i) for i in acting)
                raise UserError(
                    f"actuatorfrcrange of {label(model, kind, element)} limits the sum of {names}, which do not vary "
                    "together: vary them all by one MotorStrength, or give each actuator a forcerange instead"
                )
            bounds[field] += [(element, motors.index(i)) for i in varied[:1]]
    ends = {field: [(i, end, at, 0.0) for i, at in found for end in (0, 1)] for field, found in bounds.items()}
    return tuple(Entries(field, False, *_columns(rows)) for field, rows in ends.items() if rows)
