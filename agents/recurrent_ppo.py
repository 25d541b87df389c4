"""PPO with LSTMs (sb3-contrib's RecurrentPPO) on whole trials: RL² (Duan et al. 2016) by another implementation.

The policy is fed what RL² is fed, and its memory lasts for the trial. Networks, loss and gradient steps are
sb3-contrib's: gradients flow through whole trials, and a minibatch is a stretch of consecutive steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float32
from torch import Tensor, nn

from metarl.agents.ppo import PPO, ppo_arguments
from metarl.agents.rl2 import policy_inputs
from metarl.agents.sb3 import build
from metarl.core.errors import UserError
from metarl.core.types import Rollout, Transition
from metarl.rl.normalize import RunningNorm
from metarl.rl.objectives import gaussian_log_prob

try:
    import sb3_contrib
    from sb3_contrib.common.recurrent.buffers import RecurrentRolloutBuffer
    from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
    from sb3_contrib.common.recurrent.type_aliases import RNNStates
except ModuleNotFoundError:
    raise UserError(
        "recurrent-ppo needs the package sb3-contrib: pip install sb3-contrib, or 'metarl-robotics[recurrent-ppo]'"
    ) from None


@dataclass(frozen=True)
class RecurrentBelief:
    """What the policy knows of the task: its memories, and what it has yet to feed into them."""

    memory: Float32[Tensor, "N H"]
    """[h, c] of the policy's LSTM, then of the value's."""
    last_action: Float32[Tensor, "N A"]
    """Previous action as applied, in [-1, 1]; zero before a trial's first."""
    last_reward: Float32[Tensor, "N"]
    """Previous reward; zero before a trial's first."""
    episode_start: Float32[Tensor, "N"]
    """1 where the next observation is an episode's first."""
    generator: torch.Generator
    """Source of the trial's action noise."""


class RecurrentPolicy(nn.Module):
    """sb3-contrib's actor-critic on normalised inputs."""

    def __init__(self, network: RecurrentActorCriticPolicy, inputs: int, action_size: int) -> None:
        super().__init__()
        self.network = network
        self.obs_norm = RunningNorm(inputs)
        self.action_size = action_size

    def begin(self, n: int, generator: torch.Generator) -> RecurrentBelief:
        """Empty memories."""
        zeros = torch.zeros(n)
        memory = torch.zeros(n, 4 * self.network.lstm_actor.hidden_size)
        return RecurrentBelief(memory, torch.zeros(n, self.action_size), zeros, torch.ones(n), generator)

    @torch.no_grad()
    def act(
        self, obs: Float32[Tensor, "N O"], belief: RecurrentBelief, deterministic: bool = False
    ) -> tuple[Float32[Tensor, "N A"], RecurrentBelief, Mapping[str, Tensor]]:
        """Sample (or take the mean of) the Gaussian policy. Records what the learner's buffer holds of a step."""
        mean, value, _, states = self.network(
            self._seen(obs, belief), split(belief.memory), torch.zeros(len(obs)), deterministic=True
        )
        action, log_std = mean, self.network.log_std
        if not deterministic:
            action = mean + log_std.exp() * torch.randn(mean.shape, generator=belief.generator)
        extras = {
            "memory": belief.memory,
            "value": value[:, 0],
            "log_prob": gaussian_log_prob(mean, log_std, action),
        }
        return action, replace(belief, memory=join(states)), extras

    def observe(self, belief: RecurrentBelief, transition: Transition) -> RecurrentBelief:
        """Remember the action as applied and the reward, for the next step's input."""
        return replace(
            belief,
            last_action=transition.action.clamp(-1.0, 1.0),
            last_reward=transition.reward,
            episode_start=torch.zeros_like(transition.reward),
        )

    def end_episode(self, belief: RecurrentBelief, worlds: Bool[Tensor, "N"]) -> RecurrentBelief:
        """The memories survive; only the flag tells that a new episode begins."""
        return replace(belief, episode_start=torch.where(worlds, 1.0, belief.episode_start))

    @torch.no_grad()
    def value(self, obs: Float32[Tensor, "N O"], belief: RecurrentBelief) -> Float32[Tensor, "N"]:
        """Value of going on from `obs`."""
        seen, start = self._seen(obs, belief), torch.zeros(len(obs))
        hidden, cell = split(belief.memory).vf
        values: Tensor = self.network.predict_values(seen, (hidden, cell), start)
        return values[:, 0]

    def inputs(self, rollout: Rollout) -> Float32[Tensor, "T N I"]:
        """What it was shown, not normalised."""
        action, reward = torch.zeros_like(rollout.action), torch.zeros_like(rollout.reward)
        action[1:], reward[1:] = rollout.action[:-1].clamp(-1.0, 1.0), rollout.reward[:-1]
        return policy_inputs(rollout.obs, action, reward, rollout.episode_start.float())

    def _seen(self, obs: Float32[Tensor, "N O"], belief: RecurrentBelief) -> Float32[Tensor, "N I"]:
        inputs = policy_inputs(obs, belief.last_action, belief.last_reward, belief.episode_start)
        return self.obs_norm(inputs)  # type: ignore[no-any-return]


def split(memory: Float32[Tensor, "N H"]) -> RNNStates:
    """A row per world as sb3-contrib's states, each (1, N, H / 4)."""
    parts = [part.contiguous() for part in memory[None].chunk(4, dim=-1)]
    return RNNStates((parts[0], parts[1]), (parts[2], parts[3]))


def join(states: RNNStates) -> Float32[Tensor, "N H"]:
    """Inverse of `split`."""
    return torch.cat((*states.pi, *states.vf), dim=-1)[0]


class RecurrentPPO(PPO):
    """sb3-contrib's RecurrentPPO, fed by metarl's collector."""

    def _make(self, obs_size: int, action_size: int, generator: torch.Generator) -> tuple[Any, Any]:
        config, inputs = self.config, obs_size + action_size + 2
        kind = {
            "net_arch": [config.hidden_size],
            "lstm_hidden_size": config.hidden_size,
            "log_std_init": math.log(config.initial_std),
        }
        algorithm = sb3_contrib.RecurrentPPO("MlpLstmPolicy", None, policy_kwargs=kind, **ppo_arguments(config))
        model = build(algorithm, inputs, action_size, generator)
        return model, RecurrentPolicy(cast("RecurrentActorCriticPolicy", model.policy), inputs, action_size)

    @torch.no_grad()
    def fill_buffer(self, rollout: Rollout) -> RecurrentRolloutBuffer:
        """The trial in sb3-contrib's buffer, with advantages: what its `collect_rollouts` leaves there.

        Falls and time limits within the trial are no ends; the trial's end is a time limit, unless by a fall.
        """
        config, extras = self.config, rollout.extras
        reward = rollout.reward / self.return_norm.std.float()
        after = self.policy.value(rollout.final_obs[-1], rollout.final_belief)  # had its last episode gone on
        reward[-1] += config.discount * after * ~rollout.terminated[-1]
        num_steps, num_worlds = reward.shape
        buffer = RecurrentRolloutBuffer(
            num_steps,
            self.model.observation_space,
            self.model.action_space,
            (num_steps, 1, num_worlds, config.hidden_size),
            "cpu",
            gamma=config.discount,
            gae_lambda=config.gae_lambda,
            n_envs=num_worlds,
        )
        obs = self.policy.obs_norm(self.policy.inputs(rollout)).numpy()
        # A trial begins with empty memories anyway: without the flag that empties them, LSTMs run over whole sequences.
        start = torch.zeros(num_worlds).numpy()
        for t in range(num_steps):
            states, value, log_prob = split(extras["memory"][t]), extras["value"][t], extras["log_prob"][t]
            buffer.add(obs[t], rollout.action[t].numpy(), reward[t].numpy(), start, value, log_prob, lstm_states=states)
        buffer.compute_returns_and_advantage(after, rollout.ended[-1].numpy())
        return buffer
