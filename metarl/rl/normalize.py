"""Running normalisation of observations and rewards, saved with the policy like any other weight."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

CLIP = 10.0
"""Normalised values lie within this many standard deviations."""


class RunningNorm(nn.Module):
    """Mean and variance of all data seen, merged batch by batch (Chan et al. 1979, parallel variance)."""

    count: Tensor
    mean: Tensor
    var: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))

    def forward(self, x: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """(x − mean) / std, clipped to ±10; the identity (clipped) before any data."""
        scale = (self.var + 1e-8).rsqrt().to(x.dtype)
        return ((x - self.mean.to(x.dtype)) * scale).clamp(-CLIP, CLIP)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Mean and 1 / std in float32: what `forward` subtracts and multiplies by."""
        return self.mean.float(), (self.var + 1e-8).rsqrt().float()

    @property
    def std(self) -> Tensor:
        """Standard deviation; ones before any data."""
        return (self.var + 1e-8).sqrt()

    @torch.no_grad()
    def update(self, x: Float[Tensor, "*B"]) -> None:
        """Merge a batch; all leading dimensions are samples. One that is not finite, or empty, changes nothing."""
        samples = x.reshape(-1, *self.mean.shape).double()
        batch_count, batch_mean = len(samples), samples.mean(dim=0)
        batch_var = samples.var(dim=0, unbiased=False)
        sound = (batch_mean + batch_var).isfinite().all()
        total = self.count + batch_count
        delta = batch_mean - self.mean
        spread = self.var * self.count + batch_var * batch_count + delta.square() * self.count * batch_count / total
        for own, new in (
            (self.var, spread / total),
            (self.mean, self.mean + delta * batch_count / total),
            (self.count, total),
        ):
            own.copy_(torch.where(sound, new, own))
