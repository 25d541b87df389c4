"""A take: one trial, played once, with the pictures of the episodes to be shown.

The pictures lie in a temporary file without a name until a layout asks for them, so that episodes can be shown beside
each other, and memory does not depend on the length of the video.
"""

from __future__ import annotations

import io
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from PIL import Image
from torch import Tensor

from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.tasks import Tasks
from metarl.rl.policy import Policy, ReadOut
from metarl.run.collect import trial_steps
from metarl.run.records import Origin
from metarl.sim.env import Cameras, TrialEnv
from metarl.sim.family import Family
from metarl.sim.make import make_env


@dataclass(frozen=True)
class Wanted:
    """Which pictures and read-outs of a trial are kept."""

    size: tuple[int, int]
    """Width and height of a picture [pixels]."""
    episodes: frozenset[int]
    """Episodes to draw, numbered from 0."""
    stride: int
    """Number of control steps from one picture to the next."""
    steps: int
    """Pictures end at this step of an episode."""
    read_outs: bool
    """Whether what can be read out of the policy's state is kept."""
    same_starts: bool = False
    """Every episode starts where the first one does."""
    tell: Callable[[float], None] = lambda share: None
    """Told the share of the trial that is played."""

    def due(self, episode: Int64[Tensor, "N"], age: Int64[Tensor, "N"]) -> Bool[Tensor, "N"]:
        """The worlds of which a picture is wanted, when they are `age` steps into their `episode`."""
        shown = torch.tensor(sorted(self.episodes))
        return torch.isin(episode, shown) & (age <= self.steps) & (age % self.stride == 0)


@dataclass(frozen=True)
class Take:
    """A filmed trial: all rewards, the starts of the episodes, and the pictures that were wanted."""

    tasks: Tasks
    reward: Float64[np.ndarray, "T N"]
    starts: tuple[tuple[int, ...], ...]
    """For each world the first step of each episode, and last the trial's length."""
    read_outs: Mapping[str, Float32[np.ndarray, "T N D"]]
    """What can be read out of the policy's state after each step, by name."""
    pictures: Pictures
    privileged: Mapping[str, Float32[np.ndarray, "T N size"]] = field(default_factory=dict)
    """What is so after each step, by name: see `TrialEnv.privileged`."""

    def length(self, world: int, episode: int) -> int:
        """Control steps of an episode."""
        return self.starts[world][episode + 1] - self.starts[world][episode]

    def collected(self, world: int, episode: int) -> Float64[np.ndarray, "L1"]:
        """The return of an episode so far, before its first step and after each one."""
        start, stop = self.starts[world][episode : episode + 2]
        return np.concatenate(([0.0], self.reward[start:stop, world].cumsum()))

    def returns(self, num_episodes: int) -> Float64[Tensor, "N K"]:
        """Undiscounted return of each task's first K episodes."""
        rows = [[self.collected(w, k)[-1] for k in range(num_episodes)] for w in range(len(self.tasks))]
        return torch.tensor(rows, dtype=torch.float64)

    def picture(self, world: int, episode: int, age: int) -> UInt8[np.ndarray, "H W 3"]:
        """The picture of a world `age` steps into an episode.

        The trial's first instant has no picture, nor has the end of an episode other than the trial's last, because
        the world has restarted by then. The nearest picture of the same episode is shown instead.
        """
        return self.pictures.at(world, *self._between(world, episode, age))

    def now(self, world: int, episode: int, age: int) -> dict[str, Float32[np.ndarray, "size"]]:
        """What of `privileged` is so in the picture of that age."""
        first, step = self._between(world, episode, age)
        return {name: rows[max(first, step), world] for name, rows in self.privileged.items()}

    def _between(self, world: int, episode: int, age: int) -> tuple[int, int]:
        """The first step of an episode, and the one that an age of it is shown by, both as steps of the trial."""
        start, stop = self.starts[world][episode : episode + 2]
        last = stop - 1 if stop == len(self.reward) else max(stop - 2, start - 1)
        return max(start - 1, 0), min(start - 1 + age, last)


class Pictures:
    """Pictures by world and step, compressed in a file (JPEG, of a higher quality than the video)."""

    def __init__(self, file: IO[bytes], num_worlds: int) -> None:
        self._file = file
        self._steps: list[list[int]] = [[] for _ in range(num_worlds)]
        self._places: list[list[tuple[int, int]]] = [[] for _ in range(num_worlds)]

    def add(self, world: int, step: int, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        """Keep the picture of a world after a step, which must be later than the steps before."""
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=95, subsampling=0)
        with _explained():
            place = self._file.seek(0, io.SEEK_END)
            self._file.write(buffer.getbuffer())
        self._steps[world].append(step)
        self._places[world].append((place, buffer.tell()))

    def at(self, world: int, first: int, step: int) -> UInt8[np.ndarray, "H W 3"]:
        """The latest picture of a world between steps `first` and `step`; without one, the next later picture."""
        steps = self._steps[world]
        index = bisect_right(steps, step) - 1
        if index < 0 or steps[index] < first:
            index = min(index + 1, len(steps) - 1)
        place, size = self._places[world][index]
        with _explained():
            self._file.seek(place)
            return np.asarray(Image.open(io.BytesIO(self._file.read(size))))


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot keep pictures in a temporary file: {error.strerror or error}") from None


@contextmanager
def filmed(
    policy: Policy[Any],
    family: Family,
    tasks: Tasks,
    num_episodes: int,
    wanted: Wanted,
    seed: int,
    worlds: Mapping[str, Any],
    origin: Origin,
) -> Iterator[Take]:
    """Play a trial on each task, all at once, as an evaluation of the same seed does, and draw what is wanted.

    The policy acts deterministically; `worlds` are more arguments of `make_env`. Raises `UserError` where this machine
    cannot draw.
    """
    with _explained():
        scratch = tempfile.TemporaryFile()  # noqa: SIM115 (closed below; an error of what is filmed is not the file's)
    with scratch as file:
        made = make_env(
            family,
            len(tasks),
            episodes_per_trial=num_episodes,
            episode_steps=origin.episode_steps or None,
            task_visible=origin.task_visible,
            pictures=True,
            **worlds,
        )
        with made as env:
            if wanted.same_starts:
                env.start_alike()
            take = _shoot(env, policy, tasks, wanted, seed, Pictures(file, len(tasks)))
        yield take


def _shoot(env: TrialEnv, policy: Policy[Any], tasks: Tasks, wanted: Wanted, seed: int, pictures: Pictures) -> Take:
    reward = np.zeros((env.trial_steps, len(tasks)))
    starts = [[0] for _ in range(len(tasks))]
    read_outs: dict[str, list[Tensor]] = {}
    privileged: list[Tensor] = []
    episode, age = torch.zeros(len(tasks), dtype=torch.long), torch.zeros(len(tasks), dtype=torch.long)
    cameras: Cameras | None = None
    try:
        for t, now in enumerate(trial_steps(env, policy, tasks, seeding.key(seed, "evaluate"), True)):
            wanted.tell(t / len(reward))
            reward[t] = now.step.reward.cpu().numpy()
            privileged.append(env.privileged().cpu())
            begins = (now.step.ended & ~now.step.trial_start).cpu()
            for world in now.step.ended.nonzero()[:, 0].tolist():
                starts[world].append(t + 1)
            episode, age = episode + begins, torch.where(begins, 0, age + 1)
            due = wanted.due(episode, age) | (t == 0 and 0 in wanted.episodes)
            if bool(due.any()):
                # Only a running trial has the models of its tasks.
                cameras = cameras or env.cameras(range(env.num_worlds), wanted.size)
                worlds = due.nonzero()[:, 0].tolist()
                for world, drawn in zip(worlds, cameras.draw(worlds), strict=True):
                    pictures.add(world, t, drawn)
            if wanted.read_outs and isinstance(policy, ReadOut):
                for name, value in policy.read_out(now.state).items():
                    read_outs.setdefault(name, []).append(value.cpu())
    finally:
        if cameras is not None:
            cameras.close()
    kept = {name: torch.stack(values).numpy() for name, values in read_outs.items()}
    parts = torch.split(torch.stack(privileged), [part.size for part in env.info.privileged], dim=-1)
    told = {part.name: rows.numpy() for part, rows in zip(env.info.privileged, parts, strict=True)}
    return Take(tasks, reward, tuple(map(tuple, starts)), kept, pictures, told)
