"""What a variation is, and what all of them need: names, indices, and scaling in place.

A variation changes one quantity, and MuJoCo may hold that quantity in several fields, or in other fields for another
kind of element: a variation scales all of them, or refuses the model by the name of what it cannot vary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import mujoco
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.tasks import Tasks

_SIZES = {"body": "nbody", "geom": "ngeom", "joint": "njnt", "actuator": "nactuator", "site": "nsite"}


@runtime_checkable
class Variation(Protocol):
    """One way in which a task changes the robot or its world.

    One whose parameter is an index may say so in a property `indices`, a mapping from the parameter to the `range` of
    its values: a family whose task space can draw another is refused when it is made.
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


def require_number(parameter: str, value: Float[Tensor, "N *d"]) -> None:
    """`UserError` for a task parameter that is a point where a variation reads a number."""
    if value.dim() > 1:
        size = value[0].numel()
        raise UserError(
            f"task parameter '{parameter}' is {size} numbers where one is read: ModelField has one for each"
        )


def require_ratio(parameter: str, value: Float[Tensor, "N *d"]) -> None:
    """`UserError` where a ratio to the pristine value is negative, or no number."""
    require_number(parameter, value)
    if bool((value < 0).any()):
        raise UserError(f"task parameter '{parameter}' = {float(value.min()):g} is a ratio: it must not be negative")


def require_index(parameter: str, value: Float[Tensor, "N *d"], allowed: range) -> Int64[Tensor, "N"]:
    """`value` as whole numbers; `UserError` where it is none of `allowed`, of which -1 stands for none."""
    require_number(parameter, value)
    index = value.round().long()
    wrong = (index != value) | (index < allowed.start) | (index >= allowed.stop)
    if bool(wrong.any()):
        raise UserError(f"task parameter '{parameter}' = {float(value[wrong][0]):g} {no_index(allowed)}")
    return index


def no_index(allowed: range) -> str:
    """What is wrong with a value that is none of `allowed`."""
    none = ", or -1 for none" if allowed.start < 0 else ""
    return f"is the index of nothing: it must be a whole number from 0 to {allowed.stop - 1}{none}"


def ids(model: mujoco.MjModel, kind: str, names: Sequence[str] | None) -> Int64[Tensor, "n"]:
    """Indices of the named objects; all of them for None. `UserError` names an unknown one."""
    size = getattr(model, _SIZES[kind])
    if names is None:
        return torch.arange(size)
    known = [name_of(model, kind, i) for i in range(size)]
    for name in names:
        if name not in known:
            available = ", ".join(known_name for known_name in known if known_name)
            raise UserError(f"a variation names the unknown {kind} '{name}'; the model has: {available}")
    return torch.tensor([known.index(name) for name in names], dtype=torch.long)


def name_of(model: mujoco.MjModel, kind: str, index: int) -> str:
    """Name of an element (its kind as in MjModel's accessors), empty where it has none."""
    return str(getattr(model, kind)(index).name)


def label(model: mujoco.MjModel, kind: str, index: int) -> str:
    """How a message calls an element, as `joint 'hip'`, or `joint 3` where it has no name."""
    name = name_of(model, kind, index)
    return f"{kind} '{name}'" if name else f"{kind} {index}"


def scale(live: Tensor, index: Int64[Tensor, "n"], factor: Float[Tensor, "N *d"]) -> None:
    """live[w, i] *= factor[w] for every world w and object i in `index`; or each number by its own, row by row."""
    chosen = live[:, index]
    if factor.dim() == 1:
        live[:, index] = chosen * factor.reshape(-1, *(1,) * (live.dim() - 1))
        return
    if factor[0].numel() != chosen[0].numel():
        numbers = "x".join(str(size) for size in chosen.shape[1:])
        raise UserError(f"a variation of {numbers} numbers was given {factor[0].numel()} factors")
    live[:, index] = chosen * factor.reshape(chosen.shape)


def dofs(model: mujoco.MjModel, joints: Int64[Tensor, "n"]) -> Int64[Tensor, "m"]:
    """Degrees of freedom of the given joints."""
    chosen = set(joints.tolist())
    return torch.tensor([dof for dof in range(model.nv) if int(model.dof_jntid[dof]) in chosen], dtype=torch.long)


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
