"""Every runtime against torch, step by step in closed loop: each carries its own state, all are fed the same.

The robot is simulated and driven by the torch policy. In every other episode the command is wild for a while, so that
robots that can fall do, and all runtimes see what training never showed.
"""

from __future__ import annotations

import json
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
from metarl.export.program import STATE, Program
from metarl.rl.policy import Policy
from metarl.rl.state import copied
from metarl.sim.env import TrialEnv

Arrays = dict[str, np.ndarray]
Call = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
"""A program in some runtime: results by name, from inputs by name; its attribute `spent` may say how long it took."""
STEPS, TOLERANCE = 1000, 1e-5
_MOST_STEPS = 5000
_MOST_ROUNDING = 1e-3
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


@dataclass
class Played:
    """What was played for the comparison."""

    steps: int = 0
    episodes: int = 1
    tasks: int = 1
    falls: int = 0


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
    """Play at least `steps` control steps, and one whole trial if it is not far longer, on tasks of the training."""
    initial = {STATE + k: x.numpy() for k, x in policy.initial_state(1)._asdict().items() if x.numel()}
    carriers = [_Carrier(calls, initial) for calls in runtimes.values()]
    rng, key = seeding.rng(0, "export"), seeding.key(0, "export")
    wild, total = seeding.generator(0, "wild"), min(max(steps, env.trial_steps + 50), _MOST_STEPS)
    played, place = Played(), 0

    def all_do(name: str, state: Any, inputs: Arrays, **results: Tensor) -> None:
        after = {STATE + k: x.numpy() for k, x in state._asdict().items() if x.numel()}
        for carrier in carriers:
            carrier.step(name, inputs, after | {k: x.numpy() for k, x in results.items()})

    obs, state = env.begin(env.family.space.sample("train", 1, rng), key), policy.initial_state(1)
    noises = seeding.normal(key, torch.arange(1), 0, total, policy.noise_size, "cpu")
    command = torch.zeros(1, env.action_size)
    for noise in noises:
        action, state = policy.act(obs, copied(state), noise, True)
        all_do("act", state, {"obs": obs.numpy(), "noise": noise.numpy()}, action=action)
        if played.episodes % 2 == 0 and place in _WILD:
            if place % _HELD == 0:
                command = 2.0 * torch.randint(2, command.shape, generator=wild).float() - 1.0
            action = command
        step = env.step(action)
        taken = Transition(obs, action, step.reward, step.final_obs, step.terminated)
        state = policy.observe(copied(state), taken)
        all_do("observe", state, {name: value.numpy() for name, value in vars(taken).items()})
        obs, place, played.steps = step.obs, place + 1, played.steps + 1
        played.falls += int(step.terminated)
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


def numpy_calls(programs: Mapping[str, Program], constants: Arrays) -> dict[str, Call]:
    """The runtime that comes with a bundle."""
    from metarl.export.runtime import Program as Runnable

    return {name: Runnable(name, program.to_json(), constants).run for name, program in programs.items()}


def exact_calls(programs: Mapping[str, Program], constants: Arrays) -> dict[str, Call]:
    """The same with all numbers in float64, which says how far rounding alone takes torch from the exact result."""
    from metarl.export.runtime import Program as Runnable

    wide = {name: x.astype(np.float64) if x.dtype == np.float32 else x for name, x in constants.items()}
    plain = {
        name: json.dumps(program.to_json()).replace('"float32"', '"float64"') for name, program in programs.items()
    }
    return {name: Runnable(name, json.loads(text), wide).run for name, text in plain.items()}


def limits(exact: Compared) -> tuple[float, float]:
    """The largest difference of action and state that is let pass.

    `TOLERANCE`, or twice what torch's own rounding comes to where that is more, as where a posterior's precision is the
    exponential of a large number; `_MOST_ROUNDING` at most.
    """
    action, state = (max(TOLERANCE, min(2.0 * own, _MOST_ROUNDING)) for own in (exact.action, exact.state))
    return action, state


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference relative to max(1, |expected|); infinite where shapes, whole numbers or flags differ."""
    if found.shape != expected.shape:
        return math.inf
    if expected.dtype.kind != "f":
        return 0.0 if np.array_equal(found, expected) else math.inf
    difference = np.abs(found.astype(np.float64) - expected) / np.maximum(1.0, np.abs(expected))
    worst = float(difference.max(initial=0.0))
    return worst if math.isfinite(worst) else math.inf
