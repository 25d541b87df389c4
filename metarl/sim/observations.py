"""From the named parts that a family observes to the vector that a policy sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.core.errors import UserError
from metarl.sim.family import MujocoFamily


def to_vector(family: MujocoFamily, seen: Any) -> Float[Tensor, "N O"]:
    """The parts, a mapping from their names, side by side in the order of their declaration; a copy.

    Raises `UserError` where they are not what the family declares.
    """
    try:
        vector = torch.cat([seen[part.name] for part in family.observation], dim=1)
        if len(seen) == len(family.observation):
            return vector
    except (KeyError, TypeError, IndexError, ValueError, RuntimeError):
        pass
    require_declared(family, seen)
    raise UserError(f"{type(family).__name__}.observe returns parts that do not fit together")


def require_declared(
    family: MujocoFamily, seen: object, num_worlds: int | None = None, dtype: torch.dtype | None = None
) -> None:
    """`UserError`, which says what to write, unless `seen` holds exactly the declared parts in their declared sizes."""
    name = f"{type(family).__name__}.observe"
    declared = {part.name: part.size for part in family.observation}
    if not isinstance(seen, Mapping):
        raise UserError(
            f"{name} returns {kind_of(seen)}: declare the parts of the observation, as observation = "
            "(Part('joint_position', 2, 'rad'), ...), and return a mapping, as {'joint_position': ...}, of tensors "
            "(num_worlds, size)"
        )
    for part in seen:
        if part not in declared:
            raise UserError(
                f"{name} returns the part {part!r}, which is not declared: add Part({part!r}, size, unit) to "
                f"`observation`, which has {', '.join(declared) or 'none'}"
            )
    for part, size in declared.items():
        if part not in seen:
            raise UserError(f"{name} does not return the part '{part}', which `observation` declares")
        value, rows = seen[part], "num_worlds" if num_worlds is None else num_worlds
        fits = isinstance(value, Tensor) and value.dim() == 2 and value.shape[1] == size
        if not fits or (num_worlds not in (None, len(value))) or (dtype not in (None, value.dtype)):
            kind = f"{str(dtype or torch.float64).removeprefix('torch.')} ({rows}, {size})"
            tensor = "" if isinstance(value, Tensor) else "a torch tensor, "
            raise UserError(f"{name} returns {kind_of(value)} as the part '{part}', it must be {tensor}{kind}")


def kind_of(value: object) -> str:
    """What a value is, in words: as `float64 (4, 2)` or `a numpy.ndarray`."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    module, name = type(value).__module__, type(value).__qualname__
    return "None" if value is None else f"a {name if module == 'builtins' else f'{module}.{name}'}"
