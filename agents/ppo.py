"""PPO without memory (Schulman et al. 2017, arXiv:1707.06347), Stable-Baselines3's, over the distribution of tasks.

Without memory nothing can be learnt of the task within a trial: what is left is one behaviour that does well on all
tasks alike, domain randomisation. A meta-learner is worth its trouble where it does better. The oracle is the same
algorithm with the task in its observation, and bounds from above what adaptation can gain.

Networks, loss and gradient steps are SB3's. Observations are normalised and rewards scaled as its `VecNormalize` does,
with statistics that stay fixed between collection and update.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import stable_baselines3
import torch
from jaxtyping import Float32
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

from metarl.agents.baseline_configs import PPOConfig
from metarl.agents.sb3 import MemorylessPolicy, build, update
from metarl.core.types import Metrics, Rollout
from metarl.rl.learner import Collect
from metarl.rl.normalize import RunningNorm
from metarl.rl.returns import discounted_return
from metarl.rl.state import load_module, load_optimizer, module_tensors, optimizer_tensors


class PPOPolicy(MemorylessPolicy):
    """SB3's actor-critic on normalised observations."""

    def __init__(self, network: ActorCriticPolicy, obs_size: int) -> None:
        super().__init__()
        self.network = network
        self.obs_norm = RunningNorm(obs_size)

    @torch.no_grad()
    def act(
        self, obs: Float32[Tensor, "N O"], belief: torch.Generator, deterministic: bool = False
    ) -> tuple[Float32[Tensor, "N A"], torch.Generator, Mapping[str, Tensor]]:
        """Sample (or take the mean of) the Gaussian policy."""
        action: Tensor = self.network.action_net(self.network.mlp_extractor.forward_actor(self.obs_norm(obs)))
        if not deterministic:
            action = action + self.network.log_std.exp() * torch.randn(action.shape, generator=belief)
        return action, belief, {}

    def inputs(self, rollout: Rollout) -> Float32[Tensor, "T N O"]:
        """What it was shown, not normalised."""
        return rollout.obs


def ppo_arguments(config: PPOConfig) -> dict[str, Any]:
    """What SB3's PPOs take from the configuration."""
    first, last = config.learning_rate, config.final_learning_rate
    return {
        "learning_rate": lambda remaining: last + remaining * (first - last),
        "batch_size": config.batch_size,
        "n_epochs": config.num_epochs,
        "gamma": config.discount,
        "gae_lambda": config.gae_lambda,
        "clip_range": config.clip,
        "ent_coef": config.entropy_weight,
        "vf_coef": config.value_weight,
        "max_grad_norm": config.max_grad_norm,
        "device": "cpu",
        "_init_setup_model": False,
    }


class PPO:
    """SB3's PPO, fed by metarl's collector: an iteration is one trial per world."""

    model: Any
    """The algorithm; its own types leave out what makes it usable without an environment."""
    policy: Any

    def __init__(self, config: PPOConfig, obs_size: int, action_size: int, generator: torch.Generator) -> None:
        self.config = config
        self.model, self.policy = self._make(obs_size, action_size, generator)
        self.return_norm = RunningNorm()
        self._names = [name for name, _ in self.model.policy.named_parameters()]

    def _make(self, obs_size: int, action_size: int, generator: torch.Generator) -> tuple[Any, Any]:
        """The algorithm, and the policy around its network."""
        config = self.config
        kind = {"net_arch": [config.hidden_size] * 2, "log_std_init": math.log(config.initial_std)}
        algorithm = stable_baselines3.PPO("MlpPolicy", None, policy_kwargs=kind, **ppo_arguments(config))
        model = build(algorithm, obs_size, action_size, generator)
        return model, PPOPolicy(model.policy, obs_size)

    def train_step(self, collect: Collect, generator: torch.Generator, progress: float) -> Metrics:
        """Collect one trial per world, then SB3's update on it."""
        rollout = collect(self.policy)
        scale = float(self.return_norm.std)
        self.model.rollout_buffer = self.fill_buffer(rollout)
        self.model._current_progress_remaining = 1.0 - progress
        metrics = update(self.model, self.model.train, generator)
        # The statistics move only now: collection and update saw the same normalisation.
        self.policy.obs_norm.update(self.policy.inputs(rollout))
        self.return_norm.update(discounted_return(rollout.reward, self.config.discount))
        return metrics | {"train/return_scale": scale}

    @torch.no_grad()
    def fill_buffer(self, rollout: Rollout) -> RolloutBuffer:
        """The trial in SB3's buffer, with advantages: what SB3's `collect_rollouts` leaves there.

        A time limit counts as an end whose last reward includes γ V(final observation), a fall as an end.
        """
        model, network, config = self.model, self.model.policy, self.config
        obs, final_obs = self.policy.obs_norm(rollout.obs), self.policy.obs_norm(rollout.final_obs)
        values, log_probs, _ = network.evaluate_actions(obs.flatten(0, 1), rollout.action.flatten(0, 1))
        value, log_prob = values.view(rollout.reward.shape), log_probs.view(rollout.reward.shape)
        reward = rollout.reward / self.return_norm.std.float()
        timeout = rollout.truncated
        if bool(timeout.any()):
            reward[timeout] += config.discount * network.predict_values(final_obs[timeout])[:, 0]
        num_steps, num_worlds = reward.shape
        spaces = model.observation_space, model.action_space
        rates = {"gamma": config.discount, "gae_lambda": config.gae_lambda}
        buffer = RolloutBuffer(num_steps, *spaces, "cpu", n_envs=num_worlds, **rates)
        columns = (x.numpy() for x in (obs, rollout.action, reward, rollout.episode_start))
        for row in zip(*columns, value, log_prob, strict=True):
            buffer.add(*row)
        buffer.compute_returns_and_advantage(network.predict_values(final_obs[-1]), rollout.ended[-1].numpy())
        return buffer

    def state_dict(self) -> dict[str, Tensor]:
        """Policy with normaliser, return scale, Adam."""
        return (
            module_tensors(self.policy, "policy")
            | module_tensors(self.return_norm, "return_norm")
            | optimizer_tensors(self._optimizer, self._names, "adam")
        )

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
        load_module(self.policy, state, "policy")
        load_module(self.return_norm, state, "return_norm")
        load_optimizer(self._optimizer, self._names, state, "adam")

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = self.model.policy.optimizer
        return optimizer
