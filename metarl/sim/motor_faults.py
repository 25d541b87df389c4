"""Variations of motors: broken in one of several ways, of another strength in each limb, servos with other gains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.tasks import Tasks
from metarl.sim.actuation import MotorStrength, forces, limits, lock, own_motors, weaken
from metarl.sim.variation import OfOneParameter, OfOneRatio, constant, dofs, label, object_ids

FAULTS = ("dead", "locked", "reversed", "dead limb")
"""How a motor may be broken: it exerts nothing; it has seized, and its joint stays where it is; its control is mirrored
in its range; it and the other motors of its limb exert nothing."""
_SEIZED = (0.99, 0.99, 0.001, 0.5, 2.0)  # solimp of a joint that locks in motion: a harder one may diverge


@dataclass(frozen=True)
class MotorFault:
    """One of several motors is broken, in one of the ways of `FAULTS`."""

    kind: str
    """The task parameter that tells how: an index into `FAULTS`."""
    motor: str
    """The task parameter that tells which: an index into `actuators`, -1 for none."""
    actuators: tuple[str, ...]
    """Each on a joint of its own, limb by limb."""
    limb: int = 1
    """Motors of a limb."""
    fields: tuple[str, ...] = (*MotorStrength.fields[:3], "dof_frictionloss", "dof_solimp")

    @property
    def parameters(self) -> tuple[str, ...]:
        """Both."""
        return (self.kind, self.motor)

    @property
    def indices(self) -> Mapping[str, range]:
        """Of both."""
        return {self.kind: range(len(FAULTS)), self.motor: range(-1, len(self.actuators))}

    def require(self, model: mujoco.MjModel, tasks: Tasks) -> None:
        """See `Variation`."""
        _require_limited(model, object_ids(model, "actuator", self.actuators))

    def apply(self, model: mujoco.MjModel, live: Mapping[str, Tensor], tasks: Tasks) -> None:
        """See `Variation.apply`."""
        motors, kind = object_ids(model, "actuator", self.actuators), tasks[self.kind].round()[:, None]
        broken, device = tasks[self.motor].round().long()[:, None], kind.device
        every = torch.arange(len(motors), device=device)
        is_it = every == broken
        in_limb = (every // self.limb == broken // self.limb) & (broken >= 0)
        locked = is_it & (kind == FAULTS.index("locked"))
        dead = (is_it & (kind == FAULTS.index("dead"))) | (in_limb & (kind == FAULTS.index("dead limb"))) | locked
        weaken(live, forces(model, motors), (~dead).to(kind.dtype))
        joints = tuple(dofs(model, model.actuator_trnid[[motor], 0].tolist())[0] for motor in motors)
        lock(live, constant(joints, device), locked, _SEIZED)
        _turn(model, live, motors, is_it & (kind == FAULTS.index("reversed")))


def _turn(
    model: mujoco.MjModel, live: Mapping[str, Tensor], motors: tuple[int, ...], turned: Bool[Tensor, "N m"]
) -> None:
    """Mirror the controls of motors in their ranges."""
    index, gain, bias = constant(motors, turned.device), live["actuator_gainprm"], live["actuator_biasprm"]
    ends = tuple((model.actuator_ctrlrange[motors, 0] + model.actuator_ctrlrange[motors, 1]).tolist())
    own = gain[:, index, 0]
    bias[:, index, 0] += turned * own * constant(ends, turned.device, own.dtype)
    gain[:, index, 0] = torch.where(turned, -own, own)


def _require_limited(model: mujoco.MjModel, motors: tuple[int, ...]) -> None:
    """`UserError` for motors that are neither plain motors nor servos, or have a joint with other motors."""
    for motor in motors:
        joint = int(model.actuator_trnid[motor, 0])
        low, high = model.actuator_ctrlrange[motor]
        affine = model.actuator_biastype[motor] == int(mujoco.mjtBias.mjBIAS_AFFINE)
        fixed = model.actuator_gaintype[motor] == int(mujoco.mjtGain.mjGAIN_FIXED)
        if motor not in own_motors(model, (joint,)) or not fixed or not (affine or low == -high):
            raise UserError(
                f"{label(model, 'actuator', motor)} cannot break: it must be a motor or a servo on a joint of its "
                "own, and a motor's ctrlrange symmetric"
            )


@dataclass(frozen=True)
class LimbSigns(OfOneParameter):
    """Which way the motors of each limb turn: of one of sign -1 every control is mirrored in its range."""

    limbs: tuple[tuple[str, ...], ...]
    """Actuators of each limb, each on a joint of its own."""
    fields: tuple[str, ...] = ("actuator_gainprm", "actuator_biasprm")

    def require(self, model: mujoco.MjModel, tasks: Tasks) -> None:
        """See `Variation`."""
        signs, number = tasks[self.parameter], len(self.limbs)
        if signs.shape[1:] != (number,) or not bool((signs.abs() == 1.0).all()):
            raise UserError(f"task parameter '{self.parameter}' must be a sign, 1 or -1, for each of {number} limbs")
        _require_limited(model, _motors(model, self.limbs))

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N n"]) -> None:
        """`value`: the sign of each limb."""
        _turn(model, live, _motors(model, self.limbs), value[:, _limb_of_each(self.limbs, value.device)] < 0)


def _motors(model: mujoco.MjModel, limbs: tuple[tuple[str, ...], ...]) -> tuple[int, ...]:
    """Actuators of all limbs, limb by limb."""
    return object_ids(model, "actuator", tuple(name for limb in limbs for name in limb))


def _limb_of_each(limbs: tuple[tuple[str, ...], ...], device: torch.device) -> Tensor:
    """For each of these actuators the index of its limb."""
    return constant(tuple(place for place, limb in enumerate(limbs) for _ in limb), device)


@dataclass(frozen=True)
class LimbStrength(OfOneParameter):
    """Force of the motors of each limb: gain, bias and force limits scale together, as in `MotorStrength`."""

    limbs: tuple[tuple[str, ...], ...]
    """Actuators of each limb."""
    fields: tuple[str, ...] = MotorStrength.fields

    def require(self, model: mujoco.MjModel, tasks: Tasks) -> None:
        """See `Variation`."""
        value, number = tasks[self.parameter], len(self.limbs)
        if value.shape[1:] != (number,) or bool((value < 0).any()):
            raise UserError(
                f"task parameter '{self.parameter}' must be a ratio, not negative, for each of {number} limbs"
            )

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N n"]) -> None:
        """`value`: ratio of each limb to the pristine force."""
        motors = _motors(model, self.limbs)
        entries = forces(model, motors) + limits(model, motors, together=False)
        weaken(live, entries, value[:, _limb_of_each(self.limbs, value.device)])


@dataclass(frozen=True)
class ServoGain(OfOneRatio):
    """Gain of position servos: P, force per angle, or D, force against velocity. Force limits stay."""

    gain: Literal["P", "D"]
    actuators: tuple[str, ...] | None = None
    """Names; None for every actuator."""
    fields: tuple[str, ...] = ("actuator_gainprm", "actuator_biasprm")

    def require(self, model: mujoco.MjModel, tasks: Tasks) -> None:
        """See `Variation`."""
        super().require(model, tasks)
        for motor in object_ids(model, "actuator", self.actuators):
            fixed = model.actuator_gaintype[motor] == int(mujoco.mjtGain.mjGAIN_FIXED)
            if not (fixed and model.actuator_gainprm[motor, 0] == -model.actuator_biasprm[motor, 1] != 0):
                raise UserError(
                    f"{label(model, 'actuator', motor)} is no position servo, which alone has gains P and D"
                )

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N *d"]) -> None:
        """`value`: ratio to the pristine gain."""
        motors = constant(object_ids(model, "actuator", self.actuators), value.device)
        if self.gain == "D":
            live["actuator_biasprm"][:, motors, 2] *= value[:, None]
            return
        live["actuator_gainprm"][:, motors, 0] *= value[:, None]
        live["actuator_biasprm"][:, motors, :2] *= value[:, None, None]
