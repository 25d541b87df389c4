"""Controls of an adaptation: the same policy on the same tasks, with what it adapts by taken from it.

Whoever adapts to its task must lose return where its state is wiped, or taken from a world with another task, and must
have less of a lead over a memoryless policy on one fixed task. A state that can be wiped at no cost holds no task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from metarl.core.errors import UserError, unknown_name
from metarl.core.parameters import require
from metarl.core.tasks import Tasks
from metarl.core.types import Transition
from metarl.rl.policy import Policy, device_of

KINDS = ("wipe", "swap", "nominal")


@dataclass(frozen=True)
class Control:
    """How an adaptation is interfered with."""

    kind: str
    """`wipe`: the state becomes the initial one. `swap`: each world goes on with the state of another, whose task
    differs. `nominal`: all worlds are on the nominal task, where nothing needs adapting."""
    seconds: float = 0.5
    """Time between two interferences, or up to the only one [s]."""
    once: bool = False
    """Interfere once in a trial, and not again and again."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("control", self.kind, KINDS)
        require(self, "seconds", self.seconds > 0.0, "above 0")


class Interfered:
    """A policy whose state is interfered with, for one trial from `initial_state` on."""

    def __init__(self, policy: Policy[Any], control: Control, tasks: Tasks, control_step: float) -> None:
        """Raises `UserError` where the policy keeps no state that could be interfered with."""
        self.info, self.noise_size, self.device = policy.info, policy.noise_size, device_of(policy)
        self._policy, self._control = policy, control
        self._every = max(1, round(control.seconds / control_step))
        self._other = torch.from_numpy(others([str(row) for row in tasks.rows()]))
        self._num_steps = 0
        if control.kind != "nominal" and not policy.initial_state(1):
            raise UserError(f"there is nothing to {control.kind}: this policy keeps no state within a trial")

    def initial_state(self, n: int, device: torch.device | str = "cpu") -> Any:
        """That of the policy; a new trial begins."""
        self._num_steps = 0
        return self._policy.initial_state(n, device)

    def act(
        self, obs: Float32[Tensor, "N O"], state: Any, noise: Float32[Tensor, "N Z"], deterministic: bool = False
    ) -> tuple[Float32[Tensor, "N A"], Any]:
        """The policy's action, by a state that is interfered with where it is due."""
        times, rest = divmod(self._num_steps, self._every)
        if times and not rest and (times == 1 or not self._control.once):
            state = self._disturbed(state, len(obs), obs.device)
        self._num_steps += 1
        return self._policy.act(obs, state, noise, deterministic)

    def observe(self, state: Any, transition: Transition) -> Any:
        """See `Policy.observe`."""
        return self._policy.observe(state, transition)

    def end_episode(self, state: Any, worlds: Bool[Tensor, "N"]) -> Any:
        """See `Policy.end_episode`."""
        return self._policy.end_episode(state, worlds)

    def _disturbed(self, state: Any, n: int, device: torch.device) -> Any:
        if self._control.kind == "wipe":
            return self._policy.initial_state(n, device)
        if self._control.kind == "swap":
            return type(state)(*(rows[self._other.to(rows.device)] for rows in state))
        return state


def others(kinds: Sequence[Hashable]) -> Int64[np.ndarray, "N"]:
    """For each place another one, each once: of another kind, unless one kind has more than half of the places."""
    counts = Counter(kinds)
    order = np.array(sorted(range(len(kinds)), key=lambda i: (counts[kinds[i]], str(kinds[i])), reverse=True))
    found = np.empty(len(kinds), np.int64)
    found[order] = np.roll(order, max(counts.values()))
    return found if len(counts) > 1 else np.roll(np.arange(len(kinds)), 1)
