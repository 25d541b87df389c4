"""Variations: which model fields a task parameter writes, per world and always from the pristine values.

Those of motors, joints and links are in modules of their own (`actuation`, `motor_faults`, `joints`, `links`), and may
be imported from here.

Scales are absolute, never compounded: applying a thousand tasks and then the nominal one gives back the
pristine model bit for bit.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import mujoco
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.core.errors import UserError, unknown_name
from metarl.core.tasks import Tasks
from metarl.sim.actuation import (
    JointFault as JointFault,
    MotorSigns as MotorSigns,
    MotorStrength as MotorStrength,
    WeakMotor as WeakMotor,
)
from metarl.sim.joints import Armature as Armature, FrictionLoss as FrictionLoss, JointDamping as JointDamping
from metarl.sim.links import LinkLength as LinkLength
from metarl.sim.motor_faults import (
    FAULTS as FAULTS,
    LimbSigns as LimbSigns,
    LimbStrength as LimbStrength,
    MotorFault as MotorFault,
    ServoGain as ServoGain,
)
from metarl.sim.rotations import axes_of, principal_axes
from metarl.sim.variation import (
    OfOneParameter,
    OfOneRatio,
    Variation as Variation,
    Variator as Variator,
    constant,
    ids as ids,
    label,
    object_id as object_id,
    object_ids,
    require_number,
    scale,
)

_OPTIONS = ("wind", "viscosity", "density", "gravity")


@dataclass(frozen=True)
class BodyMass(OfOneRatio):
    """Mass and inertia of bodies, scaled together (same shape, another density). Armatures, of rotors, stay."""

    bodies: tuple[str, ...] | None = None
    """Names; None for every body."""
    fields: tuple[str, ...] = ("body_mass", "body_inertia")

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N *d"]) -> None:
        """`value`: ratio to the pristine mass."""
        for field in self.fields:
            scale(live, field, object_ids(model, "body", self.bodies), value)


@dataclass(frozen=True)
class Friction(OfOneRatio):
    """Sliding friction of geoms, and of the explicit contact pairs that they are part of; of all flexes with all geoms.

    MuJoCo takes the larger of two touching geoms', or that of higher priority: vary both, or the one that counts.
    """

    geoms: tuple[str, ...] | None = None
    """Names; None for every geom."""
    fields: tuple[str, ...] = ("geom_friction", "pair_friction", "flex_friction")

    def require(self, model: mujoco.MjModel, tasks: Tasks) -> None:
        """See `Variation`."""
        super().require(model, tasks)
        if model.opt.enableflags & mujoco.mjtEnableBit.mjENBL_OVERRIDE:
            raise UserError(
                "the friction of geoms cannot vary, as the model's option flag `override` gives all contacts that of "
                "o_friction: disable the flag"
            )

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N *d"]) -> None:
        """`value`: ratio to the pristine coefficient."""
        geoms = object_ids(model, "geom", self.geoms)
        flexes = tuple(range(model.nflex)) if self.geoms is None else ()
        for field, numbers, sliding in (
            ("geom_friction", geoms, 1),
            ("pair_friction", _pairs(model, geoms), 2),
            ("flex_friction", flexes, 1),
        ):
            if field in live and numbers:
                live[field][:, constant(numbers, value.device), :sliding] *= value[:, None, None]


@lru_cache(maxsize=32)
def _pairs(model: mujoco.MjModel, geoms: tuple[int, ...]) -> tuple[int, ...]:
    """Explicit contact pairs of which one of the geoms is part."""
    return tuple((np.isin(model.pair_geom1, geoms) | np.isin(model.pair_geom2, geoms)).nonzero()[0].tolist())


@dataclass(frozen=True)
class Gravity(OfOneParameter):
    """Strength of gravity."""

    fields: tuple[str, ...] = ("opt.gravity",)

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N *d"]) -> None:
        """`value`: ratio to the pristine gravity."""
        live["opt.gravity"].mul_(value[:, None])


@dataclass(frozen=True)
class GravityTilt(OfOneParameter):
    """Gravity turned about the y axis: flat ground that rises along x. Nothing else turns, nor do pictures show it."""

    fields: tuple[str, ...] = ("opt.gravity",)

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N *d"]) -> None:
        """`value`: angle by which the ground rises [rad]."""
        x, _, z = live["opt.gravity"].clone().unbind(dim=1)
        live["opt.gravity"][:, 0] = x * value.cos() + z * value.sin()
        live["opt.gravity"][:, 2] = z * value.cos() - x * value.sin()


@dataclass(frozen=True)
class Payload:
    """A point mass carried by a body; the body's mass, centre of mass and inertia become those of the two together."""

    parameter: str
    """The task parameter that is its mass."""
    body: str
    at: tuple[float, float, float]
    """Where it sits, in the body's frame [m]."""
    aside: tuple[str, ...] = ()
    """Task parameters that move it from there along the first of the body's axes [m]: as many as are named."""
    fields: tuple[str, ...] = ("body_mass", "body_ipos", "body_iquat", "body_inertia")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The mass, and what moves it."""
        return (self.parameter, *self.aside)

    def require(self, model: mujoco.MjModel, tasks: Tasks) -> None:
        """See `Variation`."""
        for name in self.parameters:
            require_number(name, tasks[name])
        body = object_id(model, "body", self.body)
        _require_no_box(model, body)
        least, mass = float(tasks[self.parameter].min()), float(model.body_mass[body])
        if mass + least <= 0:
            raise UserError(
                f"a load of '{self.parameter}' = {least:g} kg leaves {label(model, 'body', body)} without mass: it "
                f"has {mass:g} kg"
            )

    def apply(self, model: mujoco.MjModel, live: Mapping[str, Tensor], tasks: Tasks) -> None:
        """See `Variation.apply`; nothing changes where the mass is zero."""
        value = tasks[self.parameter]
        body = object_id(model, "body", self.body)
        mass, centre, quaternion, inertia = own = [live[field][:, body] for field in self.fields]
        share = (value / (mass + value))[:, None]
        arm = constant(self.at, centre.device, centre.dtype) - centre
        for axis, name in enumerate(self.aside):
            arm[:, axis] += tasks[name]
        axes = axes_of(quaternion)
        tensor = axes @ torch.diag_embed(inertia) @ axes.mT
        steiner = torch.diag_embed(arm.square().sum(dim=1, keepdim=True).expand(-1, 3)) - arm[:, :, None] * arm[:, None]
        moments, turned = principal_axes(tensor + (mass[:, None] * share)[:, :, None] * steiner)
        new = (mass + value, centre + share * arm, turned, moments)
        for field, before, after in zip(self.fields, own, new, strict=True):
            loaded = (value != 0.0).reshape(-1, *(1,) * (after.dim() - 1))
            live[field][:, body] = torch.where(loaded, after, before)


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

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N *d"]) -> None:
        """`value`: displacement [m]."""
        live["body_ipos"][:, object_id(model, "body", self.body), self.axis] += value


@dataclass(frozen=True)
class SitePosition(OfOneParameter):
    """Place of a site in its body's frame: shows a goal in pictures, and touches nothing."""

    site: str
    fields: tuple[str, ...] = ("site_pos",)

    def require(self, model: mujoco.MjModel, tasks: Tasks) -> None:
        """A point is what it reads."""

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N d"]) -> None:
        """`value`: its first d coordinates, d ≤ 3 [m]; the others stay."""
        live["site_pos"][:, object_id(model, "site", self.site), : value.shape[1]] = value


@dataclass(frozen=True)
class Option(OfOneParameter):
    """An option of the whole world, written as it is: `wind` [m/s], `viscosity` [Pa·s], `density` [kg/m³], `gravity`.

    Wind blows only where the medium has a density or a viscosity, as `<option density="1.2"/>` gives it.
    """

    option: str
    """Name of the option: a number, or a vector of three for `wind` and `gravity`."""

    def __post_init__(self) -> None:
        if self.option not in _OPTIONS:
            raise unknown_name("option of the world", self.option, _OPTIONS)

    @property
    def fields(self) -> tuple[str, ...]:
        """It alone."""
        return (f"opt.{self.option}",)

    def require(self, model: mujoco.MjModel, tasks: Tasks) -> None:
        """See `Variation`."""
        given, size = tasks[self.parameter], np.size(getattr(model.opt, self.option))
        if given[0].numel() != size:
            raise UserError(
                f"task parameter '{self.parameter}' is {given[0].numel()} numbers, {self.option} has {size}"
            )
        if size == 1 and bool((given < 0).any()):
            raise UserError(
                f"task parameter '{self.parameter}' = {float(given.min()):g}: a {self.option} is not negative"
            )

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N *d"]) -> None:
        """`value`: what the option is."""
        live[self.fields[0]].copy_(value.reshape(live[self.fields[0]].shape))


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

    def require(self, model: mujoco.MjModel, tasks: Tasks) -> None:
        """See `Variation`."""
        pristine = np.asarray(operator.attrgetter(self.field)(model))
        is_real = np.issubdtype(pristine.dtype, np.floating)
        if not is_real or not pristine.any():
            reason = "every number of it is zero" if is_real else "it holds no real numbers"
            raise UserError(f"ModelField cannot scale '{self.field}', as {reason}")

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N *d"]) -> None:
        """`value`: one ratio, or as many as the field has numbers, in their order (row by row)."""
        numbers = live[self.field]
        numbers = numbers if numbers.dim() > 1 else numbers[:, None]  # of a scalar option, one
        scale({self.field: numbers}, self.field, tuple(range(numbers.shape[1])), value)


def _require_no_box(model: mujoco.MjModel, body: int) -> None:
    """`UserError` where MuJoCo derives the body's drag in a fluid from its mass and inertia, which a load changes."""
    first = int(model.body_geomadr[body])
    shaped = first >= 0 and model.geom_fluid[first : first + int(model.body_geomnum[body])].any()
    if (model.opt.density or model.opt.viscosity) and not shaped:
        raise UserError(
            f"a load would change the drag of {label(model, 'body', body)}, which MuJoCo derives from its inertia: "
            "give a geom of it fluidshape='ellipsoid'"
        )
