"""What a PEARL trial tells about itself: returns before and after adapting, and whether its task was recognised."""

from __future__ import annotations

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from metarl.agents.pearl_policy import PearlPolicy
from metarl.core.types import Metrics, Segment
from metarl.rl.prototypes import nearest


def phase_returns(segment: Segment) -> Metrics:
    """Mean return of the whole episodes with z of the prior, and with z of the context."""
    metrics = {}
    for name, mask in (("prior", segment.extras["prior"]), ("posterior", ~segment.extras["prior"])):
        episodes = int((segment.ended & mask).sum())
        if episodes:
            metrics[f"train/return_{name}"] = float(segment.reward[mask].double().sum()) / episodes
    return metrics


@torch.no_grad()
def identification(
    policy: PearlPolicy,
    segment: Segment,
    slot: Int64[Tensor, "N"],
    landmarks: tuple[Int64[Tensor, "P"], Float32[Tensor, "P Z"]],
) -> Metrics:
    """Share of the worlds whose prior episodes lie nearest to the landmark of their own task, among all landmarks.

    `slot` is -1 where a world's task was not met before; those worlds do not count. The trial is to be one that nothing
    was learnt from yet, and the landmarks those of trials before it. Chance is one over their number.
    """
    slots, places = landmarks
    met = torch.isin(slot, slots)
    if not bool(met.any()):
        return {}
    found = slots[nearest(policy.explored(segment), places).to(slots.device)]
    return {"train/identification": float((found == slot)[met].float().mean())}
