"""What a variation is, what applies them, and what all of them need: names, indices, guards, scaling in place.

A variation changes one quantity, and MuJoCo may hold that quantity in several fields, or in other fields for another
kind of element: a variation scales all of them, or refuses the model by the name of what it cannot vary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import ClassVar, Protocol, runtime_checkable

import mujoco
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.tasks import Tasks
from metarl.sim.mujoco.physics import Physics

_INERTIAL = frozenset(
    {"body_mass", "body_inertia", "body_ipos", "body_iquat", "body_pos", "body_quat", "jnt_pos", "jnt_axis", "qpos0"}
    | {"dof_armature", "tendon_armature", "actuator_armature", "actuator_gear"}
)
"""Fields from which MuJoCo derives how a robot accelerates."""
_SIZES = {"body": "nbody", "geom": "ngeom", "joint": "njnt", "actuator": "nactuator", "site": "nsite"}


@runtime_checkable
class Variation(Protocol):
    """One way in which a task changes the robot or its world.

    It may have three more members:

    `indices`, a property: a mapping from the parameters that are an index to the `range` of their values. Other values
    are refused, and so is a family whose task space can draw one.
    `require(model, tasks)` raises `UserError` for a model or tasks that it cannot pose. It may look at the values,
    which are on the host, as `apply` may not: within a trial nothing waits for the device.
    `scales`, true where it only multiplies what its fields hold: those that are zero throughout a model may be missing
    in `live`.
    """

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
class OfOneParameter(ABC):
    """A variation that reads one task parameter, a number."""

    parameter: str
    """Its name."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """It alone."""
        return (self.parameter,)

    def require(self, model: mujoco.MjModel, tasks: Tasks) -> None:
        """See `Variation`."""
        require_number(self.parameter, tasks[self.parameter])

    def apply(self, model: mujoco.MjModel, live: Mapping[str, Tensor], tasks: Tasks) -> None:
        """See `Variation.apply`."""
        self._write(model, live, tasks[self.parameter])

    @abstractmethod
    def _write(self, model: mujoco.MjModel, live: Mapping[str, Tensor], value: Float[Tensor, "N *d"]) -> None: ...


class OfOneRatio(OfOneParameter):
    """One whose parameter is a ratio to the pristine values."""

    scales: ClassVar[bool] = True

    def require(self, model: mujoco.MjModel, tasks: Tasks) -> None:
        """See `Variation`."""
        require_ratio(self.parameter, tasks[self.parameter])


class Variator:
    """Applies a family's variations to a batch of worlds, from the pristine model it remembers."""

    def __init__(self, physics: Physics, variations: Sequence[Variation]) -> None:
        self._physics = physics
        self._variations = tuple(variations)
        fields = sorted({field for variation in variations for field in _used(physics.model, variation)})
        self._live = {field: physics.expand(field) for field in fields}
        self._pristine = {field: live[0].clone() for field, live in self._live.items()}
        for variation in variations:
            if _INERTIAL.intersection(variation.fields):
                _require_own_muscle_force(physics.model, called(variation))
        inputs = frozenset(mujoco.MjModel._setconst_inputs)
        self._needs_const = any(field in inputs or field.startswith("opt.") for field in fields)

    def require(self, tasks: Tasks) -> None:
        """`UserError` for tasks that cannot be posed. It looks at their values: call it ahead of a trial."""
        for variation in self._variations:
            if hasattr(variation, "require"):
                variation.require(self._physics.model, tasks)
            for name, allowed in getattr(variation, "indices", {}).items():
                require_index(name, tasks[name], allowed)

    def apply(self, tasks: Tasks, mask: Bool[Tensor, "N"] | None = None) -> None:
        """Give the worlds of `mask` the models of their tasks (N tasks for N worlds).

        Without a mask, outside trials, all worlds, and `require` is called for the tasks.
        """
        if not self._variations:
            return
        if mask is None:
            self.require(tasks)
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


def called(variation: Variation) -> str:
    """How a message calls a variation."""
    return f"the variation {type(variation).__name__} of '{', '.join(variation.parameters)}'"


def _require_own_muscle_force(model: mujoco.MjModel, what: str) -> None:
    """`UserError` for a muscle whose peak force MuJoCo derives from the robot's masses, which `what` changes."""
    for i in (model.actuator_gaintype == int(mujoco.mjtGain.mjGAIN_MUSCLE)).nonzero()[0].tolist():
        force, strength = model.actuator_gainprm[i, 2:4]
        if force < 0:
            own = strength / max(float(model.actuator_acc0[int(model.actuator_outadr[i])]), mujoco.mjMINVAL)
            raise UserError(
                f"{what} would change the force of {label(model, 'actuator', i)}, a muscle whose peak force MuJoCo "
                f'derives from the masses: give it its own, force="{own:g}"'
            )


def _used(model: mujoco.MjModel, variation: Variation) -> list[str]:
    """Fields that it may change in this model: no ratio changes zeros."""
    scales = getattr(variation, "scales", False)
    return [field for field in variation.fields if not scales or attrgetter(field)(model).any()]


def require_number(parameter: str, value: Float[Tensor, "N *d"]) -> None:
    """`UserError` for a task parameter that is a point where a variation reads a number."""
    if value.dim() > 1:
        size = value[0].numel()
        raise UserError(
            f"task parameter '{parameter}' is {size} numbers where one is read: ModelField has one for each"
        )


def require_ratio(parameter: str, value: Float[Tensor, "N *d"], what: str = "a ratio") -> None:
    """`UserError` where a ratio to the pristine value, or `what` it is, is negative."""
    require_number(parameter, value)
    if bool((value < 0).any()):
        raise UserError(f"task parameter '{parameter}' = {float(value.min()):g} is {what}: it must not be negative")


def require_index(parameter: str, value: Float[Tensor, "N *d"], allowed: range) -> None:
    """`UserError` where a value is none of `allowed`, of which -1 stands for none."""
    require_number(parameter, value)
    wrong = (value.round() != value) | (value < allowed.start) | (value >= allowed.stop)
    if bool(wrong.any()):
        raise UserError(f"task parameter '{parameter}' = {float(value[wrong][0]):g} {no_index(allowed)}")


def no_index(allowed: range) -> str:
    """What is wrong with a value that is none of `allowed`."""
    none = ", or -1 for none" if allowed.start < 0 else ""
    return f"is the index of nothing: it must be a whole number from 0 to {allowed.stop - 1}{none}"


def ids(
    model: mujoco.MjModel, kind: str, names: Sequence[str] | None, device: torch.device | str = "cpu"
) -> Int64[Tensor, "n"]:
    """Indices of the named objects; all of them for None. `UserError` names an unknown one."""
    return constant(object_ids(model, kind, names if names is None else tuple(names)), torch.device(device))


def object_id(model: mujoco.MjModel, kind: str, name: str) -> int:
    """Index of a named object; `UserError` for an unknown one."""
    return object_ids(model, kind, (name,))[0]


@lru_cache(maxsize=32)
def object_ids(model: mujoco.MjModel, kind: str, names: tuple[str, ...] | None) -> tuple[int, ...]:
    """What `ids` holds. Remembered: worlds change their tasks within a step, and a search of the names takes long."""
    size = getattr(model, _SIZES[kind])
    if names is None:
        return tuple(range(size))
    known = [name_of(model, kind, i) for i in range(size)]
    for name in names:
        if name not in known:
            available = ", ".join(known_name for known_name in known if known_name)
            raise UserError(f"a variation names the unknown {kind} '{name}'; the model has: {available}")
    return tuple(known.index(name) for name in names)


@lru_cache(maxsize=1024)
def constant(
    numbers: tuple[int, ...] | tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.long
) -> Tensor:
    """The numbers as a tensor, copied to the device once; never to be written to."""
    return torch.tensor(numbers, dtype=dtype, device=device)


def name_of(model: mujoco.MjModel, kind: str, index: int) -> str:
    """Name of an element (its kind as in MjModel's accessors), empty where it has none."""
    return str(getattr(model, kind)(index).name)


def label(model: mujoco.MjModel, kind: str, index: int) -> str:
    """How a message calls an element, as `joint 'hip'`, or `joint 3` where it has no name."""
    name = name_of(model, kind, index)
    return f"{kind} '{name}'" if name else f"{kind} {index}"


def scale(live: Mapping[str, Tensor], field: str, numbers: tuple[int, ...], factor: Float[Tensor, "N *d"]) -> None:
    """live[field][w, i] *= factor[w] for every world w and each object i of `numbers`; or each number by its own.

    A field that is not there is zero, and stays.
    """
    if field not in live or not numbers:
        return
    values, index = live[field], constant(numbers, factor.device)
    chosen = values[:, index]
    if factor.dim() > 1 and factor[0].numel() != chosen[0].numel():
        shape = "x".join(str(size) for size in chosen.shape[1:])
        raise UserError(f"a variation of {shape} numbers was given {factor[0].numel()} factors")
    values[:, index] = chosen * factor.reshape(chosen.shape if factor.dim() > 1 else (-1, *(1,) * (values.dim() - 1)))


def dofs(model: mujoco.MjModel, joints: Sequence[int]) -> tuple[int, ...]:
    """Degrees of freedom of the given joints."""
    return tuple(dof for dof, joint in enumerate(model.dof_jntid.tolist()) if joint in joints)


def tendon_joints(model: mujoco.MjModel, tendon: int) -> set[int]:
    """Joints that change the tendon's length."""
    wraps = range(int(model.tendon_adr[tendon]), int(model.tendon_adr[tendon] + model.tendon_num[tendon]))
    joints, bodies = set(), []
    for wrap in wraps:
        kind, target = int(model.wrap_type[wrap]), int(model.wrap_objid[wrap])
        if kind == int(mujoco.mjtWrap.mjWRAP_JOINT) and model.wrap_prm[wrap] != 0:
            joints.add(target)
        elif kind == int(mujoco.mjtWrap.mjWRAP_SITE):
            bodies.append(int(model.site_bodyid[target]))
        elif kind in (int(mujoco.mjtWrap.mjWRAP_SPHERE), int(mujoco.mjtWrap.mjWRAP_CYLINDER)):
            bodies.append(int(model.geom_bodyid[target]))
    return joints | joints_between(model, bodies)


def joints_between(model: mujoco.MjModel, bodies: Sequence[int]) -> set[int]:
    """Joints that move some of the bodies but not all of them together."""
    above = [_joints_above(model, body) for body in bodies]
    return set[int]().union(*above) - above[0].intersection(*above) if above else set()


def _joints_above(model: mujoco.MjModel, body: int) -> set[int]:
    joints: set[int] = set()
    while body:
        first = int(model.body_jntadr[body])
        joints.update(range(first, first + int(model.body_jntnum[body])))
        body = int(model.body_parentid[body])
    return joints
