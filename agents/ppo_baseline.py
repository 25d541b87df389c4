"""PPO without memory (Schulman et al. 2017, arXiv:1707.06347), Stable-Baselines3's, over the distribution of tasks.

Without memory nothing can be learnt of the task within a trial: what is left is one behaviour that does well on all
tasks alike, domain randomisation. A meta-learner is worth its trouble where it does better. The oracle is the same
algorithm with the task in its observation. With a history of a few observations it can estimate its state, as a
recurrent policy does as well: what such a policy has ahead of it is then no estimation of the state.

Networks, loss and gradient steps are SB3's. Observations are normalised and rewards scaled as its `VecNormalize` does,
with statistics that stay fixed between collection and update.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import stable_baselines3
import torch
from jaxtyping import Bool, Float32
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

from metarl.agents.baseline_configs import PPOConfig
from metarl.agents.sb3 import build, guard, update
from metarl.core.info import PolicyInfo
from metarl.core.types import Metrics, Segment, Transition
from metarl.rl.learner import BaseLearner
from metarl.rl.normalize import RunningNorm
from metarl.rl.policy import NoState, PolicyModule
from metarl.rl.returns import discounted_return


class Frames(NamedTuple):
    """The last observations of an episode: with them a policy sees how it moves, and hardly anything of its task."""

    earlier: Float32[Tensor, "N F O"]
    """The observations before the next one, newest first."""
    fresh: Bool[Tensor, "N"]
    """The next observation is an episode's first: it stands for those before it as well."""


class PPOPolicy(PolicyModule):
    """SB3's actor-critic on normalised observations: the present one, and `history` − 1 before it."""

    def __init__(self, network: ActorCriticPolicy, info: PolicyInfo, history: int = 1) -> None:
        super().__init__(replace(info, adapts=False))
        self.network = network
        self.history = history
        self.obs_norm = RunningNorm(history * info.observation_size)

    def initial_state(self, n: int, device: torch.device | str = "cpu") -> NoState | Frames:
        """No observation yet."""
        if self.history == 1:
            return NoState()
        earlier = torch.zeros(n, self.history - 1, self.info.observation_size, device=device)
        return Frames(earlier, torch.ones(n, dtype=torch.bool, device=device))

    @torch.no_grad()
    def act(
        self, obs: Float32[Tensor, "N O"], state: Any, noise: Float32[Tensor, "N A"], deterministic: bool = False
    ) -> tuple[Float32[Tensor, "N A"], Any]:
        """Sample the Gaussian policy, or take its mean."""
        seen = obs if self.history == 1 else torch.cat((obs[:, None], _earlier(obs, state)), dim=1).flatten(1)
        action: Tensor = self.network.action_net(self.network.mlp_extractor.forward_actor(self.obs_norm(seen)))
        if not deterministic:
            action = action + self.network.log_std.exp() * noise
        return action, state

    def observe(self, state: Any, transition: Transition) -> Any:
        """Keep the observation."""
        if self.history == 1:
            return state
        obs = transition.obs
        earlier = torch.cat((obs[:, None], _earlier(obs, state)[:, :-1]), dim=1)
        return Frames(earlier, torch.zeros_like(state.fresh))

    def end_episode(self, state: Any, worlds: Bool[Tensor, "N"]) -> Any:
        """The observations of another episode say nothing of this one."""
        return state if self.history == 1 else state._replace(fresh=state.fresh | worlds)

    def inputs(self, segment: Segment) -> Float32[Tensor, "T N I"]:
        """What it was shown, not normalised."""
        steps = torch.arange(len(segment.obs), device=segment.obs.device)[:, None]
        first = torch.where(segment.episode_start, steps, 0).cummax(dim=0).values
        worlds = torch.arange(segment.obs.shape[1], device=segment.obs.device)
        earlier = [segment.obs[torch.maximum(steps - lag, first), worlds] for lag in range(1, self.history)]
        return torch.cat((segment.obs, *earlier), dim=-1)

    def final_inputs(self, segment: Segment) -> Float32[Tensor, "T N I"]:
        """What it would have been shown after each step, had the episode gone on."""
        kept = (self.history - 1) * segment.obs.shape[-1]
        return torch.cat((segment.final_obs, self.inputs(segment)[..., :kept]), dim=-1)


def _earlier(obs: Float32[Tensor, "N O"], state: Frames) -> Float32[Tensor, "N F O"]:
    return torch.where(state.fresh[:, None, None], obs[:, None], state.earlier)


def ppo_arguments(config: PPOConfig, device: torch.device | str) -> dict[str, Any]:
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
        "device": str(device),
        "_init_setup_model": False,
    }


class PPO(BaseLearner):
    """SB3's PPO, fed by metarl's collector: an iteration is one trial per world."""

    model: Any
    """The algorithm; its own types leave out what makes it usable without an environment."""
    policy: Any

    def __init__(
        self, config: PPOConfig, info: PolicyInfo, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> None:
        self.config = config
        self.model, self.policy = self._make(info, generator, device)
        self.policy.to(device)
        self.return_norm = RunningNorm().to(device)
        self._guards = guard(self.model)

    def _make(self, info: PolicyInfo, generator: torch.Generator, device: torch.device | str) -> tuple[Any, Any]:
        """The algorithm, and the policy around its network."""
        config = self.config
        kind = {"net_arch": [config.hidden_size] * 2, "log_std_init": math.log(config.initial_std)}
        algorithm = stable_baselines3.PPO("MlpPolicy", None, policy_kwargs=kind, **ppo_arguments(config, device))
        model = build(algorithm, config.history * info.observation_size, info.action_size, generator)
        return model, PPOPolicy(model.policy, info, config.history)

    def update(self, segment: Segment, generator: torch.Generator, progress: float) -> Metrics:
        """SB3's update on whole trials."""
        scale = float(self.return_norm.std)
        self.model.rollout_buffer = self.fill_buffer(segment)
        self.model._current_progress_remaining = 1.0 - progress
        metrics = update(self.model, self.model.train, generator, self._guards)
        # The statistics move only now: collection and update saw the same normalisation.
        self.policy.obs_norm.update(self.policy.inputs(segment))
        self.return_norm.update(discounted_return(segment.reward, self.config.discount))
        return metrics | {"train/return_scale": scale}

    @torch.no_grad()
    def fill_buffer(self, segment: Segment) -> RolloutBuffer:
        """The trial in SB3's buffer, with advantages: what SB3's `collect_rollouts` leaves there.

        A time limit counts as an end whose last reward includes γ V(final observation), a fall as an end.
        """
        model, network, config = self.model, self.model.policy, self.config
        obs, final_obs = map(self.policy.obs_norm, (self.policy.inputs(segment), self.policy.final_inputs(segment)))
        values, log_probs, _ = network.evaluate_actions(obs.flatten(0, 1), segment.action.flatten(0, 1))
        value, log_prob = values.view(segment.reward.shape), log_probs.view(segment.reward.shape)
        reward = segment.reward / self.return_norm.std.float()
        timeout = segment.truncated
        if bool(timeout.any()):
            reward[timeout] += config.discount * network.predict_values(final_obs[timeout])[:, 0]
        num_steps, num_worlds = reward.shape
        spaces = model.observation_space, model.action_space
        rates = {"gamma": config.discount, "gae_lambda": config.gae_lambda}
        buffer = RolloutBuffer(num_steps, *spaces, model.device, n_envs=num_worlds, **rates)
        columns = (x.cpu().numpy() for x in (obs, segment.action, reward, segment.episode_start))
        for row in zip(*columns, value, log_prob, strict=True):
            buffer.add(*row)
        with np.errstate(over="ignore", invalid="ignore"):  # the guards tell
            buffer.compute_returns_and_advantage(network.predict_values(final_obs[-1]), segment.ended[-1].cpu().numpy())
        return buffer

    def modules(self) -> Mapping[str, torch.nn.Module]:
        """Policy with normaliser, and the scale of returns."""
        return {"policy": self.policy, "return_norm": self.return_norm}

    def optimizers(self) -> Mapping[str, tuple[torch.optim.Optimizer, Sequence[str]]]:
        """SB3's."""
        return {"adam": (self.model.policy.optimizer, [name for name, _ in self.model.policy.named_parameters()])}
