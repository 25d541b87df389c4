"""A memory-augmented network: an LSTM that reads from and writes to a table of slots (Santoro et al. 2016).

Reading is by content; writing goes to what was just read, or to the slot that was used least (LRUA: one-shot learning
with memory-augmented neural networks, arXiv:1605.06065, eq. 2 to 8).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from metarl.rl.cells import StepCell

_SLOTS, _WIDTH = 16, 32
_FADING = 0.95  # of a slot's usage, per step


class ExternalMemory(StepCell):
    """One read head and one write head. It carries the LSTM's h and c, what was read and where, usage and table."""

    def __init__(self, inputs: int, hidden: int) -> None:
        self._sizes = [hidden, hidden, _WIDTH, _SLOTS, _SLOTS, _SLOTS * _WIDTH]
        super().__init__(hidden, sum(self._sizes))
        self.controller = nn.LSTMCell(inputs + _WIDTH, hidden)
        for parameter in self.controller.parameters():
            nn.init.orthogonal_(parameter) if parameter.dim() > 1 else nn.init.zeros_(parameter)
        self.key = nn.Linear(hidden, 2 * _WIDTH + 2)
        self.out = nn.Linear(_WIDTH, hidden)

    def step(
        self, inputs: Float[Tensor, "N I"], carried: Float[Tensor, "N C"]
    ) -> tuple[Float[Tensor, "N H"], Float[Tensor, "N C"]]:
        """See `StepCell.step`. What is written can be read in the same step."""
        h, c, read, where, usage, table = torch.split(carried, self._sizes, dim=1)
        h, c = self.controller(torch.cat((inputs, read), dim=1), (h, c))
        key, content, sharpness, gate = torch.split(self.key(h), [_WIDTH, _WIDTH, 1, 1], dim=1)
        least = (usage == usage.amin(dim=1, keepdim=True)).to(usage.dtype)
        least = least * (least.cumsum(dim=1) == 1.0)  # of several the first
        written = gate.sigmoid() * where + (1.0 - gate.sigmoid()) * least
        slots = table.view(-1, _SLOTS, _WIDTH) * (1.0 - least)[..., None]
        slots = slots + written[..., None] * torch.tanh(content)[:, None]
        likeness = (normalize(slots, dim=2, eps=1e-6) * normalize(key, dim=1, eps=1e-6)[:, None]).sum(dim=2)
        where = torch.softmax((1.0 + softplus(sharpness)) * likeness, dim=1)
        read = (where[..., None] * slots).sum(dim=1)
        usage = _FADING * usage + where + written
        return h + self.out(read), torch.cat((h, c, read, where, usage, slots.flatten(1)), dim=1)
