"""Deviations of beliefs made right by experience: of 90 % intervals, 90 % are to hold the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

LEVEL = 0.9
"""Share of the truths that an interval is to hold."""
REACH = 1.6448536269514722
"""Standard deviations about the mean of a Gaussian that hold that share."""
_KNOTS = (-4.0, -3.0, -2.0, -1.0, 0.0, 1.0)
"""Log standard deviations, in units of the prior's, for each of which a factor is learnt."""
_STEPS = 60
_LEAST = 20  # trials with beliefs about a knot, below which its factor stays 1
_BOUND = 2.0  # of the logarithm of a factor


class Recalibration(nn.Module):
    """Factors on the standard deviations of P beliefs, each a function of the deviation itself.

    A network's likelihood makes its deviations right on what it has just learnt from, by actions that were sampled, and
    only for errors of its likelihood's shape. The factors instead seek a quantile (Robbins & Monro 1951): where more
    truths than a tenth lie outside of the intervals they grow, where fewer do they shrink.
    """

    log_factor: Float[Tensor, "P B"]
    _knots: Float[Tensor, "B"]

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("log_factor", torch.zeros(size, len(_KNOTS)))
        self.register_buffer("_knots", torch.tensor(_KNOTS), persistent=False)

    def forward(self, log_std: Float[Tensor, "*B P"]) -> Float[Tensor, "*B P"]:
        """The log standard deviations corrected."""
        return log_std + (self._nearness(log_std) * self.log_factor).sum(dim=-1)

    @torch.no_grad()
    def fit(self, error: Float[Tensor, "T N P"], log_std: Float[Tensor, "T N P"]) -> None:
        """Find the factors by T beliefs of each of N trials whose truths are known.

        These are errors of the means, and log standard deviations. At each knot every trial has one vote, however many
        of its steps are there: they are much alike.
        """
        nearness = self._nearness(log_std)
        mass = nearness.sum(dim=0)
        votes = mass >= 0.5
        known = votes.sum(dim=0)
        self.log_factor.zero_()
        for number in range(_STEPS):
            outside = (error.abs() > REACH * self(log_std).exp()).float()
            missed = (nearness * outside[..., None]).sum(dim=0) / mass.clamp(min=0.5)
            share = (missed * votes).sum(dim=0) / known.clamp(min=1)
            moved = self.log_factor + 10.0 / (10.0 + number) * (share - (1.0 - LEVEL)) * (known >= _LEAST)
            self.log_factor.copy_(moved.clamp(-_BOUND, _BOUND))

    def _nearness(self, log_std: Float[Tensor, "*B P"]) -> Float[Tensor, "*B P B"]:
        """Weight of each knot, 1 in all: of the nearest two, by how near they are."""
        return torch.relu(1.0 - (log_std.clamp(_KNOTS[0], _KNOTS[-1])[..., None] - self._knots).abs())

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Policies from before have no factors: theirs are 1."""
        state_dict = {f"{prefix}log_factor": torch.zeros_like(self.log_factor), **state_dict}
        super()._load_from_state_dict(state_dict, prefix, *rest)
