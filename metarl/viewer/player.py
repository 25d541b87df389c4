"""Plays a policy in a few worlds and lets one interfere between two steps. It knows no page and no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.tasks import Split, Tasks
from metarl.core.types import Transition
from metarl.rl.policy import BAND, Believing, Policy, ReadOut, device_of, unsound
from metarl.run.collect import Stepper
from metarl.sim.disturbances import ActionLatency
from metarl.sim.family import MujocoFamily, Wanted
from metarl.sim.mujoco.mujoco_env import MujocoEnv
from metarl.viewer.hand import Hand, root_of

_KEPT = 3000  # control steps of the past that are kept
_PUSH = 0.1  # [s] a push lasts
_SMOOTH = 0.3  # [s] over which shown velocities are averaged


class Sighted:
    """A policy that is shown as much of an observation as it was trained on: only an oracle sees the task behind it."""

    def __init__(self, policy: Policy[Any]) -> None:
        self.policy, self.info, self.noise_size = policy, policy.info, policy.noise_size
        self.device = device_of(policy)

    def initial_state(self, n: int, device: torch.device | str = "cpu") -> Any:
        """See `Policy`."""
        return self.policy.initial_state(n, device)

    def act(self, obs: Tensor, state: Any, noise: Tensor, deterministic: bool = False) -> tuple[Tensor, Any]:
        """See `Policy`."""
        return self.policy.act(self._seen(obs), state, noise, deterministic)

    def observe(self, state: Any, transition: Transition) -> Any:
        """See `Policy`."""
        seen = replace(transition, obs=self._seen(transition.obs), final_obs=self._seen(transition.final_obs))
        return self.policy.observe(state, seen)

    def end_episode(self, state: Any, worlds: Bool[Tensor, "N"]) -> Any:
        """See `Policy`."""
        return self.policy.end_episode(state, worlds)

    def _seen(self, obs: Float[Tensor, "N O"]) -> Float[Tensor, "N o"]:
        return obs[:, : self.info.observation_size]


class Instant(NamedTuple):
    """One control step of all worlds, as it is plotted."""

    time: float
    """Since the trial began [s]."""
    episode: np.ndarray
    """Number of each world's episode, from 0, shape (N,)."""
    total: np.ndarray
    """Return of the episode so far, (N,)."""
    terms: Mapping[str, np.ndarray]
    """The reward's terms, (N,) each."""
    obs: np.ndarray
    """What the policy saw, without the task, (N, S)."""
    truth: np.ndarray
    """The task in numbers, (N, P)."""
    mean: np.ndarray | None
    """What the policy believes of it, (N, P); None of a policy that does not say."""
    deviation: np.ndarray | None
    reading: Mapping[str, np.ndarray]
    """What else can be read out of its state, (N, D) each."""
    memory: np.ndarray | None
    """The state as a point, (N, D); None where it is none."""
    wanted: np.ndarray
    """Speed along the wanted direction, and turn rate, that are asked for; NaN where none is, (N, 2)."""
    actual: np.ndarray
    """And what they are, (N, 2)."""
    policies: int
    """How many policies have acted so far: what is read out of the state of one is not to be mixed with another's."""


class Player:
    """Worlds, the policy in them, and what happened. Between two calls of `step` anything may be changed."""

    def __init__(
        self,
        family: MujocoFamily,
        num_worlds: int = 1,
        *,
        split: Split = "test",
        episodes: int = 2,
        episode_steps: int = 0,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        """`episodes` on each task; `split` has the tasks, one after the other."""
        self.hand, self.split, self.seed = Hand(family), split, seed
        options: dict[str, Any] = {"episodes_per_trial": episodes, "episode_steps": episode_steps or None}
        self.env = MujocoEnv(self.hand.family, num_worlds, task_visible=True, threads=threads, **options)
        self.family, self.space, self.dt = family, family.space, family.control_step
        self.root = root_of(self.env.physics.model)
        self.sensed = sum(part.size for part in family.observation)
        """Numbers that a robot observes; the task's stand behind them."""
        self.trial = -1
        """Number of the trial."""
        self.changes = 0
        """Counts up whenever the worlds' models may look different."""
        self.same_task = False
        """Whether the next trial is on the same tasks."""
        self.past: deque[Instant] = deque(maxlen=_KEPT)
        """The trial's steps."""
        self.returns: list[list[float]] = []
        """Of each world, those of the trial's episodes that ended."""
        self.last_push: Float[np.ndarray, "N 2"] | None = None
        """The change of velocity that the last push was worth [m/s]."""
        self._stepper: Stepper | None = None
        self._pushed = self._steps = self._policies = 0
        self.env.hold(ActionLatency, "seconds", 0.0) if self.hand.delays else None

    # ------------------------------------------------------------------------------------------------ interfering

    def use(self, policy: Policy[Any], name: str = "") -> None:
        """Let another policy act, which knows nothing yet of the task. The worlds go on."""
        info, sizes = policy.info, (self.sensed, self.env.observation_size)
        if info.observation_size not in sizes or info.action_size != self.env.action_size:
            raise UserError(
                f"{name or 'this policy'} observes {info.observation_size} numbers and commands {info.action_size}: "
                f"this robot has {sizes[0]} (with its task {sizes[1]}) and {self.env.action_size}"
            )
        if bad := unsound(policy):
            raise UserError(f"{name or 'this policy'} cannot be played: {bad}")
        self.policy, self.name, self._sighted = policy, name, Sighted(policy)
        self._policies += 1
        if self._stepper is not None:
            self._stepper.forget(self._sighted)

    @property
    def tasks(self) -> Tasks:
        """The worlds' tasks."""
        return self.env.tasks

    def set(self, name: str, value: float | Sequence[float], worlds: Sequence[int] | None = None) -> None:
        """Change a task parameter, in all worlds or in some; they go on where they are, but for another ground.

        No robot can stay where a hill comes to be: its next episode begins.
        """
        values = {key: own.clone() for key, own in self.tasks.values.items()}
        chosen = list(range(self.env.num_worlds)) if worlds is None else list(worlds)
        values[name][chosen] = torch.tensor(value, dtype=values[name].dtype)
        self.env.change(Tasks(values))
        self.changes += 1
        if any("geom_dataid" in one.fields and name in one.parameters for one in self.family.variations):
            self.new_episode()

    def grip(self, **changes: Any) -> None:
        """Break a motor, load, wet the ground, delay commands: see `Grip`."""
        self.hand.take(**changes)
        if "latency" in changes:
            self.env.hold(ActionLatency, "seconds", float(changes["latency"]))
        self.env.change(self.tasks)
        self.changes += 1

    def push(self, ahead: float, left: float, worlds: Sequence[int] | None = None) -> None:
        """Push the robots by so many m/s, along and across their heading, within a tenth of a second."""
        physics, chosen = self.env.physics, list(worlds if worlds is not None else range(self.env.num_worlds))
        x, y = self._heading()[chosen].T
        force = self.hand.weight / _PUSH * np.stack((ahead * x - left * y, ahead * y + left * x), axis=1)
        physics.bind("xfrc_applied")[chosen, self.root, :2] = torch.from_numpy(force)
        self._pushed = max(1, round(_PUSH / self.dt))
        self.last_push = np.zeros((self.env.num_worlds, 2))
        self.last_push[chosen] = force * _PUSH / self.hand.weight

    def pushing(self) -> bool:
        """A push goes on."""
        return self._pushed > 0

    def wanted(self) -> Wanted | None:
        """Where the robots are to go."""
        return self.family.wanted(self.env.physics, self.tasks)

    @property
    def velocity(self) -> Float[np.ndarray, "N 2"]:
        """Of the robots, in the world's plane, a mean over a third of a second [m/s]."""
        return self._velocity[:, :2]

    def new_trial(self) -> None:
        """Begin the next trial: on the split's next tasks, unless they are to stay."""
        if self._stepper is None or not self.same_task:
            self.trial += 1
            n = self.env.num_worlds
            drawn = self.space.fixed(self.split, n * (self.trial + 1))
            tasks = drawn.select(torch.arange(n * self.trial, n * (self.trial + 1)))
        else:
            tasks = self.tasks
        key = seeding.key(self.seed, "evaluate") if self.trial == 0 else seeding.key(self.seed, "view", self.trial)
        if self._stepper is None:
            self._stepper = Stepper(self.env, self._sighted, tasks, key)
        else:
            self._stepper.begin(self._sighted, tasks, key)
        self._settled()
        self.past.clear()
        self.returns = [[] for _ in range(self.env.num_worlds)]
        self.changes += 1

    def new_episode(self) -> None:
        """Begin the trial's next episode in all worlds."""
        if self._stepper is None:
            return self.new_trial()
        for world, total in enumerate(self._total):
            self.returns[world].append(float(total))
        self._stepper.restart(self._sighted, torch.ones(self.env.num_worlds, dtype=torch.bool))
        self._settled(self._episode + 1)
        return None

    def _settled(self, episode: np.ndarray | None = None) -> None:
        n = self.env.num_worlds
        self._episode = np.zeros(n, np.int64) if episode is None else episode
        self._total, self._steps = np.zeros(n), 0 if episode is None else self._steps
        self._over, self._pushed = False, 0
        self._place, self._velocity = self._roots(), np.zeros((n, 3))

    # ---------------------------------------------------------------------------------------------------- playing

    @property
    def over(self) -> bool:
        """The trial is over, and the next step begins another."""
        return self._stepper is None or self._over

    def step(self) -> None:
        """One control step of all worlds."""
        if self.over:
            self.new_trial()
        stepper, policy = self._stepper, self._sighted
        assert stepper is not None
        if self._pushed:
            self._pushed -= 1
        else:
            self.env.physics.bind("xfrc_applied")[:, self.root] = 0.0
        truth = self.env.privileged()
        wanted = self.wanted()
        now = stepper.act(policy, stepper.draw(policy.noise_size), True, self.env.step)
        stepper.go_on(policy, now)
        self.env.check()
        self._steps += 1
        ended, step = now.step.ended.numpy(), now.step
        self._total = self._total + step.reward.double().numpy()
        self._past(now, truth, self._speeds(wanted, ended))
        for world in np.flatnonzero(ended):
            self.returns[world].append(float(self._total[world]))
        self._over = bool(step.trial_start.any())
        self._total, self._episode = np.where(ended, 0.0, self._total), self._episode + ended

    def _past(self, now: Any, truth: Tensor, speeds: tuple[np.ndarray, np.ndarray]) -> None:
        mean, deviation, reading = None, None, {}
        if isinstance(self.policy, Believing):
            mean, deviation = (numbers.detach().numpy() for numbers in self.policy.beliefs(now.state))
        elif isinstance(self.policy, ReadOut):
            reading = {name: value.detach().numpy() for name, value in self.policy.read_out(now.state).items()}
        points = [getattr(now.state, name, None) for name in ("memory", "parameters")]
        points += [torch.from_numpy(value) for name, value in reading.items() if not name.endswith(BAND)]
        known = [one.detach().flatten(1) for one in points if isinstance(one, Tensor) and one[0].numel() > 1]
        memory = known[0].numpy() if known else None
        before = self.past[-1].memory if self.past else None
        if memory is not None:  # adapted weights are many, and change from episode to episode only
            memory = before if before is not None and np.array_equal(memory, before) else memory.copy()
        self.past.append(
            Instant(
                time=self._steps * self.dt,
                episode=self._episode,
                total=self._total,
                terms={name: value.numpy() for name, value in now.step.reward_terms.items()},
                obs=now.obs[:, : self.sensed].numpy(),
                truth=truth.numpy(),
                mean=mean,
                deviation=deviation,
                reading=reading,
                memory=memory,
                wanted=speeds[0],
                actual=speeds[1],
                policies=self._policies,
            )
        )

    # ---------------------------------------------------------------------------------------------- where they are

    def _roots(self) -> np.ndarray:
        """Place and heading of the robots' roots, (N, 3)."""
        place = self.env.physics.bind("xpos", fresh=False)[:, self.root, :2].numpy()
        return np.concatenate((place, np.arctan2(*self._heading().T[::-1])[:, None]), axis=1)

    def _heading(self) -> np.ndarray:
        w, x, y, z = self.env.physics.bind("xquat", fresh=False)[:, self.root].numpy().T
        ahead: np.ndarray = np.stack((1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z)), axis=1)
        ahead /= np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-9)
        return ahead

    def _speeds(self, wanted: Wanted | None, ended: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Wanted and actual speed along the wanted direction, or ahead, and turn rate."""
        now = self._roots()
        moved = now - self._place
        moved[:, 2] = (moved[:, 2] + np.pi) % (2 * np.pi) - np.pi
        self._place = now
        share = np.where(ended, 0.0, min(1.0, self.dt / _SMOOTH))[:, None]
        self._velocity = self._velocity + share * (moved / self.dt - self._velocity)
        nothing = np.full(len(now), np.nan)
        if wanted is None:
            direction, asked = self._heading(), np.stack((nothing, nothing), axis=1)
        else:
            direction = wanted.direction.numpy()
            asked = np.stack([nothing if one is None else one.numpy() for one in wanted[1:]], axis=1)
        along = (self._velocity[:, :2] * direction).sum(axis=1)
        return asked, np.stack((along, self._velocity[:, 2]), axis=1)

    def close(self) -> None:
        """Free the worlds."""
        self.env.close()
