"""RL²: fast reinforcement learning via slow reinforcement learning (Duan et al. 2016, arXiv:1611.02779).

A recurrent policy is fed what a learning algorithm would be fed (observation, previous action, previous reward,
episode start), keeps its memory across the episodes of a trial, and is trained by PPO to maximise the return of the
whole trial. Adapting to a new task is then nothing but running it: the belief is the memory's state.

Where the field's implementations differ or went wrong, this one:
- shows the first step of an episode the last action and reward of the one before (no zeros at a reset);
- discounts across episode ends within a trial, and bootstraps the trial's time limit from `final_obs`;
- normalises the reward input with statistics that stay fixed between collection and update, so that the
  probability ratio is exactly one at the first gradient step;
- trains on chunks that start from the stored memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn

from metarl.agents.configs import RL2Config
from metarl.core.errors import UserError
from metarl.core.types import Metrics, Rollout, Transition
from metarl.rl.learner import Collect
from metarl.rl.networks import LOG_STD_MAX, LOG_STD_MIN, RecurrentActorCritic
from metarl.rl.normalize import RunningNorm
from metarl.rl.objectives import approximate_kl, clipped_surrogate, gaussian_entropy, gaussian_log_prob
from metarl.rl.parallel import ShardedGradient
from metarl.rl.returns import discounted_return, gae
from metarl.rl.state import load_module, load_optimizer, module_tensors, optimizer_tensors

_SHARDS = 2  # per minibatch; a constant, so that results do not depend on the machine


@dataclass(frozen=True)
class RL2Belief:
    """What the policy knows of the task: its memory, and what it has yet to feed into it."""

    memory: Float32[Tensor, "N H"]
    last_action: Float32[Tensor, "N A"]
    """Previous action as applied, in [-1, 1]; zero before a trial's first."""
    last_reward: Float32[Tensor, "N"]
    """Previous reward, normalised; zero before a trial's first."""
    episode_start: Float32[Tensor, "N"]
    """1 where the next observation is an episode's first."""
    generator: torch.Generator
    """Source of the trial's action noise."""


class RL2Policy(nn.Module):
    """The recurrent policy with its normalisers."""

    def __init__(self, config: RL2Config, obs_size: int, action_size: int) -> None:
        super().__init__()
        inputs = obs_size + action_size + 2
        self.network = RecurrentActorCritic(config.cell, inputs, obs_size, action_size, config.hidden_size)
        nn.init.constant_(self.network.raw_log_std, math.log(config.initial_std))
        self.obs_norm = RunningNorm(obs_size)
        self.reward_norm = RunningNorm()
        self.action_size = action_size

    def begin(self, n: int, generator: torch.Generator) -> RL2Belief:
        """An empty memory."""
        zeros = torch.zeros(n)
        memory, action = torch.zeros(n, self.network.state_size), torch.zeros(n, self.action_size)
        return RL2Belief(memory, action, zeros, torch.ones(n), generator)

    @torch.no_grad()
    def act(
        self, obs: Float32[Tensor, "N O"], belief: RL2Belief, deterministic: bool = False
    ) -> tuple[Float32[Tensor, "N A"], RL2Belief, Mapping[str, Tensor]]:
        """Sample (or take the mean of) the Gaussian policy. Records its `mean` and the `memory` before."""
        features, memory = self._look(obs, belief)
        mean = action = self.network.actor(features)
        if not deterministic:
            action = mean + self.network.log_std.exp() * torch.randn(mean.shape, generator=belief.generator)
        return action, replace(belief, memory=memory), {"mean": mean, "memory": belief.memory}

    def observe(self, belief: RL2Belief, transition: Transition) -> RL2Belief:
        """Remember the action as applied and the reward, for the next step's input."""
        return replace(
            belief,
            last_action=transition.action.clamp(-1.0, 1.0),
            last_reward=self.reward_norm(transition.reward),
            episode_start=torch.zeros_like(transition.reward),
        )

    def end_episode(self, belief: RL2Belief, worlds: Bool[Tensor, "N"]) -> RL2Belief:
        """The memory survives; only the flag tells that a new episode begins."""
        return replace(belief, episode_start=torch.where(worlds, 1.0, belief.episode_start))

    def signal(self, belief: RL2Belief) -> Mapping[str, Float32[Tensor, "N D"]]:
        """The memory's output."""
        return {"memory": belief.memory[:, : self.network.hidden]}

    @torch.no_grad()
    def value(self, obs: Float32[Tensor, "N O"], belief: RL2Belief) -> Float32[Tensor, "N"]:
        """Value of going on from `obs`."""
        value: Tensor = self.network.critic(self._look(obs, belief)[0])[..., 0]
        return value

    def _look(self, obs: Float32[Tensor, "N O"], belief: RL2Belief) -> tuple[Float32[Tensor, "N F"], Tensor]:
        """What the heads see, and the memory after taking in `obs`."""
        seen = self.obs_norm(obs)
        inputs = policy_inputs(seen, belief.last_action, belief.last_reward, belief.episode_start)
        outputs, memory = self.network.remember(inputs[None], belief.memory)
        return torch.cat((outputs[0], seen), dim=-1), memory


def policy_inputs(
    obs: Float[Tensor, "*B O"],
    action: Float[Tensor, "*B A"],
    reward: Float[Tensor, "*B"],
    start: Float[Tensor, "*B"],
) -> Float[Tensor, "*B I"]:
    """What the memory is fed: observation, previous action, previous reward, episode start."""
    return torch.cat((obs, action, reward[..., None], start[..., None]), dim=-1)


def chunk_length(trial_steps: int, longest: int) -> int:
    """The largest divisor of the trial's length that is at most `longest`."""
    return max(length for length in range(1, min(longest, trial_steps) + 1) if trial_steps % length == 0)


@dataclass(frozen=True)
class Chunks:
    """A rollout cut into sequences of L steps: S = N · T / L of them."""

    inputs: Float32[Tensor, "L S I"]
    obs: Float32[Tensor, "L S O"]
    memory: Float32[Tensor, "S H"]
    """Memory at the start of each chunk, as it was when the chunk was collected."""
    action: Float32[Tensor, "L S A"]
    log_prob: Float32[Tensor, "L S"]
    advantage: Float32[Tensor, "L S"]
    target: Float32[Tensor, "L S"]
    """Value targets."""

    def select(self, index: Tensor) -> Chunks:
        """The chunks at `index`."""
        picked = {k: v[index] if k == "memory" else v[:, index] for k, v in vars(self).items()}
        return Chunks(**picked)


class RL2:
    """PPO over whole trials, on chunks of sequences."""

    def __init__(self, config: RL2Config, obs_size: int, action_size: int, generator: torch.Generator) -> None:
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            self.policy = RL2Policy(config, obs_size, action_size)
        self.return_norm = RunningNorm()
        self._names = [name for name, _ in self.policy.named_parameters()]
        self._parameters = list(self.policy.parameters())
        self._optimizer = torch.optim.Adam(self._parameters, lr=config.learning_rate, eps=1e-5)
        self._gradient = ShardedGradient(_SHARDS)

    def train_step(self, collect: Collect, generator: torch.Generator, progress: float) -> Metrics:
        """Collect one trial per world, then `num_epochs` of PPO over it."""
        rollout = collect(self.policy)
        chunks, metrics = self._prepare(rollout)
        config = self.config
        rate = config.learning_rate + progress * (config.final_learning_rate - config.learning_rate)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        records: list[Tensor] = []
        skipped = 0
        for _ in range(config.num_epochs):
            order = torch.randperm(chunks.memory.shape[0], generator=generator)
            for minibatch in torch.split(order, config.minibatch_chunks):
                record, applied = self._gradient_step(chunks, minibatch)
                if applied:
                    records.append(record)
                skipped += not applied
        if not records:
            raise UserError("no gradient of this iteration was finite; try a lower learning_rate")
        # The statistics move only now: collection and update saw the same normalisation.
        self._update_normalisers(rollout)
        policy_loss, value_loss, kl, grad_norm = torch.stack(records).mean(dim=0).tolist()
        return metrics | {
            "train/policy_loss": policy_loss,
            "train/value_loss": value_loss,
            "train/kl": kl,
            "train/grad_norm": grad_norm,
            "train/skipped_updates": float(skipped),
            "train/learning_rate": rate,
            "train/std": float(self.policy.network.log_std.detach().exp().mean()),
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Policy with normalisers, return scale, Adam."""
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

    @torch.no_grad()
    def _prepare(self, rollout: Rollout) -> tuple[Chunks, Metrics]:
        """Advantages and inputs of the whole rollout, cut into chunks."""
        length = chunk_length(len(rollout.reward), self.config.chunk_steps)
        scale = self.return_norm.std.float()
        network = self.policy.network
        obs, inputs = self._inputs(rollout)
        memory, mean = rollout.extras["memory"], rollout.extras["mean"]
        outputs = torch.cat((memory[1:], rollout.final_belief.memory[None]))[..., : network.hidden]
        value = network.critic(torch.cat((outputs, obs), dim=-1))[..., 0]
        after_trial = self.policy.value(rollout.final_obs[-1], rollout.final_belief)  # had its last episode gone on
        next_value = torch.cat((value[1:], after_trial[None]))
        advantage = gae(rollout.reward / scale, self._discount(rollout), value, next_value, self.config.gae_lambda)
        target = advantage + value
        explained = 1.0 - (target - value).var() / target.var().clamp(min=1e-8)
        normalised = (advantage - advantage.mean()) / (advantage.std() + 1e-8)

        def cut(x: Tensor) -> Tensor:
            """(T, N, ...) -> (L, S, ...)."""
            return x.reshape(-1, length, *x.shape[1:]).transpose(0, 1).flatten(1, 2).contiguous()

        chunks = Chunks(
            inputs=cut(inputs),
            obs=cut(obs),
            memory=memory[::length].flatten(0, 1),
            action=cut(rollout.action),
            log_prob=cut(gaussian_log_prob(mean, network.log_std, rollout.action)),
            advantage=cut(normalised),
            target=cut(target),
        )
        return chunks, {"train/explained_variance": float(explained), "train/return_scale": float(scale)}

    def _discount(self, rollout: Rollout) -> Float[Tensor, "T N"]:
        """γ throughout the trial, falls and time limits of its episodes included; 0 where a fall ends the trial."""
        discount = torch.full_like(rollout.reward, self.config.discount)
        discount[-1] *= 1.0 - rollout.terminated[-1].float()
        return discount

    def _inputs(self, rollout: Rollout) -> tuple[Float[Tensor, "T N O"], Float[Tensor, "T N I"]]:
        """Normalised observations and memory inputs, as `act` saw them."""
        obs = self.policy.obs_norm(rollout.obs)
        action, reward = torch.zeros_like(rollout.action), torch.zeros_like(rollout.reward)
        action[1:] = rollout.action[:-1].clamp(-1.0, 1.0)
        reward[1:] = self.policy.reward_norm(rollout.reward[:-1])
        return obs, policy_inputs(obs, action, reward, rollout.episode_start.float())

    def _loss(self, chunks: Chunks) -> tuple[Tensor, Tensor]:
        """PPO's loss on chunks, and (policy loss, value loss, KL)."""
        network, config = self.policy.network, self.config
        mean, value, _ = network(chunks.inputs, chunks.obs, chunks.memory)
        log_std = network.log_std
        log_prob = gaussian_log_prob(mean, log_std, chunks.action)
        policy_loss = clipped_surrogate(log_prob, chunks.log_prob, chunks.advantage, config.clip)
        value_loss = (value - chunks.target).square().mean()
        loss = policy_loss + config.value_weight * value_loss - config.entropy_weight * gaussian_entropy(log_std)
        kl = approximate_kl(log_prob.detach(), chunks.log_prob)
        return loss, torch.stack((policy_loss, value_loss, kl))

    def _gradient_step(self, chunks: Chunks, minibatch: Tensor) -> tuple[Tensor, bool]:
        """One Adam step on a minibatch; a gradient that is not finite is skipped. Returns (diagnostics, applied)."""
        gradients, diagnostics = self._gradient(
            lambda index: self._loss(chunks.select(index)), self._parameters, minibatch
        )
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        norm = nn.utils.clip_grad_norm_(self._parameters, self.config.max_grad_norm)
        if not bool(norm.isfinite()):
            return torch.zeros(4), False
        self._optimizer.step()
        with torch.no_grad():
            self.policy.network.raw_log_std.clamp_(LOG_STD_MIN, LOG_STD_MAX)  # else its gradient dies outside
        return torch.cat((diagnostics, norm[None])), True

    def _update_normalisers(self, rollout: Rollout) -> None:
        self.policy.obs_norm.update(rollout.obs)
        self.policy.reward_norm.update(rollout.reward)
        self.return_norm.update(discounted_return(rollout.reward, self.config.discount))
