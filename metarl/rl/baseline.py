"""The linear feature baseline (Duan et al. 2016, arXiv:1604.06778): least squares on the batch itself, task by task."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_CLIP = 10.0
RIDGE = 1e-5
"""Weight of the squared coefficients."""
_ATTEMPTS = 8  # the ridge grows tenfold with each: 1e-5 to 100


def features(obs: Float[Tensor, "*B O"], age: Int64[Tensor, "*B"] | Float[Tensor, "*B"]) -> Float[Tensor, "*B F"]:
    """[o, o², τ, τ², τ³, 1] with o clipped to ±10 and τ = steps since the episode began / 100: F = 2 O + 4."""
    o, tau = obs.clamp(-_CLIP, _CLIP), (age.to(obs.dtype) / 100.0)[..., None]
    return torch.cat((o, o.square(), tau, tau.square(), tau**3, torch.ones_like(tau)), dim=-1)


def fit(
    inputs: Float[Tensor, "M B F"], target: Float[Tensor, "M B"], weight: Float[Tensor, "M B"]
) -> Float[Tensor, "M F"]:
    """Coefficients c of each task that minimise Σ weight (inputs · c − target)² + ridge |c|².

    The ridge starts at 1e-5 and grows tenfold for the tasks whose solution is not finite.
    """
    x, y = inputs.double(), target.double()
    weighted = x * weight.double()[..., None]
    gram, moment = weighted.transpose(1, 2) @ x, (weighted * y[..., None]).sum(dim=1)
    eye = torch.eye(x.shape[2], dtype=x.dtype, device=x.device)
    ridge = torch.full((len(x), 1, 1), RIDGE, dtype=x.dtype, device=x.device)
    for _ in range(_ATTEMPTS):
        solution = torch.linalg.solve_ex(gram + ridge * eye, moment)[0]
        bad = ~torch.isfinite(solution).all(dim=1)
        if not bool(bad.any()):
            break
        ridge[bad] *= 10.0
    return torch.nan_to_num(solution, nan=0.0, posinf=0.0, neginf=0.0).to(inputs.dtype)
