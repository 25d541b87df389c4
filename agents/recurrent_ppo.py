"""PPO with LSTMs (sb3-contrib's RecurrentPPO) on whole trials: RL² (Duan et al. 2016) by another implementation.

The policy is fed what RL² is fed, and its memory lasts for the trial. Networks, loss and gradient steps are
sb3-contrib's: gradients flow through whole trials, and a minibatch is a stretch of consecutive steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from metarl.agents.ppo_baseline import PPO, ppo_arguments
from metarl.agents.rl2_policy import policy_inputs
from metarl.agents.sb3 import build
from metarl.core.errors import UserError
from metarl.core.info import PolicyInfo
from metarl.core.types import Segment, Transition
from metarl.rl.normalize import RunningNorm
from metarl.rl.objectives import noise_log_prob
from metarl.rl.policy import PolicyModule
from metarl.rl.ppo import advantages

try:
    import sb3_contrib
    from sb3_contrib.common.recurrent.buffers import RecurrentRolloutBuffer
    from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
    from sb3_contrib.common.recurrent.type_aliases import RNNStates
except ModuleNotFoundError:
    raise UserError("recurrent-ppo needs the package sb3-contrib: pip install 'sb3-contrib>=2.9'") from None


class RecurrentState(NamedTuple):
    """What the policy knows of the task: its memories, and what it has yet to feed into them."""

    memory: Float32[Tensor, "N H"]
    """[h, c] of the policy's LSTM, then of the value's."""
    last_action: Float32[Tensor, "N A"]
    """Previous action as applied, in [-1, 1]; zero before a trial's first."""
    last_reward: Float32[Tensor, "N"]
    """Previous reward; zero before a trial's first."""
    episode_start: Float32[Tensor, "N"]
    """1 where the next observation is an episode's first."""


class RecurrentPolicy(PolicyModule):
    """sb3-contrib's actor-critic on normalised inputs."""

    def __init__(self, network: RecurrentActorCriticPolicy, inputs: int, info: PolicyInfo) -> None:
        super().__init__(info)
        self.network = network
        self.obs_norm = RunningNorm(inputs)

    def initial_state(self, n: int, device: torch.device | str = "cpu") -> RecurrentState:
        """Empty memories."""
        sizes = ((n, 4 * self.network.lstm_actor.hidden_size), (n, self.info.action_size), (n,))
        memory, action, reward = (torch.zeros(size, device=device) for size in sizes)
        return RecurrentState(memory, action, reward, torch.ones(n, device=device))

    @torch.no_grad()
    def act(
        self,
        obs: Float32[Tensor, "N O"],
        state: RecurrentState,
        noise: Float32[Tensor, "N A"],
        deterministic: bool = False,
    ) -> tuple[Float32[Tensor, "N A"], RecurrentState]:
        """Sample the Gaussian policy, or take its mean."""
        network, seen, (of_policy, of_value) = self.network, self._seen(obs, state)[None], split(state.memory)
        assert network.lstm_critic is not None
        hidden, of_policy = network.lstm_actor(seen, of_policy)
        _, of_value = network.lstm_critic(seen, of_value)
        action = network.action_net(network.mlp_extractor.forward_actor(hidden[0]))
        if not deterministic:
            action = action + network.log_std.exp() * noise
        return action, state._replace(memory=join(RNNStates(of_policy, of_value)))

    def observe(self, state: RecurrentState, transition: Transition) -> RecurrentState:
        """Remember the action as applied and the reward, for the next step's input."""
        start = torch.zeros_like(transition.reward)
        return RecurrentState(state.memory, transition.action.clamp(-1.0, 1.0), transition.reward, start)

    def end_episode(self, state: RecurrentState, worlds: Bool[Tensor, "N"]) -> RecurrentState:
        """The memories survive; only the flag tells that a new episode begins."""
        return state._replace(episode_start=torch.where(worlds, 1.0, state.episode_start))

    def value_of(self, memory: Float32[Tensor, "T N H"]) -> Float32[Tensor, "T N"]:
        """Value by the memories after an observation was taken in."""
        hidden = memory.chunk(4, dim=-1)[2]
        value: Tensor = self.network.value_net(self.network.mlp_extractor.forward_critic(hidden))
        return value[..., 0]

    @torch.no_grad()
    def value(self, obs: Float32[Tensor, "N O"], state: RecurrentState) -> Float32[Tensor, "N"]:
        """Value of going on from `obs`."""
        seen, start = self._seen(obs, state), torch.zeros(len(obs), device=obs.device)
        hidden, cell = split(state.memory).vf
        values: Tensor = self.network.predict_values(seen, (hidden, cell), start)
        return values[:, 0]

    def inputs(self, segment: Segment) -> Float32[Tensor, "T N I"]:
        """What it was shown, not normalised."""
        action, reward = torch.zeros_like(segment.action), torch.zeros_like(segment.reward)
        action[1:], reward[1:] = segment.action[:-1].clamp(-1.0, 1.0), segment.reward[:-1]
        return policy_inputs(segment.obs, action, reward, segment.episode_start.float())

    def _seen(self, obs: Float32[Tensor, "N O"], state: RecurrentState) -> Float32[Tensor, "N I"]:
        inputs = policy_inputs(obs, state.last_action, state.last_reward, state.episode_start)
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

    def _make(self, info: PolicyInfo, generator: torch.Generator, device: torch.device | str) -> tuple[Any, Any]:
        config, inputs = self.config, info.observation_size + info.action_size + 2
        kind = {
            "net_arch": [config.hidden_size],
            "lstm_hidden_size": config.hidden_size,
            "log_std_init": math.log(config.initial_std),
        }
        arguments = ppo_arguments(config, device)
        algorithm = sb3_contrib.RecurrentPPO("MlpLstmPolicy", None, policy_kwargs=kind, **arguments)
        model = build(algorithm, inputs, info.action_size, generator)
        return model, RecurrentPolicy(cast("RecurrentActorCriticPolicy", model.policy), inputs, info)

    def record(
        self, obs: Tensor, state: RecurrentState, noise: Tensor, action: Tensor, next_state: RecurrentState
    ) -> Mapping[str, Tensor]:
        """The noise, of which densities are made, and the memories before and after."""
        return {"noise": noise, "memory": state.memory, "after": next_state.memory}

    @torch.no_grad()
    def fill_buffer(self, segment: Segment) -> RecurrentRolloutBuffer:
        """The trial in sb3-contrib's buffer, as its `collect_rollouts` leaves it there, with RL²'s advantages.

        Falls and time limits within the trial are no ends but where a fall forfeits what follows; the trial's end is a
        time limit, unless by a fall.
        """
        config, extras = self.config, segment.extras
        value = self.policy.value_of(extras["after"])
        log_prob = noise_log_prob(extras["noise"], self.policy.network.log_std)
        reward = segment.reward / self.return_norm.std.float()
        after = self.policy.value(segment.final_obs[-1], segment.final_state)  # had its last episode gone on
        next_value = torch.cat((value[1:], after[None]))
        ends = segment.terminated, segment.value_end
        advantage = advantages(reward, *ends, value, next_value, config.discount, config.gae_lambda)
        num_steps, num_worlds = reward.shape
        buffer = RecurrentRolloutBuffer(
            num_steps,
            self.model.observation_space,
            self.model.action_space,
            (num_steps, 1, num_worlds, config.hidden_size),
            self.model.device,
            gamma=config.discount,
            gae_lambda=config.gae_lambda,
            n_envs=num_worlds,
        )
        columns = (self.policy.obs_norm(self.policy.inputs(segment)), segment.action, reward)
        rows = [column.cpu().numpy() for column in columns]
        # A trial begins with empty memories anyway: without the flag that empties them, LSTMs run over whole sequences.
        start = torch.zeros(num_worlds).numpy()
        for t, (obs, action, earned) in enumerate(zip(*rows, strict=True)):
            states = split(extras["memory"][t])
            buffer.add(obs, action, earned, start, value[t], log_prob[t], lstm_states=states)
        buffer.advantages, buffer.returns = advantage.cpu().numpy(), (advantage + value).cpu().numpy()
        return buffer
