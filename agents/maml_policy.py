"""The policy of MAML: its belief is a parameter vector for every world, and adapting is a gradient step on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor, nn
from torch.func import vmap

from metarl.agents.configs import MamlTrpoConfig
from metarl.core.types import Transition
from metarl.rl.functional import FlatModule
from metarl.rl.inner_loop import FixedRate, InnerLoop, LearnedRate, RecurrentRule, Stage, UpdateRule
from metarl.rl.networks import GaussianMlp
from metarl.rl.normalize import RunningNorm
from metarl.rl.objectives import gaussian_log_prob
from metarl.rl.stages import make_stage

_FIRST_RATE = 1.0


@dataclass(frozen=True)
class Past:
    """Steps taken, newest first: a list that beliefs share without changing it."""

    step: Transition
    ended: Bool[Tensor, "N"] | None
    """Worlds whose episode ended with the step; None for none."""
    before: Past | None


@dataclass(frozen=True)
class MamlBelief:
    """What the policy knows of the task: parameters of its own for every world, and what they will adapt from."""

    parameters: Float32[Tensor, "N P"]
    weights: Mapping[str, Tensor]
    """The same by name, (N, ...)."""
    memory: Float32[Tensor, "N P H"]
    """What the update rule remembers."""
    num_adapted: Int64[Tensor, "N"]
    """Steps of adaptation taken."""
    num_episodes: Int64[Tensor, "N"]
    """Episodes since the last of them."""
    stage_start: Int64[Tensor, "N"]
    """When that was [control steps of the trial]."""
    past: Past | None
    """Steps since the earliest of these."""
    num_steps: int
    """Control steps of the trial."""
    generator: torch.Generator
    """Source of the trial's action noise."""


class MamlPolicy(nn.Module):
    """The policy with its update rule and normaliser."""

    def __init__(self, config: MamlTrpoConfig, obs_size: int, action_size: int) -> None:
        super().__init__()
        self.config = config
        self.network = GaussianMlp(obs_size, action_size, config.hidden_size, config.initial_std)
        policy = FlatModule(self.network)
        self.rule = _rule(config, policy.size)
        self.obs_norm = RunningNorm(obs_size)
        adapted = None if config.adapted_layers == "all" else _last_layer(self.network)
        self.inner = InnerLoop(policy, FlatModule(self.rule), config.inner_objective, config.first_order, adapted)

    def begin(self, n: int, generator: torch.Generator) -> MamlBelief:
        """The meta-learned parameters, not adapted yet."""
        policy = self.inner.policy
        parameters = policy.read().expand(n, -1).contiguous()
        memory = torch.zeros(n, policy.size, self.inner.memory_size)
        zero = torch.zeros(n, dtype=torch.long)
        return MamlBelief(parameters, policy.named(parameters), memory, zero, zero, zero, None, 0, generator)

    @torch.no_grad()
    def act(
        self, obs: Float32[Tensor, "N O"], belief: MamlBelief, deterministic: bool = False
    ) -> tuple[Float32[Tensor, "N A"], MamlBelief, Mapping[str, Tensor]]:
        """Sample the Gaussian policy; where `deterministic`, take its mean once the adaptation is over.

        Before that it always samples: an action at the mean has no policy gradient to adapt from. Records `mean` and
        `log_std`, in the network's unit.
        """
        mean, log_std = self.network.forward_each(belief.weights, self.obs_norm(obs))
        noise = torch.randn(mean.shape, generator=belief.generator) * log_std.exp()
        if deterministic:
            noise = torch.where(self._adapting(belief)[:, None], noise, 0.0)
        return (mean + noise) / self.config.action_scale, belief, {"mean": mean, "log_std": log_std}

    def observe(self, belief: MamlBelief, transition: Transition) -> MamlBelief:
        """Remember the step for the next adaptation."""
        past = Past(transition, None, belief.past) if bool(self._adapting(belief).any()) else None
        return replace(belief, past=past, num_steps=belief.num_steps + 1)

    @torch.no_grad()
    def end_episode(self, belief: MamlBelief, worlds: Bool[Tensor, "N"]) -> MamlBelief:
        """Adapt those of `worlds` in which the last of the `shots` episodes ended."""
        if belief.past is None:
            return belief
        belief = replace(
            belief, past=replace(belief.past, ended=worlds), num_episodes=belief.num_episodes + worlds.long()
        )
        due = worlds & self._adapting(belief) & (belief.num_episodes >= self.config.shots)
        return self._adapt(belief, due) if bool(due.any()) else belief

    @torch.no_grad()
    def signal(self, belief: MamlBelief) -> Mapping[str, Float32[Tensor, "N 1"]]:
        """How far the parameters have moved from the meta-learned ones: with a fixed rate, α · |gradient|."""
        moved = belief.parameters - self.inner.policy.read()
        return {"change of parameters": moved.norm(dim=1, keepdim=True)}

    def stage(
        self,
        obs: Float32[Tensor, "T N O"],
        action: Float32[Tensor, "T N A"],
        mean: Float32[Tensor, "T N A"],
        log_std: Float32[Tensor, "*S A"],
        reward: Float32[Tensor, "T N"],
        ended: Bool[Tensor, "T N"],
        valid: Bool[Tensor, "T N"],
    ) -> Stage:
        """Steps of N tasks as what adapts a policy; `obs` as the network sees it, `action` as the environment does."""
        own = action * self.config.action_scale
        log_prob = gaussian_log_prob(mean, log_std, own)
        return make_stage(obs, own, log_prob, reward, ended, valid, self.config.discount, self.config.gae_lambda)

    def _adapting(self, belief: MamlBelief) -> Bool[Tensor, "N"]:
        return belief.num_adapted < self.config.inner_steps

    def _adapt(self, belief: MamlBelief, due: Bool[Tensor, "N"]) -> MamlBelief:
        """One step of adaptation in the worlds `due`."""
        worlds, inner = due.nonzero()[:, 0], self.inner
        stage = self._remembered(belief, worlds)
        step = vmap(inner.step, in_dims=(None, 0, 0, 0))
        adapted, memory = step(inner.read(), belief.parameters[worlds], belief.memory[worlds], stage)
        parameters = belief.parameters.index_copy(0, worlds, adapted)
        start = torch.where(due, belief.num_steps, belief.stage_start)
        belief = replace(
            belief,
            parameters=parameters,
            weights=inner.policy.named(parameters),
            memory=belief.memory.index_copy(0, worlds, memory),
            num_adapted=belief.num_adapted + due.long(),
            num_episodes=torch.where(due, 0, belief.num_episodes),
            stage_start=start,
        )
        nothing_left = not bool((self._adapting(belief) & (start < belief.num_steps)).any())
        return replace(belief, past=None) if nothing_left else belief

    def _remembered(self, belief: MamlBelief, worlds: Int64[Tensor, "n"]) -> Stage:
        """The stage of `worlds` up to now."""
        start = belief.stage_start[worlds]
        steps, node = [], belief.past
        for _ in range(belief.num_steps - int(start.min())):
            assert node is not None
            steps.append(node)
            node = node.before
        steps.reverse()
        none = torch.zeros_like(belief.num_adapted, dtype=torch.bool)
        obs = self.obs_norm(torch.stack([past.step.obs for past in steps])[:, worlds])
        action = torch.stack([past.step.action for past in steps])[:, worlds]
        reward = torch.stack([past.step.reward for past in steps])[:, worlds]
        ended = torch.stack([none if past.ended is None else past.ended for past in steps])[:, worlds]
        time = torch.arange(belief.num_steps - len(steps), belief.num_steps)
        valid = time[:, None] >= start
        mean, log_std = vmap(self.inner.policy)(belief.parameters[worlds], obs.transpose(0, 1))
        return self.stage(obs, action, mean.transpose(0, 1), log_std, reward, ended, valid)


def _rule(config: MamlTrpoConfig, size: int) -> UpdateRule:
    rate = config.inner_step_size
    if isinstance(rate, str):
        return LearnedRate(size, _FIRST_RATE)
    return RecurrentRule(size, rate) if config.learned_optimizer else FixedRate(size, rate)


def _last_layer(network: GaussianMlp) -> Float[Tensor, "P"]:
    """1 for the parameters of the last layer, 0 for all others."""
    last = f"layers.{len(network.layers) - 1}."
    parts = [torch.full((p.numel(),), float(name.startswith(last))) for name, p in network.named_parameters()]
    return torch.cat(parts)
