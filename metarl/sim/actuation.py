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
from typing import Literal

import mujoco
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.tasks import Tasks
from metarl.sim.variation import (
    OfOneParameter,
    dofs,
    ids,
    joints_between,
    label,
    require_index,
    require_ratio,
    tendon_joints,
)

_GAIN, _BIAS, _TRN = mujoco.mjtGain, mujoco.mjtBias, mujoco.mjtTrn
_DIRECT = (int(_TRN.mjTRN_JOINT), int(_TRN.mjTRN_JOINTINPARENT))
_SO3 = int(_TRN.mjTRN_SO3)
_PEAK = (2, 3)  # of a muscle: its peak force, and what gives it where that is negative
_ENTRIES: dict[str, dict[int, tuple[int, ...]]] = {
    "actuator_gainprm": {
        int(_GAIN.mjGAIN_FIXED): (0,),
        int(_GAIN.mjGAIN_AFFINE): (0, 1, 2),
        int(_GAIN.mjGAIN_PID): (0,),
        int(_GAIN.mjGAIN_SO3): (0,),
        int(_GAIN.mjGAIN_MUSCLE): _PEAK,
        int(_GAIN.mjGAIN_DCMOTOR): (4, 5, 6),
    },
    "actuator_biasprm": {
        int(_BIAS.mjBIAS_NONE): (),
        int(_BIAS.mjBIAS_AFFINE): (0, 1, 2),
        int(_BIAS.mjBIAS_SO3): (0, 1, 2),
        int(_BIAS.mjBIAS_MUSCLE): _PEAK,
        int(_BIAS.mjBIAS_DCMOTOR): (),
    },
    "actuator_dynprm": {int(mujoco.mjtDyn.mjDYN_DCMOTOR): (1, 3)},
}
"""Of each field and type, the numbers that the force is proportional to."""
_TYPES = {
    "actuator_gainprm": "actuator_gaintype",
    "actuator_biasprm": "actuator_biastype",
    "actuator_dynprm": "actuator_dyntype",
}
_INVERSE = (("actuator_gainprm", 0), ("actuator_dynprm", 2))
"""Of a DC motor, its electrical and its thermal resistance, which grow as it weakens."""
_LEAST = 1e-9  # what is left of a dead motor whose resistance would be infinite, or whose states would be missing
_FEEDFORWARD = 4  # bit of `actuator_ctrlspec`: mjINPUT_FF, which the bindings do not export
_LOCK = 1e4  # [N·m]: far above any motor here; a friction-loss constraint, so the solver stays well conditioned
_HARD = (0.9999, 0.9999, 0.001, 0.5, 2.0)  # solimp at MuJoCo's limit: at its default 0.9 the lock creeps [rad/s]
_FORCE = tuple(_ENTRIES)
_LIMITS = ("actuator_forcerange", "jnt_actfrcrange", "tendon_actfrcrange")


@dataclass(frozen=True)
class MotorStrength(OfOneParameter):
    """Force of actuators at the same state and control: gain, bias and all force limits scale together.

    So servos weaken as motors do. Damping and armature of an actuator are no force of its own, and stay.
    """

    actuators: tuple[str, ...] | None = None
    """Names; None for every actuator."""
    fields: tuple[str, ...] = (*_FORCE, *_LIMITS)

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N *d"]) -> None:
        """`value`: ratio to the pristine force."""
        require_ratio(self.parameter, value)
        index = ids(model, "actuator", self.actuators)
        factor = value[:, None].expand(-1, len(index))
        _weaken(model, live, index, factor)
        _weaken_limits(model, live, index, factor, together=True)


@dataclass(frozen=True)
class WeakMotor:
    """One of several motors has lost part of its force: gain, bias and force limits, as in `MotorStrength`."""

    motor: str
    """The task parameter that tells which: an index into `actuators`, -1 for none."""
    strength: str
    """The task parameter that tells what is left of its force, 0 (dead) to 1."""
    actuators: tuple[str, ...]
    fields: tuple[str, ...] = MotorStrength.fields

    @property
    def parameters(self) -> tuple[str, ...]:
        """Both."""
        return (self.motor, self.strength)

    @property
    def indices(self) -> Mapping[str, range]:
        """The motor's."""
        return {self.motor: range(-1, len(self.actuators))}

    def apply(self, model: mujoco.MjModel, live: Mapping[str, Tensor], tasks: Tasks) -> None:
        """See `Variation.apply`."""
        require_ratio(self.strength, tasks[self.strength])
        weak = require_index(self.motor, tasks[self.motor], self.indices[self.motor])
        index = ids(model, "actuator", self.actuators)
        is_weak = weak[:, None] == torch.arange(len(index), device=weak.device)
        factor = torch.where(is_weak, tasks[self.strength][:, None], 1.0)
        _weaken(model, live, index, factor)
        _weaken_limits(model, live, index, factor, together=False)


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

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N *d"]) -> None:
        """`value`: index of what is broken, -1 for none."""
        groups = [ids(model, "joint", (names,) if isinstance(names, str) else names) for names in self.joints]
        fault = require_index(self.parameter, value, self.indices[self.parameter])
        for number, joints in enumerate(groups):
            broken = fault == number
            if self.mode == "locked":
                _lock(model, live, dofs(model, joints), broken)
                continue
            motors = sorted({motor for joint in joints.tolist() for motor in own_motors(model, joint)})
            _weaken(model, live, torch.tensor(motors), (~broken)[:, None].to(value.dtype).expand(-1, len(motors)))


def _lock(model: mujoco.MjModel, live: Mapping[str, Tensor], index: Int64[Tensor, "n"], broken: Tensor) -> None:
    """Stop the chosen degrees of freedom in the worlds `broken`."""
    if model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_FRICTIONLOSS:
        raise UserError("no joint can be locked, as the model's option flag disables frictionloss: enable it")
    loss, impedance = live["dof_frictionloss"], live["dof_solimp"]
    loss[:, index] += _LOCK * broken[:, None].to(loss.dtype)
    hard = impedance.new_tensor(_HARD)
    impedance[:, index] = torch.where(broken[:, None, None], hard, impedance[:, index])


def own_motors(model: mujoco.MjModel, joint: int) -> list[int]:
    """Actuators that act on the joint itself, not through a tendon or site; `UserError` where there are none."""
    found = []
    for i, (kind, (target, other)) in enumerate(_transmissions(model)):
        if target == joint and (kind in _DIRECT or (kind == _SO3 and other < 0)):
            found.append(i)
    if not found:
        through = [label(model, "actuator", i) for i in range(model.nactuator) if joint in driven_joints(model, i)]
        what = f"only {', '.join(through)} moves it with others: use WeakMotor" if through else "nothing drives it"
        raise UserError(f"{label(model, 'joint', joint)} has no motor of its own that could be dead: {what}")
    return found


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


def _weaken(
    model: mujoco.MjModel, live: Mapping[str, Tensor], index: Int64[Tensor, "n"], factor: Float[Tensor, "N n"]
) -> None:
    """Scale the forces of actuators ahead of any limit: `factor` per world, and per actuator or of all."""
    masks = _force_entries(model, tuple(index.tolist()))
    is_dc = torch.from_numpy(model.actuator_gaintype[index.numpy()] == int(_GAIN.mjGAIN_DCMOTOR))
    is_pid = torch.from_numpy(model.actuator_gaintype[index.numpy()] == int(_GAIN.mjGAIN_PID))
    # MuJoCo takes a controller whose gain is zero for one without the gain's state.
    factor = torch.where(is_dc | is_pid, factor.clamp(min=_LEAST), factor)
    for field, mask in masks.items():
        live[field][:, index] *= torch.where(mask, factor[:, :, None], 1.0)
    if bool(is_dc.any()):
        for field, entry in _INVERSE:
            live[field][:, index, entry] *= torch.where(is_dc, 1.0 / factor, 1.0)


@lru_cache(maxsize=64)
def _force_entries(model: mujoco.MjModel, actuators: tuple[int, ...]) -> dict[str, Tensor]:
    """For each field, which numbers of each actuator (n, 10) its force is proportional to; `UserError` if not known."""
    for actuator in actuators:
        _require_known(model, actuator)
    masks = {}
    for field, entries in _ENTRIES.items():
        masks[field] = torch.zeros(len(actuators), getattr(model, field).shape[1], dtype=torch.bool)
        for row, actuator in enumerate(actuators):
            masks[field][row, list(entries.get(int(getattr(model, _TYPES[field])[actuator]), ()))] = True
    return masks


def _require_known(model: mujoco.MjModel, actuator: int) -> None:
    """`UserError` for an actuator whose force cannot be scaled."""
    name, gain = label(model, "actuator", actuator), int(model.actuator_gaintype[actuator])
    known = gain in _ENTRIES["actuator_gainprm"]
    known &= int(model.actuator_biastype[actuator]) in _ENTRIES["actuator_biasprm"]
    if not known or model.actuator_plugin[actuator] >= 0:
        kind = "a plugin" if model.actuator_plugin[actuator] >= 0 else "of type 'user'"
        raise UserError(f"the strength of {name} cannot vary, as it is {kind} and its force is computed by a program")
    controllers = (int(_GAIN.mjGAIN_PID), int(_GAIN.mjGAIN_DCMOTOR))
    if gain in controllers and model.actuator_ctrlspec[actuator] & _FEEDFORWARD:
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


def _weaken_limits(
    model: mujoco.MjModel,
    live: Mapping[str, Tensor],
    index: Int64[Tensor, "n"],
    factor: Float[Tensor, "N n"],
    *,
    together: bool,
) -> None:
    """Scale the force limits at actuators, joints and tendons, by `factor` per world and actuator."""
    live["actuator_forcerange"][:, index] *= factor[:, :, None]
    for field, (elements, rows) in _shared_limits(model, tuple(index.tolist()), together).items():
        live[field][:, elements] *= factor[:, rows, None]


@lru_cache(maxsize=64)
def _shared_limits(
    model: mujoco.MjModel, actuators: tuple[int, ...], together: bool
) -> dict[str, tuple[list[int], list[int]]]:
    """Limits at joints and at tendons (their indices) that bound varied actuators (for each, a position of one).

    `UserError` where a limit bounds the sum of several forces that do not vary `together`.
    """
    driven = [driven_joints(model, i) for i in range(model.nactuator)]
    pulled = [{target} if kind == int(_TRN.mjTRN_TENDON) else set() for kind, (target, _) in _transmissions(model)]
    limits = {}
    for field, kind, limited, acts_on in (
        ("jnt_actfrcrange", "joint", model.jnt_actfrclimited, driven),
        ("tendon_actfrcrange", "tendon", model.tendon_actfrclimited, pulled),
    ):
        elements, rows = [], []
        for element in limited.nonzero()[0].tolist():
            acting = [i for i in range(model.nactuator) if element in acts_on[i]]
            varied = [i for i in acting if i in actuators]
            if varied and len(acting) > 1 and not (together and varied == acting):
                names = ", ".join(label(model, "actuator", i) for i in acting)
                raise UserError(
                    f"actuatorfrcrange of {label(model, kind, element)} limits the sum of {names}, which do not vary "
                    "together: vary them all by one MotorStrength, or give each actuator a forcerange instead"
                )
            if varied:
                elements.append(element)
                rows.append(actuators.index(varied[0]))
        limits[field] = (elements, rows)
    return limits


def require_own_muscle_force(model: mujoco.MjModel, what: str) -> None:
    """`UserError` for a muscle whose peak force MuJoCo derives from the robot's masses, which `what` changes."""
    for i in (model.actuator_gaintype == int(_GAIN.mjGAIN_MUSCLE)).nonzero()[0].tolist():
        force, strength = model.actuator_gainprm[i, _PEAK]
        if force < 0:
            own = strength / max(float(model.actuator_acc0[int(model.actuator_outadr[i])]), mujoco.mjMINVAL)
            raise UserError(
                f"{what} would change the force of {label(model, 'actuator', i)}, a muscle whose peak force MuJoCo "
                f'derives from the masses: give it its own, force="{own:g}"'
            )
