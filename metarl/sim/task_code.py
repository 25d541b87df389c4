"""Tasks as an oracle sees them: each task as a row of numbers of about unit size, to stand behind an observation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from metarl.core.info import Part
from metarl.core.tasks import Angle, Ball, Choice, Disc, LogUniform, Parameter, Tasks, TaskSpace, Uniform

_TINY = 1e-6  # the logarithm of a ratio that is zero or less is taken of this


def task_code(space: TaskSpace, tasks: Tasks) -> Float32[Tensor, "N C"]:
    """The tasks in numbers; C depends on the space only.

    The training range of a number is mapped onto [-1, 1], that of a ratio by its logarithm, and `ood` lies beyond. An
    angle is its cosine and sine, a point is divided by the radius it is drawn within, an index (a parameter with
    labels) is one-hot with zeros for none. Whatever else stands as it is.
    """
    codes = [code_of(parameter, tasks[name]) for name, parameter in space.parameters.items()]
    return torch.cat([code if code.dim() > 1 else code[:, None] for code in codes], dim=1).float()


def code_parts(space: TaskSpace) -> tuple[Part, ...]:
    """What stands in a `task_code`: a part per task parameter, by its name."""
    nominal = space.nominal()
    parts = []
    for name, parameter in space.parameters.items():
        code = code_of(parameter, nominal[name])
        elements = ("cos", "sin") if isinstance(parameter.train, Angle) else parameter.labels if code.dim() > 1 else ()
        parts.append(Part(name, code[0].numel(), "1", elements, parameter.help))
    return tuple(parts)


def code_of(parameter: Parameter, value: Tensor) -> Tensor:
    """The code of one parameter of N tasks, shape (N,) or (N, d)."""
    if parameter.labels and value.dim() == 1:
        index = torch.arange(len(parameter.labels), device=value.device)
        return (value.round()[:, None] == index).to(value.dtype)
    match parameter.train:
        case Angle():
            return torch.stack((value.cos(), value.sin()), dim=1)
        case Disc(radius=radius) | Ball(radius=radius):
            return value / radius
        case LogUniform(low=low, high=high):
            bounds = torch.tensor((low, high), dtype=value.dtype).log()
            return _to_unit(value.clamp(min=_TINY).log(), float(bounds[0]), float(bounds[1]))
        case Uniform(low=low, high=high):
            return _to_unit(value, low, high)
        case Choice(values=values) if len(set(values)) > 1:
            return _to_unit(value, min(values), max(values))
    return value


def _to_unit(value: Tensor, low: float, high: float) -> Tensor:
    return 2.0 * (value - low) / (high - low) - 1.0


def trained_range(parameter: Parameter | None) -> tuple[float, float] | None:
    """Range of a number in training; None of points, indices and what is no task parameter."""
    if parameter is None:
        return None
    match parameter.train:
        case Uniform(low=low, high=high) | LogUniform(low=low, high=high):
            return low, high
        case Choice(values=values) if not parameter.labels:
            return min(values), max(values)
    return None


def decoder(parameter: Parameter | None) -> Callable[[np.ndarray], np.ndarray]:
    """From numbers of about unit size, as an oracle sees them, back to a parameter's own unit: see `code_of`."""
    trained = trained_range(parameter)
    if parameter is None or trained is None or trained[0] == trained[1]:
        return lambda code: code
    low, high = trained
    if isinstance(parameter.train, LogUniform):
        centre, half = math.log(low * high) / 2, math.log(high / low) / 2
        return lambda code: np.exp(np.clip(centre + half * code, -50.0, 50.0))
    return lambda code: low + (code + 1.0) / 2.0 * (high - low)
