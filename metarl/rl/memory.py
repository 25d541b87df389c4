"""A recurrent actor-critic one control step at a time, as fast as a policy acts by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from metarl.rl.networks import RecurrentActorCritic
from metarl.rl.normalize import RunningNorm


class Packed:
    """Weights of a `RecurrentActorCritic` and its normaliser, laid out for one matrix product per step of memory.

    Copies: `of` makes new ones when the parameters have changed. Results equal the network's own to about 1e-7.
    """

    def __init__(self, network: RecurrentActorCritic, norm: RunningNorm) -> None:
        self.remember = network.memory.acting()
        self.mean: Callable[[Tensor], Tensor] = network.mean
        """The policy's mean action, from [output, observation]."""
        if isinstance(network.actor, nn.Sequential) and not network.believing:
            first, last = cast(nn.Linear, network.actor[0]), cast(nn.Linear, network.actor[2])
            self.first = (first.bias.detach(), first.weight.detach().T.contiguous())
            self.last = (last.bias.detach(), last.weight.detach().T.contiguous())
            self.mean = self._mean
        self.std = network.log_std.detach().exp()
        self.norm = norm.affine()

    def _mean(self, features: Float32[Tensor, "N F"]) -> Float32[Tensor, "N A"]:
        return torch.addmm(self.last[0], torch.addmm(self.first[0], features, self.first[1]).tanh_(), self.last[1])
