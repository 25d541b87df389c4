"""PEARL's gradient steps in blocks: on a GPU captured as one graph, as each has many small kernels."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from metarl.core.graphs import Replay

COMPILED = "METARL_COMPILE"
"""Environment variable: with the value 1 the objectives are compiled on CUDA (`torch.compile`).

With another value but 0 in the mode of that name, as `max-autotune-no-cudagraphs`, which takes minutes once.
"""
Step = Callable[..., Float32[Tensor, "R"] | None]
"""`Pearl.gradient_step`."""


def compiled(device: torch.device, *functions: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """Compile functions for a GPU, where that is asked for; else they stay as they are."""
    mode = os.environ.get(COMPILED, "0")
    if device.type != "cuda" or mode == "0":
        return functions
    torch._dynamo.config.suppress_errors = True  # what cannot be compiled is done without
    return tuple(torch.compile(function, dynamic=False, mode=None if mode == "1" else mode) for function in functions)


class Block:
    """Gradient steps whose data lies in the same place each time, captured as one graph."""

    def __init__(self, step: Step, data: Sequence[Tensor], size: int) -> None:
        """`data` is that of `gradient_step`, with a leading dimension for the steps; `size` is that of a record."""
        self._step, self._data = step, [part.clone() for part in data]
        self._total = torch.zeros(size, device=data[0].device)
        self._replay = Replay(self._work, data[0].device, "PEARL's gradient step")

    def __call__(self, data: Sequence[Tensor]) -> Float32[Tensor, "R"]:
        """As many steps as the data is for; the sum of what they record."""
        for own, new in zip(self._data, data, strict=True):
            own.copy_(new)
        self._replay()
        return self._total

    def _work(self) -> None:
        total = torch.zeros_like(self._total)
        for slots, context, batch, *noise in zip(*self._data, strict=True):
            record = self._step(slots, context, batch, iter(noise))
            assert record is not None
            total = total + record
        self._total.copy_(total)
