"""TrialEnv: runs trials of a family's tasks in a batch of worlds, whatever simulates them.

A trial is K episodes on one task and lasts exactly K × `episode_steps` control steps. An episode that ends early
restarts at once on the same task, within the same step: that step returns the next episode's first observation as
`obs` and its own last one as `final_obs`. With K = 2 and `episode_steps` = 4, a fall at the second step:

    step            1     2     3     4     5     6     7     8
    episode         1  |  1  |  2     2     2     2  |  3     3
    terminated            ×
    truncated                                     ×           × (the trial ends)
    episode_start         ×                       ×           ×   of the observation the step returns
    trial_start                                               ×
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.info import Part, PolicyInfo
from metarl.core.tasks import Tasks
from metarl.core.types import Step
from metarl.sim.family import Family
from metarl.sim.task_code import task_code


class RewardError(UserError):
    """A reward is not finite; the message names the term and the task."""


@runtime_checkable
class Cameras(Protocol):
    """Film some worlds of a running trial. The next trial has models of its own, and needs new ones."""

    def draw(self) -> list[UInt8[np.ndarray, "H W 3"]]:
        """A picture of each world as it is now; valid until the next ones."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


@dataclass(frozen=True)
class Moved:
    """Where one control step led all worlds, ahead of any restart."""

    obs: Float32[Tensor, "N S"]
    reward_terms: Mapping[str, Float64[Tensor, "N"]]
    """The reward is their sum."""
    terminated: Bool[Tensor, "N"]
    """By the family's rules."""
    truncated: Bool[Tensor, "N"]
    """By a time limit of the simulator's own, ahead of the family's."""
    diverged: Bool[Tensor, "N"]
    """What the step returned is not to be learnt from."""


class TrialEnv(ABC):
    """A batch of worlds running trials: owns episodes, restarts and truncation, never the choice of task.

    What simulates the worlds fills in `_pose`, `_restart`, `_observe` and `_move`.
    """

    action_size: int
    """Length A of an action."""
    sensed_size: int
    """Length of what the simulator itself observes."""
    observation_bound: float
    """No element of an observation is larger; beyond it a step counts as diverged."""

    def __init__(self, family: Family, num_worlds: int, episodes_per_trial: int) -> None:
        self.family = family
        self.num_worlds = num_worlds
        self.episodes_per_trial = episodes_per_trial
        self.task_visible = family.task_visible
        """Observations end with the task's `task_code`; not to be changed within a trial."""
        self._code = torch.zeros(num_worlds, 0)
        self._all = self._streams = torch.arange(num_worlds)
        self._no = torch.zeros(num_worlds, dtype=torch.bool)
        self._key = 0
        self._tasks: Tasks | None = None
        self._episode = torch.zeros(num_worlds, dtype=torch.long)
        self._episode_step = torch.zeros(num_worlds, dtype=torch.long)
        self._trial_step = 0
        # Until a world's episode ends early, all worlds share one episode clock and need no per-world test.
        self._in_step = True

    @property
    def observation_size(self) -> int:
        """Length O of an observation."""
        if not self.task_visible:
            return self.sensed_size
        space = self.family.space
        return self.sensed_size + task_code(space, space.nominal()).shape[1]

    device = torch.device("cpu")
    """Where the worlds' tensors are."""

    @property
    def info(self) -> PolicyInfo:
        """What a policy has to know of the worlds."""
        return PolicyInfo(
            observation=(Part("observation", self.observation_size, "1"),),
            actions=tuple(f"actuator {i}" for i in range(self.action_size)),
            control_step=self.family.control_step,
            episode_steps=self.family.episode_steps,
            episodes_per_trial=self.episodes_per_trial,
        )

    @property
    def trial_steps(self) -> int:
        """Control steps of a trial."""
        return self.episodes_per_trial * self.family.episode_steps

    @property
    def tasks(self) -> Tasks:
        """The tasks of the running trial."""
        if self._tasks is None:
            raise RuntimeError("no trial is running: call begin(tasks, key) first")
        return self._tasks

    def begin(self, tasks: Tasks, key: int, streams: Int64[Tensor, "N"] | None = None) -> Float32[Tensor, "N O"]:
        """Start a trial on `tasks`, one per world; `key` seeds all its resets. Returns the first observation.

        A world draws its resets from the random stream of its own number, or of that in `streams`.
        """
        if len(tasks) != self.num_worlds:
            raise ValueError(f"{self.num_worlds} worlds need as many tasks, got {len(tasks)}")
        self.family.space.check(tasks)
        self._tasks, self._key, self._trial_step, self._in_step = tasks, key, 0, True
        self._streams = self._all if streams is None else streams
        self._code = task_code(self.family.space, tasks) if self.task_visible else torch.zeros(self.num_worlds, 0)
        self._pose(tasks)
        self._episode.fill_(-1)
        self._next_episode(self._all)
        return self._first_observation()

    def step(self, action: Float32[Tensor, "N A"]) -> Step:
        """Apply `action` (clipped to [-1, 1]) for one control step.

        Raises `RewardError` where a reward is not finite in a world that has not diverged.
        """
        tasks = self.tasks
        if self._trial_step >= self.trial_steps:
            raise RuntimeError("the trial is over: call begin(tasks, key)")
        moved = self._move(action.double().clamp(-1.0, 1.0), tasks)
        self._trial_step += 1
        self._episode_step += 1
        obs, diverged = moved.obs, moved.diverged
        rows = torch.stack(tuple(moved.reward_terms.values()))  # a copy: a term may be a view of a state to be reset
        terms, total = self._finite(dict(zip(moved.reward_terms, rows, strict=True)), rows.sum(dim=0), diverged)
        if bool(diverged.any()):  # whatever it observed, no one may learn from it
            obs = torch.where(diverged[:, None], torch.zeros_like(obs), obs)
        return self._advance(self._with_task(obs), total.float(), terms, moved)

    def check(self) -> None:  # noqa: B027
        """Raise what went wrong since the last check."""

    def queue(self, tasks: Tasks) -> None:
        """The task that each world gets when its present trial ends."""
        raise NotImplementedError

    @abstractmethod
    def cameras(self, worlds: Sequence[int], size: tuple[int, int]) -> Cameras:
        """What films `worlds` in pictures of `size` = (width, height) [pixels]; to be closed before the next trial.

        Raises `UserError` where no picture can be drawn.
        """

    def close(self) -> None:  # noqa: B027 (not abstract: most hold nothing)
        """Free what the worlds hold outside this process."""

    def __enter__(self) -> TrialEnv:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _pose(self, tasks: Tasks) -> None:
        """Put every world on its task of a new trial."""

    @abstractmethod
    def _restart(self, worlds: Int64[Tensor, "n"], episodes: Int64[Tensor, "n"]) -> None:
        """Put `worlds` at the start of an episode; all draws come from `_key`, the world's stream and its episode."""

    @abstractmethod
    def _observe(self) -> Float32[Tensor, "N S"]:
        """What every world observes now."""

    @abstractmethod
    def _move(self, action: Float64[Tensor, "N A"], tasks: Tasks) -> Moved:
        """One control step under `action`, in [-1, 1]."""

    def _advance(
        self, final_obs: Float32[Tensor, "N O"], reward: Float32[Tensor, "N"], terms: Mapping[str, Tensor], moved: Moved
    ) -> Step:
        """Work out which episodes ended, restart them on their task, and assemble the step."""
        diverged, terminated = moved.diverged, moved.terminated | moved.diverged
        trial_over = self._trial_step >= self.trial_steps
        any_early = bool((terminated | moved.truncated).any())
        on_time = self._trial_step % self.family.episode_steps == 0
        self._in_step &= on_time or not any_early
        if not (any_early or trial_over or (on_time if self._in_step else True)):
            return Step(final_obs, final_obs, reward, terms, self._no, self._no, self._no, self._no, self._no)

        timeout = moved.truncated | (self._episode_step >= self.family.episode_steps)
        truncated = (timeout | trial_over) & ~terminated
        ended = terminated | truncated
        worlds = ended.nonzero()[:, 0]
        obs = final_obs
        if len(worlds) and not trial_over:
            self._next_episode(worlds)
            obs = torch.where(ended[:, None], self._first_observation(), final_obs)
        trial_start = torch.full_like(ended, trial_over)
        return Step(obs, final_obs, reward, terms, terminated, truncated, diverged, ended | trial_start, trial_start)

    def _next_episode(self, worlds: Tensor) -> None:
        """Begin the next episode of `worlds`, on their present tasks."""
        self._episode[worlds] += 1
        self._episode_step[worlds] = 0
        self._restart(worlds, self._episode[worlds])

    def _first_observation(self) -> Float32[Tensor, "N O"]:
        """Observation after a restart; `UserError` where it is not finite."""
        obs = self._observe()
        bad = (~torch.isfinite(obs)).nonzero().tolist()
        if bad:
            world, element = bad[0]
            value, task = obs[world, element].item(), self.tasks.rows()[world]
            raise UserError(f"element {element} of the first observation is {value} for the task {task}")
        return self._with_task(obs)

    def _with_task(self, obs: Float32[Tensor, "N S"]) -> Float32[Tensor, "N O"]:
        """What the simulator observes, followed by the task where that is visible."""
        return torch.cat((obs, self._code), dim=1) if self.task_visible else obs

    def _finite(
        self, terms: Mapping[str, Tensor], total: Tensor, diverged: Bool[Tensor, "N"]
    ) -> tuple[Mapping[str, Tensor], Tensor]:
        """Zero the reward of diverged worlds; raise where a healthy world's reward is not finite."""
        if diverged.any():
            terms = {name: torch.where(diverged, torch.zeros_like(term), term) for name, term in terms.items()}
            total = torch.where(diverged, torch.zeros_like(total), total)
        if not bool(torch.isfinite(total.sum())):
            for name, term in terms.items():
                bad = (~torch.isfinite(term)).nonzero()[:, 0]
                if len(bad):
                    world = int(bad[0])
                    raise RewardError(
                        f"reward term '{name}' is {term[world].item()} for the task {self.tasks.rows()[world]}"
                    )
        return terms, total
