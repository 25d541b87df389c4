"""Adam without torch's compiler: the same arithmetic, and a second less of start-up."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch

from metarl.core.graphs import looks

_STEP: Any = inspect.unwrap(torch.optim.Adam.step)


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, to the bit. torch's own wraps these methods in ones that import `torch._dynamo` first."""

    def __init__(
        self, params: Iterable[torch.Tensor], lr: float = 1e-3, eps: float = 1e-8, fused: bool | None = None
    ) -> None:
        """On a GPU a step is one kernel, which can be captured, and which an attribute `found_inf` of 1 leaves out."""
        params = list(params)
        on_gpu = not looks(params[0].device)
        fused = True if on_gpu else fused
        super().__init__(params, lr=lr, eps=eps, fused=fused, capturable=on_gpu, foreach=None if fused else True)

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the parameters by their gradients."""
        _STEP(self)
