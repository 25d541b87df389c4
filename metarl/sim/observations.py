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
        require_tensor(f"the part '{part}' of {name} is", seen[part], (num_worlds, size), dtype)


def require_tensor(what: str, value: object, shape: tuple[int | None, ...], dtype: torch.dtype | None = None) -> None:
    """`UserError` unless `value` is a tensor of this shape and, if told, dtype; None stands for any size."""
    fits = isinstance(value, Tensor) and value.dim() == len(shape) and dtype in (None, value.dtype)
    if fits and all(size in (None, found) for size, found in zip(shape, value.shape, strict=True)):  # type: ignore[attr-defined]
        return
    sizes = ", ".join(("num_worlds", "size")[i] if size is None else str(size) for i, size in enumerate(shape))
    kind = f"{str(dtype or torch.float64).removeprefix('torch.')} ({sizes}{',' * (len(shape) == 1)})"
    raise UserError(
        f"{what} {kind_of(value)}, it must be {'' if isinstance(value, Tensor) else 'a torch tensor, '}{kind}"
    )


def kind_of(value: object) -> str:
    """What a value is, in words: as `float64 (4, 2)` or `a numpy.ndarray`."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    module, name = type(value).__module__, type(value).__qualname__
    return "None" if value is None else f"a {name if module == 'builtins' else f'{module}.{name}'}"
