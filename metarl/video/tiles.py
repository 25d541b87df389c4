"""A frame of the video: a tile per shot with its captions, and under it a plot where one is wanted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from metarl.core.tasks import TaskSpace
from metarl.video.layout import Scene, Shot
from metarl.video.lettering import GREY, describe, write
from metarl.video.plot import Plot
from metarl.video.take import Take

_TITLE_HEIGHT = 32
_BACKGROUND = 32
_NUM_BEFORE = 3  # returns of earlier episodes in a caption


def score(take: Take, shot: Shot, age: int, num_episodes: int, limit: int) -> str:
    """Text of the episode's number and its return so far, and its whole return where it is cut short."""
    collected, number = take.collected(shot.world, shot.episode), shot.episode + 1
    words = [f"episode {number}/{num_episodes}", f"return {collected[min(age, len(collected) - 1)]:.1f}"]
    if limit < len(collected) - 1:
        words[-1] += f" of {collected[-1]:.1f}"
    return "   ".join(words)


def before(take: Take, shot: Shot) -> str:
    """Text of the returns of the few episodes before; empty for the first episode."""
    earlier = range(max(0, shot.episode - _NUM_BEFORE), shot.episode)
    returns = ", ".join(f"{take.collected(shot.world, episode)[-1]:.1f}" for episode in earlier)
    return f"   before: {returns}" if returns else ""


class Sheet:
    """Draws the frames of one or several takes."""

    def __init__(
        self,
        takes: Sequence[Take],
        space: TaskSpace,
        names: Sequence[str],
        size: tuple[int, int],
        title: str,
        num_episodes: int,
        limit: int,
    ) -> None:
        """`names` say whose each take is; of each episode at most `limit` steps are shown."""
        self._takes, self._space, self._names, self._size, self._title = takes, space, names, size, title
        self._num_episodes, self._limit = num_episodes, limit
        self._rows = [take.tasks.rows() for take in takes]
        self._top = _TITLE_HEIGHT if title else 0
        self._text = max(11, round(size[1] / 20))

    def draw(self, scene: Scene, age: int, announced: bool, plots: Sequence[Plot]) -> UInt8[np.ndarray, "H W 3"]:
        """Draw a scene `age` steps into its episodes; `announced` shows their numbers in large letters."""
        width, height = self._size
        full = height + (plots[0].height if plots else 0)
        canvas = np.full((self._top + scene.rows * full, scene.columns * width, 3), _BACKGROUND, np.uint8)
        places = [(i % scene.columns * width, self._top + i // scene.columns * full) for i in range(len(scene.shots))]
        for (left, top), shot in zip(places, scene.shots, strict=True):
            tile = canvas[top : top + height, left : left + width]
            take = self._takes[shot.take]
            tile[:] = take.picture(shot.world, shot.episode, age)
            self._shade(tile, announced, ended=age > take.length(shot.world, shot.episode))
            if plots:
                canvas[top + height : top + full, left : left + width] = plots[shot.take].draw(shot, age)
        image = Image.fromarray(canvas)
        pen = ImageDraw.Draw(image)
        if self._title:
            write(pen, (8, _TITLE_HEIGHT // 2), self._title, 17, canvas.shape[1] - 16, "lm")
        for place, shot in zip(places, scene.shots, strict=True):
            self._caption(pen, place, shot, age, "" if scene.beside else before(self._takes[shot.take], shot))
            if announced:
                self._announce(pen, place, shot)
        return np.asarray(image)

    def _shade(self, tile: UInt8[np.ndarray, "H W 3"], announced: bool, ended: bool) -> None:
        """Darken what lies behind the tile's text, and an episode that is over; draw the frame."""
        size, middle = self._text, tile.shape[1] // 2
        if ended:
            tile[:] = tile // 2
        tile[: 3 * size] = tile[: 3 * size] // 4
        if announced:
            flag = tile[round(3.5 * size) : 6 * size, max(0, middle - 4 * size) : middle + 4 * size]
            flag[:] = flag // 3
        tile[-1], tile[:, -1] = _BACKGROUND, _BACKGROUND

    def _caption(self, pen: ImageDraw.ImageDraw, place: tuple[int, int], shot: Shot, age: int, earlier: str) -> None:
        """Write task and score, and the returns of `earlier` episodes where they fit."""
        (left, top), size, room, take = place, self._text, self._size[0] - 16, self._takes[shot.take]
        words = score(take, shot, age, self._num_episodes, self._limit)
        if pen.textlength(words + earlier, font_size=size) <= room:
            words += earlier
        row, now = self._rows[shot.take][shot.world], take.now(shot.world, shot.episode, age)
        label = self._names[shot.take] + describe(self._space, row, now)
        write(pen, (left + 8, top + round(0.85 * size)), label, size, room, "lm", GREY)
        write(pen, (left + 8, top + round(2.1 * size)), words, size, room, "lm")

    def _announce(self, pen: ImageDraw.ImageDraw, place: tuple[int, int], shot: Shot) -> None:
        (left, top), size = place, self._text
        where = (left + self._size[0] // 2, top + round(4.75 * size))
        write(pen, where, f"episode {shot.episode + 1}", round(1.7 * size), 8 * size, "mm")
