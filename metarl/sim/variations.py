"""Variations: which model fields a task parameter writes, per world and always from the pristine values.

Scales are absolute, never compounded: applying a thousand tasks and then the nominal one gives back the
pristine model bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import mujoco
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from metarl.errors import UserError
from metarl.sim.physics import Physics
from metarl.tasks import Tasks

_KINDS: dict[str, mujoco.mjtObj] = {
    "body": mujoco.mjtObj.mjOBJ_BODY,
    "geom": mujoco.mjtObj.mjOBJ_GEOM,
    "joint": mujoco.mjtObj.mjOBJ_JOINT,
    "actuator": mujoco.mjtObj.mjOBJ_ACTUATOR,
}


@runtime_checkable
class Variation(Protocol):
    """One way in which a task changes the robot or its world."""

    @property
    def parameter(self) -> str:
        """The task parameter it reads."""
        ...

    @property
    def fields(self) -> tuple[str, ...]:
        """The MjModel fields it writes."""
        ...

    def apply(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Tensor) -> None:
        """Change `live[field]` (N, ...) in place for the parameter's values (N,).

        It holds the pristine model, or what earlier variations of the family made of it.
        """
        ...


def ids(model: mujoco.MjModel, kind: str, names: Sequence[str] | None) -> Int64[Tensor, "n"]:
    """Indices of the named objects; all of them for None. `UserError` names an unknown one."""
    size = {"body": model.nbody, "geom": model.ngeom, "joint": model.njnt, "actuator": model.nu}[kind]
    if names is None:
        return torch.arange(size)
    known = [mujoco.mj_id2name(model, _KINDS[kind], i) for i in range(size)]
    for name in names:
        if name not in known:
            available = ", ".join(known_name for known_name in known if known_name)
            raise UserError(f"a variation names the unknown {kind} '{name}'; the model has: {available}")
    return torch.tensor([known.index(name) for name in names])


def _scale(live: Tensor, index: Int64[Tensor, "n"], scale: Float64[Tensor, "N"]) -> None:
    """live[w, i] *= scale[w] for every world w and object i in `index`."""
    live[:, index] = live[:, index] * scale.reshape(-1, *(1,) * (live.dim() - 1))


@dataclass(frozen=True)
class BodyMass:
    """Mass and inertia of bodies, scaled together (same shape, another density)."""

    parameter: str
    bodies: tuple[str, ...] | None = None
    """Names; None for every body."""
    fields: tuple[str, ...] = ("body_mass", "body_inertia")

    def apply(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Tensor) -> None:
        """`value`: ratio to the pristine mass."""
        index = ids(model, "body", self.bodies)
        for field in self.fields:
            _scale(live[field], index, value)


@dataclass(frozen=True)
class Friction:
    """Sliding friction of geoms. MuJoCo takes the larger of two touching geoms': vary both or the larger."""

    parameter: str
    geoms: tuple[str, ...] | None = None
    """Names; None for every geom."""
    fields: tuple[str, ...] = ("geom_friction",)

    def apply(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Tensor) -> None:
        """`value`: ratio to the pristine coefficient."""
        index = ids(model, "geom", self.geoms)
        _scale(live["geom_friction"][:, :, 0], index, value)


@dataclass(frozen=True)
class JointDamping:
    """Viscous damping of joints."""

    parameter: str
    joints: tuple[str, ...] | None = None
    """Names; None for every joint."""
    fields: tuple[str, ...] = ("dof_damping",)

    def apply(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Tensor) -> None:
        """`value`: ratio to the pristine damping."""
        index = _dofs(model, ids(model, "joint", self.joints))
        _scale(live["dof_damping"], index, value)


@dataclass(frozen=True)
class MotorStrength:
    """Force of actuators: gain, bias and force limits scale together, so servos weaken as motors do."""

    parameter: str
    actuators: tuple[str, ...] | None = None
    """Names; None for every actuator."""
    fields: tuple[str, ...] = ("actuator_gainprm", "actuator_biasprm", "actuator_forcerange")

    def apply(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Tensor) -> None:
        """`value`: ratio to the pristine force."""
        index = ids(model, "actuator", self.actuators)
        for field in self.fields:
            _scale(live[field], index, value)


@dataclass(frozen=True)
class JointFault:
    """One of several joints is broken: its motor is `dead`, or the joint is `locked` where the episode begins."""

    parameter: str
    joints: tuple[str, ...]
    """The joints that may break; the parameter is an index into them, negative for none."""
    mode: Literal["dead", "locked"] = "dead"

    @property
    def fields(self) -> tuple[str, ...]:
        """A dead motor has no gain or bias; a locked joint has hard friction that no motor can overcome."""
        return ("actuator_gainprm", "actuator_biasprm") if self.mode == "dead" else ("dof_frictionloss", "dof_solimp")

    def apply(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Tensor) -> None:
        """`value`: index of the broken joint, negative for none."""
        for number, joint in enumerate(ids(model, "joint", self.joints).tolist()):
            broken = (value.round() == number).double()
            if self.mode == "locked":
                dofs = _dofs(model, torch.tensor([joint]))
                live["dof_frictionloss"][:, dofs] += _LOCK * broken[:, None]
                hard = live["dof_solimp"].new_tensor(_HARD)
                live["dof_solimp"][:, dofs] = torch.where(
                    broken.bool()[:, None, None], hard, live["dof_solimp"][:, dofs]
                )
                continue
            motors = [i for i in range(model.nu) if _moves(model, i, joint)]
            for field in self.fields:
                _scale(live[field], torch.tensor(motors, dtype=torch.long), 1.0 - broken)


@dataclass(frozen=True)
class Gravity:
    """Strength of gravity."""

    parameter: str
    fields: tuple[str, ...] = ("opt.gravity",)

    def apply(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Tensor) -> None:
        """`value`: ratio to the pristine gravity."""
        live["opt.gravity"].mul_(value[:, None])


_LOCK = 1e4  # [N·m]: far above any motor here; a friction-loss constraint, so the solver stays well conditioned
_HARD = (0.9999, 0.9999, 0.001, 0.5, 2.0)  # solimp at MuJoCo's limit: at its default 0.9 the lock creeps [rad/s]


def _moves(model: mujoco.MjModel, actuator: int, joint: int) -> bool:
    """Whether the actuator acts on the joint itself, not on a tendon, site or body of the same index."""
    kind, target = int(model.actuator_trntype[actuator]), int(model.actuator_trnid[actuator, 0])
    return target == joint and kind in (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))


def _dofs(model: mujoco.MjModel, joints: Int64[Tensor, "n"]) -> Int64[Tensor, "m"]:
    """Degrees of freedom of the given joints."""
    return torch.tensor([dof for dof in range(model.nv) if int(model.dof_jntid[dof]) in set(joints.tolist())])


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
            value = tasks[variation.parameter]
            variation.apply(self._physics.model, self._live, value)
        if self._needs_const:
            self._physics.set_const(self._worlds)
