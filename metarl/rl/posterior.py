"""PEARL's task posterior: a product of Gaussians, one factor per transition, kept as sums of natural parameters.

Rakelly et al. 2019 (arXiv:1903.08254), section 4.1: q(z|c) ∝ Π_n N(z | μ_n, σ_n²). A product of Gaussians adds up
precisions 1/σ² and weighted means μ/σ²: the order of transitions does not matter, and taking in one more is a sum.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

MIN_VARIANCE = 1e-7
"""Smallest variance of a factor."""


def factors(output: Float[Tensor, "*B Z2"]) -> tuple[Float[Tensor, "*B Z"], Float[Tensor, "*B Z"]]:
    """The encoder's output [mean, raw variance] as natural parameters of a factor each: (μ/σ², 1/σ²)."""
    mean, raw = output.chunk(2, dim=-1)
    precision = softplus(raw).clamp(min=MIN_VARIANCE).reciprocal()
    return mean * precision, precision


def moments(
    weighted: Float[Tensor, "*B Z"], precision: Float[Tensor, "*B Z"]
) -> tuple[Float[Tensor, "*B Z"], Float[Tensor, "*B Z"]]:
    """Mean and variance of a product of factors from its sums; the prior N(0, 1) where there was none."""
    empty = precision <= 0.0
    variance = torch.where(empty, 1.0, precision).reciprocal()
    return weighted * variance, variance


def kl_to_prior(mean: Float[Tensor, "*B Z"], variance: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B"]:
    """KL(N(mean, variance) ‖ N(0, 1)) [nats], summed over the dimensions of z."""
    return 0.5 * (variance + mean.square() - 1.0 - variance.log()).sum(dim=-1)
