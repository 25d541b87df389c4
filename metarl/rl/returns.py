"""Return estimators. Discounts are arrays, so one function serves terminal, truncated and continuing steps."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
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


def discounted_return(
    reward: Float[Tensor, "T N"], gamma: float, start: Bool[Tensor, "T N"] | None = None
) -> Float[Tensor, "T N"]:
    """Running discounted sum of *past* rewards, R_t = γ R_{t−1} + r_t: its spread is the scale of the returns.

    It begins anew with the first step, and where `start` is set.
    """
    running = torch.empty_like(reward)
    total = torch.zeros_like(reward[0])
    for t in range(len(reward)):
        total = gamma * total + reward[t] if start is None else gamma * total.masked_fill(start[t], 0.0) + reward[t]
        running[t] = total
    return running


def standardised(advantage: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """Advantages with mean 0 and standard deviation 1; zero where there is one alone."""
    if advantage.numel() < 2:
        return torch.zeros_like(advantage)
    return (advantage - advantage.mean()) / (advantage.std() + 1e-8)


def explained_variance(value: Float[Tensor, "*B"], target: Float[Tensor, "*B"]) -> float:
    """Share of the targets' variance that the values explain; 0 where there is one alone."""
    if target.numel() < 2:
        return 0.0
    return float(1.0 - (target - value).var() / target.var().clamp(min=1e-8))
