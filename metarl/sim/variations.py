"""Variations: which model fields a task parameter writes, per world and always from the pristine values.

Scales are absolute, never compounded: applying a thousand tasks and then the nominal one gives back the
pristine model bit for bit.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import mujoco
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.tasks import Tasks
from metarl.sim.mujoco.physics import Physics
from metarl.sim.rotations import axes_of, quaternion_of

_KINDS: dict[str, mujoco.mjtObj] = {
    "body": mujoco.mjtObj.mjOBJ_BODY,
    "geom": mujoco.mjtObj.mjOBJ_GEOM,
    "joint": mujoco.mjtObj.mjOBJ_JOINT,
    "actuator": mujoco.mjtObj.mjOBJ_ACTUATOR,
    "site": mujoco.mjtObj.mjOBJ_SITE,
}


@runtime_checkable
class Variation(Protocol):
    """One way in which a task changes the robot or its world."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """The task parameters it reads."""
        ...

    @property
    def fields(self) -> tuple[str, ...]:
        """The MjModel fields it writes."""
        ...

    def apply(self, model: mujoco.MjModel, live: Mapping[str, Tensor], tasks: Tasks) -> None:
        """Change `live[field]` (N, ...) in place for the N tasks.

        It holds the pristine model, or what earlier variations of the family made of it.
        """
        ...


@dataclass(frozen=True)
class _OfOneParameter(ABC):
    """A variation that reads one task parameter."""

    parameter: str
    """Its name."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """It alone."""
        return (self.parameter,)

    def apply(self, model: mujoco.MjModel, live: Mapping[str, Tensor], tasks: Tasks) -> None:
        """See `Variation.apply`."""
        self._write(model, live, tasks[self.parameter])

    @abstractmethod
    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N *d"]) -> None: ...


def ids(
    model: mujoco.MjModel, kind: str, names: Sequence[str] | None, device: torch.device | str = "cpu"
) -> Int64[Tensor, "n"]:
    """Indices of the named objects; all of them for None. `UserError` names an unknown one."""
    return _tensor(_numbers(model, kind, names if names is None else tuple(names)), str(device))


def object_id(model: mujoco.MjModel, kind: str, name: str) -> int:
    """Index of a named object; `UserError` for an unknown one."""
    return _numbers(model, kind, (name,))[0]


@functools.lru_cache(maxsize=256)
def _tensor(numbers: tuple[int, ...], device: str) -> Int64[Tensor, "n"]:
    return torch.tensor(numbers, dtype=torch.long, device=device)


@functools.lru_cache(maxsize=32)
def _numbers(model: mujoco.MjModel, kind: str, names: tuple[str, ...] | None) -> tuple[int, ...]:
    """What `ids` holds. Remembered: worlds change their tasks within a step, and a search of the names takes long."""
    sizes = {"body": model.nbody, "geom": model.ngeom, "joint": model.njnt, "actuator": model.nu, "site": model.nsite}
    size = sizes[kind]
    if names is None:
        return tuple(range(size))
    known = [mujoco.mj_id2name(model, _KINDS[kind], i) for i in range(size)]
    for name in names:
        if name not in known:
            available = ", ".join(known_name for known_name in known if known_name)
            raise UserError(f"a variation names the unknown {kind} '{name}'; the model has: {available}")
    return tuple(known.index(name) for name in names)


def _scale(live: Tensor, index: Int64[Tensor, "n"], scale: Float[Tensor, "N *d"]) -> None:
    """live[w, i] *= scale[w] for every world w and object i in `index`; or each number by its own, row by row."""
    chosen = live[:, index]
    if scale.dim() > 1 and scale[0].numel() != chosen[0].numel():
        numbers = "x".join(str(size) for size in chosen.shape[1:])
        raise UserError(f"a variation of {numbers} numbers was given {scale[0].numel()} factors")
    live[:, index] = chosen * scale.reshape(chosen.shape if scale.dim() > 1 else (-1, *(1,) * (live.dim() - 1)))


@dataclass(frozen=True)
class BodyMass(_OfOneParameter):
    """Mass and inertia of bodies, scaled together (same shape, another density)."""

    bodies: tuple[str, ...] | None = None
    """Names; None for every body."""
    fields: tuple[str, ...] = ("body_mass", "body_inertia")

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N"]) -> None:
        """`value`: ratio to the pristine mass."""
        index = ids(model, "body", self.bodies, value.device)
        for field in self.fields:
            _scale(live[field], index, value)


@dataclass(frozen=True)
class Friction(_OfOneParameter):
    """Sliding friction of geoms. MuJoCo takes the larger of two touching geoms': vary both or the larger."""

    geoms: tuple[str, ...] | None = None
    """Names; None for every geom."""
    fields: tuple[str, ...] = ("geom_friction",)

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N"]) -> None:
        """`value`: ratio to the pristine coefficient."""
        index = ids(model, "geom", self.geoms, value.device)
        _scale(live["geom_friction"][:, :, 0], index, value)


@dataclass(frozen=True)
class JointDamping(_OfOneParameter):
    """Viscous damping of joints."""

    joints: tuple[str, ...] | None = None
    """Names; None for every joint."""
    fields: tuple[str, ...] = ("dof_damping",)

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N"]) -> None:
        """`value`: ratio to the pristine damping."""
        _scale(live["dof_damping"], _dofs(model, _numbers(model, "joint", self.joints), value.device), value)


@dataclass(frozen=True)
class MotorStrength(_OfOneParameter):
    """Force of actuators: gain, bias and force limits scale together, so servos weaken as motors do."""

    actuators: tuple[str, ...] | None = None
    """Names; None for every actuator."""
    fields: tuple[str, ...] = ("actuator_gainprm", "actuator_biasprm", "actuator_forcerange")

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N"]) -> None:
        """`value`: ratio to the pristine force."""
        index = ids(model, "actuator", self.actuators, value.device)
        for field in self.fields:
            _scale(live[field], index, value)


@dataclass(frozen=True)
class JointFault(_OfOneParameter):
    """One of several joints is broken: its motor is `dead`, or the joint is `locked` where the episode begins."""

    joints: tuple[str | tuple[str, ...], ...]
    """What may break, a joint or several joints at once; the parameter is an index into it, negative for none."""
    mode: Literal["dead", "locked"] = "dead"

    @property
    def fields(self) -> tuple[str, ...]:
        """A dead motor has no gain or bias; a locked joint has hard friction that no motor can overcome."""
        return ("actuator_gainprm", "actuator_biasprm") if self.mode == "dead" else ("dof_frictionloss", "dof_solimp")

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N"]) -> None:
        """`value`: index of what is broken, negative for none."""
        for number, names in enumerate(self.joints):
            joints = _numbers(model, "joint", (names,) if isinstance(names, str) else names)
            broken = value.round() == number
            if self.mode == "locked":
                dofs = _dofs(model, joints, value.device)
                live["dof_frictionloss"][:, dofs] += _LOCK * broken[:, None]
                hard = live["dof_solimp"].new_tensor(_HARD)
                live["dof_solimp"][:, dofs] = torch.where(broken[:, None, None], hard, live["dof_solimp"][:, dofs])
                continue
            motors = tuple(i for i in range(model.nu) if any(_moves(model, i, joint) for joint in joints))
            for field in self.fields:
                _scale(live[field], _tensor(motors, str(value.device)), 1.0 - broken.to(value.dtype))


@dataclass(frozen=True)
class WeakMotor:
    """One of several motors has lost part of its force: gain, bias and force limits, as in `MotorStrength`."""

    motor: str
    """The task parameter that tells which: an index into `actuators`, negative for none."""
    strength: str
    """The task parameter that tells what is left of its force, 0 (dead) to 1."""
    actuators: tuple[str, ...]
    fields: tuple[str, ...] = MotorStrength.fields

    @property
    def parameters(self) -> tuple[str, ...]:
        """Both."""
        return (self.motor, self.strength)

    def apply(self, model: mujoco.MjModel, live: Mapping[str, Tensor], tasks: Tasks) -> None:
        """See `Variation.apply`."""
        motor = tasks[self.motor]
        index = ids(model, "actuator", self.actuators, motor.device)
        is_weak = motor.round()[:, None] == torch.arange(len(index), device=motor.device)
        left = torch.where(is_weak, tasks[self.strength][:, None], 1.0)
        for field in self.fields:
            live[field][:, index] *= left[:, :, None]


@dataclass(frozen=True)
class Gravity(_OfOneParameter):
    """Strength of gravity."""

    fields: tuple[str, ...] = ("opt.gravity",)

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N"]) -> None:
        """`value`: ratio to the pristine gravity."""
        live["opt.gravity"].mul_(value[:, None])


@dataclass(frozen=True)
class Payload(_OfOneParameter):
    """A point mass carried by a body; the body's mass, centre of mass and inertia become those of the two together."""

    body: str
    at: tuple[float, float, float]
    """Where it sits, in the body's frame [m]."""
    fields: tuple[str, ...] = ("body_mass", "body_ipos", "body_iquat", "body_inertia")

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N"]) -> None:
        """`value`: mass of the load [kg]; nothing changes where it is zero."""
        body = object_id(model, "body", self.body)
        mass, centre, quaternion, inertia = own = [live[field][:, body] for field in self.fields]
        share = (value / (mass + value))[:, None]
        arm = centre.new_tensor(self.at) - centre
        axes = axes_of(quaternion)
        tensor = axes @ torch.diag_embed(inertia) @ axes.mT
        steiner = torch.diag_embed(arm.square().sum(dim=1, keepdim=True).expand(-1, 3)) - arm[:, :, None] * arm[:, None]
        moments, axes = torch.linalg.eigh(tensor + (mass[:, None] * share)[:, :, None] * steiner)
        axes[:, :, 2] *= torch.linalg.det(axes)[:, None]  # right-handed
        new = (mass + value, centre + share * arm, quaternion_of(axes), moments)
        for field, before, after in zip(self.fields, own, new, strict=True):
            loaded = (value != 0.0).reshape(-1, *(1,) * (after.dim() - 1))
            live[field][:, body] = torch.where(loaded, after, before)


@dataclass(frozen=True)
class CentreOfMass(_OfOneParameter):
    """Displacement of a body's centre of mass along one axis of the body."""

    body: str
    axis: int
    """0, 1 or 2: x, y or z."""
    fields: tuple[str, ...] = ("body_ipos",)

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N"]) -> None:
        """`value`: displacement [m]."""
        live["body_ipos"][:, object_id(model, "body", self.body), self.axis] += value


@dataclass(frozen=True)
class SitePosition(_OfOneParameter):
    """Place of a site in its body's frame: shows a goal in pictures, and touches nothing."""

    site: str
    fields: tuple[str, ...] = ("site_pos",)

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N d"]) -> None:
        """`value`: its first d coordinates, d ≤ 3 [m]; the others stay."""
        live["site_pos"][:, object_id(model, "site", self.site), : value.shape[1]] = value


@dataclass(frozen=True)
class ModelField(_OfOneParameter):
    """All numbers of one MjModel field, each scaled by its own factor."""

    field: str

    @property
    def fields(self) -> tuple[str, ...]:
        """It alone."""
        return (self.field,)

    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N *d"]) -> None:
        """`value`: one ratio, or as many as the field has numbers, in their order (row by row)."""
        _scale(live[self.field], torch.arange(live[self.field].shape[1], device=value.device), value)


_LOCK = 1e4  # [N·m]: far above any motor here; a friction-loss constraint, so the solver stays well conditioned
_HARD = (0.9999, 0.9999, 0.001, 0.5, 2.0)  # solimp at MuJoCo's limit: at its default 0.9 the lock creeps [rad/s]


def _moves(model: mujoco.MjModel, actuator: int, joint: int) -> bool:
    """Whether the actuator acts on the joint itself, not on a tendon, site or body of the same index."""
    kind, target = int(model.actuator_trntype[actuator]), int(model.actuator_trnid[actuator, 0])
    return target == joint and kind in (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))


def _dofs(model: mujoco.MjModel, joints: tuple[int, ...], device: torch.device) -> Int64[Tensor, "m"]:
    """Degrees of freedom of the given joints."""
    return _tensor(tuple(dof for dof, joint in enumerate(model.dof_jntid.tolist()) if joint in joints), str(device))


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

    def apply(self, tasks: Tasks, mask: Bool[Tensor, "N"] | None = None) -> None:
        """Give the worlds of `mask`, all of them unless told, the models of their tasks (N tasks for N worlds)."""
        if not self._variations:
            return
        if mask is None:
            mask = torch.ones(self._physics.num_worlds, dtype=torch.bool, device=self._physics.device)
        worlds = self._physics.covering(mask)
        rows = {name: value.expand(len(worlds), *value.shape).clone() for name, value in self._pristine.items()}
        chosen = tasks.select(worlds)
        for variation in self._variations:
            variation.apply(self._physics.model, rows, chosen)
        for name, live in self._live.items():
            live[worlds] = rows[name]
        if self._needs_const:
            self._physics.set_const(mask)
