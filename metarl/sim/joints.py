"""Variations of joints: what damps them, what their motors' rotors weigh, how they rub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import mujoco
from jaxtyping import Float
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.tasks import Tasks
from metarl.sim.variation import (
    OfOneParameter,
    OfOneRatio,
    constant,
    dofs,
    label,
    object_ids,
    require_ratio,
    scale,
    tendon_joints,
)

_OWNERS = ("dof", "actuator", "tendon")
_SINGLE = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))


@dataclass(frozen=True)
class OfJoints(OfOneRatio):
    """A ratio of something that joints have, and that motors and tendons add to them."""

    quantities: ClassVar[tuple[str, ...]]
    """What MuJoCo calls it, behind `dof_`, `actuator_` and `tendon_`."""
    joints: tuple[str, ...] | None = None
    """Names; None for every joint."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Of joints, motors and tendons."""
        return tuple(f"{owner}_{quantity}" for owner in _OWNERS for quantity in self.quantities)

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N *d"]) -> None:
        """`value`: ratio to the pristine numbers."""
        chosen = object_ids(model, "joint", self.joints)
        for owner, numbers in _owners(model, chosen, self.quantities).items():
            for quantity in self.quantities:
                scale(live, f"{owner}_{quantity}", numbers, value)


@dataclass(frozen=True)
class JointDamping(OfJoints):
    """Viscous damping of joints: every coefficient of its polynomial, and those of the motors and tendons upon them.

    Feedback on velocity (`kv`, a damper's or a DC motor's) is the motor's force, and stays.
    """

    quantities = ("damping", "dampingpoly")


@dataclass(frozen=True)
class Armature(OfJoints):
    """Inertia of rotors as joints feel it: that of joints, and of the motors and tendons upon them."""

    quantities = ("armature",)


@lru_cache(maxsize=32)
def _owners(model: mujoco.MjModel, joints: tuple[int, ...], quantities: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Degrees of freedom, tendons and actuators of these joints; `UserError` for a tendon of others too."""
    tendons = []
    for tendon in range(model.ntendon):
        moving = tendon_joints(model, tendon)
        if moving and moving.issubset(joints):
            tendons.append(tendon)
        elif moving.intersection(joints) and _has(model, tendon, quantities):
            others = ", ".join(label(model, "joint", joint) for joint in sorted(moving.difference(joints)))
            what = "damps" if "damping" in quantities else f"has an {quantities[0]}, and moves"
            raise UserError(
                f"{label(model, 'tendon', tendon)} {what} varied joints together with {others}: vary their "
                f"{quantities[0]} too, or give the joints one of their own"
            )
    kinds = mujoco.mjtTrn
    onto = {int(kinds.mjTRN_JOINT): joints, int(kinds.mjTRN_JOINTINPARENT): joints, int(kinds.mjTRN_TENDON): tendons}
    targets = zip(model.actuator_trntype.tolist(), model.actuator_trnid[:, 0].tolist(), strict=True)
    motors = [motor for motor, (kind, target) in enumerate(targets) if target in onto.get(kind, ())]
    return {"dof": dofs(model, joints), "tendon": tuple(tendons), "actuator": tuple(motors)}


def _has(model: mujoco.MjModel, tendon: int, quantities: tuple[str, ...]) -> bool:
    """The tendon, or a motor upon it, has some of it."""
    onto = (model.actuator_trntype == int(mujoco.mjtTrn.mjTRN_TENDON)) & (model.actuator_trnid[:, 0] == tendon)
    own = any(getattr(model, f"tendon_{quantity}")[tendon].any() for quantity in quantities)
    return own or any(bool(getattr(model, f"actuator_{quantity}")[onto].any()) for quantity in quantities)


@dataclass(frozen=True)
class FrictionLoss(OfOneParameter):
    """Dry friction of joints, added to what they have: a torque that holds a joint still until more pushes it."""

    joints: tuple[str, ...] | None = None
    """Names, of hinges and slides; None for all of those."""
    fields: tuple[str, ...] = ("dof_frictionloss",)

    def require(self, model: mujoco.MjModel, tasks: Tasks) -> None:
        """See `Variation`."""
        require_ratio(self.parameter, tasks[self.parameter], "a friction")

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N *d"]) -> None:
        """`value`: what is added [N·m, N]."""
        joints = object_ids(model, "joint", self.joints)
        index = dofs(model, [joint for joint in joints if int(model.jnt_type[joint]) in _SINGLE])
        live["dof_frictionloss"][:, constant(index, value.device)] += value[:, None]
