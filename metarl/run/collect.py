"""The one collector: runs a policy through a trial and keeps what happened."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metarl.rl.learner import Policy
from metarl.sim.trials import TrialEnv
from metarl.tasks import Tasks
from metarl.types import Rollout, Step, Transition

_STEP_FIELDS = ("final_obs", "reward", "terminated", "truncated", "diverged")


def collect(
    env: TrialEnv,
    policy: Policy[Any],
    tasks: Tasks,
    generator: torch.Generator,
    *,
    deterministic: bool = False,
) -> Rollout:
    """One trial of `tasks` (one per world). Every draw, of resets and of actions, comes from `generator`."""
    key = int(torch.randint(2**62, (), generator=generator))
    obs, start = env.begin(tasks, key), torch.ones(env.num_worlds, dtype=torch.bool)
    belief = policy.begin(env.num_worlds, generator)
    store = _Store(env.trial_steps)
    for t in range(env.trial_steps):
        action, belief, extras = policy.act(obs, belief, deterministic)
        step = env.step(action)
        store.put(t, {"obs": obs, "action": action, "episode_start": start, **_step_tensors(step)}, extras)
        belief = policy.observe(belief, Transition(obs, action, step.reward, step.final_obs, step.terminated))
        obs, start = step.obs, step.episode_start
        ended = step.ended & ~step.trial_start  # after a trial's last step there is no next episode to announce
        if bool(ended.any()):
            belief = policy.end_episode(belief, ended)
    return Rollout(**store.fields, extras=store.extras, final_belief=belief)


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
