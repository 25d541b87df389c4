"""Policies of no training: what a family is looked at with before any, and what explores at first."""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor

from metarl.core.info import PolicyInfo
from metarl.rl.policy import NoState, PolicyModule


class ZeroPolicy(PolicyModule):
    """Action 0: every actuator at the middle of its control range."""

    def __init__(self, info: PolicyInfo) -> None:
        super().__init__(info)
        self.noise_size = 0

    def act(
        self, obs: Float32[Tensor, "N O"], state: NoState, noise: Float32[Tensor, "N 0"], deterministic: bool = False
    ) -> tuple[Float32[Tensor, "N A"], NoState]:
        """Zeros."""
        return obs.new_zeros(len(obs), self.info.action_size), state


class RandomPolicy(PolicyModule):
    """Actions from U[-1, 1], drawn anew at every step, `deterministic` or not: it has no mean worth showing."""

    def act(
        self, obs: Float32[Tensor, "N O"], state: NoState, noise: Float32[Tensor, "N A"], deterministic: bool = False
    ) -> tuple[Float32[Tensor, "N A"], NoState]:
        """The noise through its distribution function."""
        return 2.0 * torch.special.ndtr(noise) - 1.0, state


UNTRAINED: dict[str, type[ZeroPolicy] | type[RandomPolicy]] = {"zero": ZeroPolicy, "random": RandomPolicy}
"""What `--agent` offers beside trained policies."""
