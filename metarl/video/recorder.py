"""The recorder films a policy as it adapts: episodes in sequence or side by side, several tasks at once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from jaxtyping import Float64
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.tasks import Tasks
from metarl.rl.policy import Policy
from metarl.run.records import Origin
from metarl.run.run import worlds_on
from metarl.sim.family import Family, MujocoFamily
from metarl.video.encoder import BLOCK, FORMATS, movie
from metarl.video.layout import Layout, scenes
from metarl.video.plot import Plot
from metarl.video.take import Wanted, filmed
from metarl.video.tiles import Sheet

_HOLD = 0.5  # [s] the picture stands still where an episode begins and ends, and how long its number is announced
_MAX_FPS = 30.0
_ROLES = {"memoryless": "no memory", "adapting": "adapts", "oracle": "told the task"}
_MEMORY = 1.0  # [s] over which a plot averages a memory: longer than a stride


@dataclass(frozen=True)
class VideoConfig:
    """What to film, and how it is shown."""

    size: tuple[int, int] = (480, 320)
    """Width and height of one robot's picture [pixels], multiples of 16."""
    seed: int = 0
    """Seed of the initial states. With that of an evaluation, the video shows the evaluation's first tasks."""
    title: str = ""
    """The line above the picture; no line if empty."""
    threads: int = 0
    """Number of threads of the physics; 0 means one per CPU."""
    layout: Layout = "sequence"
    """Episodes one after the other, or side by side with a row per task, all from the start of the first."""
    episodes: tuple[int, ...] = ()
    """Episodes to show, from 1; if empty, all in sequence, and side by side the first and the last.

    Of a policy that does not adapt, which does the same in both, then the last one alone."""
    seconds: float = math.inf
    """At most this much of each episode is shown [s]."""
    plot: bool = False
    """Whether return and the policy's read-outs are plotted under each picture."""
    device: str = "cpu"
    """Where the worlds are."""
    physics: str = ""
    """What moves them; what is usual on the device if empty."""
    megabytes: float = 2.0
    """A gif or webp gets smaller, and has fewer pictures, until it is no larger than this."""


@dataclass(frozen=True)
class Recording:
    """A video that was filmed, and the returns of the trials in it."""

    path: Path
    seconds: float
    """Length of the video [s]."""
    num_frames: int
    returns: Float64[Tensor, "N K"]
    """Undiscounted return of each task's first K episodes."""
    look_for: str = ""
    """What is to be seen, in a sentence."""


_NOBODY = Origin()


@dataclass(frozen=True)
class Performer:
    """Whom to film."""

    policy: Policy[Any]
    origin: Origin = _NOBODY
    """What it was trained in, and what a picture calls it."""

    @property
    def name(self) -> str:
        """`rl2, adapts`."""
        return f"{self.origin.agent}, {_ROLES[self.origin.role]}"


_DEFAULT = VideoConfig()


def record(
    performers: Sequence[Performer],
    family: Family,
    tasks: Tasks,
    num_episodes: int,
    path: Path,
    config: VideoConfig = _DEFAULT,
    tell: Callable[[float], None] = lambda share: None,
) -> Recording:
    """Film one trial of `num_episodes` episodes on each task, all at once, in real time, as an h264 `path`.

    Several performers are shown beside each other, on the same tasks from the same starts; the returns are those of the
    first. Policies act deterministically, in the worlds that they were trained in. Raises `UserError` where a size
    is not a multiple of 16, an episode is not of the trial, `path` is not a film that can be written, or this machine
    cannot draw. `tell` is called with the share of the work that is done, in [0, 1].
    """
    _check(config, path)
    shown = [_shown(config, num_episodes, performer.origin.adapts) for performer in performers]
    stride = math.ceil(1.0 / (_MAX_FPS * family.control_step) - 1e-9)
    fps = 1.0 / (family.control_step * stride)
    hold = max(1, round(_HOLD * fps))
    limit = round(
        min(max(1.0, config.seconds / family.control_step), performers[0].origin.episode_steps or family.episode_steps)
    )
    window = max(1, round(_MEMORY / family.control_step))
    same = config.layout == "side-by-side"
    wanted = Wanted(config.size, frozenset(), stride, limit, config.plot, same)
    names = [f"{performer.name}: " if len(performers) > 1 else "" for performer in performers]
    worlds = {"threads": config.threads, **worlds_on(config.device, config.physics)}
    plan = scenes(config.layout, len(tasks), shown)
    with movie(path, fps, config.megabytes) as file, ExitStack() as kept:
        takes = []
        for place, performer in enumerate(performers):
            told = partial(_told, tell, place, len(performers))
            part = replace(wanted, episodes=frozenset(shown[place]), tell=told)
            took = filmed(performer.policy, family, tasks, num_episodes, part, config.seed, worlds, performer.origin)
            takes.append(kept.enter_context(took))
        sheet = Sheet(takes, family.space, names, config.size, config.title, num_episodes, limit)
        shots = [shot for scene in plan for shot in scene.shots]
        plots = [
            Plot(take, [shot for shot in shots if shot.take == place], config.size, limit, window)
            for place, take in enumerate(takes)
            if config.plot
        ]
        for place, scene in enumerate(plan):
            ages = list(scene.ages(takes, stride, limit, hold))
            for number, age in enumerate(ages):
                tell(0.5 + (place + number / len(ages)) / len(plan) / 2)
                file.write(sheet.draw(scene, age, number < 2 * hold, plots))
        returns = takes[0].returns(num_episodes)
    words = _look_for(performers, family, shown, returns) if same else ""
    return Recording(path, file.num_frames / fps, file.num_frames, returns, words)


def _look_for(
    performers: Sequence[Performer], family: Family, shown: Sequence[Sequence[int]], returns: Float64[Tensor, "N K"]
) -> str:
    """What tells adaptation, of episodes beside each other."""
    first, last = shown[0][0], shown[0][-1]
    found, learnt = (round(float(returns[0, episode])) for episode in (first, last))
    parts = []
    if last > first:
        parts.append(
            f"left episode {first + 1}, in which it has to find out its task; right of it episode {last + 1} on the "
            f"same task, from the same start (return {found}, then {learnt})"
        )
    if len(performers) > 1:
        parts.append(f"on the right {' and '.join(other.name for other in performers[1:])}")
    if isinstance(family, MujocoFamily) and type(family).wanted is not MujocoFamily.wanted:
        parts.append("the green arrow shows where it is to go")
    return "; ".join(parts)


def _told(tell: Callable[[float], None], place: int, takes: int, share: float) -> None:
    """Playing is the first half of a film."""
    tell((place + share) / takes / 2)


def _shown(config: VideoConfig, num_episodes: int, adapts: bool) -> Sequence[int]:
    """The episodes to show, numbered from 0."""
    for number in config.episodes:
        if not 1 <= number <= num_episodes:
            raise UserError(f"there is no episode {number} to show: the trial has episodes 1 to {num_episodes}")
    if config.episodes:
        return [number - 1 for number in dict.fromkeys(config.episodes)]
    if config.layout == "side-by-side":
        return sorted({0, num_episodes - 1} if adapts else {num_episodes - 1})
    return range(num_episodes)


def _check(config: VideoConfig, path: Path) -> None:
    for name, value in zip(("width", "height"), config.size, strict=True):
        if value < BLOCK or value % BLOCK:
            near = max(BLOCK, round(value / BLOCK) * BLOCK)
            raise UserError(f"{name} {value} is not a positive multiple of {BLOCK} pixels; the nearest is {near}")
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"'{path}' does not end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if not config.megabytes > 0:
        raise UserError(f"megabytes {config.megabytes:g} is not above 0")
    if os.path.isdir(path):  # unlike Path's, False too for a name that cannot be
        raise UserError(f"{path} is a folder: name a file in it")
