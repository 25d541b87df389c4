"""Return estimators. Discounts are arrays, so one function serves terminal, truncated and continuing steps."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def gae(
    reward: Float[Tensor, "T N"],
    discount: Float[Tensor, "T N"],
    value: Float[Tensor, "T N"],
    next_value: Float[Tensor, "T N"],
    lam: float,
) -> Float[Tensor, "T N"]:
    """Generalised advantage estimate: A_t = δ_t + γ_t λ A_{t+1}, δ_t = r_t + γ_t V(s_{t+1}) − V(s_t).

    Schulman et al. 2016 (arXiv:1506.02438), eq. 11-16. A zero discount cuts both the bootstrap and the trace;
    `next_value` is given separately because the state after a time limit is not the next row's state.
    """
    delta = reward + discount * next_value - value
    advantage = torch.empty_like(delta)
    trace = torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        trace = delta[t] + discount[t] * lam * trace
        advantage[t] = trace
    return advantage


def discounted_return(reward: Float[Tensor, "T N"], gamma: float) -> Float[Tensor, "T N"]:
    """Running discounted sum of *past* rewards, R_t = γ R_{t−1} + r_t: its spread is the scale of the returns."""
    running = torch.empty_like(reward)
    total = torch.zeros_like(reward[0])
    for t in range(len(reward)):
        total = gamma * total + reward[t]
        running[t] = total
    return running
