"""Trust-region steps (Schulman et al. 2015, arXiv:1502.05477) over a parameter vector that is a value, not a module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.core.graphs import looks

Product = Callable[[Float[Tensor, "P"]], Float[Tensor, "P"]]
"""v -> F v, with F the Fisher matrix of the policy: the Hessian of its KL divergence."""
Evaluate = Callable[[Float[Tensor, "P"]], tuple[float, float]]
"""Parameters -> (loss, KL divergence from the policy that sampled)."""

_RESIDUAL = 1e-10
_SHRINK, _TRIES = 0.8, 15  # of the line search


def conjugate_gradient(product: Product, b: Float[Tensor, "P"], iterations: int) -> Float[Tensor, "P"]:
    """Solve F x ≈ b for x, from x₀ = 0 (Hestenes & Stiefel 1952); stops early at a squared residual of 1e-10.

    On a GPU, which is not waited for, the iterations that remain change nothing.
    """
    x, residual = torch.zeros_like(b), b.clone()
    direction, squared = residual.clone(), residual.dot(residual)
    for _ in range(iterations):
        done = squared < _RESIDUAL
        if looks(b.device) and done:
            break
        image = product(direction)
        step = squared / direction.dot(image)
        new_x, new_residual = x + step * direction, residual - step * image
        if not looks(b.device):
            new_x, new_residual = torch.where(done, x, new_x), torch.where(done, residual, new_residual)
        before, squared = squared, new_residual.dot(new_residual)
        new_direction = new_residual + squared / before * direction
        x, residual = new_x, new_residual
        direction = new_direction if looks(b.device) else torch.where(done, direction, new_direction)
    return x


@dataclass(frozen=True)
class Accepted:
    """Result of a line search."""

    parameters: Float[Tensor, "P"]
    """The new parameters; where every trial was rejected the very tensor it began from."""
    loss: float
    kl: float
    share: float
    """Length of the step as a share of the longest allowed one; 0 where every trial was rejected."""


def line_search(
    parameters: Float[Tensor, "P"], step: Float[Tensor, "P"], evaluate: Evaluate, loss: float, max_kl: float
) -> Accepted:
    """The longest of `step` · 0.8ᵏ, k < 15, that lowers the loss below `loss` with a divergence of at most `max_kl`."""
    for attempt in range(_TRIES):
        share = _SHRINK**attempt
        trial = parameters + share * step
        trial_loss, kl = evaluate(trial)
        if trial_loss < loss and kl <= max_kl:  # false for nan
            return Accepted(trial, trial_loss, kl, share)
    return Accepted(parameters, loss, 0.0, 0.0)


def longest_step(
    product: Product, gradient: Float[Tensor, "P"], max_kl: float, iterations: int
) -> Float[Tensor, "P"] | None:
    """−√(2δ / gᵀF⁻¹g) F⁻¹g: the natural gradient step to the edge of the trust region δ = `max_kl`.

    None where the gradient or F⁻¹g is not finite, or the curvature along it not positive.
    """
    if not bool(torch.isfinite(gradient).all()):
        return None
    direction = conjugate_gradient(product, -gradient, iterations)
    curvature = direction.dot(product(direction))
    if not bool(torch.isfinite(curvature)) or float(curvature) <= 0.0:
        return None
    return direction * (2.0 * max_kl / curvature).sqrt()
