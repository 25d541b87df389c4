"""Modules as pure functions of one flat parameter vector: what adapts is a value."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call


class FlatModule:
    """A module whose parameters are handed in as one vector (P,), in the module's own order.

    Under `torch.func.vmap` the vector may be another one for every task; see also `named`.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
        self.size = sum(shape.numel() for shape in self._shapes.values())

    def __call__(self, flat: Float[Tensor, "P"], *inputs: Tensor) -> Any:
        """The module's output with the parameters `flat`."""
        return functional_call(self.module, self.named(flat), inputs)

    def named(self, flat: Float[Tensor, "*M P"]) -> dict[str, Tensor]:
        """Views of the vector by parameter name, each (*M, ...): leading dimensions are tasks."""
        parts = torch.split(flat, [shape.numel() for shape in self._shapes.values()], dim=-1)
        return {
            name: part.reshape((*flat.shape[:-1], *shape))
            for part, (name, shape) in zip(parts, self._shapes.items(), strict=True)
        }

    def read(self) -> Float[Tensor, "P"]:
        """A copy of the module's own parameters."""
        parameters = [parameter.detach().reshape(-1) for parameter in self.module.parameters()]
        return torch.cat(parameters) if parameters else torch.zeros(0)

    @torch.no_grad()
    def write(self, flat: Float[Tensor, "P"]) -> None:
        """Make `flat` the module's own parameters."""
        named = self.named(flat)
        for name, parameter in self.module.named_parameters():
            parameter.copy_(named[name])
