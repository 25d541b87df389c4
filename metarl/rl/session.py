"""A policy with its state kept, for those who step a robot or an environment of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.types import Transition
from metarl.rl.state import select_rows

if TYPE_CHECKING:
    from metarl.rl.policy import Policy

_BLOCK = 64  # steps whose noise is drawn at once


class Session:
    """Acts, observes and adapts, step by step.

    ```python
    session = policy.session()
    session.new_task()
    obs = ...                                     # of the robot, (O,); or (N, O) of N robots
    while True:
        action = session.act(obs)
        reward, obs, fallen = ...                 # what the action led to
        session.observe(reward, obs, fallen)
        if fallen or out_of_time:
            obs = ...                             # put it back to its start
            session.new_episode()                 # the task is the same: what was learnt of it stays
    ```

    Arrays of NumPy and tensors are both accepted; actions come back as what the observation was. With one world the
    leading dimension may be left out.
    """

    def __init__(self, policy: Policy[Any], num_worlds: int = 1, seed: int = 0, deterministic: bool = True) -> None:
        """`deterministic` asks for mean actions; `seed` is that of whatever the policy draws."""
        if num_worlds < 1:
            raise UserError(f"num_worlds = {num_worlds} is out of range: it must be at least 1")
        self.policy, self.num_worlds, self.deterministic = policy, num_worlds, deterministic
        parameter = next(iter(policy.parameters()), None) if isinstance(policy, torch.nn.Module) else None
        self._device = torch.device("cpu") if parameter is None else parameter.device
        self._key, self._step = seeding.key(seed, "session"), 0
        self._noise = torch.empty(0)
        self._taken: tuple[Tensor, Tensor] | None = None
        self.state: Any = policy.initial_state(num_worlds, self._device)
        """The adaptation state."""

    def act(self, obs: Any) -> Any:
        """The action for an observation (O,) or (N, O): (A,) or (N, A), within [-1, 1]."""
        size = self.policy.info.observation_size
        seen = self._rows("the observation", obs, size, torch.float32)
        if self._step % _BLOCK == 0:
            streams = torch.arange(self.num_worlds)
            self._noise = seeding.normal(self._key, streams, self._step, _BLOCK, self.policy.noise_size, self._device)
        noise = self._noise[self._step % _BLOCK]
        action, self.state = self.policy.act(seen, self.state, noise, self.deterministic)
        self._taken, self._step = (seen, action), self._step + 1
        bounded = action.clamp(-1.0, 1.0)
        bounded = bounded[0] if np.ndim(obs) == 1 else bounded
        return bounded if isinstance(obs, Tensor) else bounded.cpu().numpy()

    def observe(self, reward: Any, obs: Any, terminated: Any = False) -> None:
        """What the last action led to.

        Args:
            reward: Of the step, one number per world.
            obs: What is observed now, ahead of any return to a start.
            terminated: Whether the episode ended by its own rules, as by a fall, and not by a time limit.
        """
        if self._taken is None:
            raise UserError("observe tells what an action led to: call act first")
        seen, action = self._taken
        earned = self._rows("the reward", reward, None, torch.float32)
        final = self._rows("the observation", obs, self.policy.info.observation_size, torch.float32)
        ended = terminated if np.ndim(terminated) else np.full(self.num_worlds, bool(terminated))
        fallen = self._rows("terminated", ended, None, torch.bool)
        self.state = self.policy.observe(self.state, Transition(seen, action, earned, final, fallen))
        self._taken = None

    def new_episode(self, worlds: Any = None) -> None:
        """The robots are back at a start and their tasks are the same, in all worlds or in those given (mask, N)."""
        self.state = self.policy.end_episode(self.state, self._mask(worlds))

    def new_task(self, worlds: Any = None) -> None:
        """Forget what was learnt of the task, in all worlds or in those given (mask, N)."""
        fresh = self.policy.initial_state(self.num_worlds, self._device)
        self.state = select_rows(self._mask(worlds), fresh, self.state)
        self._taken = None

    def _mask(self, worlds: Any) -> Tensor:
        chosen = np.ones(self.num_worlds, dtype=bool) if worlds is None else worlds
        return self._rows("worlds", chosen, None, torch.bool)

    def _rows(self, what: str, value: Any, size: int | None, dtype: torch.dtype) -> Tensor:
        """The value as a tensor (N,) or (N, size); `UserError` says what is wrong with it."""
        rows = torch.as_tensor(np.asarray(value) if not isinstance(value, Tensor) else value).to(self._device, dtype)
        expected = (self.num_worlds,) if size is None else (self.num_worlds, size)
        if self.num_worlds == 1 and rows.shape == expected[1:]:
            rows = rows[None]
        if rows.shape != expected:
            wanted = f"{expected}, or {expected[1:]}" if self.num_worlds == 1 else f"{expected}"
            raise UserError(f"{what} has shape {tuple(rows.shape)}: it must be {wanted}")
        if not bool(torch.isfinite(rows).all()):
            raise UserError(f"{what} is not finite: {rows.tolist()}")
        return rows
