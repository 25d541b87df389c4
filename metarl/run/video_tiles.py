"""The picture: a tile per world, with its captions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from metarl.run.video_text import GREY, describe, kebab, write
from metarl.sim.episodes import Cameras, Trials
from metarl.types import Step

_TITLE_HEIGHT = 32


@dataclass
class Tile:
    """The part of the picture that shows one world."""

    label: str
    num_episodes: int
    returns: list[float] = field(default_factory=lambda: [0.0])
    """Of every episode so far, the present one last."""
    age: int = -1
    """Control steps since the present episode began."""

    def advance(self, reward: float, begins: bool) -> None:
        """Take in a step, and whether the next episode begins with it."""
        self.returns[-1] += reward
        self.age += 1
        if begins:
            self.returns.append(0.0)
            self.age = 0

    @property
    def episode(self) -> str:
        """As `episode 1/2`; where robots fall, a trial may hold more episodes than it was meant to."""
        number = len(self.returns)
        return f"episode {number}/{self.num_episodes}" if number <= self.num_episodes else f"episode {number}"

    def score(self) -> str:
        """Episode, its return so far, and the returns of the last few before."""
        before = ", ".join(f"{value:.1f}" for value in self.returns[-4:-1])
        return f"{self.episode}   return {self.returns[-1]:.1f}" + (f"   before: {before}" if before else "")


class Film:
    """Draws all worlds of a running trial into one picture; a context manager that frees its cameras."""

    def __init__(self, env: Trials, size: tuple[int, int], title: str, hold: int) -> None:
        self.tiles: list[Tile] = []
        self._env, self._size, self._title, self._hold = env, size, title, hold
        self._cameras: Cameras | None = None
        self._top = _TITLE_HEIGHT if title else 0
        self._columns = math.ceil(math.sqrt(env.num_worlds))
        rows = math.ceil(env.num_worlds / self._columns)
        width, height = size
        self._canvas = np.full((self._top + rows * height, self._columns * width, 3), 32, np.uint8)
        self._text = max(11, round(height / 20))

    def __enter__(self) -> Film:
        return self

    def __exit__(self, *error: object) -> None:
        if self._cameras is not None:
            self._cameras.close()

    def all_began(self) -> bool:
        """Whether the last step began an episode in every world; those beyond the planned number do not count."""
        return all(tile.age == 0 and len(tile.returns) <= tile.num_episodes for tile in self.tiles)

    def draw(self, step: Step) -> UInt8[np.ndarray, "H W 3"]:
        """The worlds as `step` left them."""
        if self._cameras is None:
            self._cameras = self._begin()
        begins = (step.ended & ~step.trial_start).tolist()
        for tile, reward, new in zip(self.tiles, step.reward.tolist(), begins, strict=True):
            tile.advance(reward, new)
        for world, picture in enumerate(self._cameras.draw()):
            self._area(world)[:] = picture
        for world, tile in enumerate(self.tiles):
            self._shade(world, tile)
        image = Image.fromarray(self._canvas)
        pen = ImageDraw.Draw(image)
        if self._title:
            write(pen, (8, _TITLE_HEIGHT // 2), self._title, 17, self._canvas.shape[1] - 16, "lm")
        for world, tile in enumerate(self.tiles):
            self._caption(pen, world, tile)
        return np.asarray(image)

    def _begin(self) -> Cameras:
        """Set up the cameras: only the running trial has the models of its tasks."""
        env, name = self._env, kebab(type(self._env.family).__name__)
        for row in env.tasks.rows():
            label = f"{name}: {describe(env.family.space, row)}"
            self.tiles.append(Tile(label, env.episodes_per_trial))
        return env.cameras(range(env.num_worlds), self._size)

    def _corner(self, world: int) -> tuple[int, int]:
        """Left and upper edge of a tile."""
        width, height = self._size
        return world % self._columns * width, self._top + world // self._columns * height

    def _area(self, world: int) -> np.ndarray:
        """View of a tile's pixels."""
        width, height = self._size
        left, top = self._corner(world)
        return self._canvas[top : top + height, left : left + width]

    def _announcing(self, tile: Tile) -> bool:
        return 0 <= tile.age < self._hold

    def _shade(self, world: int, tile: Tile) -> None:
        """Darken what lies behind the tile's text, and draw its frame."""
        area, size = self._area(world), self._text
        band = area[: 3 * size]
        band[:] = band // 4
        if self._announcing(tile):
            half = 4 * size
            middle = area.shape[1] // 2
            flag = area[round(3.5 * size) : 6 * size, max(0, middle - half) : middle + half]
            flag[:] = flag // 3
        area[-1], area[:, -1] = 32, 32

    def _caption(self, pen: ImageDraw.ImageDraw, world: int, tile: Tile) -> None:
        left, top = self._corner(world)
        size, room = self._text, self._size[0] - 16
        write(pen, (left + 8, top + round(0.85 * size)), tile.label, size, room, "lm", GREY)
        write(pen, (left + 8, top + round(2.1 * size)), tile.score(), size, room, "lm")
        if self._announcing(tile):
            where = (left + self._size[0] // 2, top + round(4.75 * size))
            write(pen, where, tile.episode.split("/")[0], round(1.7 * size), 8 * size, "mm")
