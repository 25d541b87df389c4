"""RL²'s policy: a memory of the trial, heads that also see the observation, and what it may believe of its task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn

from metarl.agents.configs import RL2Config
from metarl.core.graphs import capture
from metarl.core.info import PolicyInfo
from metarl.core.types import Transition
from metarl.rl.attention import Transformer
from metarl.rl.cells import Cell, Cut, Gru, Lstm
from metarl.rl.estimator import Estimator
from metarl.rl.external_memory import ExternalMemory
from metarl.rl.linear_recurrence import Lru
from metarl.rl.memory import Packed
from metarl.rl.networks import RecurrentActorCritic
from metarl.rl.normalize import CLIP, RunningNorm
from metarl.rl.policy import BAND, PolicyModule
from metarl.rl.ppo import chunk_length, segment_length
from metarl.rl.recalibration import Recalibration


class RL2State(NamedTuple):
    """What the policy knows of the task: its memory, and what it has yet to feed into it."""

    memory: Float32[Tensor, "N H"]
    """The memory's last output."""
    cell: Float32[Tensor, "N C"]
    """An LSTM's cell; of a GRU nothing, C = 0."""
    last_action: Float32[Tensor, "N A"]
    """Previous action as applied, in [-1, 1]; zero before a trial's first."""
    last_reward: Float32[Tensor, "N"]
    """Previous reward, normalised; zero before a trial's first."""
    episode_start: Float32[Tensor, "N"]
    """1 where the next observation is an episode's first."""
    estimator: Float32[Tensor, "N E"]
    """The memory of what says what the task is; without one nothing, E = 0."""


class RL2Policy(PolicyModule):
    """The recurrent policy with its normalisers."""

    replayable = True

    def __init__(self, config: RL2Config, info: PolicyInfo) -> None:
        super().__init__(replace(info, adapts=info.adapts and config.memory_steps != 1))
        obs_size, action_size = info.observation_size, info.action_size
        known = info.privileged_size
        self.network = RecurrentActorCritic(
            memory_of(config, info, config.cell, config.hidden_size),
            obs_size,
            action_size,
            policy_head=config.policy_head,
            shown=known * config.privileged_critic,
            believed=known * (config.task_weight > 0),
        )
        nn.init.constant_(self.network.raw_log_std, math.log(config.initial_std))
        self.obs_norm = RunningNorm(obs_size)
        self.reward_norm = RunningNorm()
        self._feedback = config.feedback
        if self.network.shown or self.network.believed:
            self.privileged_norm = RunningNorm(known)
        self._watched: list[Tensor] = []
        self._packed: tuple[list[int], Packed, tuple[Tensor, Tensor]] | None = None

    def initial_state(self, n: int, device: torch.device | str = "cpu") -> RL2State:
        """An empty memory."""
        hidden = self.network.hidden
        sizes = ((n, hidden), (n, self.network.state_size - hidden), (n, self.info.action_size), (n,))
        memory, cell, action, reward = (torch.zeros(size, device=device) for size in sizes)
        return RL2State(memory, cell, action, reward, torch.ones(n, device=device), reward.new_zeros(n, 0))

    @torch.no_grad()
    def act(
        self,
        obs: Float32[Tensor, "N O"],
        state: RL2State,
        noise: Float32[Tensor, "N A"],
        deterministic: bool = False,
    ) -> tuple[Float32[Tensor, "N A"], RL2State]:
        """Sample the Gaussian policy, or take its mean."""
        packed = self._pack()[0]
        features, memory, cell = _look(packed, obs, state)
        action = packed.mean(features)
        if not deterministic:
            action.addcmul_(noise, packed.std)
        return action, state._replace(memory=memory, cell=cell)

    @torch.no_grad()
    def observe(self, state: RL2State, transition: Transition) -> RL2State:
        """Remember the action as applied and the reward, for the next step's input."""
        mean, scale = self._pack()[1]
        reward = (transition.reward - mean).mul_(scale).clamp_(-CLIP, CLIP)
        action, reward = self.fed(transition.action.clamp(-1.0, 1.0), reward)
        return state._replace(last_action=action, last_reward=reward, episode_start=torch.zeros_like(reward))

    def fed(
        self, action: Float32[Tensor, "*B A"], reward: Float32[Tensor, "*B"]
    ) -> tuple[Float32[Tensor, "*B A"], Float32[Tensor, "*B"]]:
        """What the memory is told of an action and of a normalised reward: zeros where it is not to know."""
        action = torch.zeros_like(action) if self._feedback == "none" else action
        return action, reward if self._feedback == "full" else torch.zeros_like(reward)

    def end_episode(self, state: RL2State, worlds: Bool[Tensor, "N"]) -> RL2State:
        """The memory survives; only the flag tells that a new episode begins."""
        return state._replace(episode_start=torch.where(worlds, 1.0, state.episode_start))

    def read_out(self, state: RL2State) -> Mapping[str, Float32[Tensor, "N D"]]:
        """The memory's output."""
        return {"memory": state.memory}

    @torch.no_grad()
    def value(
        self, obs: Float32[Tensor, "N O"], state: RL2State, privileged: Float32[Tensor, "N P"] | None = None
    ) -> Float32[Tensor, "N"]:
        """Value of going on from `obs`; `privileged` is normalised."""
        if not self.network.memory.recorded:  # a step would write into the state, which goes on from here
            state = state._replace(cell=state.cell.clone())
        return self.network.value(_look(self._pack()[0], obs, state)[0], privileged)

    def _pack(self) -> tuple[Packed, tuple[Tensor, Tensor]]:
        """The weights as acting takes them, and the normalisation of rewards; made anew where any has changed."""
        if not self._watched:
            self._watched = [*self._acting(), self.obs_norm.var, self.reward_norm.var]
        version = [capture(), *(tensor._version for tensor in self._watched)]
        if self._packed is None or self._packed[0] != version:
            self._packed = version, self._layout(), self.reward_norm.affine()
        return self._packed[1:]

    def _acting(self) -> list[Tensor]:
        """The parameters that acting takes."""
        network = self.network
        return [*network.memory.parameters(), *network.actor.parameters(), network.raw_log_std]  # type: ignore[attr-defined]

    def _layout(self) -> Packed:
        return Packed(self.network, self.obs_norm)

    def _apply(self, *arguments: Any, **words: Any) -> RL2Policy:
        """Moving to another device makes other tensors."""
        self._watched, self._packed = [], None
        super()._apply(*arguments, **words)  # type: ignore[no-untyped-call]
        return self


class BelievingRL2Policy(RL2Policy):
    """Says what it believes of its task, by its memory."""

    def __init__(self, config: RL2Config, info: PolicyInfo) -> None:
        super().__init__(config, info)
        self.recalibration = Recalibration(info.privileged_size)

    @torch.no_grad()
    def beliefs(self, state: RL2State) -> tuple[Float32[Tensor, "N P"], Float32[Tensor, "N P"]]:
        """See `Believing.beliefs`."""
        mean, log_std = self._believed(state)
        centre, scale = self.privileged_norm.mean.float(), self.privileged_norm.std.float()
        return centre + scale * mean, scale * self.recalibration(log_std).exp()

    @torch.no_grad()
    def mistaken(
        self, state: RL2State, privileged: Float32[Tensor, "N P"]
    ) -> tuple[Float32[Tensor, "N P"], Float32[Tensor, "N P"]]:
        """See `Recalibrated.mistaken`."""
        mean, log_std = self._believed(state)
        return mean - self.privileged_norm(privileged), log_std

    def _believed(self, state: RL2State) -> tuple[Float32[Tensor, "N P"], Float32[Tensor, "N P"]]:
        """Mean and log standard deviation of the normalised numbers."""
        return self.network.beliefs(state.memory)

    def read_out(self, state: RL2State) -> Mapping[str, Float32[Tensor, "N D"]]:
        """The beliefs, by the names of the task's parameters."""
        names, sizes = zip(*((part.name, part.size) for part in self.info.privileged), strict=True)
        means, stds = (torch.split(numbers, list(sizes), dim=1) for numbers in self.beliefs(state))
        return dict(zip(names, means, strict=True)) | {f"{k}{BAND}": x for k, x in zip(names, stds, strict=True)}


class EstimatingRL2Policy(BelievingRL2Policy):
    """Says what it believes of its task by a memory of its own, which serves nothing else."""

    def __init__(self, config: RL2Config, info: PolicyInfo) -> None:
        super().__init__(config, info)
        self.estimator = Estimator(memory_of(config, info, "lstm", config.estimator_size), info.privileged_size)

    def initial_state(self, n: int, device: torch.device | str = "cpu") -> RL2State:
        """Two empty memories."""
        empty = torch.zeros(n, self.estimator.cell.state_size, device=device)
        return super().initial_state(n, device)._replace(estimator=empty)

    @torch.no_grad()
    def act(
        self,
        obs: Float32[Tensor, "N O"],
        state: RL2State,
        noise: Float32[Tensor, "N A"],
        deterministic: bool = False,
    ) -> tuple[Float32[Tensor, "N A"], RL2State]:
        """As ever, and take in the observation."""
        action, after = super().act(obs, state, noise, deterministic)
        packed = self._pack()[0]
        output, carried = state.estimator.tensor_split([self.estimator.cell.hidden], dim=1)
        remembered = self._step(_fed(_seen(packed, obs), state, output), carried)
        return action, after._replace(estimator=torch.cat(remembered, dim=1))

    def _acting(self) -> list[Tensor]:
        return [*super()._acting(), *self.estimator.cell.parameters()]  # type: ignore[attr-defined]

    def _layout(self) -> Packed:
        self._step = self.estimator.cell.acting()
        return super()._layout()

    def _believed(self, state: RL2State) -> tuple[Float32[Tensor, "N P"], Float32[Tensor, "N P"]]:
        return self.estimator.beliefs(state.estimator[:, : self.estimator.cell.hidden])


def _look(packed: Packed, obs: Float32[Tensor, "N O"], state: RL2State) -> tuple[Tensor, Tensor, Tensor]:
    """What the heads see, and memory and cell after taking in `obs`."""
    seen = _seen(packed, obs)
    memory, cell = packed.remember(_fed(seen, state, state.memory), state.cell)
    return torch.cat((memory, seen), dim=1), memory, cell


def _seen(packed: Packed, obs: Float32[Tensor, "N O"]) -> Float32[Tensor, "N O"]:
    """Observations normalised."""
    mean, scale = packed.norm
    return (obs - mean).mul_(scale).clamp_(-CLIP, CLIP)


def _fed(seen: Float32[Tensor, "N O"], state: RL2State, output: Float32[Tensor, "N H"]) -> Float32[Tensor, "N IH"]:
    """What a step of a memory is fed: the inputs, and its own output before."""
    return torch.cat((seen, state.last_action, state.last_reward[:, None], state.episode_start[:, None], output), dim=1)


def memory_of(config: RL2Config, info: PolicyInfo, kind: str, hidden: int) -> Cell:
    """A fresh memory for a robot, of a kind of `RL2Config.cell`."""
    inputs = info.observation_size + info.action_size + 2
    cell: Cell
    match kind:
        case "gru":
            cell = Gru(inputs, hidden)
        case "lstm":
            cell = Lstm(inputs, hidden)
        case "lru":
            cell = Lru(inputs, hidden)
        case "transformer":
            cell = Transformer(inputs, hidden, config.window or info.trial_steps)
        case "memory":
            cell = ExternalMemory(inputs, hidden)
    return Cut(cell, whole_steps(config, info)) if config.memory_steps else cell


def whole_steps(config: RL2Config, info: PolicyInfo) -> int:
    """Control steps that no segment, trial or emptying of the memory cuts: what chunks are parts of."""
    steps = segment_length(info.trial_steps, config.segment_steps)
    return chunk_length(steps, config.memory_steps) if config.memory_steps else steps


def policy_inputs(
    obs: Float[Tensor, "*B O"],
    action: Float[Tensor, "*B A"],
    reward: Float[Tensor, "*B"],
    start: Float[Tensor, "*B"],
) -> Float[Tensor, "*B I"]:
    """What the memory is fed: observation, previous action, previous reward, episode start."""
    return torch.cat((obs, action, reward[..., None], start[..., None]), dim=-1)
