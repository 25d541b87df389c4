"""Task inference by a metric: contexts as directions, told apart by a contrastive loss, and the nearest of known ones.

A task's prototype is the mean of its embeddings (Snell et al. 2017, arXiv:1703.05175, eq. 1). Embeddings are compared
by the angle between them, and trained by InfoNCE (van den Oord et al. 2018, arXiv:1807.03748, eq. 4).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize


def direction(vector: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B Z"]:
    """The vector at length √Z, so that its components are of the size of a standard normal's; zero stays zero."""
    return normalize(vector, dim=-1) * math.sqrt(vector.shape[-1])


def contrastive_loss(
    query: Float[Tensor, "M Z"], support: Float[Tensor, "M Z"], task: Int64[Tensor, "M"], temperature: float
) -> Float[Tensor, ""]:
    """−log softmax(cosine / temperature) [nats] of each query's own support among those of the other tasks, mean.

    A task that the batch holds twice is no negative of itself.
    """
    cosine = normalize(query, dim=-1) @ normalize(support, dim=-1).T
    own = torch.eye(len(task), dtype=torch.bool, device=task.device)
    repeated = (task[:, None] == task) & ~own
    logits = (cosine / temperature).masked_fill(repeated, -math.inf)
    return cross_entropy(logits, torch.arange(len(task), device=task.device))


def moved(
    prototypes: Float[Tensor, "S Z"],
    known: Bool[Tensor, "S"],
    slot: Int64[Tensor, "M"],
    embedding: Float[Tensor, "M Z"],
    rate: float,
) -> Float[Tensor, "S Z"]:
    """Prototypes after a step of `rate` of the way to their slot's mean embedding; an unknown one becomes it."""
    total = torch.zeros_like(prototypes).index_add(0, slot, embedding)
    count = torch.bincount(slot, minlength=len(prototypes))[:, None]
    step = torch.where(known[:, None], rate, 1.0) * (count > 0)
    return direction(prototypes + step * (total / count.clamp(min=1) - prototypes))


def nearest(points: Float[Tensor, "N Z"], places: Float[Tensor, "P Z"]) -> Int64[Tensor, "N"]:
    """Which place is the nearest to each point, by Euclidean distance: on a sphere the same as by the angle."""
    return (points[:, None] - places).square().sum(dim=-1).argmin(dim=1)
