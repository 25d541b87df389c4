"""The one collector: runs a policy through a trial and keeps what happened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from metarl.core.tasks import Tasks
from metarl.core.types import Rollout, Step, Transition
from metarl.rl.learner import Policy
from metarl.sim.env import TrialEnv

_STEP_FIELDS = ("final_obs", "reward", "terminated", "truncated", "diverged")


@dataclass(frozen=True)
class TrialStep:
    """One control step of all worlds, with what the policy saw and did."""

    obs: Float32[Tensor, "N O"]
    """What the policy acted on."""
    episode_start: Bool[Tensor, "N"]
    """`obs` is the first observation of an episode."""
    action: Float32[Tensor, "N A"]
    extras: Mapping[str, Tensor]
    """What the policy returned beside its action."""
    step: Step
    """What the action led to."""
    belief: Any
    """The policy's belief after the step, as if its episode went on."""


def trial_steps(
    env: TrialEnv, policy: Policy[Any], tasks: Tasks, generator: torch.Generator, deterministic: bool = False
) -> Iterator[TrialStep]:
    """The steps of one trial of `tasks` (one per world). Every draw, of resets and of actions, comes from `generator`.

    The trial begins with the first `next`; between two of them the worlds are as the last step left them.
    """
    key = int(torch.randint(2**62, (), generator=generator))
    obs, start = env.begin(tasks, key), torch.ones(env.num_worlds, dtype=torch.bool)
    belief = policy.begin(env.num_worlds, generator)
    for _ in range(env.trial_steps):
        action, belief, extras = policy.act(obs, belief, deterministic)
        step = env.step(action)
        belief = policy.observe(belief, Transition(obs, action, step.reward, step.final_obs, step.terminated))
        yield TrialStep(obs, start, action, extras, step, belief)
        obs, start = step.obs, step.episode_start
        ended = step.ended & ~step.trial_start  # after a trial's last step there is no next episode to announce
        if bool(ended.any()):
            belief = policy.end_episode(belief, ended)
    env.check()


def collect(
    env: TrialEnv,
    policy: Policy[Any],
    tasks: Tasks,
    generator: torch.Generator,
    *,
    deterministic: bool = False,
    task_number: Int64[Tensor, "N"] | None = None,
) -> Rollout:
    """One trial of `tasks` (one per world), kept; see `trial_steps`. Tasks are numbered from 0 unless told."""
    store, belief = _Store(env.trial_steps), None
    for t, now in enumerate(trial_steps(env, policy, tasks, generator, deterministic)):
        fields = {"obs": now.obs, "action": now.action, "episode_start": now.episode_start}
        store.put(t, fields | _step_tensors(now.step), now.extras)
        belief = now.belief
    number = torch.arange(env.num_worlds) if task_number is None else task_number
    return Rollout(**store.fields, task_number=number, extras=store.extras, final_belief=belief)


def _step_tensors(step: Step) -> dict[str, Tensor]:
    return {name: getattr(step, name) for name in _STEP_FIELDS}


class _Store:
    """Time-major tensors, allocated at the first step."""

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps
        self.fields: dict[str, Tensor] = {}
        self.extras: dict[str, Tensor] = {}

    def put(self, t: int, fields: dict[str, Tensor], extras: Any) -> None:
        if t == 0:
            self.fields, self.extras = self._allocate(fields), self._allocate(extras)
        for name, value in fields.items():
            self.fields[name][t] = value
        for name, value in extras.items():
            self.extras[name][t] = value

    def _allocate(self, like: Any) -> dict[str, Tensor]:
        return {k: torch.empty(self._num_steps, *v.shape, dtype=v.dtype) for k, v in like.items()}
