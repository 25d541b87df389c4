"""Tasks by Gymnasium's words: what the options of a reset ask for, and infos as vector environments lay them out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from metarl.core.errors import UserError, unknown_name
from metarl.core.tasks import Split, Tasks, TaskSpace, Value

Given = Mapping[str, Float64[Tensor, "1 *d"]]
"""The task parameters that were asked for; the others are drawn."""
Infos = dict[str, Any]


def draw(space: TaskSpace, split: Split, given: Given, rng: np.random.Generator) -> tuple[Tasks, int]:
    """A task, and the stream of its initial states."""
    drawn = space.sample(split, 1, rng)
    return Tasks({**drawn.values, **given}), int(rng.integers(2**62))


def asked_of(space: TaskSpace, split: str, options: Mapping[str, Any] | None) -> tuple[Split, Given]:
    """The split and the task parameters in the options of a reset; `UserError` for what is not there."""
    options = options or {}
    for name in options:
        if name not in ("task", "split"):
            raise unknown_name("reset option", str(name), ("task", "split"))
    split = options.get("split", split)
    if split not in space.splits:
        raise unknown_name("split", str(split), space.splits)
    task = {} if options.get("task") is None else options["task"]
    if not isinstance(task, Mapping):
        raise UserError(f"the task {task!r} must map task parameters to values: {', '.join(space.parameters)}")
    return split, {name: _given(space, str(name), value) for name, value in task.items()}


def _given(space: TaskSpace, name: str, wanted: object) -> Float64[Tensor, "1 *d"]:
    """One parameter's value; `UserError` unless some split could pose it, or it is the unmodified robot's."""
    if name not in space.parameters:
        raise unknown_name("task parameter", name, space.parameters)
    supports = [space.distribution(name, split) for split in space.splits]
    allowed = " or ".join(dict.fromkeys(support.describe() for support in supports))
    try:
        value = cast(Value, np.asarray(wanted, np.float64).tolist())
    except (TypeError, ValueError):
        raise UserError(f"task parameter '{name}' = {wanted!r} is no number: it must be {allowed}") from None
    if value != space.parameters[name].nominal and not any(support.contains(value) for support in supports):
        raise UserError(f"task parameter '{name}' = {value} is out of range: it must be {allowed}")
    return torch.tensor([value], dtype=torch.float64)


def infos_of(values: Mapping[str, Any], mask: np.ndarray) -> Infos:
    """Gymnasium's layout: copies of the values, zero outside `mask`, beside the mask of the worlds that have them."""
    infos: Infos = {f"_{name}": mask.copy() for name in values}
    for name, value in values.items():
        if isinstance(value, Mapping):
            infos[name] = infos_of(value, mask)
        else:
            infos[name] = np.zeros_like(value)
            infos[name][mask] = value[mask]
    return infos
