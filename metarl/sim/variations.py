"""Variations: which model fields a task parameter writes, per world and always from the pristine values.

Those of motors and broken joints are in `metarl.sim.actuation`, and may be imported from here.

Scales are absolute, never compounded: applying a thousand tasks and then the nominal one gives back the
pristine model bit for bit.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
import torch
from jaxtyping import Float64, Int64
from scipy.spatial.transform import Rotation
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.tasks import Tasks
from metarl.sim.actuation import (
    JointFault as JointFault,
    MotorStrength as MotorStrength,
    WeakMotor as WeakMotor,
    require_own_muscle_force,
)
from metarl.sim.mujoco.physics import Physics
from metarl.sim.variation import (
    OfOneParameter,
    Variation as Variation,
    dofs,
    ids as ids,
    label,
    require_number,
    require_ratio,
    scale,
    tendon_joints,
)


@dataclass(frozen=True)
class BodyMass(OfOneParameter):
    """Mass and inertia of bodies, scaled together (same shape, another density). Armatures, of rotors, stay."""

    bodies: tuple[str, ...] | None = None
    """Names; None for every body."""
    fields: tuple[str, ...] = ("body_mass", "body_inertia")

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float64[Tensor, "N *d"]) -> None:
        """`value`: ratio to the pristine mass."""
        require_ratio(self.parameter, value)
        require_own_muscle_force(model, f"a variation of masses by '{self.parameter}'")
        index = ids(model, "body", self.bodies)
        for field in self.fields:
            scale(live[field], index, value)


@dataclass(frozen=True)
class Friction(OfOneParameter):
    """Sliding friction of geoms, and of the explicit contact pairs that they are part of; of all flexes with all geoms.

    MuJoCo takes the larger of two touching geoms', or that of higher priority: vary both, or the one that counts.
    """

    geoms: tuple[str, ...] | None = None
    """Names; None for every geom."""
    fields: tuple[str, ...] = ("geom_friction", "pair_friction", "flex_friction")

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float64[Tensor, "N *d"]) -> None:
        """`value`: ratio to the pristine coefficient."""
        require_ratio(self.parameter, value)
        if model.opt.enableflags & mujoco.mjtEnableBit.mjENBL_OVERRIDE:
            raise UserError(
                "the friction of geoms cannot vary, as the model's option flag `override` gives all contacts that of "
                "o_friction: disable the flag"
            )
        index = ids(model, "geom", self.geoms)
        scale(live["geom_friction"][:, :, 0], index, value)
        touching = torch.from_numpy(np.isin(model.pair_geom1, index) | np.isin(model.pair_geom2, index))
        live["pair_friction"][:, touching, :2] *= value[:, None, None]
        if self.geoms is None:
            live["flex_friction"][:, :, 0] *= value[:, None]


@dataclass(frozen=True)
class JointDamping(OfOneParameter):
    """Viscous damping of joints: every coefficient of its polynomial, and those of the motors and tendons upon them.

    Feedback on velocity (`kv`, a damper's or a DC motor's) is the motor's force, and stays.
    """

    joints: tuple[str, ...] | None = None
    """Names; None for every joint."""
    fields: tuple[str, ...] = (
        *("dof_damping", "dof_dampingpoly", "actuator_damping", "actuator_dampingpoly"),
        *("tendon_damping", "tendon_dampingpoly"),
    )

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float64[Tensor, "N *d"]) -> None:
        """`value`: ratio to the pristine damping."""
        require_ratio(self.parameter, value)
        joints = ids(model, "joint", self.joints)
        tendons, varied = self._tendons(model, set(joints.tolist())), joints.numpy()
        onto = {
            int(mujoco.mjtTrn.mjTRN_JOINT): varied,
            int(mujoco.mjtTrn.mjTRN_JOINTINPARENT): varied,
            int(mujoco.mjtTrn.mjTRN_TENDON): tendons.numpy(),
        }
        motors = [
            motor
            for motor in range(model.nactuator)
            if int(model.actuator_trnid[motor, 0]) in onto.get(int(model.actuator_trntype[motor]), ())
        ]
        for kind, index in (
            ("dof", dofs(model, joints)),
            ("actuator", torch.tensor(motors, dtype=torch.long)),
            ("tendon", tendons),
        ):
            scale(live[f"{kind}_damping"], index, value)
            scale(live[f"{kind}_dampingpoly"], index, value)

    def _tendons(self, model: mujoco.MjModel, varied: set[int]) -> Int64[Tensor, "n"]:
        """Tendons that only varied joints move; `UserError` names one that damps others as well."""
        found = []
        for tendon in range(model.ntendon):
            moving = tendon_joints(model, tendon)
            if moving and moving <= varied:
                found.append(tendon)
            elif moving & varied and _damps(model, tendon):
                others = ", ".join(label(model, "joint", joint) for joint in sorted(moving - varied))
                raise UserError(
                    f"{label(model, 'tendon', tendon)} damps varied joints together with {others}: vary their damping "
                    "too, or give the joints a damping of their own"
                )
        return torch.tensor(found, dtype=torch.long)


def _damps(model: mujoco.MjModel, tendon: int) -> bool:
    """The tendon, or a motor upon it, has damping."""
    onto = (model.actuator_trntype == int(mujoco.mjtTrn.mjTRN_TENDON)) & (model.actuator_trnid[:, 0] == tendon)
    motors = model.actuator_damping[onto].any() or model.actuator_dampingpoly[onto].any()
    return bool(model.tendon_damping[tendon] or model.tendon_dampingpoly[tendon].any() or motors)


@dataclass(frozen=True)
class Gravity(OfOneParameter):
    """Strength of gravity."""

    fields: tuple[str, ...] = ("opt.gravity",)

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float64[Tensor, "N *d"]) -> None:
        """`value`: ratio to the pristine gravity."""
        require_number(self.parameter, value)
        live["opt.gravity"].mul_(value[:, None])


@dataclass(frozen=True)
class Payload(OfOneParameter):
    """A point mass carried by a body; the body's mass, centre of mass and inertia become those of the two together."""

    body: str
    at: tuple[float, float, float]
    """Where it sits, in the body's frame [m]."""
    fields: tuple[str, ...] = ("body_mass", "body_ipos", "body_iquat", "body_inertia")

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float64[Tensor, "N *d"]) -> None:
        """`value`: mass of the load [kg]; nothing changes where it is zero."""
        require_number(self.parameter, value)
        body, loaded = int(ids(model, "body", (self.body,))), value != 0.0
        require_own_muscle_force(model, f"a load of '{self.parameter}'")
        _require_no_box(model, body)
        mass, centre, quaternion, inertia = (live[field][loaded, body] for field in self.fields)
        load = value[loaded]
        if bool((mass + load <= 0).any()):
            least = f"'{self.parameter}' = {float(load.min()):g} kg"
            raise UserError(
                f"a load of {least} leaves {label(model, 'body', body)} without mass: it has {mass[0]:g} kg"
            )
        share = (load / (mass + load))[:, None]
        arm = centre.new_tensor(self.at) - centre
        axes = torch.from_numpy(Rotation.from_quat(quaternion.numpy(), scalar_first=True).as_matrix())
        tensor = axes @ torch.diag_embed(inertia) @ axes.mT
        steiner = torch.diag_embed(arm.square().sum(dim=1, keepdim=True).expand(-1, 3)) - arm[:, :, None] * arm[:, None]
        moments, axes = torch.linalg.eigh(tensor + (mass[:, None] * share)[:, :, None] * steiner)
        axes[:, :, 2] *= torch.linalg.det(axes)[:, None]  # right-handed
        new = (mass + load, centre + share * arm, _quaternion(axes), moments)
        for field, own in zip(self.fields, new, strict=True):
            live[field][loaded, body] = own


@dataclass(frozen=True)
class CentreOfMass(OfOneParameter):
    """Displacement of a body's centre of mass along one axis of the body."""

    body: str
    axis: int
    """0, 1 or 2: x, y or z."""
    fields: tuple[str, ...] = ("body_ipos",)

    def __post_init__(self) -> None:
        if self.axis not in (0, 1, 2):
            raise UserError(f"CentreOfMass moves along the axis {self.axis}: it must be 0, 1 or 2, for x, y or z")

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float64[Tensor, "N *d"]) -> None:
        """`value`: displacement [m]."""
        require_number(self.parameter, value)
        require_own_muscle_force(model, f"a centre of mass that moves by '{self.parameter}'")
        live["body_ipos"][:, int(ids(model, "body", (self.body,))), self.axis] += value


@dataclass(frozen=True)
class SitePosition(OfOneParameter):
    """Place of a site in its body's frame: shows a goal in pictures, and touches nothing."""

    site: str
    fields: tuple[str, ...] = ("site_pos",)

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float64[Tensor, "N d"]) -> None:
        """`value`: its first d coordinates, d ≤ 3 [m]; the others stay."""
        live["site_pos"][:, int(ids(model, "site", (self.site,))), : value.shape[1]] = value


@dataclass(frozen=True)
class ModelField(OfOneParameter):
    """All numbers of one MjModel field or option (`opt.viscosity`), each scaled by its own factor."""

    field: str

    def __post_init__(self) -> None:
        owner, options = mujoco.MjModel, {f"opt.{name}" for name in mujoco.MjOption._all_fields}
        known = options | set(owner._all_fields)
        if self.field not in known:
            near = difflib.get_close_matches(self.field, known, n=1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise UserError(f"ModelField names '{self.field}', which is no field of MuJoCo's MjModel{hint}")
        if self.field == "opt.timestep":
            raise UserError("ModelField cannot scale 'opt.timestep', as a control step must be a whole number of them")
        if self.field in owner._setconst_outputs and self.field not in owner._setconst_inputs:
            raise UserError(f"ModelField cannot scale '{self.field}', as MuJoCo computes it from others: scale those")

    @property
    def fields(self) -> tuple[str, ...]:
        """It alone."""
        return (self.field,)

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float64[Tensor, "N *d"]) -> None:
        """`value`: one ratio, or as many as the field has numbers, in their order (row by row)."""
        numbers, pristine = live[self.field], np.asarray(operator.attrgetter(self.field)(model))
        if not numbers.is_floating_point() or not pristine.any():
            reason = "every number of it is zero" if numbers.is_floating_point() else "it holds no real numbers"
            raise UserError(f"ModelField cannot scale '{self.field}', as {reason}")
        if self.field in mujoco.MjModel._setconst_inputs:
            require_own_muscle_force(model, f"a variation of '{self.field}'")
        numbers = numbers if numbers.dim() > 1 else numbers[:, None]
        scale(numbers, torch.arange(numbers.shape[1]), value)


def _require_no_box(model: mujoco.MjModel, body: int) -> None:
    """`UserError` where MuJoCo derives the body's drag in a fluid from its mass and inertia, which a load changes."""
    first = int(model.body_geomadr[body])
    shaped = first >= 0 and model.geom_fluid[first : first + int(model.body_geomnum[body])].any()
    if (model.opt.density or model.opt.viscosity) and not shaped:
        raise UserError(
            f"a load would change the drag of {label(model, 'body', body)}, which MuJoCo derives from its inertia: "
            "give a geom of it fluidshape='ellipsoid'"
        )


def _quaternion(axes: Float64[Tensor, "n 3 3"]) -> Float64[Tensor, "n 4"]:
    """Quaternions (w, x, y, z) of rotation matrices."""
    return torch.from_numpy(Rotation.from_matrix(axes.numpy()).as_quat(scalar_first=True).reshape(-1, 4))


class Variator:
    """Applies a family's variations to a batch of worlds, from the pristine model it remembers."""

    def __init__(self, physics: Physics, variations: Sequence[Variation]) -> None:
        self._physics = physics
        self._variations = tuple(variations)
        fields = sorted({field for variation in variations for field in variation.fields})
        self._live = {field: physics.expand(field) for field in fields}
        self._pristine = {field: live[0].clone() for field, live in self._live.items()}
        inputs = frozenset(mujoco.MjModel._setconst_inputs)
        self._needs_const = any(field in inputs or field.startswith("opt.") for field in fields)
        self._worlds = torch.arange(physics.num_worlds)

    def apply(self, tasks: Tasks) -> None:
        """Give every world the model of its task (N tasks for N worlds)."""
        for field, live in self._live.items():
            live[:] = self._pristine[field]
        for variation in self._variations:
            variation.apply(self._physics.model, self._live, tasks)
        if self._needs_const:
            self._physics.set_const(self._worlds)
