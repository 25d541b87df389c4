"""A memory-augmented network: an LSTM that reads from and writes to a table of slots (Santoro et al. 2016).

Reading is by content: a slot is read the more, the more it is like the key. What is written is the key too: to what was
read a step before, or to the slot that was used least (LRUA: one-shot learning with memory-augmented neural networks,
arXiv:1605.06065, eq. 2 to 8). Here a step reads before it writes: nothing is more like a key than what it wrote itself.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from metarl.rl.cells import StepCell
from metarl.rl.networks import orthogonal

_SLOTS, _WIDTH = 16, 32
_FADING = 0.95  # of a slot's usage, per step
_SMALL = 1e-12  # the least product of squared lengths that is divided by


class _Carried(NamedTuple):
    """What goes on from step to step."""

    h: Float[Tensor, "N H"]
    c: Float[Tensor, "N H"]
    read: Float[Tensor, "N W"]
    where: Float[Tensor, "N S"]
    """How much of each slot was read."""
    usage: Float[Tensor, "N S"]
    slots: Float[Tensor, "N S W"]


class ExternalMemory(StepCell):
    """One read head and one write head. It carries the LSTM's h and c, what was read and where, usage and table."""

    def __init__(self, inputs: int, hidden: int) -> None:
        self._sizes = [hidden, hidden, _WIDTH, _SLOTS, _SLOTS, _SLOTS * _WIDTH]
        super().__init__(hidden, sum(self._sizes))
        self.encode = orthogonal(nn.Linear(inputs, 4 * hidden), 1.0)
        self.recur = orthogonal(nn.Linear(_WIDTH + hidden, 4 * hidden), 1.0)
        self.key = nn.Linear(hidden, _WIDTH + 2)
        self.out = nn.Linear(_WIDTH, hidden)

    def step(
        self, inputs: Float[Tensor, "N I"], carried: Float[Tensor, "N C"]
    ) -> tuple[Float[Tensor, "N H"], Float[Tensor, "N C"]]:
        """See `StepCell.step`."""
        after = self._after(self.encode(inputs), self._taken_apart(carried))
        return after.h + self.out(after.read), _together(after)

    def sequence(
        self, inputs: Float[Tensor, "T N I"], state: Float[Tensor, "N S"]
    ) -> tuple[Float[Tensor, "T N H"], Float[Tensor, "N S"]]:
        """Step by step, but for what no step needs of the one before."""
        after, made = self._taken_apart(state[:, self.hidden :]), []
        for driven in self.encode(inputs):
            after = self._after(driven, after)
            made.append(after)
        outputs = torch.stack([x.h for x in made]) + self.out(torch.stack([x.read for x in made]))
        return outputs, torch.cat((outputs[-1], _together(after)), dim=1)

    def _after(self, driven: Float[Tensor, "N H4"], before: _Carried) -> _Carried:
        """One step, by what the input makes of the LSTM's gates."""
        _, c, read, where, usage, slots = before
        gates = driven + self.recur(torch.cat((read, before.h), dim=1))
        i, f, o = gates[:, : 3 * self.hidden].sigmoid().chunk(3, dim=1)
        c = torch.addcmul(f * c, i, gates[:, 3 * self.hidden :].tanh())
        h = o * c.tanh()
        key, sharpness, gate = torch.split(self.key(h), [_WIDTH, 1, 1], dim=1)
        key, gate = key.tanh(), gate.sigmoid()
        lengths = (slots.square().sum(dim=2) * key.square().sum(dim=1, keepdim=True)).clamp_min(_SMALL).sqrt()
        likeness = torch.bmm(slots, key[:, :, None])[:, :, 0] / lengths
        least = (torch.arange(_SLOTS, device=usage.device) == usage.argmin(dim=1, keepdim=True)).to(usage.dtype)
        fresh = (1.0 - gate) * least
        written = torch.addcmul(fresh, gate, where)
        where = torch.softmax((1.0 + softplus(sharpness)) * likeness, dim=1)
        read = torch.bmm(where[:, None], slots)[:, 0]
        # What the least used slot held makes room as far as it is written to.
        slots = torch.baddbmm(slots * (1.0 - fresh)[:, :, None], written[:, :, None], key[:, None])
        with torch.no_grad():
            usage = _FADING * usage + where + written
        return _Carried(h, c, read, where, usage, slots)

    def _taken_apart(self, carried: Float[Tensor, "N C"]) -> _Carried:
        h, c, read, where, usage, table = torch.split(carried, self._sizes, dim=1)
        return _Carried(h, c, read, where, usage, table.reshape(-1, _SLOTS, _WIDTH))


def _together(parts: _Carried) -> Float[Tensor, "N C"]:
    return torch.cat((*parts[:-1], parts.slots.flatten(1)), dim=1)
