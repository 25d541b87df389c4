"""What a family's declared left-right symmetry means for policies and for tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.info import Mirror, Part, Reflection
from metarl.core.mirror import Symmetry, reflect, side_by_side, signed
from metarl.core.tasks import Angle, Parameter, Tasks
from metarl.sim.family import Family


def symmetry_of(family: Family | type[Family]) -> Symmetry | None:
    """The symmetry that a family declares; None where what it is of was replaced since.

    A subclass with task parameters, variations or disturbances of its own says anew whether left and right are alike.
    """
    if family.mirror is None:
        return None
    kinds = (family if isinstance(family, type) else type(family)).__mro__
    declared = next(place for place, kind in enumerate(kinds) if "mirror" in vars(kind))
    changed = any(name in vars(kind) for kind in kinds[:declared] for name in ("space", "variations", "disturbances"))
    return None if changed else family.mirror


def mirror_of(family: Family, privileged: Sequence[Part], task_visible: bool) -> Mirror | None:
    """What a policy has to know of the family's symmetry; None where it declares none.

    `privileged` are the parts that an oracle is told, which its observation ends with. Raises `UserError` where the
    family declares what does not fit.
    """
    symmetry = symmetry_of(family)
    if symmetry is None:
        return None
    parts = [_declared(family, symmetry.parts, part) for part in family.observation]
    told = [_declared(family, symmetry.parameters, part) for part in privileged]
    return Mirror(side_by_side(*parts, *told * task_visible), symmetry.action, side_by_side(*told))


def mirrored_tasks(family: Family, tasks: Tasks) -> Tasks:
    """The tasks of the mirrored robots."""
    symmetry = symmetry_of(family)
    assert symmetry is not None
    own = family.space.parameters
    declared = {name: row for name, row in symmetry.parameters.items() if name in own}  # others are hidden parts
    changed = {name: _mirrored(own[name], tasks[name], row) for name, row in declared.items()}
    return Tasks({**tasks.values, **changed})


def _mirrored(parameter: Parameter, value: Tensor, reflection: Reflection) -> Tensor:
    """Values (N,) or (N, d) of one parameter."""
    if value.dim() > 1:
        return reflect(value, reflection)
    if parameter.labels:  # one-hot: the mirrored index is that of the element made from this one
        made_from = torch.tensor([index for index, _ in reflection], device=value.device)
        index = value.round().long()
        return torch.where(index >= 0, made_from.argsort()[index.clamp(min=0)], index).to(value.dtype)
    return value * (reflection[1][1] if isinstance(parameter.train, Angle) else reflection[0][1])


def _declared(family: Family, declared: Mapping[str, Reflection], part: Part) -> Reflection:
    """The reflection declared for a part; each number itself where none is."""
    found = declared.get(part.name, signed(*(1,) * part.size))
    if sorted(index for index, _ in found) != list(range(part.size)):
        what = f"{type(family).__name__}.mirror of '{part.name}'"
        raise UserError(f"{what} must hold each of the indices 0 to {part.size - 1} once")
    return found
