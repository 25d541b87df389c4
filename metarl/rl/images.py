"""Mirror images of what was collected: where left and right are alike, they are as likely, and earn the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.core.info import Mirror, Reflection
from metarl.core.mirror import reflect
from metarl.core.types import Segment
from metarl.rl.ppo import Chunks, cut

Unroll = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Outputs (T, N, H) and last state (N, M) of a memory that is fed inputs (T, N, I) from a state (N, M) on."""
_NAME = "mirrored/memory"


def mirrored(segment: Segment, mirror: Mirror) -> Segment:
    """What would have been collected had left and right been exchanged: steps, but no states, and nothing recorded."""
    known = segment.privileged
    return replace(
        segment,
        obs=reflect(segment.obs, mirror.observation),
        final_obs=reflect(segment.final_obs, mirror.observation),
        action=reflect(segment.action, mirror.action),
        privileged=None if known is None else reflect(known, mirror.privileged),
    )


def with_image(rows: Float[Tensor, "T N W"], reflection: Reflection | None) -> Float[Tensor, "T2 N W"]:
    """What is learnt from: the rows, and their mirror images where there is a mirror."""
    return rows if reflection is None else torch.cat((rows, reflect(rows, reflection)))


def image_of(
    chunks: Chunks,
    mirror: Mirror,
    inputs: Float[Tensor, "T N I"],
    obs: Float[Tensor, "T N O"],
    known: Float[Tensor, "T N P"] | None = None,
    memory: Float[Tensor, "S H"] | None = None,
) -> Chunks:
    """The chunks of the mirrored segment, made of what its networks are fed.

    Densities are those of the actions as they were drawn, so that ratios weigh the image by how likely the policy now
    is to act as its mirror image did.
    """
    length = len(chunks.action)
    return replace(
        chunks,
        inputs=cut(inputs, length),
        obs=cut(obs, length),
        action=reflect(chunks.action, mirror.action),
        memory=chunks.memory if memory is None else memory,
        privileged=None if known is None else cut(known, length),
    )


class ImageMemory:
    """The memories of the mirrored worlds, which nobody acted by: they are computed as segments come."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: Tensor | None = None
        """What they are after the last segment (N, M), to go on from; None where all trials begin."""

    @torch.no_grad()
    def before(
        self, unroll: Unroll, inputs: Float[Tensor, "T N I"], segment: Segment, length: int
    ) -> Float[Tensor, "S M"]:
        """The memory before each chunk of `length` steps of the next segment; at a trial's start it is empty."""
        state = inputs.new_zeros(inputs.shape[1], self._size) if self._held is None else self._held.to(inputs.device)
        found = []
        for part, starts in zip(torch.split(inputs, length), segment.trial_start[::length, :, None], strict=True):
            found.append(state * ~starts)
            _, state = unroll(part, found[-1])
        self._held = None if bool(segment.trial_end[-1].all()) else state
        return torch.stack(found).flatten(0, 1)

    def clear(self) -> None:
        """All memories are empty."""
        self._held = None

    def state_dict(self) -> dict[str, Tensor]:
        """What they hold."""
        return {} if self._held is None else {_NAME: self._held.cpu().clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
        found = state.get(_NAME)
        if found is not None and (found.dim() != 2 or found.shape[1] != self._size):
            raise ValueError(f"the memory of mirrored worlds is {tuple(found.shape)}, not of {self._size} numbers each")
        self._held = found
