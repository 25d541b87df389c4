"""Losses of soft actor-critic: twin critics, adjusted temperature (Haarnoja et al. 2018, arXiv:1812.05905)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
"""Bounds of the log standard deviation before the squashing."""


def split_head(head: Float[Tensor, "*B A2"]) -> tuple[Float[Tensor, "*B A"], Float[Tensor, "*B A"]]:
    """The actor's output as mean and log standard deviation of the Gaussian that tanh squashes."""
    mean, log_std = head.chunk(2, dim=-1)
    return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)


def squashed_sample(
    mean: Float[Tensor, "*B A"], log_std: Float[Tensor, "*B A"], noise: Float[Tensor, "*B A"]
) -> tuple[Float[Tensor, "*B A"], Float[Tensor, "*B"]]:
    """Action tanh(mean + std · noise) and its log density (appendix C, eq. 21), log(1 − tanh²) in its stable form."""
    raw = mean + log_std.exp() * noise
    correction = 2.0 * (math.log(2.0) - raw - softplus(-2.0 * raw))
    density = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)
    return torch.tanh(raw), (density - correction).sum(dim=-1)


def soft_target(
    reward: Float[Tensor, "B"],
    discount: Float[Tensor, "B"],
    next_value: Float[Tensor, "2 B"],
    next_log_prob: Float[Tensor, "B"],
    temperature: Float[Tensor, ""],
) -> Float[Tensor, "B"]:
    """Target r + γ (1 − terminated) (min Q̄(s', a') − α log π(a'|s')): eq. 5-6, of the smaller critic."""
    return reward + discount * (next_value.amin(dim=0) - temperature * next_log_prob)


def critic_loss(value: Float[Tensor, "2 B"], target: Float[Tensor, "B"]) -> Float[Tensor, ""]:
    """Mean squared Bellman error, summed over the two critics."""
    return (value - target).square().mean(dim=1).sum()


def actor_loss(
    value: Float[Tensor, "2 B"], log_prob: Float[Tensor, "B"], temperature: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """E[α log π − min Q]: eq. 7-9."""
    return (temperature * log_prob - value.amin(dim=0)).mean()


def temperature_loss(
    log_temperature: Float[Tensor, ""], log_prob: Float[Tensor, "B"], target_entropy: float
) -> Float[Tensor, ""]:
    """−α E[log π + H̄]: eq. 18; falls where the policy is more random than H̄ asks."""
    return -log_temperature.exp() * (log_prob.detach().mean() + target_entropy)


@torch.no_grad()
def follow(target: Sequence[Tensor], source: Sequence[Tensor], rate: float) -> None:
    """Move the target network's parameters towards the source's by `rate` of the way, in place."""
    torch._foreach_lerp_(list(target), list(source), rate)
