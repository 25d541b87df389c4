"""Layouts decide what is shown where and when: episodes one after the other, or side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from metarl.video.take import Take

Layout = Literal["sequence", "side-by-side"]


@dataclass(frozen=True)
class Shot:
    """One episode of one world."""

    world: int
    episode: int
    """Number of the episode, from 0."""
    take: int = 0
    """Whose: an index into the takes that are shown."""


@dataclass(frozen=True)
class Scene:
    """Shots that run in step, from the start of each episode until the last of them has ended."""

    shots: tuple[Shot, ...]
    """The shots, row by row."""
    columns: int

    @property
    def beside(self) -> bool:
        """Whether a world of one take is shown more than once."""
        return len({(shot.world, shot.take) for shot in self.shots}) < len(self.shots)

    @property
    def rows(self) -> int:
        """Number of rows of tiles; the last row need not be full."""
        return -(-len(self.shots) // self.columns)

    def ages(self, takes: Sequence[Take], stride: int, limit: int, hold: int) -> Iterator[int]:
        """How many steps into their episodes the shots are, frame by frame; they stand still at both ends."""
        stop = min(limit, max(takes[shot.take].length(shot.world, shot.episode) for shot in self.shots))
        yield from [0] * hold
        yield from range(stride, stop, stride)
        yield from [stop] * hold


def scenes(layout: Layout, num_worlds: int, episodes: Sequence[Sequence[int]]) -> list[Scene]:
    """In sequence, a scene per episode with all worlds in it; side by side, one scene with a world in each row.

    `episodes` are those to show of each take. Several takes stand beside each other, with a world in each row.
    """
    worlds, takes = range(num_worlds), range(len(episodes))
    if layout == "side-by-side":
        shots = [Shot(world, episode, take) for world in worlds for take in takes for episode in episodes[take]]
        return [Scene(tuple(shots), len(shots) // num_worlds)]
    columns = len(takes) if len(takes) > 1 else math.ceil(math.sqrt(num_worlds))
    return [
        Scene(tuple(Shot(world, episode, take) for world in worlds for take in takes), columns)
        for episode in episodes[0]
    ]
