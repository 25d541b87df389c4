"""Variations of motors: broken in one of several ways, of another strength in each limb, servos with other gains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import mujoco
import torch
from jaxtyping import Float
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
        for motor in object_ids(model, "actuator", self.actuators):
            joint = int(model.actuator_trnid[motor, 0])
            low, high = model.actuator_ctrlrange[motor]
            affine = model.actuator_biastype[motor] == int(mujoco.mjtBias.mjBIAS_AFFINE)
            fixed = model.actuator_gaintype[motor] == int(mujoco.mjtGain.mjGAIN_FIXED)
            if motor not in own_motors(model, (joint,)) or not fixed or not (affine or low == -high):
                raise UserError(
                    f"{label(model, 'actuator', motor)} cannot break: it must be a motor or a servo on a joint of its "
                    "own, and a motor's ctrlrange symmetric"
                )

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
        index, turned = constant(motors, device), is_it & (kind == FAULTS.index("reversed"))
        gain, bias = live["actuator_gainprm"], live["actuator_biasprm"]
        ends = tuple((model.actuator_ctrlrange[motors, 0] + model.actuator_ctrlrange[motors, 1]).tolist())
        own = gain[:, index, 0]
        bias[:, index, 0] += turned * own * constant(ends, device, own.dtype)
        gain[:, index, 0] = torch.where(turned, -own, own)


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
        motors = object_ids(model, "actuator", tuple(name for limb in self.limbs for name in limb))
        places = tuple(place for place, limb in enumerate(self.limbs) for _ in limb)
        entries = forces(model, motors) + limits(model, motors, together=False)
        weaken(live, entries, value[:, constant(places, value.device)])


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
