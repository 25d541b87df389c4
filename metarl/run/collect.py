"""The one collector: runs a policy through trials, whole ones or segment by segment, and keeps what happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.tasks import Tasks
from metarl.core.types import Segment, Step, Transition
from metarl.rl.policy import Policy
from metarl.rl.state import any_of, select_rows
from metarl.sim.env import TrialEnv

_BLOCK = 64  # steps whose noise is drawn at once
_OWN = ("obs", "action", "episode_start", "trial_start")
_STEP = ("final_obs", "reward", "terminated", "truncated", "diverged")

Record = Callable[[Tensor, Any, Tensor, Tensor, Any], Mapping[str, Tensor]]
"""See `Learner.record`."""

NextTasks = Callable[[], tuple[Tasks, Int64[Tensor, "N"]]]
"""Tasks of the worlds' next trials, and their numbers."""


@dataclass(frozen=True)
class TrialStep:
    """One control step of all worlds, with what the policy saw and did."""

    obs: Float32[Tensor, "N O"]
    """What the policy acted on."""
    episode_start: Bool[Tensor, "N"]
    """`obs` is the first observation of an episode."""
    trial_start: Bool[Tensor, "N"]
    """`obs` is the first observation of a trial."""
    noise: Float32[Tensor, "N Z"]
    """What the policy drew from."""
    action: Float32[Tensor, "N A"]
    step: Step
    """What the action led to."""
    before: Any
    """The policy's adaptation state when it acted."""
    state: Any
    """And after the step, as if its episode went on."""


class Stepper:
    """A policy in an environment: where both are, and the steps from there.

    With `next_tasks` trials run on: where one ends, the world's next begins within the same step, on a task of those,
    and the policy's state there starts anew.
    """

    def __init__(
        self,
        env: TrialEnv,
        policy: Policy[Any],
        tasks: Tasks,
        key: int,
        *,
        streams: Int64[Tensor, "N"] | None = None,
        task_number: Int64[Tensor, "N"] | None = None,
        next_tasks: NextTasks | None = None,
    ) -> None:
        """Begins a trial of `tasks`. `key` is that of every draw: of the resets, and of the policy's noise."""
        number, device = torch.arange(env.num_worlds), env.device
        self.env, self._key, self._next_tasks = env, key, next_tasks
        self._streams = number if streams is None else streams
        self.task_number = number if task_number is None else task_number
        self._obs = env.begin(tasks, key, streams)
        self._episode_start = self._trial_start = torch.ones(env.num_worlds, dtype=torch.bool, device=device)
        self._state: Any = policy.initial_state(env.num_worlds, device)
        self._noise, self._num_steps = torch.empty(0), 0
        episodes = env.episodes_per_trial
        self._episode = torch.zeros(env.num_worlds, 1, dtype=torch.long, device=device)
        self._running = torch.zeros(env.num_worlds, episodes + 1, dtype=torch.float64, device=device)
        self.returns: Float64[Tensor, "N K"] = self._running[:, :episodes].clone()
        """Undiscounted returns of the first K episodes of each world's last complete trial, if trials run on."""
        if next_tasks is not None:
            self._queue()

    def steps(self, policy: Policy[Any], num_steps: int, deterministic: bool = False) -> Iterator[TrialStep]:
        """The next steps. Between two of them the worlds are as the last one left them."""
        for _ in range(num_steps):
            noise = self._next_noise(policy.noise_size)
            obs, before, starts = self._obs, self._state, (self._episode_start, self._trial_start)
            action, state = policy.act(obs, before, noise, deterministic)
            step = self.env.step(action)
            state = policy.observe(state, Transition(obs, action, step.reward, step.final_obs, step.terminated))
            self._obs, self._state = step.obs, state
            self._episode_start, self._trial_start = step.episode_start, step.trial_start
            yield TrialStep(obs, *starts, noise, action, step, before, state)
            ended = step.ended & ~step.trial_start  # after a trial's last step there is no next episode to announce
            if any_of(ended):
                self._state = policy.end_episode(state, ended)
            if self._next_tasks is not None:
                self._run_on(policy, step)

    def segment(
        self,
        policy: Policy[Any],
        num_steps: int,
        record: Record | None = None,
        deterministic: bool = False,
        privileged: bool = False,
    ) -> Segment:
        """The next steps, kept, with what `record` makes of each, and the `privileged` numbers where asked for."""
        initial = type(self._state)(*(x.clone() for x in self._state))  # a policy may write into its state
        rows: dict[str, list[Tensor]] = {name: [] for name in (*_OWN, *_STEP, "trial_end", "task_number")}
        extras: dict[str, Tensor] = {}
        known = [self.env.privileged()] if privileged else []  # before each step, and after the last
        for t, now in enumerate(self.steps(policy, num_steps, deterministic)):
            for name in _OWN:
                rows[name].append(getattr(now, name))
            for name in _STEP:
                rows[name].append(getattr(now.step, name))
            rows["trial_end"].append(now.step.trial_start)
            rows["task_number"].append(self.task_number)
            if privileged:
                known.append(self.env.privileged())
            if record is not None:  # possibly large, as memories are: they are copied as they come
                for name, value in record(now.obs, now.before, now.noise, now.action, now.state).items():
                    if t == 0:
                        extras[name] = value.new_empty((num_steps, *value.shape))
                    extras[name][t] = value
        self.env.check()
        return Segment(
            **{name: torch.stack(values) for name, values in rows.items()},
            extras=extras,
            next_obs=self._obs,
            initial_state=initial,
            final_state=self._state,
            privileged=torch.stack(known[:-1]) if privileged else None,
        )

    def _next_noise(self, size: int) -> Float32[Tensor, "N Z"]:
        place = self._num_steps % _BLOCK
        if place == 0 or self._noise.shape[-1] != size:
            first = self._num_steps - place
            self._noise = seeding.normal(self._key, self._streams, first, _BLOCK, size, self.env.device)
        self._num_steps += 1
        return self._noise[place]

    def _queue(self) -> None:
        """Hand the worlds the tasks of their next trials."""
        assert self._next_tasks is not None
        tasks, self._queued = self._next_tasks()
        self.env.queue(tasks)

    def _run_on(self, policy: Policy[Any], step: Step) -> None:
        """Book the step's reward; where a trial ended, begin the next one."""
        self._running.scatter_add_(1, self._episode, step.reward.double()[:, None])
        last, over = self._running.shape[1] - 1, step.trial_start[:, None]
        self._episode = (self._episode + step.ended[:, None]).clamp(max=last)
        if any_of(over):
            self.returns = torch.where(over, self._running[:, :last], self.returns)
            self._running.masked_fill_(over, 0.0)
            self._episode.masked_fill_(over, 0)
            fresh = policy.initial_state(self.env.num_worlds, self.env.device)
            self._state = select_rows(step.trial_start, fresh, self._state)
            self.task_number = torch.where(step.trial_start.cpu(), self._queued, self.task_number)
            self._queue()


def trial_steps(
    env: TrialEnv,
    policy: Policy[Any],
    tasks: Tasks,
    key: int,
    deterministic: bool = False,
    streams: Int64[Tensor, "N"] | None = None,
) -> Iterator[TrialStep]:
    """The steps of one trial of `tasks` (one per world); `key` is that of every draw, of resets and of actions.

    Raises `UserError` for actions that are not finite: on a CPU at once, else at the trial's end.
    """
    finite = torch.ones((), dtype=torch.bool, device=env.device)
    for now in Stepper(env, policy, tasks, key, streams=streams).steps(policy, env.trial_steps, deterministic):
        finite = finite & now.action.isfinite().all()
        if not any_of(finite[None]):  # on a GPU that would wait
            break
        yield now
    if not bool(finite):
        raise UserError("this policy cannot be played: its actions are not finite numbers")
    env.check()


def collect(
    env: TrialEnv,
    policy: Policy[Any],
    tasks: Tasks,
    key: int,
    *,
    record: Record | None = None,
    deterministic: bool = False,
    task_number: Int64[Tensor, "N"] | None = None,
    privileged: bool = False,
) -> Segment:
    """One trial of `tasks` (one per world), kept; see `trial_steps`. Tasks are numbered from 0 unless told."""
    stepper = Stepper(env, policy, tasks, key, task_number=task_number)
    return stepper.segment(policy, env.trial_steps, record, deterministic, privileged)
