"""The policy of MAML: every world has parameters of its own as its adaptation state, and adapts by a gradient step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from torch.func import vmap

from metarl.agents.configs import MamlTrpoConfig
from metarl.agents.maml_fixed import FixedMaml
from metarl.core.info import PolicyInfo
from metarl.core.types import Transition
from metarl.rl.functional import FlatModule
from metarl.rl.inner_loop import FixedRate, InnerLoop, LearnedRate, RecurrentRule, Stage, UpdateRule
from metarl.rl.networks import GaussianMlp
from metarl.rl.normalize import RunningNorm
from metarl.rl.objectives import gaussian_log_prob
from metarl.rl.policy import PolicyModule
from metarl.rl.stages import make_stage
from metarl.rl.state import any_of

_FIRST_RATE = 1.0


class MamlState(NamedTuple):
    """What the policy knows of the task: each world's own parameters, and the steps that they will adapt from.

    There is room for C steps, `shots` episodes of full length, and one place more, which takes what nobody needs.
    `observe` and `end_episode` write into these tensors.
    """

    parameters: Float32[Tensor, "N P"]
    memory: Float32[Tensor, "N P H"]
    """What the update rule remembers."""
    num_adapted: Int64[Tensor, "N"]
    """Steps of adaptation taken."""
    num_episodes: Int64[Tensor, "N"]
    """Episodes since the last of them."""
    num_steps: Int64[Tensor, "N"]
    """Control steps since then, in the tensors below."""
    obs: Float32[Tensor, "N C1 O"]
    action: Float32[Tensor, "N C1 A"]
    reward: Float32[Tensor, "N C1"]
    ended: Bool[Tensor, "N C1"]
    """An episode ended with the step."""


class MamlPolicy(PolicyModule):
    """The policy with its update rule and normaliser."""

    def __init__(self, config: MamlTrpoConfig, info: PolicyInfo) -> None:
        super().__init__(replace(info, samples_first=True))
        self.config = config
        self.network = GaussianMlp(info.observation_size, info.action_size, config.hidden_size, config.initial_std)
        policy = FlatModule(self.network)
        adapted = None if config.adapted_layers == "all" else _last_layer(self.network)
        self.rule = _rule(config, policy.size, policy.size if adapted is None else int(adapted.sum()))
        self.obs_norm = RunningNorm(info.observation_size)
        self.inner = InnerLoop(policy, FlatModule(self.rule), config.inner_objective, config.first_order, adapted)

    @property
    def least_steps(self) -> int | None:
        """Steps after which the end of an episode adapts, as a whole one more might not fit; None counts episodes."""
        whole = (self.config.shots - 1) * self.info.episode_steps
        return whole + 1 if self.config.shots_in == "steps" else None

    def initial_state(self, n: int, device: torch.device | str = "cpu") -> MamlState:
        """The meta-learned parameters, not adapted yet."""
        policy, info = self.inner.policy, self.info
        zero = torch.zeros(n, dtype=torch.long, device=device)
        rows = torch.zeros(n, self.config.shots * info.episode_steps + 1, device=device)
        return MamlState(
            parameters=policy.read().to(device).repeat(n, 1),
            memory=torch.zeros(n, policy.size, self.inner.memory_size, device=device),
            num_adapted=zero,
            num_episodes=zero,
            num_steps=zero,
            obs=rows[..., None].repeat(1, 1, info.observation_size),
            action=rows[..., None].repeat(1, 1, info.action_size),
            reward=rows,
            ended=rows.bool(),
        )

    @torch.no_grad()
    def act(
        self,
        obs: Float32[Tensor, "N O"],
        state: MamlState,
        noise: Float32[Tensor, "N A"],
        deterministic: bool = False,
    ) -> tuple[Float32[Tensor, "N A"], MamlState]:
        """Sample the Gaussian policy; where `deterministic`, take its mean once the adaptation is over.

        Before that it always samples: an action at the mean has no policy gradient to adapt from.
        """
        mean, log_std = self.network.forward_each(self.inner.policy.named(state.parameters), self.obs_norm(obs))
        if deterministic:
            noise = torch.where(self.adapting(state)[:, None], noise, 0.0)
        return torch.addcmul(mean, noise, log_std.exp()) / self.config.action_scale, state

    def observe(self, state: MamlState, transition: Transition) -> MamlState:
        """Remember the step for the next adaptation; those beyond the room there is are not adapted from."""
        adapting = self.adapting(state)
        if not any_of(adapting):
            return state
        room = state.reward.shape[1] - 1
        world = torch.arange(len(adapting), device=adapting.device)
        place = torch.where(adapting, state.num_steps.clamp(max=room), room)
        state.obs[world, place] = transition.obs
        state.action[world, place] = transition.action
        state.reward[world, place] = transition.reward
        return state._replace(num_steps=(state.num_steps + adapting.long()).clamp(max=room))

    @torch.no_grad()
    def end_episode(self, state: MamlState, worlds: Bool[Tensor, "N"]) -> MamlState:
        """Adapt those of `worlds` in which the last of the `shots` ended."""
        if not any_of(worlds & self.adapting(state)):
            return state
        state, due = self.ended(state, worlds)
        return self._adapt(state, due) if bool(due.any()) else state

    def ended(self, state: MamlState, worlds: Bool[Tensor, "N"]) -> tuple[MamlState, Bool[Tensor, "N"]]:
        """The state with the end of an episode of `worlds` noted, and where a step of adaptation is due by that."""
        ending = worlds & self.adapting(state)
        world = torch.arange(len(worlds), device=worlds.device)
        place = (state.num_steps - 1).clamp(min=0)
        state.ended[world, place] = state.ended[world, place] | ending
        state = state._replace(num_episodes=state.num_episodes + ending.long())
        enough = (
            state.num_episodes >= self.config.shots if self.least_steps is None else state.num_steps >= self.least_steps
        )
        return state, ending & enough

    def fixed(self) -> FixedMaml:
        """See `PolicyModule.fixed`."""
        return FixedMaml(self)

    @torch.no_grad()
    def read_out(self, state: MamlState) -> Mapping[str, Float32[Tensor, "N 1"]]:
        """How far the parameters have moved from the meta-learned ones: with a fixed rate, α · |gradient|."""
        moved = state.parameters - self.inner.policy.read()
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

    def adapting(self, state: MamlState) -> Bool[Tensor, "N"]:
        """Worlds that have a step of adaptation ahead of them."""
        return state.num_adapted < self.config.inner_steps

    def _adapt(self, state: MamlState, due: Bool[Tensor, "N"]) -> MamlState:
        """One step of adaptation in the worlds `due`; where it is not finite, the parameters stay."""
        worlds, inner = due.nonzero()[:, 0], self.inner
        before, stage = state.parameters[worlds], self._remembered(state, worlds)
        adapted, memory = vmap(inner.step, in_dims=(None, 0, 0, 0))(inner.read(), before, state.memory[worlds], stage)
        sound = torch.isfinite(adapted).all(dim=1) & torch.isfinite(memory).flatten(1).all(dim=1)
        memory = torch.where(sound[:, None, None], memory, state.memory[worlds])
        state.ended[worlds] = False
        return state._replace(
            parameters=state.parameters.index_copy(0, worlds, torch.where(sound[:, None], adapted, before)),
            memory=state.memory.index_copy(0, worlds, memory),
            num_adapted=state.num_adapted + due.long(),
            num_episodes=torch.where(due, 0, state.num_episodes),
            num_steps=torch.where(due, 0, state.num_steps),
        )

    def _remembered(self, state: MamlState, worlds: Int64[Tensor, "n"]) -> Stage:
        """The stage of `worlds` up to now."""
        count = state.num_steps[worlds]
        longest = int(count.max())
        obs, action, reward, ended = (
            rows[worlds, :longest].transpose(0, 1) for rows in (state.obs, state.action, state.reward, state.ended)
        )
        valid = torch.arange(longest, device=count.device)[:, None] < count
        obs = self.obs_norm(obs)
        mean, log_std = vmap(self.inner.policy)(state.parameters[worlds], obs.transpose(0, 1))
        return self.stage(obs, action, mean.transpose(0, 1), log_std, reward, ended, valid)


def _rule(config: MamlTrpoConfig, size: int, adapting: int) -> UpdateRule:
    rate = config.inner_step_size
    if isinstance(rate, str):
        return LearnedRate(size, _FIRST_RATE)
    return RecurrentRule(adapting, rate) if config.learned_optimizer else FixedRate(size, rate)


def _last_layer(network: GaussianMlp) -> Float[Tensor, "P"]:
    """1 for the parameters of the last layer, 0 for all others."""
    last = f"layers.{len(network.layers) - 1}."
    parts = [torch.full((p.numel(),), float(name.startswith(last))) for name, p in network.named_parameters()]
    return torch.cat(parts)
