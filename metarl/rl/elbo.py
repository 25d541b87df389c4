"""The evidence lower bound of a posterior over tasks that is updated step by step.

Zintgraf et al. 2020 (VariBAD: arXiv:1910.08348), eq. 5 to 8.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.rl.objectives import gaussian_kl


def kl_to_previous(mean: Float[Tensor, "T N Z"], log_std: Float[Tensor, "T N Z"]) -> Float[Tensor, "T N"]:
    """KL(q_t ‖ q_{t−1}) [nats] of successive Gaussians: each is the prior of the next, N(0, 1) of the first."""
    nothing = torch.zeros_like(mean[:1])
    before = torch.cat((nothing, mean[:-1])), torch.cat((nothing, log_std[:-1]))
    return gaussian_kl(mean, log_std, *before)


def negative_elbo(
    error: Float[Tensor, "E D N"], num_steps: int, kl: Float[Tensor, "E N"], kl_weight: float
) -> Float[Tensor, ""]:
    """−ELBO of E beliefs of N trials, without its constant: mean of Σ_τ error / 2 + weight · KL.

    `error` are squared errors, in units of the likelihood's standard deviation, of what each belief says of D of the
    trial's `num_steps` steps, past and future alike; their mean stands for all of them.
    """
    likelihood = 0.5 * num_steps * error.mean(dim=1)
    return (likelihood + kl_weight * kl).mean()
