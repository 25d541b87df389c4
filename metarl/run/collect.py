"""The one collector: runs a policy through trials, whole ones or segment by segment, and keeps what happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.graphs import Carried
from metarl.core.tasks import Tasks
from metarl.core.types import Segment, Step, Transition
from metarl.rl.policy import Policy, device_of, unsound
from metarl.rl.state import any_of, copied, select_rows
from metarl.run.rollout import OWN, STEP, Record, Rollout, Room, TrialStep as TrialStep, Wanted
from metarl.run.underway import Clocks, Underway
from metarl.sim.env import TrialEnv

_BLOCK = 64  # steps whose noise is drawn at once

NextTasks = Callable[[], tuple[Tasks, Int64[Tensor, "N"]]]
"""Tasks of the worlds' next trials, and their numbers."""


class Stepper:
    """A policy in an environment: where both are, and the steps from there.

    With `next_tasks` trials run on: where one ends, the world's next begins within the same step, on a task of those,
    and the policy's state there starts anew. All tensors of the steps are on the policy's device, wherever the worlds
    are.
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
        clock: Int64[Tensor, "N"] | None = None,
        trial: Int64[Tensor, "N"] | None = None,
    ) -> None:
        """See `begin`."""
        self.env, self._next_tasks = env, next_tasks
        self.device = device_of(policy) or env.device
        self._noise: dict[int, Tensor] = {}  # a block of steps by the size that a policy takes
        self._noise_row = torch.zeros(1, dtype=torch.long, device=self.device)
        names = ("_obs", "_state", "_episode_start", "_trial_start", "_episode", "_running", "returns")
        self._carried = Carried(*((self, name) for name in names))
        self._rollouts: dict[Any, Rollout] = {}
        self.begin(policy, tasks, key, streams=streams, task_number=task_number, clock=clock, trial=trial)

    def begin(
        self,
        policy: Policy[Any],
        tasks: Tasks,
        key: int,
        *,
        streams: Int64[Tensor, "N"] | None = None,
        task_number: Int64[Tensor, "N"] | None = None,
        clock: Int64[Tensor, "N"] | None = None,
        trial: Int64[Tensor, "N"] | None = None,
    ) -> None:
        """Begin a trial of `tasks`, or at step `clock` of it, or of one that is `trial` trials later: `TrialEnv.begin`.

        `key` is that of every draw: of the resets, and of the policy's noise.
        """
        env, device = self.env, self.device
        number = torch.arange(env.num_worlds)
        self._key, self._streams = key, number if streams is None else streams
        self.task_number = number if task_number is None else task_number
        self._obs = env.begin(tasks, key, streams, clock, trial).to(device)
        self._episode_start = self._trial_start = torch.ones(env.num_worlds, dtype=torch.bool, device=device)
        self._state: Any = policy.initial_state(env.num_worlds, device)
        self._num_steps, episodes = 0, env.episodes_per_trial
        begun = torch.zeros_like(number) if clock is None else clock
        self._episode = (begun // env.episode_steps)[:, None].to(device)
        self._running = torch.zeros(env.num_worlds, episodes + 1, dtype=torch.float64, device=device)
        self.returns: Float64[Tensor, "N K"] = self._running[:, :episodes].clone()
        """Undiscounted returns of the first K episodes of each world's last complete trial, if trials run on."""
        self._seen_whole, self.completed = (begun == 0).to(device), torch.zeros_like(begun, dtype=torch.bool).to(device)
        """`completed`: the worlds with such a trial."""
        if self._next_tasks is not None:
            self._queue()

    def steps(self, policy: Policy[Any], num_steps: int, deterministic: bool = False) -> Iterator[TrialStep]:
        """The next steps. Between two of them the worlds are as the last one left them."""
        for _ in range(num_steps):
            now = self.act(policy, self.draw(policy.noise_size), deterministic, self.env.step)
            yield now
            self.go_on(policy, now)

    def act(
        self, policy: Policy[Any], noise: Tensor, deterministic: bool, advance: Callable[[Tensor], Step]
    ) -> TrialStep:
        """Act, and take in what comes of it; `advance` is the environment's step."""
        obs, before, starts = self._obs, self._state, (self._episode_start, self._trial_start)
        told = getattr(policy, "told", False)
        seen = torch.cat((obs, self.env.privileged().to(self.device)), dim=1) if told else obs
        action, state = policy.act(seen, before, noise, deterministic)
        step = advance(action.to(self.env.device))
        if step.reward.device != self.device:
            step = step.to(self.device)
        state = policy.observe(state, Transition(obs, action, step.reward, step.final_obs, step.terminated))
        self._obs, self._state = step.obs, state
        self._episode_start, self._trial_start = step.episode_start, step.trial_start
        return TrialStep(obs, *starts, noise, action, step, before, state)

    def go_on(self, policy: Policy[Any], now: TrialStep) -> None:
        """After a step: announce the next episodes to the policy, and begin the next trials."""
        step = now.step
        ended = step.ended & ~step.trial_start  # after a trial's last step there is no next episode to announce
        if any_of(ended):
            self._state = policy.end_episode(now.state, ended)
        if self._next_tasks is not None:
            self._run_on(policy, step)

    def restart(self, policy: Policy[Any], worlds: Bool[Tensor, "N"]) -> None:
        """Begin the next episode of the trial in `worlds` here and now, and announce it to the policy."""
        obs = self.env.restart(worlds.to(self.env.device)).to(self.device)
        self._obs = torch.where(worlds[:, None], obs, self._obs)
        self._episode_start = self._episode_start | worlds
        self._state = policy.end_episode(self._state, worlds)

    def play_again(self, policy: Policy[Any], underway: Underway, clocks: Clocks) -> None:
        """Be where these worlds were: what they did is done again, and the rest is known.

        It must have begun where that did; `clocks` are those after it.
        """
        assert underway.actions is not None and underway.returns is not None
        for action in underway.actions:
            step = self.env.step(action.to(self.env.device)).to(self.device)
            self._obs, self._episode_start, self._trial_start = step.obs, step.episode_start, step.trial_start
            self._run_on(policy, step)
        self.env.check()
        self.env.dropped()  # was counted the first time
        if underway.state:
            self._state = type(self._state)(*(part.to(self.device) for part in underway.state))
        self.returns, self._num_steps = underway.returns.to(self.device), clocks.steps
        self._seen_whole = ((clocks.begun == 0) | (clocks.trial > 0)).to(self.device)
        self.completed = (clocks.whole > 0).to(self.device)

    def forget(self, policy: Policy[Any]) -> None:
        """Go on with a state in which nothing is known, as of another policy."""
        self._state = policy.initial_state(self.env.num_worlds, self.device)

    def segment(
        self,
        policy: Policy[Any],
        num_steps: int,
        record: Record | None = None,
        deterministic: bool = False,
        privileged: bool = False,
        every: Mapping[str, int] | None = None,
    ) -> Segment:
        """The next steps, kept, with what `record` makes of each, and the `privileged` numbers where asked for.

        Of what `record` calls by a name in `every`, one row is kept of so many steps, the last. Where worlds and policy
        can be replayed on their device, the segment lies in memory that the next one is written to.
        """
        wanted = Wanted(num_steps, record, deterministic, privileged, dict(every or {}))
        if self.env.replayable and getattr(policy, "replayable", False) and self.device == self.env.device:
            key = (id(policy), num_steps, record is None, deterministic, privileged)
            if key not in self._rollouts:
                self._rollouts[key] = Rollout(self, policy, wanted)
            return self._rollouts[key].segment()
        initial = copied(self._state)
        rows: dict[str, list[Tensor]] = {name: [] for name in (*OWN, *STEP, "trial_end", "task_number")}
        known: list[Tensor] = []
        extras = Room(num_steps, wanted.every)
        for t in range(num_steps):
            if privileged:
                known.append(self.env.privileged().to(self.device))
            now = self.act(policy, self.draw(policy.noise_size), deterministic, self.env.step)
            for name in OWN:
                rows[name].append(getattr(now, name))
            for name in STEP:
                rows[name].append(getattr(now.step, name))
            rows["trial_end"].append(now.step.trial_start)
            rows["task_number"].append(self.task_number)
            if record is not None:  # possibly large, as memories are: they are copied as they come
                extras.put(t, record(now.obs, now.before, now.noise, now.action, now.state))
            self.go_on(policy, now)
        self.env.check()
        return Segment(
            **{name: torch.stack(values) for name, values in rows.items()},
            extras=extras.rows,
            next_obs=self._obs,
            initial_state=initial,
            final_state=self._state,
            privileged=torch.stack(known) if privileged else None,
        )

    def draw(self, size: int) -> Float32[Tensor, "N Z"]:
        """Draw the noise of the next step, in blocks."""
        place, known = self._num_steps % _BLOCK, self._noise.get(size)
        if place == 0 or known is None:
            first = self._num_steps - place
            noise = seeding.normal(self._key, self._streams, first, _BLOCK, size, self.device)
            # replayed steps find it where it was
            self._noise[size] = noise if known is None or not self.env.replayable else known.copy_(noise)
            self._noise_row.fill_(place)
        self._num_steps += 1
        return self._noise[size][place]

    def next_noise(self, size: int) -> Float32[Tensor, "N Z"]:
        """The noise that was drawn, by its place as the device knows it."""
        noise = self._noise[size].index_select(0, self._noise_row)[0]
        self._noise_row.add_(1)
        return noise

    def settle(self) -> None:
        """See `TrialEnv.settle`."""
        self._carried.settle()
        self.env.settle()

    def put_back(self) -> None:
        """See `Carried.put_back`."""
        self._carried.put_back()
        self.env.put_back()

    @property
    def state(self) -> Any:
        """The policy's adaptation state, that it acts from next."""
        return self._state

    @property
    def obs(self) -> Float32[Tensor, "N O"]:
        """What it acts on next."""
        return self._obs

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
        if self.env.trial_ended:
            whole = over & self._seen_whole[:, None]
            self.returns = torch.where(whole, self._running[:, :last], self.returns)
            self.completed, self._seen_whole = self.completed | whole[:, 0], self._seen_whole | over[:, 0]
            self._running = self._running.masked_fill(over, 0.0)
            self._episode = self._episode.masked_fill(over, 0)
            fresh = policy.initial_state(self.env.num_worlds, self.device)
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

    Raises `UserError` for weights that are not finite, and for such actions: on a CPU at once, else at the trial's end.
    """
    if bad := unsound(policy):
        raise UserError(f"this policy cannot be played: {bad}")
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
