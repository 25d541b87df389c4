"""The one recorder: films a policy adapting, the episodes of one trial in sequence, several tasks side by side.

Pictures go to the encoder as they are drawn, so memory does not depend on the length of the video.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from metarl import seeding
from metarl.errors import UserError
from metarl.rl.learner import Policy
from metarl.run.collect import trial_steps
from metarl.run.video_file import BLOCK, movie
from metarl.run.video_tiles import Film
from metarl.sim.family import TaskFamily
from metarl.sim.worlds import make_trials
from metarl.tasks import Tasks

_HOLD = 0.5  # [s] the picture stands still where an episode begins, and how long its number is announced


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
    with worlds as env, movie(path, fps) as file, Film(env, config.size, config.title, hold) as film:
        picture = None
        for now in trial_steps(env, policy, tasks, generator, deterministic=True):
            picture = film.draw(now.step)
            file.write(picture, hold if film.all_began() else 1)
        assert picture is not None
        file.write(picture, hold)
    returns = torch.tensor([tile.returns[:num_episodes] for tile in film.tiles], dtype=torch.float64)
    return Recording(path, file.num_frames / fps, file.num_frames, returns)


def _check(config: VideoConfig, path: Path) -> None:
    for name, value in zip(("width", "height"), config.size, strict=True):
        if value < BLOCK or value % BLOCK:
            near = max(BLOCK, round(value / BLOCK) * BLOCK)
            raise UserError(f"{name} {value} is not a positive multiple of {BLOCK} pixels; the nearest is {near}")
    if path.suffix.lower() != ".mp4":
        raise UserError(f"videos are mp4 files: '{path}' does not end in .mp4")
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it")
