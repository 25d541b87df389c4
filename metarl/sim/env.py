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

Worlds may be at different places of their trials. One whose trial ends takes the task that `queue` holds for it and
begins its next trial in the same step; the others do not notice. A step never waits for the device: what differs
between worlds is kept by mask, and what goes wrong is noted on the device until `check` reads it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from metarl.core.graphs import Carried, looks
from metarl.core.info import Part, PolicyInfo
from metarl.core.renamed import old_names
from metarl.core.seeding import later_key, next_key, root
from metarl.core.tasks import Tasks
from metarl.core.types import Step, Trial
from metarl.sim.described import policy_info
from metarl.sim.family import Family
from metarl.sim.faults import Dropped, Faults, RewardError as RewardError, chosen
from metarl.sim.moved import Cameras as Cameras, Moved as Moved, either
from metarl.sim.task_code import task_code


class TrialEnv(ABC):
    """A batch of worlds running trials: owns episodes, restarts and truncation, never the choice of task.

    What simulates the worlds fills in `_pose`, `_restart`, `_observe` and `_move`, and calls `_describe` once made.
    """

    observation_bound: float
    """No element of an observation is larger; beyond it a step counts as diverged."""
    info: PolicyInfo
    """What a policy has to know of these worlds."""
    replayable: bool = False
    """The work of `advance` may be captured and replayed: nothing but tensors goes from one step to the next."""
    success: Bool[Tensor, "N"] | None = None  # of the last step, where an environment of another simulator tells it

    def __init__(
        self,
        family: Family,
        num_worlds: int,
        *,
        episodes_per_trial: int,
        episode_steps: int | None,
        task_visible: bool,
        trial: Trial | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.family, self.num_worlds = family, num_worlds
        self.episodes_per_trial = episodes_per_trial
        self.episode_steps = episode_steps or family.episode_steps
        """Time limit of an episode [control steps]."""
        self.trial: Trial = trial or family.trial
        """What falls forfeit."""
        self.task_visible = task_visible
        """Observations end with what `privileged` says."""
        self.device, self.dtype = device, dtype
        self._all = self._streams = self._roots = torch.arange(num_worlds, device=device)
        self._every, self._no = torch.ones_like(self._all, dtype=torch.bool), torch.zeros_like(self._all).bool()
        self._keys, self._episode, self._due, self._played = (torch.zeros_like(self._all) for _ in range(4))
        self._number = self._episode  # by which an episode's draws differ from another's
        self._tasks: Tasks | None = None
        self._code = torch.empty(num_worlds, 0, device=device)
        self._queued: tuple[Tasks, Tensor, int] | None = None
        # Numbers on a CPU are looked at, to skip what has nothing to do. The host knows when trials end.
        self._looks = looks(device)
        self._clock = torch.zeros((), dtype=torch.long, device=device)  # the same number, where it can be compared
        self._due_steps, self._ends = set[int](), set[int]()
        self._steps, self._phase, self._over = 0, self._all, False
        self._faults = Faults(num_worlds, device)
        self._carried = Carried(*((self, name) for name in ("_tasks", "_code", "_keys", "_streams", "_roots")))

    @property
    def observation_size(self) -> int:
        """Length O of an observation."""
        return self.info.observation_size

    @property
    def action_size(self) -> int:
        """Length A of an action."""
        return self.info.action_size

    @property
    def trial_steps(self) -> int:
        """Control steps of a trial."""
        return self.episodes_per_trial * self.episode_steps

    @property
    def tasks(self) -> Tasks:
        """The tasks that the worlds are on, on their device."""
        if self._tasks is None:
            raise RuntimeError("no trial is running: call begin(tasks, key) first")
        return self._tasks

    def privileged(self) -> Float32[Tensor, "N P"]:
        """What a simulator knows and a robot does not, as numbers of about unit size.

        Each world's task as `task_code`, then what else is `_hidden`; `info.privileged` says what they are. Read only.
        """
        hidden = self._hidden()
        return torch.cat((self._code, *(part.float() for part in hidden)), dim=1) if hidden else self._code

    def begin(
        self,
        tasks: Tasks,
        key: int,
        streams: Int64[Tensor, "N"] | None = None,
        clock: Int64[Tensor, "N"] | None = None,
        trial: Int64[Tensor, "N"] | None = None,
    ) -> Float32[Tensor, "N O"]:
        """Start a trial on `tasks`, one per world; `key` seeds all its resets. Returns the first observation.

        A world draws its resets from the random stream of its own number, or of that in `streams`. It starts at the
        first step of its trial, or at step `clock` of it (with an episode that ends where it would have); of its first
        trial, or of the one that would be queued `trial` times later.
        """
        self.check()
        self._tasks, self._code = self._taken(tasks)
        self._faults.on(self.tasks)
        self._queued, self._steps, self._over = None, 0, False
        self._clock.zero_()
        self._streams = self._all if streams is None else streams.to(self.device)
        self._keys.copy_(later_key(self._keys.fill_(key), trial))
        self._roots = root(self._keys, self._streams)
        begun = torch.zeros_like(self._all) if clock is None else clock.to(self.device)
        if clock is not None and not bool(((clock >= 0) & (clock < self.trial_steps)).all()):
            raise ValueError(f"clocks must lie within a trial, from 0 to {self.trial_steps - 1}: {clock.tolist()}")
        self._phase = (-begun) % self.trial_steps
        self._ends = set(self._phase.tolist())
        self._episode.copy_(begun // self.episode_steps)
        self._played.copy_(self._episode)
        self._due.copy_(self.episode_steps - begun % self.episode_steps)
        self._due_steps = set(self._due.tolist())
        self._pose(self._every)
        self._restart(self._every)
        obs = self._first_observation(self._every)
        self.check()
        return obs

    def start_alike(self) -> None:
        """From now on every episode of a trial makes the draws of its first one, and starts where that did."""
        self._number = torch.zeros_like(self._episode)

    def queue(self, tasks: Tasks) -> None:
        """Let each world begin its next trial on its row of `tasks`, in the step that ends its present one.

        It holds for one trial's length: a world's next end but one needs another call, or a `begin`.
        """
        _ = self.tasks
        self._queued = (*self._taken(tasks), self._steps)

    def step(self, action: Float32[Tensor, "N A"]) -> Step:
        """Apply `action` (clipped to [-1, 1]) for one control step; see `check`."""
        self.count()
        return self.advance(action)

    def count(self) -> None:
        """Take note of a step; `advance` does its work, which leaves the host alone, so that it can be replayed."""
        _ = self.tasks
        if self._over:
            raise RuntimeError("the trial is over: call begin(tasks, key), or queue(tasks) before it ends")
        self._steps += 1

    @property
    def trial_ended(self) -> bool:
        """Whether the last step counted ends the trial of any world."""
        return self._steps % self.trial_steps in self._ends

    def settle(self) -> None:
        """Put what a step leaves to the next one back to where it lay at first, for work that is replayed."""
        self._carried.settle()

    def put_back(self) -> None:
        """Undo what a step has replaced since: it was captured in vain, and nothing of it was done."""
        self._carried.put_back()

    def advance(self, action: Float32[Tensor, "N A"]) -> Step:
        """A step's work on the device, once `count` was called."""
        tasks = self.tasks
        moved = self._move(action.to(self.dtype).clamp(-1.0, 1.0), tasks)
        rows = torch.stack(tuple(moved.reward_terms.values()))  # a copy: a term may be a view of a state to be reset
        obs = moved.obs
        if moved.diverged is not None:  # whatever it observed or earned, no one may learn from it
            rows = rows.masked_fill(moved.diverged, 0.0)
            obs = obs.masked_fill(moved.diverged[:, None], 0.0)
        reward = rows.sum(dim=0).float()
        names = tuple(moved.reward_terms)
        self._faults.reward(names, rows, reward, tasks, self._looks)
        return self._advance(self._with_task(obs), reward, dict(zip(names, rows.unbind(), strict=True)), moved)

    def restart(self, mask: Bool[Tensor, "N"]) -> Float32[Tensor, "N O"]:
        """Let the worlds of `mask` begin their next episode, before or at the end of this one: what all observe."""
        self._episode.add_(mask)
        torch.where(mask, self._clock + self.episode_steps, self._due, out=self._due)
        self._due_steps.add(self._steps + self.episode_steps)
        self._restart(mask)
        return self._first_observation(mask)

    def check(self) -> None:
        """Raise what went wrong since the last check; the one place that waits for the device.

        `RewardError`: a reward not finite in float32, of a world that had not diverged; `UserError`: an observation.
        """
        self._faults.check()

    def dropped(self) -> Dropped:
        """What the physics could not do since the last call, to be read once per segment: it waits for the device."""
        return Dropped()

    @property
    def seconds_to_compile(self) -> float:
        """What it took to make what simulates ready: kernels of a GPU are compiled once [s]."""
        return 0.0

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
    def _pose(self, mask: Bool[Tensor, "N"]) -> None:
        """Put the worlds of `mask` on their present tasks, ahead of a trial."""

    @abstractmethod
    def _restart(self, mask: Bool[Tensor, "N"]) -> None:
        """Start an episode in the worlds of `mask`; draws come from its `_roots` and the episode's `_number`."""

    @abstractmethod
    def _observe(self) -> Float32[Tensor, "N S"]:
        """What every world observes now."""

    @abstractmethod
    def _move(self, action: Float[Tensor, "N A"], tasks: Tasks) -> Moved:
        """One control step under `action`, in [-1, 1]."""

    def _hidden(self) -> list[Float[Tensor, "N size"]]:
        """Present values of what changes within an episode, part by part."""
        return []

    def _describe(self, sensed_size: int, actions: Sequence[str], hidden: tuple[Part, ...] = ()) -> None:
        """Set `info`; `hidden` are the parts of `_hidden`."""
        times = self.episode_steps, self.episodes_per_trial
        self.info = policy_info(self.family, actions, sensed_size, hidden, self.task_visible, *times)

    def _taken(self, tasks: Tasks) -> tuple[Tasks, Float32[Tensor, "N C"]]:
        """Tasks as the worlds hold them, and their code."""
        if len(tasks) != self.num_worlds:
            raise ValueError(f"{self.num_worlds} worlds need as many tasks, got {len(tasks)}")
        self.family.space.check(tasks)
        return tasks.to(self.device, self.dtype), task_code(self.family.space, tasks).to(self.device)

    def _advance(
        self, final_obs: Float32[Tensor, "N O"], reward: Float32[Tensor, "N"], terms: Mapping[str, Tensor], moved: Moved
    ) -> Step:
        """Work out which episodes and trials ended, begin the next ones, and assemble the step."""
        no = self._no
        self._clock.add_(1)
        timeout = self._due <= self._clock if not self._looks or self._steps in self._due_steps else None
        self._due_steps.discard(self._steps)
        terminated = either(moved.terminated, moved.diverged)
        truncated = either(timeout, moved.truncated)
        ended = either(terminated, truncated)
        if not self.trial_ended and (ended is None or self._none(ended)):
            return Step(final_obs, final_obs, reward, terms, no, no, no, no, no, no)

        ended = no if ended is None else ended
        over, restarted = no, ended
        if self.trial_ended:
            over = self._phase == self._steps % self.trial_steps
            truncated, ended = either(truncated, over), ended | over
            self._over = not self._next_trial(over)
            restarted = ended & ~over if self._over else ended
        obs = final_obs
        if not self._none(restarted):
            obs = torch.where(restarted[:, None], self.restart(restarted), obs)
        terminated = no if terminated is None else terminated
        truncated = no if truncated is None else truncated & ~terminated
        diverged, lost = no if moved.diverged is None else moved.diverged, self._lost(terminated, ended, over)
        return Step(obs, final_obs, reward, terms, terminated, truncated, diverged, ended, over, lost)

    def _lost(
        self, terminated: Bool[Tensor, "N"], ended: Bool[Tensor, "N"], over: Bool[Tensor, "N"]
    ) -> Bool[Tensor, "N"]:
        """Falls after which nothing counts: all, or those that use up K episodes, which are counted anew from there."""
        if self.trial != "episodes":
            return terminated if self.trial == "falls" else self._no
        self._played.add_(ended)
        all_played = self._played >= self.episodes_per_trial
        self._played.masked_fill_(all_played | over, 0)
        return terminated & all_played

    def _next_trial(self, over: Bool[Tensor, "N"]) -> bool:
        """Put the worlds whose trial is over on their queued tasks; False where none are queued."""
        if self._queued is None or self._steps - self._queued[2] > self.trial_steps:
            return False
        tasks, code, _ = self._queued
        self._tasks = chosen(over, tasks, self.tasks)
        self._faults.on(self._tasks)
        self._code = torch.where(over[:, None], code, self._code)
        self._keys = torch.where(over, next_key(self._keys), self._keys)
        self._roots = root(self._keys, self._streams)
        self._episode.masked_fill_(over, -1)
        self._pose(over)
        return True

    def _first_observation(self, mask: Bool[Tensor, "N"]) -> Float32[Tensor, "N O"]:
        """Observation after a restart of the worlds of `mask`."""
        obs = self._observe()
        self._faults.observation(obs, mask, self._looks)
        return self._with_task(obs)

    def _with_task(self, obs: Float32[Tensor, "N S"]) -> Float32[Tensor, "N O"]:
        """What the simulator observes, followed by the privileged numbers where the task is visible."""
        return torch.cat((obs, self.privileged()), dim=1) if self.task_visible else obs

    def _none(self, mask: Bool[Tensor, "N"]) -> bool:
        """Certainly no world is in the mask."""
        return self._looks and not mask.numpy().any()


__getattr__ = old_names(__name__)
