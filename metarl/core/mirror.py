"""Left and right exchanged: how vectors look in a mirror, as plain data, and the tensors that reflect them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.core.info import Reflection


@dataclass(frozen=True)
class Symmetry:
    """How a family looks in a mirror that exchanges left and right (y becomes −y). What is not named stays as it is.

    Of a pseudovector, as an angular velocity or the axis of a joint, the mirror keeps y and turns x and z round.
    """

    action: Reflection
    state: Mapping[str, Reflection]
    """Of each field of the physics that is a state: `qpos`, `qvel`, `ctrl`, `userdata`."""
    parts: Mapping[str, Reflection] = field(default_factory=dict)
    """Of parts of the observation, by their names."""
    parameters: Mapping[str, Reflection] = field(default_factory=dict)
    """Of what an oracle is told: of task parameters, as they stand in `task_code`, and of hidden parts."""


def signed(*signs: int) -> Reflection:
    """Numbers that stay in their places."""
    return tuple(enumerate(signs))


def side_by_side(*vectors: Reflection) -> Reflection:
    """Reflection of vectors that stand one behind another."""
    joined: list[tuple[int, int]] = []
    for vector in vectors:
        first = len(joined)
        joined += [(first + index, sign) for index, sign in vector]
    return tuple(joined)


def reflect(vector: Float[Tensor, "*B n"], reflection: Reflection) -> Float[Tensor, "*B n"]:
    """The vectors in the mirror: element i is `sign × vector[index]` with (index, sign) = `reflection[i]`."""
    index, sign = _tensors(reflection, vector.device, vector.dtype)
    return vector[..., index] * sign


@functools.lru_cache(maxsize=64)
def _tensors(reflection: Reflection, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Indices and signs; copied to the device once."""
    index, sign = zip(*reflection, strict=True)
    return torch.tensor(index, device=device), torch.tensor(sign, device=device, dtype=dtype)
