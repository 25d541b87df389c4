"""Our batched worlds as a Stable-Baselines3 `VecEnv`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn
from torch import Tensor

from metarl.core import seeding
from metarl.core.tasks import Tasks
from metarl.core.types import Step
from metarl.sim.env import TrialEnv


class EpisodeVecEnv(VecEnv):
    """Every episode of `TrialEnv` is an episode of the `VecEnv`; tasks change between trials.

    The step that ends an episode returns the next one's first observation, with `terminal_observation` and
    `TimeLimit.truncated` in its info, as SB3's own vector environments do.
    """

    render_mode = None

    def __init__(self, env: TrialEnv, sample: Callable[[np.random.Generator], Tasks], seed: int = 0) -> None:
        """`sample` draws the tasks of a trial, one per world. Draws are keyed by `seed` and the number of the trial."""
        self._env, self._sample, self._seed = env, sample, seed
        self._trial = 0
        self._actions = torch.zeros(env.num_worlds, env.action_size)
        size = env.observation_size + self._num_extras()
        unbounded, ones = np.full(size, np.inf, np.float32), np.ones(env.action_size, np.float32)
        super().__init__(env.num_worlds, gymnasium.spaces.Box(-unbounded, unbounded), gymnasium.spaces.Box(-ones, ones))

    def reset(self) -> VecEnvObs:
        """Begin a new trial."""
        return self._begin()

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the actions (N, A)."""
        self._actions = torch.from_numpy(np.array(actions, np.float32))

    def step_wait(self) -> VecEnvStepReturn:
        """Apply them. Returns observations, rewards, whether episodes ended, and infos."""
        step = self._env.step(self._actions)
        self._env.check()
        ended, truncated = self._ends(step)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if bool(ended.any()):
            final = self._seen(step.final_obs, step)
            for world in ended.nonzero()[:, 0].tolist():
                infos[world]["terminal_observation"] = final[world]
                infos[world]["TimeLimit.truncated"] = bool(truncated[world])
        obs = self._begin() if bool(step.trial_start.any()) else self._seen(step.obs, step)
        return obs, step.reward.numpy(), ended.numpy(), infos

    def _ends(self, step: Step) -> tuple[Tensor, Tensor]:
        """Worlds whose SB3 episode ended, and those of them for a time limit."""
        return step.ended, step.truncated

    def _num_extras(self) -> int:
        """How many numbers follow the observation."""
        return 0

    def _seen(self, obs: Tensor, step: Step | None) -> np.ndarray:
        """What the agent sees; `step` is None at the start of a trial."""
        return obs.numpy()

    def _begin(self) -> np.ndarray:
        tasks = self._sample(seeding.rng(self._seed, "tasks", self._trial))
        key = int(seeding.rng(self._seed, "episodes", self._trial).integers(2**62))
        self._trial += 1
        return self._seen(self._env.begin(tasks, key), None)

    def close(self) -> None:
        """End what runs the worlds."""
        self._env.close()

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


class TrialVecEnv(EpisodeVecEnv):
    """A whole trial, K episodes on one task, is one episode of the `VecEnv`: with it SB3's recurrent PPO is RL².

    Behind the observation stand what RL² is fed (Duan et al. 2016): the previous action, the previous reward, and
    whether an episode begins. A fall within the trial is not an end; the trial's end is a time limit.
    """

    def _ends(self, step: Step) -> tuple[Tensor, Tensor]:
        return step.trial_start, step.trial_start

    def _num_extras(self) -> int:
        return self._env.action_size + 2

    def _seen(self, obs: Tensor, step: Step | None) -> np.ndarray:
        action = torch.zeros_like(self._actions) if step is None else self._actions.clamp(-1.0, 1.0)
        reward = torch.zeros(len(obs)) if step is None else step.reward
        start = torch.ones(len(obs)) if step is None else step.episode_start.float()
        return torch.cat((obs, action, reward[:, None], start[:, None]), dim=1).numpy()
