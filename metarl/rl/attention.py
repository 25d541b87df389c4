"""A transformer as memory: causal attention over the last W steps of a trial, across its episodes (AMAGO: 2310.09971).

Acting keeps keys and values of the last W steps in a ring, which is the state: a step costs one row of attention.
Positions enter by rotating queries and keys (RoPE: Su et al. 2021, arXiv:2104.09864), so that a key stays valid
wherever in the ring it lies, and only differences of time matter.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from metarl.rl.cells import StepCell

_LAYERS, _HEADS = 2, 4
_BASE = 1000.0  # of the rotations' wavelengths, up to about 2π · this many steps


def rotated(x: Float[Tensor, "*B H"], position: Float[Tensor, "*B"]) -> Float[Tensor, "*B H"]:
    """Each head's pairs of numbers turned by angles proportional to the position: RoPE, eq. 34."""
    pairs = x.reshape(*x.shape[:-1], _HEADS, 2, x.shape[-1] // (2 * _HEADS))
    frequency = _BASE ** -torch.linspace(0.0, 1.0, pairs.shape[-1], device=x.device)
    angle = position[..., None, None] * frequency
    (a, b), cos, sin = pairs.unbind(-2), angle.cos(), angle.sin()
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-2).flatten(-3)


class Layer(nn.Module):
    """u + attention, then u + MLP, each of the normalised u."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def parts(self, u: Float[Tensor, "*B H"], position: Float[Tensor, "*B"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (*B, H)."""
        query, key, value = self.project(self.before_attention(u)).chunk(3, dim=-1)
        return rotated(query, position), rotated(key, position), value

    def attend(
        self,
        u: Float[Tensor, "N T H"],
        query: Float[Tensor, "N T H"],
        held: tuple[Float[Tensor, "N K H"], Float[Tensor, "N K H"]],
        seen: Bool[Tensor, "N T K"],
    ) -> Float[Tensor, "N T H"]:
        """The layer's output, from keys and values; `seen` says which of them a query may look at."""
        q, k, v = (x.reshape(*x.shape[:2], _HEADS, x.shape[2] // _HEADS).transpose(1, 2) for x in (query, *held))
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None])
        u = u + self.out(mixed.transpose(1, 2).flatten(2))
        output: Tensor = u + self.narrow(gelu(self.wide(self.before_mlp(u))))
        return output


class Transformer(StepCell):
    """Two layers of attention over the last `window` steps. It carries per layer W keys and values, and a clock.

    A state is large: learners keep those of segments' begins only, and train on whole segments. In acting, keys and
    values are written into the state that was given.
    """

    recorded = False

    def __init__(self, inputs: int, hidden: int, window: int) -> None:
        super().__init__(hidden, 2 * _LAYERS * window * hidden + 1)
        self.window = window
        self.encode = nn.Linear(inputs, hidden)
        self.layers = nn.ModuleList(Layer(hidden) for _ in range(_LAYERS))
        self.norm = nn.LayerNorm(hidden)

    def step(
        self, inputs: Float[Tensor, "N I"], carried: Float[Tensor, "N C"]
    ) -> tuple[Float[Tensor, "N H"], Float[Tensor, "N C"]]:
        """See `StepCell.step`. Without gradient."""
        u, clock = self.encode(inputs), carried[:, -1]
        ring = carried[:, :-1].view(len(inputs), _LAYERS, 2, self.window, self.hidden)
        # The oldest entry makes room for the step's own, at the slot of its time; what was never written is not seen.
        slot = (clock % self.window).long()[:, None, None].expand(-1, 1, self.hidden)
        seen = (torch.arange(self.window, device=inputs.device) <= clock[:, None])[:, None]
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            query, key, value = layer.parts(u, clock)
            for place, now in enumerate((key, value)):
                ring[:, number, place].scatter_(1, slot, now[:, None])
            u = layer.attend(u[:, None], query[:, None], (ring[:, number, 0], ring[:, number, 1]), seen)[:, 0]
        carried[:, -1] += 1.0
        return torch.tanh(self.norm(u)), carried

    def sequence(
        self, inputs: Float[Tensor, "T N I"], state: Float[Tensor, "N S"]
    ) -> tuple[Float[Tensor, "T N H"], Float[Tensor, "N S"]]:
        """All steps at once, which also look at what is in the ring."""
        window, carried = self.window, state[:, self.hidden :]
        ring = carried[:, :-1].view(-1, _LAYERS, 2, window, self.hidden)
        clock = carried[:, -1:]
        steps = torch.arange(inputs.shape[0], device=inputs.device)
        slot = torch.arange(window, device=inputs.device)
        now = clock + steps
        # A slot's last time before the clock, below zero where it was never written.
        old = clock - 1.0 - (clock - 1.0 - slot) % window
        time = torch.cat((old, now), dim=1)
        age = now[:, :, None] - time[:, None]
        seen = (age >= 0) & (age < window) & (time >= 0)[:, None]
        u, after = self.encode(inputs).transpose(0, 1), []
        ago = ((time[:, -1:] - slot) % window).long()  # how long before the end each slot is written for the last time
        pick = torch.where(ago < len(inputs), time.shape[1] - 1 - ago, slot)[..., None].expand(-1, -1, self.hidden)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            query, *made = layer.parts(u, now)
            key, value = (torch.cat((ring[:, number, i], own), dim=1) for i, own in enumerate(made))
            u = layer.attend(u, query, (key, value), seen)
            after += [key.gather(1, pick), value.gather(1, pick)]
        outputs = torch.tanh(self.norm(u)).transpose(0, 1)
        rings = torch.stack(after, dim=1).flatten(1)
        return outputs, torch.cat((outputs[-1], rings, clock + len(inputs)), dim=-1)
