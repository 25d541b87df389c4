"""Every runtime against torch, step by step in closed loop: each carries its own state, all are fed the same.

The robot is simulated and driven by the torch policy as it is to be exported (`PolicyModule.fixed`). In every other
episode the command is wild for a while, so that robots that can fall do, and all runtimes see what training never
showed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.core import seeding
from metarl.core.types import Transition
from metarl.export.program import STATE
from metarl.export.trace import Traced, arrays, fixed_of, named
from metarl.rl.policy import Policy
from metarl.rl.state import copied
from metarl.sim.env import TrialEnv

Arrays = dict[str, np.ndarray]
Call = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
"""A program in some runtime: results by name, from inputs by name; its attribute `spent` may say how long it took."""
STEPS, TOLERANCE = 1000, 1e-5
AS_TRAINED = "torch as trained"
"""The policy itself, where what is exported computes parts of it in float64 that it computes in float32."""
ROUNDING = 1e-3
"""How far float32 may take it from that."""
_MOST_STEPS = 5000
_WILD, _HELD = range(30, 75), 5  # steps of every other episode at full command, and how long one of them lasts


@dataclass
class Compared:
    """How far a runtime strayed from torch, as |difference| / max(1, |value|)."""

    action: float = 0.0
    state: float = 0.0
    seconds: list[float] = field(default_factory=list)
    """Of each control step: acting and observing."""

    def to_json(self) -> dict[str, float]:
        """The largest differences, and the median time of a step [s]."""
        return {"action": self.action, "state": self.state, "seconds_per_step": median(self.seconds)}


class Met:
    """What the robot told and was told while the policy was compared."""

    def __init__(self, observed: int, commanded: int) -> None:
        self.low, self.high = np.full(observed, np.inf), np.full(observed, -np.inf)
        """Of every number of the observation."""
        self.change = np.zeros(commanded)
        """Largest one of every number of the policy's own action, from one step to the next."""
        self._last: np.ndarray | None = None

    def note(self, obs: Tensor, action: Tensor, own: bool) -> None:
        """A step; `own`: the policy's action was applied, and was so in the step before unless an episode began."""
        seen, done = obs[0].double().numpy(), action[0].double().clamp(-1.0, 1.0).numpy()
        self.low, self.high = np.minimum(self.low, seen), np.maximum(self.high, seen)
        if own and self._last is not None:
            self.change = np.maximum(self.change, np.abs(done - self._last))
        self._last = done if own else None

    def begin(self) -> None:
        """An episode begins."""
        self._last = None


@dataclass
class Played:
    """What was played for the comparison."""

    met: Met
    steps: int = 0
    episodes: int = 1
    tasks: int = 1
    falls: int = 0

    def to_json(self) -> dict[str, int]:
        """How much it was."""
        return {"steps": self.steps, "episodes": self.episodes, "tasks": self.tasks, "falls": self.falls}


class _Carrier:
    """A runtime and the state it carries."""

    def __init__(self, calls: Mapping[str, Call], initial: Arrays) -> None:
        self._calls, self._initial, self.found = calls, initial, Compared()
        self.new_task()

    def new_task(self) -> None:
        self._state, self._spent = {name: value.copy() for name, value in self._initial.items()}, 0.0

    def step(self, name: str, inputs: Arrays, expected: Arrays) -> None:
        """Run a program, and compare what it makes and the whole state with what torch made."""
        made: Mapping[str, np.ndarray] = {}
        if name in self._calls:
            call, begun = self._calls[name], time.perf_counter()
            made = call({**self._state, **inputs})
            self._spent += getattr(call, "spent", time.perf_counter() - begun)
        self._state |= {key: np.array(value) for key, value in made.items() if key.startswith(STATE)}
        if name == "observe":
            self.found.seconds.append(self._spent)
            self._spent = 0.0
        for key, value in expected.items():
            if key.startswith(STATE):
                self.found.state = max(self.found.state, _difference(self._state[key], value))
            else:
                self.found.action = max(self.found.action, _difference(np.asarray(made[key]), value))


def compare(
    policy: Policy[Any], env: TrialEnv, runtimes: Mapping[str, Mapping[str, Call]], steps: int = STEPS
) -> tuple[Played, dict[str, Compared]]:
    """Play at least `steps` control steps, and one whole trial if it is not far longer, on tasks of the training.

    Beside the runtimes, the policy as it was trained is compared, where that is not what is exported.
    """
    trained, policy = policy, fixed_of(policy)
    if policy is not trained:
        runtimes = {**runtimes, AS_TRAINED: torch_calls(trained)}
    initial = arrays(named(policy.initial_state(1)))
    carriers = [_Carrier(calls, initial) for calls in runtimes.values()]
    rng, key = seeding.rng(0, "export"), seeding.key(0, "export")
    wild, total = seeding.generator(0, "wild"), min(max(steps, env.trial_steps + 50), _MOST_STEPS)
    played, place = Played(Met(trained.info.observation_size, trained.info.action_size)), 0

    def all_do(name: str, state: Any, inputs: Arrays, **results: Tensor) -> None:
        after = arrays(named(state)) | arrays(results)
        for carrier in carriers:
            carrier.step(name, inputs, after)

    obs, state = env.begin(env.family.space.sample("train", 1, rng), key), policy.initial_state(1)
    noises = seeding.normal(key, torch.arange(1), 0, total, trained.noise_size, "cpu")
    command = torch.zeros(1, env.action_size)
    for noise in noises:
        action, state = policy.act(obs, copied(state), noise, True)
        all_do("act", state, {"obs": obs.numpy(), "noise": noise.numpy()}, action=action)
        own = played.episodes % 2 == 1 or place not in _WILD
        if not own:
            if place % _HELD == 0:
                command = 2.0 * torch.randint(2, command.shape, generator=wild).float() - 1.0
            action = command
        played.met.note(obs, action, own)
        step = env.step(action)
        taken = Transition(obs, action, step.reward, step.final_obs, step.terminated)
        state = policy.observe(copied(state), taken)
        all_do("observe", state, {name: value.numpy() for name, value in vars(taken).items()})
        obs, place, played.steps = step.obs, place + 1, played.steps + 1
        played.falls += int(step.terminated)
        if bool(step.ended):
            played.met.begin()
        if bool(step.trial_start):
            key, place = key + 1, 0
            obs, state = env.begin(env.family.space.sample("train", 1, rng), key), policy.initial_state(1)
            played.tasks, played.episodes = played.tasks + 1, played.episodes + 1
            for carrier in carriers:
                carrier.new_task()
        elif bool(step.ended):
            place, played.episodes = 0, played.episodes + 1
            state = policy.end_episode(copied(state), torch.ones(1, dtype=torch.bool))
            all_do("end_episode", state, {"worlds": np.ones(1, bool)})
    env.check()
    return played, {name: carrier.found for name, carrier in zip(runtimes, carriers, strict=True)}


def numpy_calls(written: Traced) -> dict[str, Call]:
    """The runtime that comes with a bundle."""
    from metarl.export.runtime import Program as Runnable

    return {name: Runnable(name, one.to_json(), written.constants).run for name, one in written.programs.items()}


def torch_calls(policy: Policy[Any]) -> dict[str, Call]:
    """The policy itself, asked as the runtimes are."""
    kind = policy.initial_state(1)

    def state_of(inputs: Mapping[str, np.ndarray]) -> Any:
        held = {name: inputs[STATE + name] for name, value in kind._asdict().items() if value.numel()}
        return kind._replace(**{n: torch.from_numpy(x.copy()).to(getattr(kind, n).dtype) for n, x in held.items()})

    def tensors(inputs: Mapping[str, np.ndarray], *names: str) -> list[Tensor]:
        return [torch.from_numpy(np.array(inputs[name])) for name in names]

    def act(inputs: Mapping[str, np.ndarray]) -> Arrays:
        obs, noise = tensors(inputs, "obs", "noise")
        action, state = policy.act(obs, state_of(inputs), noise, True)
        return {"action": action.numpy()} | arrays(named(state))

    def observe(inputs: Mapping[str, np.ndarray]) -> Arrays:
        taken = Transition(*tensors(inputs, "obs", "action", "reward", "final_obs", "terminated"))
        return arrays(named(policy.observe(state_of(inputs), taken)))

    def end_episode(inputs: Mapping[str, np.ndarray]) -> Arrays:
        return arrays(named(policy.end_episode(state_of(inputs), *tensors(inputs, "worlds"))))

    return {"act": act, "observe": observe, "end_episode": end_episode}


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference relative to max(1, |expected|); infinite where shapes, whole numbers or flags differ."""
    if found.shape != expected.shape:
        return math.inf
    if expected.dtype.kind != "f":
        return 0.0 if np.array_equal(found, expected) else math.inf
    difference = np.abs(found.astype(np.float64) - expected) / np.maximum(1.0, np.abs(expected))
    worst = float(difference.max(initial=0.0))
    return worst if math.isfinite(worst) else math.inf
