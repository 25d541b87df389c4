"""Our batched worlds as a Stable-Baselines3 `VecEnv`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from metarl import seeding
from metarl.sim.trials import TrialEnv
from metarl.tasks import Tasks


class EpisodeVecEnv(VecEnv):
    """Every episode of a `TrialEnv` is an episode of the `VecEnv`; tasks change between trials.

    The step that ends an episode returns the next one's first observation, with `terminal_observation` and
    `TimeLimit.truncated` in its info, as SB3's own vector environments do.
    """

    render_mode = None

    def __init__(self, env: TrialEnv, sample: Callable[[np.random.Generator], Tasks], seed: int = 0) -> None:
        """`sample` draws the tasks of a trial, one per world. Draws are keyed by `seed` and the number of the trial."""
        unbounded = np.full(env.observation_size, np.inf, np.float32)
        ones = np.ones(env.action_size, np.float32)
        super().__init__(env.num_worlds, gymnasium.spaces.Box(-unbounded, unbounded), gymnasium.spaces.Box(-ones, ones))
        self._env, self._sample, self._seed = env, sample, seed
        self._trial = 0
        self._actions = torch.zeros(env.num_worlds, env.action_size)

    def reset(self) -> VecEnvObs:
        """Begin a new trial."""
        return self._begin()

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the actions (N, A)."""
        self._actions = torch.from_numpy(np.ascontiguousarray(actions, np.float32))

    def step_wait(self) -> VecEnvStepReturn:
        """Apply them. Returns observations, rewards, whether episodes ended, and infos."""
        step = self._env.step(self._actions)
        ended = step.ended.numpy()
        obs = self._begin() if bool(step.trial_start.any()) else step.obs.numpy()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for world in np.flatnonzero(ended):
            infos[world]["terminal_observation"] = step.final_obs[world].numpy()
            infos[world]["TimeLimit.truncated"] = bool(step.truncated[world])
        return obs, step.reward.numpy(), ended, infos

    def _begin(self) -> np.ndarray:
        tasks = self._sample(seeding.rng(self._seed, "tasks", self._trial))
        key = int(seeding.rng(self._seed, "episodes", self._trial).integers(2**62))
        self._trial += 1
        return self._env.begin(tasks, key).numpy()

    def close(self) -> None:
        """Nothing to close."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute, the same for every world."""
        return [getattr(self, attr_name)] * len(self._worlds(indices))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Worlds have no attributes of their own."""
        raise AttributeError(f"worlds of a batch have no attribute '{attr_name}' of their own")

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Worlds have no methods of their own."""
        raise AttributeError(f"worlds of a batch have no method '{method_name}' of their own")

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """Worlds are not wrapped one by one."""
        return [False] * len(self._worlds(indices))

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed of everything after the next `reset`."""
        if seed is not None:
            self._seed, self._trial = seed, 0
        return [seed] * self.num_envs

    def _worlds(self, indices: VecEnvIndices) -> Sequence[int]:
        return list(self._get_indices(indices))
