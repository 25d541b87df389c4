"""The one recorder: films a policy adapting, the episodes of one trial in sequence, several tasks side by side.

Pictures go to the encoder as they are drawn, so memory does not depend on the length of the video.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import torch
from jaxtyping import Float64, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from metarl import seeding
from metarl.errors import UserError
from metarl.rl.learner import Policy
from metarl.run.collect import trial_steps
from metarl.sim.episodes import Cameras, Trials
from metarl.sim.family import TaskFamily
from metarl.sim.worlds import make_trials
from metarl.tasks import Tasks, TaskSpace, Value
from metarl.types import Step

_BLOCK = 16  # h264 codes blocks of 16 x 16 pixels; other sizes would be resampled
_HOLD = 0.5  # [s] the picture stands still where an episode begins, and how long its number is announced
_TITLE_HEIGHT = 32
_WHITE, _GREY = (255, 255, 255), (200, 200, 200)
_QUALITY = 6  # of imageio's 0-10: sharp enough for the moving ground, a third of the size of 8


@dataclass(frozen=True)
class VideoConfig:
    """How to film."""

    size: tuple[int, int] = (480, 320)
    """Width and height of one robot's picture [pixels], multiples of 16."""
    seed: int = 0
    """Seed of the initial states. With that of an evaluation, the video shows the evaluation's first tasks."""
    title: str = ""
    """Line above the picture; none if empty."""
    threads: int = 0
    """Threads of the physics; 0 for one per CPU."""


@dataclass(frozen=True)
class Recording:
    """What was filmed."""

    path: Path
    seconds: float
    """Length of the video [s]."""
    num_frames: int
    returns: Float64[Tensor, "N K"]
    """Undiscounted return of each task's first K episodes."""


_DEFAULT = VideoConfig()


def record(
    policy: Policy[Any],
    family: TaskFamily,
    tasks: Tasks,
    num_episodes: int,
    path: Path,
    config: VideoConfig = _DEFAULT,
) -> Recording:
    """Film one trial of `num_episodes` episodes on each task, all at once, in real time, as an h264 `path`.

    The policy acts deterministically. Raises `UserError` where a size is not a multiple of 16, `path` is not an mp4
    file that can be written, or this machine cannot draw.
    """
    _check(config, path)
    fps = 1.0 / family.control_step
    hold = max(1, round(_HOLD * fps))
    worlds = make_trials(family, len(tasks), episodes_per_trial=num_episodes, threads=config.threads, pictures=True)
    generator = seeding.generator(config.seed, "evaluate")
    with worlds as env, _movie(path, fps) as movie, _Film(env, config, hold) as film:
        picture = None
        for now in trial_steps(env, policy, tasks, generator, deterministic=True):
            picture = film.draw(now.step)
            movie.write(picture, hold if film.all_began() else 1)
        assert picture is not None
        movie.write(picture, hold)
    returns = torch.tensor([tile.returns[:num_episodes] for tile in film.tiles], dtype=torch.float64)
    return Recording(path, movie.num_frames / fps, movie.num_frames, returns)


def _check(config: VideoConfig, path: Path) -> None:
    for name, value in zip(("width", "height"), config.size, strict=True):
        if value < _BLOCK or value % _BLOCK:
            near = max(_BLOCK, round(value / _BLOCK) * _BLOCK)
            raise UserError(f"{name} {value} is not a positive multiple of {_BLOCK} pixels; the nearest is {near}")
    if path.suffix.lower() != ".mp4":
        raise UserError(f"videos are mp4 files: '{path}' does not end in .mp4")
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it")


# ---------------------------------------------------------------------------------------------------- the file


@dataclass
class _Movie:
    """Counts what it writes."""

    append: Callable[[np.ndarray], None]
    num_frames: int = 0

    def write(self, picture: UInt8[np.ndarray, "H W 3"], times: int = 1) -> None:
        for _ in range(times):
            self.append(picture)
        self.num_frames += times


@contextmanager
def _movie(path: Path, fps: float) -> Iterator[_Movie]:
    """The encoder. The file gets its name when it is complete; whatever goes wrong before leaves none behind."""
    part = path.with_name(f".{path.stem}-{os.getpid()}.part.mp4")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    writer = imageio.get_writer(
        part,
        format="FFMPEG",
        fps=fps,
        codec="libx264",
        pixelformat="yuv420p",
        quality=_QUALITY,
        macro_block_size=_BLOCK,
        output_params=["-movflags", "+faststart"],  # browsers start before the whole file has arrived
    )

    def append(picture: np.ndarray) -> None:
        try:
            writer.append_data(picture)
        except OSError:
            raise UserError(f"cannot write {path}: the encoder stopped; is the disk full?") from None

    try:
        yield _Movie(append)
        writer.close()
        os.replace(part, path)
    finally:
        with suppress(OSError):
            writer.close()
        part.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------- the picture


@dataclass
class _Tile:
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


class _Film:
    """Draws all worlds of a running trial into one picture; a context manager that frees its cameras."""

    def __init__(self, env: Trials, config: VideoConfig, hold: int) -> None:
        self.tiles: list[_Tile] = []
        self._env, self._config, self._hold = env, config, hold
        self._cameras: Cameras | None = None
        self._top = _TITLE_HEIGHT if config.title else 0
        self._columns = math.ceil(math.sqrt(env.num_worlds))
        rows = math.ceil(env.num_worlds / self._columns)
        width, height = config.size
        self._canvas = np.full((self._top + rows * height, self._columns * width, 3), 32, np.uint8)
        self._text = max(11, round(height / 20))

    def __enter__(self) -> _Film:
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
        if self._config.title:
            _write(pen, (8, _TITLE_HEIGHT // 2), self._config.title, 17, self._canvas.shape[1] - 16, "lm")
        for world, tile in enumerate(self.tiles):
            self._caption(pen, world, tile)
        return np.asarray(image)

    def _begin(self) -> Cameras:
        """Set up the cameras: only the running trial has the models of its tasks."""
        env, name = self._env, _kebab(type(self._env.family).__name__)
        for row in env.tasks.rows():
            label = f"{name}: {describe(env.family.space, row)}"
            self.tiles.append(_Tile(label, env.episodes_per_trial))
        return env.cameras(range(env.num_worlds), self._config.size)

    def _corner(self, world: int) -> tuple[int, int]:
        """Left and upper edge of a tile."""
        width, height = self._config.size
        return world % self._columns * width, self._top + world // self._columns * height

    def _area(self, world: int) -> np.ndarray:
        """View of a tile's pixels."""
        width, height = self._config.size
        left, top = self._corner(world)
        return self._canvas[top : top + height, left : left + width]

    def _announcing(self, tile: _Tile) -> bool:
        return 0 <= tile.age < self._hold

    def _shade(self, world: int, tile: _Tile) -> None:
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

    def _caption(self, pen: ImageDraw.ImageDraw, world: int, tile: _Tile) -> None:
        left, top = self._corner(world)
        size, room = self._text, self._config.size[0] - 16
        _write(pen, (left + 8, top + round(0.85 * size)), tile.label, size, room, "lm", _GREY)
        _write(pen, (left + 8, top + round(2.1 * size)), tile.score(), size, room, "lm")
        if self._announcing(tile):
            where = (left + self._config.size[0] // 2, top + round(4.75 * size))
            _write(pen, where, tile.episode.split("/")[0], round(1.7 * size), 8 * size, "mm")


def _write(
    pen: ImageDraw.ImageDraw,
    where: tuple[int, int],
    text: str,
    size: int,
    room: int,
    anchor: str,
    colour: tuple[int, int, int] = _WHITE,
) -> None:
    """Text at a point, in a smaller font where it is wider than `room`."""
    font = ImageFont.load_default(size)
    while size > 8 and pen.textlength(text, font) > room:
        size -= 1
        font = ImageFont.load_default(size)
    pen.text(where, text, colour, font, anchor)


def describe(space: TaskSpace, row: Mapping[str, Value]) -> str:
    """A task in words: `velocity 1.72 m/s`, or `mass 0.93, dead_joint bfoot`; of a long vector its range."""
    words = []
    for name, parameter in space.parameters.items():
        unit = "" if parameter.unit in ("1", "index", "") else f" {parameter.unit}"
        words.append(f"{name} {parameter.label(row[name]) or _number(row[name])}{unit}")
    return ", ".join(words)


def _number(value: Value) -> str:
    if isinstance(value, list) and len(value) > 3:
        return f"{_number(min(value))} to {_number(max(value))}"
    if isinstance(value, list):
        return "(" + ", ".join(_number(item) for item in value) + ")"
    if value == round(value):
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def _kebab(name: str) -> str:
    """`HalfCheetahVel` -> `half-cheetah-vel`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
