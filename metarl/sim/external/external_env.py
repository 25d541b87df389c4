"""Any Gymnasium environment as a family: with a simulator of its own, in worker processes, in a Python of its own."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from metarl.core.info import Part
from metarl.core.machine import num_cpus
from metarl.core.seeding import WorldRandom
from metarl.core.tasks import Tasks, Value
from metarl.core.types import Trial
from metarl.sim.disturbing import OutsideDisturber
from metarl.sim.env import Moved, TrialEnv
from metarl.sim.external.pool import Setting, Workers
from metarl.sim.family import Family

_SEEDS = 2.0**31  # what every library takes for a seed
_BARS = (32, 32, 32)


class ExternalFamily(Family):
    """A Gymnasium environment and the distribution of tasks it may face.

    An episode begins with `env.reset(seed=s, options={"task": {...}})`, the words that our own ids understand: a
    number or a float64 array per parameter. Whatever differs from this is a matter of a small wrapper in the
    environment's file. Spaces are boxes; actions in [-1, 1] map linearly onto the action space's bounds. The reward
    is one term, `reward`, or those in `info["reward_terms"]`, which must add up to it. Where `info["success"]` is told,
    evaluations say in which episodes it was true at any step. An observation that is not finite ends the episode as
    diverged.
    """

    environment: ClassVar[str]
    """A Gymnasium id (`Pendulum-v1`, `module:Id-v0`), or `module:function` or `path/to/file.py:function`.

    Functions are called with `render_mode=None` (`"rgb_array"` where pictures are wanted) and return an environment. A
    relative path starts from the folder of the family's file, where workers also look for modules first.
    """
    python: ClassVar[str | None] = None
    """Interpreter of the workers, with NumPy and Gymnasium ≥ 1.0 installed; None for the one that runs metarl.

    Relative to the folder of the family's file: `suite/bin/python` is that of a virtual environment beside it.
    """
    time_limit: ClassVar[float] = 120.0
    """A process that takes longer than this [s] to make one environment, or to step each of its own, counts as hung."""

    def setting(self, episode_steps: int, pictures: bool) -> Setting:
        """What its workers need to know."""
        folder = Path(inspect.getfile(type(self))).resolve().parent
        place, separator, name = self.environment.rpartition(":")
        environment = f"{folder / place}:{name}" if separator and place.endswith(".py") else self.environment
        python = sys.executable
        if self.python is not None:  # not resolved: the link in a virtual environment is what makes it one
            python = os.path.join(folder, os.path.expanduser(self.python))
        return Setting(environment, python, str(folder), episode_steps, self.time_limit, pictures)


class ExternalEnv(TrialEnv):
    """Trials in the environments of an `ExternalFamily`. An episode's seed depends on key, stream and episode only."""

    family: ExternalFamily
    observation_bound = float("inf")

    def __init__(
        self,
        family: ExternalFamily,
        num_worlds: int,
        *,
        episodes_per_trial: int = 2,
        episode_steps: int | None = None,
        task_visible: bool = False,
        trial: Trial | None = None,
        processes: int = 0,
        pictures: bool = False,
    ) -> None:
        """Take the arguments of `make_env`. Raises `WorkerError` where the environment cannot be made or used."""
        super().__init__(
            family,
            num_worlds,
            episodes_per_trial=episodes_per_trial,
            episode_steps=episode_steps,
            task_visible=task_visible,
            trial=trial,
            device=torch.device("cpu"),
            dtype=torch.float64,
        )
        setting = family.setting(self.episode_steps, pictures)
        self._workers = Workers(setting, num_worlds, processes or num_cpus())
        self.description = self._workers.description
        """Versions of the workers' `python` and `gymnasium`."""
        self._obs = torch.zeros(num_worlds, int(self.description["observation_size"]))
        self._rows: list[dict[str, Value]] = [{}] * num_worlds
        actions = [f"action_{i}" for i in range(int(self.description["action_size"]))]
        parts = tuple(family.observation) or (Part("observation", self._obs.shape[1], "1"),)
        disturbed = bool(family.disturbances)
        self._disturber = OutsideDisturber(family, num_worlds, parts, len(actions)) if disturbed else None
        told = self._disturber.episode.drawn_parts() if self._disturber else ()
        self._describe(self._obs.shape[1], actions, tuple(told))

    def cameras(self, worlds: Sequence[int], size: tuple[int, int]) -> ExternalCameras:
        """The environments' own `render`."""
        return ExternalCameras(self._workers, worlds, size)

    def close(self) -> None:
        """End the processes."""
        self._workers.close()

    def _pose(self, mask: Bool[Tensor, "N"]) -> None:
        rows = self.tasks.rows()
        for world in np.flatnonzero(mask.numpy()):
            self._rows[world] = rows[world]

    def _restart(self, mask: Bool[Tensor, "N"]) -> None:
        numbers = np.flatnonzero(mask.numpy()).tolist()
        seeds = WorldRandom(self._keys[mask], self._streams[mask], self._number[mask]).uniform(0.0, _SEEDS, 1)
        first = self._workers.reset(numbers, seeds[:, 0].long().tolist(), [self._rows[world] for world in numbers])
        self._obs[mask] = torch.from_numpy(first)
        if self._disturber:
            self._disturber.begin(self._keys, self._streams, self._number, mask, self.tasks)

    def _observe(self) -> Float32[Tensor, "N S"]:
        return self._disturber.sense(self._obs) if self._disturber else self._obs.clone()

    def _hidden(self) -> list[Tensor]:
        return self._disturber.episode.drawn() if self._disturber else []

    def _move(self, action: Float[Tensor, "N A"], tasks: Tasks) -> Moved:
        command = self._disturber.command(action) if self._disturber else action
        obs, terminated, truncated, terms, won = self._workers.step(command.numpy())
        self.success = None if won is None else torch.from_numpy(won)
        seen = torch.from_numpy(obs)
        self._obs.copy_(seen)
        rewards = {name: torch.from_numpy(term) for name, term in terms.items()}
        diverged = ~torch.isfinite(seen).all(dim=1)
        return Moved(
            self._observe() if self._disturber else seen,
            rewards,
            torch.from_numpy(terminated),
            torch.from_numpy(truncated),
            diverged,
        )


class ExternalCameras:
    """Films worlds by their environments' own pictures, brought to size with bars where their shape differs."""

    def __init__(self, workers: Workers, worlds: Sequence[int], size: tuple[int, int]) -> None:
        self._workers, self._worlds, self._size = workers, worlds, size

    def draw(self, which: Sequence[int] | None = None) -> list[UInt8[np.ndarray, "H W 3"]]:
        """A picture of each world, or of those at these places among them, as it is now."""
        worlds = self._worlds if which is None else [self._worlds[place] for place in which]
        pictures = map(Image.fromarray, self._workers.render(worlds))
        return [np.asarray(ImageOps.pad(picture, self._size, color=_BARS)) for picture in pictures]

    def close(self) -> None:
        """Nothing to free: an environment goes with its process."""
