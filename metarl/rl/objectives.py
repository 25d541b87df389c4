"""Losses and densities as free functions: tensors in, tensors out."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

_BETA = 0.5  # of `gaussian_nll`; 0 is the plain density, 1 weighs all errors of the mean alike


def gaussian_log_prob(
    mean: Float[Tensor, "*B A"], log_std: Float[Tensor, "*S A"], action: Float[Tensor, "*B A"]
) -> Float[Tensor, "*B"]:
    """Log density N(action | mean, diag(exp(log_std))²), summed over action dimensions."""
    z = (action - mean) * torch.exp(-log_std)
    return (-0.5 * z.square() - log_std - 0.5 * math.log(2.0 * math.pi)).sum(dim=-1)


def noise_log_prob(noise: Float[Tensor, "*B A"], log_std: Float[Tensor, "*S A"]) -> Float[Tensor, "*B"]:
    """`gaussian_log_prob` of the action mean + exp(log_std) · noise, whatever the mean."""
    return (-0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)).sum(dim=-1)


def gaussian_entropy(log_std: Float[Tensor, "A"]) -> Float[Tensor, ""]:
    """Entropy of a diagonal Gaussian [nats], summed over action dimensions."""
    return (log_std + 0.5 * math.log(2.0 * math.pi * math.e)).sum()


def clipped_surrogate(
    log_prob: Float[Tensor, "*B"],
    old_log_prob: Float[Tensor, "*B"],
    advantage: Float[Tensor, "*B"],
    clip: float,
) -> Float[Tensor, ""]:
    """PPO's policy loss −E[min(ρ A, clip(ρ, 1 − ε, 1 + ε) A)]: Schulman et al. 2017 (arXiv:1707.06347), eq. 7."""
    return -clipped_advantage(log_prob, old_log_prob, advantage, clip).mean()


def clipped_advantage(
    log_prob: Float[Tensor, "*B"],
    old_log_prob: Float[Tensor, "*B"],
    advantage: Float[Tensor, "*B"],
    clip: float,
) -> Float[Tensor, "*B"]:
    """min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) of every sample, with ρ the likelihood ratio."""
    ratio = torch.exp(log_prob - old_log_prob)
    return torch.minimum(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage)


def gaussian_kl(
    mean: Float[Tensor, "*B A"],
    log_std: Float[Tensor, "*S A"],
    other_mean: Float[Tensor, "*B A"],
    other_log_std: Float[Tensor, "*S A"],
) -> Float[Tensor, "*B"]:
    """KL(first ‖ other) of diagonal Gaussians [nats], summed over action dimensions."""
    difference = log_std - other_log_std
    spread = 0.5 * (2.0 * difference).exp() + 0.5 * ((mean - other_mean) * torch.exp(-other_log_std)).square()
    return (spread - difference - 0.5).sum(dim=-1)


def approximate_kl(log_prob: Float[Tensor, "*B"], old_log_prob: Float[Tensor, "*B"]) -> Float[Tensor, ""]:
    """Sample estimate of KL(old ‖ new) [nats], E[ρ − 1 − log ρ]: unbiased and never negative (Schulman 2020, k3)."""
    log_ratio = log_prob - old_log_prob
    return (log_ratio.exp() - 1.0 - log_ratio).mean()


def gaussian_nll(
    mean: Float[Tensor, "*B P"], log_std: Float[Tensor, "*B P"], target: Float[Tensor, "*B P"]
) -> Float[Tensor, ""]:
    """−log N(target | mean, exp(log_std)²) without its constant, averaged over samples and dimensions.

    Each is weighted by its deviation^2β as it is, which moves no optimum and keeps a certain guess from being the
    whole gradient (β-NLL: Seitzer et al. 2022, arXiv:2203.09168, eq. 5).
    """
    nll = 0.5 * ((target - mean) * torch.exp(-log_std)).square() + log_std
    return (nll * torch.exp(2.0 * _BETA * log_std.detach())).mean()
