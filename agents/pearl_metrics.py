"""What a PEARL trial tells about itself: returns before and after adapting, and whether its task was recognised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from metarl.agents.configs import PearlConfig
from metarl.agents.pearl_policy import PearlPolicy
from metarl.core.types import Metrics, Segment
from metarl.rl.prototypes import nearest
from metarl.rl.replay import TaskReplay


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


def buffer_remarks(config: PearlConfig, buffers: Sequence[TaskReplay], total_steps: int) -> list[str]:
    """What the buffers take in memory, and what a checkpoint takes at the training's end."""
    row = buffers[0].rows.shape[2] * buffers[0].rows.element_size()
    memory = sum(buffer.num_bytes for buffer in buffers)
    filled = sum(min(buffer.num_bytes, total_steps * row) for buffer in buffers)
    kept = f"hold what of them is filled, up to {filled / 2**20:,.0f} MiB by the end"
    left_out = f"leave them out: a resumed run first fills them anew for {config.initial_steps:,} steps"
    saved = kept if config.save_buffers else left_out
    return [f"buffers of {config.num_slots} tasks take {memory / 2**20:,.0f} MiB; checkpoints {saved}"]


def transitions(segment: Segment) -> Float32[Tensor, "T N W"]:
    """Observation, action, reward, next observation and terminated of every step, side by side."""
    reward, terminated = segment.reward[..., None], segment.terminated[..., None].float()
    return torch.cat((segment.obs, segment.action, reward, segment.final_obs, terminated), dim=-1)
