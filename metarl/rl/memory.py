"""A recurrent actor-critic one control step at a time, as fast as a policy acts by it."""

from __future__ import annotations

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
        memory, hidden = network.memory, network.hidden
        w_in, w_mem, b_in, b_mem = (parameter.detach() for parameter in memory.parameters())
        if network.is_lstm:  # gates input, forget, cell, output: the three that are sigmoids side by side
            order = torch.tensor([0, 1, 3, 2], device=w_in.device)
            weight = _gates(torch.cat((w_in, w_mem), dim=1), 4)[order].flatten(0, 1)
            bias = _gates(b_in + b_mem, 4)[order].flatten()
        else:  # gates reset, update, new; of the last, input and memory enter apart
            inputs, mem = torch.zeros_like(w_in[:hidden]), torch.zeros_like(w_mem[:hidden])
            weight = torch.cat(
                (
                    torch.cat((w_in, w_mem), dim=1)[: 2 * hidden],
                    torch.cat((w_in[2 * hidden :], mem), dim=1),
                    torch.cat((inputs, w_mem[2 * hidden :]), dim=1),
                )
            )
            bias = torch.cat(((b_in + b_mem)[: 2 * hidden], b_in[2 * hidden :], b_mem[2 * hidden :]))
        self.weight, self.bias, self.is_lstm, self.hidden = weight.T.contiguous(), bias, network.is_lstm, hidden
        first, last = cast(nn.Linear, network.actor[0]), cast(nn.Linear, network.actor[2])
        self.first = (first.bias.detach(), first.weight.detach().T.contiguous())
        self.last = (last.bias.detach(), last.weight.detach().T.contiguous())
        self.std = network.log_std.detach().exp()
        self.norm = norm.affine()

    def remember(
        self, inputs: Float32[Tensor, "N I"], cell: Float32[Tensor, "N C"]
    ) -> tuple[Float32[Tensor, "N H"], Float32[Tensor, "N C"]]:
        """One step: output and cell after it, from [input, output before] and the cell before (empty of a GRU)."""
        hidden = self.hidden
        gates = torch.addmm(self.bias, inputs, self.weight)
        if self.is_lstm:
            i, f, o = gates[:, : 3 * hidden].sigmoid_().chunk(3, dim=1)
            cell = torch.addcmul(f * cell, i, gates[:, 3 * hidden :].tanh_())
            return o * cell.tanh(), cell
        reset, update = gates[:, : 2 * hidden].sigmoid_().chunk(2, dim=1)
        new = torch.addcmul(gates[:, 2 * hidden : 3 * hidden], reset, gates[:, 3 * hidden :]).tanh_()
        return torch.lerp(new, inputs[:, -hidden:], update), cell

    def mean(self, features: Float32[Tensor, "N F"]) -> Float32[Tensor, "N A"]:
        """The actor's mean action, from [output, observation]."""
        return torch.addmm(self.last[0], torch.addmm(self.first[0], features, self.first[1]).tanh_(), self.last[1])


def _gates(x: Tensor, number: int) -> Tensor:
    """(number · H, ...) as (number, H, ...)."""
    return x.reshape(number, -1, *x.shape[1:])
