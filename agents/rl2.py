"""RL²: fast reinforcement learning via slow reinforcement learning (Duan et al. 2016, arXiv:1611.02779).

A recurrent policy is fed what a learning algorithm would be fed (observation, previous action, previous reward,
episode start), keeps its memory across the episodes of a trial, and is trained by PPO to maximise the return of the
whole trial. Adapting to a new task is then nothing but running it: the adaptation state is the memory.

Where the field's implementations differ or went wrong, this one:
- shows the first step of an episode the last action and reward of the one before (no zeros at a reset);
- discounts across episode ends within a trial, and bootstraps the trial's time limit from `final_obs`;
- normalises the reward input with statistics that stay fixed between collection and update, so that the
  probability ratio is exactly one at the first gradient step;
- trains on chunks that start from the stored memory.

What the simulator knows of the task (the privileged numbers) may help in training, and is not needed for acting: it is
shown to the value head, and predicted from the memory (Humplik et al. 2019, arXiv:1905.06424).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn

from metarl.agents.configs import RL2Config
from metarl.core.errors import UserError
from metarl.core.graphs import capture
from metarl.core.info import PolicyInfo
from metarl.core.types import Metrics, Segment, Transition
from metarl.rl.attention import Transformer
from metarl.rl.cells import Cell, Cut, Gru, Lstm
from metarl.rl.external_memory import ExternalMemory
from metarl.rl.finite import finite_only
from metarl.rl.learner import BaseLearner
from metarl.rl.linear_recurrence import Lru
from metarl.rl.memory import Packed
from metarl.rl.networks import RecurrentActorCritic, seeded
from metarl.rl.normalize import CLIP, RunningNorm
from metarl.rl.objectives import gaussian_nll, noise_log_prob
from metarl.rl.policy import BAND, PolicyModule
from metarl.rl.ppo import PPO, Chunks, Settings, advantages, chunk_length, cut
from metarl.rl.returns import discounted_return, explained_variance, standardised
from metarl.rl.state import load_module, module_tensors


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


class RL2Policy(PolicyModule):
    """The recurrent policy with its normalisers."""

    replayable = True

    def __init__(self, config: RL2Config, info: PolicyInfo) -> None:
        super().__init__(info)
        obs_size, action_size = info.observation_size, info.action_size
        known = info.privileged_size
        self.network = RecurrentActorCritic(
            memory_of(config, info),
            obs_size,
            action_size,
            hyper=config.policy_head == "hyper",
            shown=known * config.privileged_critic,
            believed=known * (config.task_weight > 0),
        )
        nn.init.constant_(self.network.raw_log_std, math.log(config.initial_std))
        self.obs_norm = RunningNorm(obs_size)
        self.reward_norm = RunningNorm()
        if self.network.shown or self.network.believed:
            self.privileged_norm = RunningNorm(known)
        self._watched: list[Tensor] = []
        self._packed: tuple[list[int], Packed, tuple[Tensor, Tensor]] | None = None

    def initial_state(self, n: int, device: torch.device | str = "cpu") -> RL2State:
        """An empty memory."""
        hidden = self.network.hidden
        sizes = ((n, hidden), (n, self.network.state_size - hidden), (n, self.info.action_size), (n,))
        memory, cell, action, reward = (torch.zeros(size, device=device) for size in sizes)
        return RL2State(memory, cell, action, reward, torch.ones(n, device=device))

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
        return action, RL2State(memory, cell, *state[2:])

    @torch.no_grad()
    def observe(self, state: RL2State, transition: Transition) -> RL2State:
        """Remember the action as applied and the reward, for the next step's input."""
        mean, scale = self._pack()[1]
        reward = (transition.reward - mean).mul_(scale).clamp_(-CLIP, CLIP)
        start = torch.zeros_like(reward)
        return RL2State(state.memory, state.cell, transition.action.clamp(-1.0, 1.0), reward, start)

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
            network = self.network
            acting = (*network.memory.parameters(), *network.actor.parameters(), network.raw_log_std)  # type: ignore[attr-defined]
            self._watched = [*acting, self.obs_norm.var, self.reward_norm.var]
        version = [capture(), *(tensor._version for tensor in self._watched)]
        if self._packed is None or self._packed[0] != version:
            self._packed = version, Packed(self.network, self.obs_norm), self.reward_norm.affine()
        return self._packed[1:]

    def _apply(self, *arguments: Any, **words: Any) -> RL2Policy:
        """Moving to another device makes other tensors."""
        self._watched, self._packed = [], None
        super()._apply(*arguments, **words)  # type: ignore[no-untyped-call]
        return self


class BelievingRL2Policy(RL2Policy):
    """Says what it believes of its task, by its memory."""

    @torch.no_grad()
    def beliefs(self, state: RL2State) -> tuple[Float32[Tensor, "N P"], Float32[Tensor, "N P"]]:
        """See `Believing.beliefs`."""
        mean, log_std = self.network.beliefs(state.memory)
        centre, scale = self.privileged_norm.mean.float(), self.privileged_norm.std.float()
        return centre + scale * mean, scale * log_std.exp()

    def read_out(self, state: RL2State) -> Mapping[str, Float32[Tensor, "N D"]]:
        """The beliefs, by the names of the task's parameters."""
        names, sizes = zip(*((part.name, part.size) for part in self.info.privileged), strict=True)
        means, stds = (torch.split(numbers, list(sizes), dim=1) for numbers in self.beliefs(state))
        return dict(zip(names, means, strict=True)) | {f"{k}{BAND}": x for k, x in zip(names, stds, strict=True)}


def _look(packed: Packed, obs: Float32[Tensor, "N O"], state: RL2State) -> tuple[Tensor, Tensor, Tensor]:
    """What the heads see, and memory and cell after taking in `obs`."""
    mean, scale = packed.norm
    seen = (obs - mean).mul_(scale).clamp_(-CLIP, CLIP)
    reward, start = state.last_reward[:, None], state.episode_start[:, None]
    memory, cell = packed.remember(torch.cat((seen, state.last_action, reward, start, state.memory), dim=1), state.cell)
    return torch.cat((memory, seen), dim=1), memory, cell


def memory_of(config: RL2Config, info: PolicyInfo) -> Cell:
    """A fresh memory for a robot."""
    inputs, hidden = info.observation_size + info.action_size + 2, config.hidden_size
    cell: Cell
    match config.cell:
        case "gru":
            cell = Gru(inputs, hidden)
        case "lstm":
            cell = Lstm(inputs, hidden)
        case "lru":
            cell = Lru(inputs, hidden)
        case "transformer":
            cell = Transformer(inputs, hidden, config.window)
        case "memory":
            cell = ExternalMemory(inputs, hidden)
    return Cut(cell, whole_steps(config, info)) if config.memory_steps else cell


def whole_steps(config: RL2Config, info: PolicyInfo) -> int:
    """Control steps that no segment, trial or emptying of the memory cuts: what chunks are parts of."""
    steps = math.gcd(config.segment_steps, info.episode_steps * info.episodes_per_trial)
    return chunk_length(steps, config.memory_steps) if config.memory_steps else steps


def policy_inputs(
    obs: Float[Tensor, "*B O"],
    action: Float[Tensor, "*B A"],
    reward: Float[Tensor, "*B"],
    start: Float[Tensor, "*B"],
) -> Float[Tensor, "*B I"]:
    """What the memory is fed: observation, previous action, previous reward, episode start."""
    return torch.cat((obs, action, reward[..., None], start[..., None]), dim=-1)


class RL2(BaseLearner):
    """PPO over whole trials, or over segments of them, on chunks of sequences."""

    policy: RL2Policy

    def __init__(
        self, config: RL2Config, info: PolicyInfo, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> None:
        self.config = config
        self.segment_steps = config.segment_steps or None
        self.kept_every = {"cell": chunk_length(whole_steps(config, info), config.chunk_steps)}
        self.wants_privileged = config.privileged_critic or config.task_weight > 0
        with seeded(generator):
            kind = BelievingRL2Policy if config.task_weight > 0 else RL2Policy
            self.policy = kind(config, info).to(device)
        self.return_norm = RunningNorm().to(device)
        settings = Settings.of(config)
        trial_steps = info.episode_steps * info.episodes_per_trial
        self._longest = config.chunk_steps
        if not self.policy.network.memory.recorded:  # whole segments are its chunks: as many steps per minibatch
            self._longest = config.segment_steps or trial_steps
            if trial_steps % self._longest:
                raise UserError(
                    f"segment_steps = {config.segment_steps} must divide the trial's {trial_steps} control steps, as "
                    f"the memory of a {config.cell} is kept at the begin of segments only"
                )
            chunks = max(2, config.minibatch_chunks * min(config.chunk_steps, self._longest) // self._longest)
            settings = replace(settings, minibatch_chunks=chunks)
        self._ppo = PPO(self.policy, self.policy.network.raw_log_std, self._evaluate, settings)

    def record(
        self, obs: Tensor, state: RL2State, noise: Tensor, action: Tensor, next_state: RL2State
    ) -> Mapping[str, Tensor]:
        """The noise, of which densities are made, and the memory, or its output alone where that would be too much."""
        kept = {"noise": noise, "memory": next_state.memory}
        return kept | {"cell": next_state.cell} if self.policy.network.memory.recorded else kept

    def update(self, segment: Segment, generator: torch.Generator, progress: float) -> Metrics:
        """`num_epochs` of PPO over the segment."""
        chunks, metrics = self.prepare(segment)
        metrics = finite_only(metrics | self._ppo.update(chunks, generator, progress))
        # The statistics move only now: collection and update saw the same normalisation.
        self.policy.obs_norm.update(segment.obs)
        self.policy.reward_norm.update(segment.reward)
        if segment.privileged is not None:
            self.policy.privileged_norm.update(segment.privileged)
        self.return_norm.update(discounted_return(segment.reward, self.config.discount, segment.trial_start))
        return metrics

    def state_dict(self) -> dict[str, Tensor]:
        """Policy with normalisers, return scale, Adam."""
        norm = module_tensors(self.return_norm, "return_norm")
        return module_tensors(self.policy, "policy") | norm | self._ppo.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
        load_module(self.policy, state, "policy")
        load_module(self.return_norm, state, "return_norm")
        self._ppo.load_state_dict(state)

    @torch.no_grad()
    def prepare(self, segment: Segment) -> tuple[Chunks, Metrics]:
        """Advantages and inputs of the whole segment, cut into chunks."""
        config, network, extras = self.config, self.policy.network, segment.extras
        length = chunk_length(math.gcd(len(segment.reward), whole_steps(config, self.policy.info)), self._longest)
        if bool(segment.trial_start.reshape(-1, length, segment.reward.shape[1])[:, 1:].any()):
            raise ValueError(f"a trial begins within a chunk of {length} steps")
        scale = self.return_norm.std.float()
        obs, inputs = self.inputs(segment)
        known = None if segment.privileged is None else self.policy.privileged_norm(segment.privileged)
        value = network.value(torch.cat((extras["memory"], obs), dim=-1), known)
        ends = segment.terminated, segment.trial_end
        values = value, self._next_value(segment, value, known)
        advantage = advantages(segment.reward / scale, *ends, *values, config.discount, config.gae_lambda)
        target = advantage + value
        chunks = Chunks(
            inputs=cut(inputs, length),
            obs=cut(obs, length),
            memory=self._memory_before(segment, length).flatten(0, 1),
            action=cut(segment.action, length),
            log_prob=cut(noise_log_prob(extras["noise"], network.log_std), length),
            advantage=cut(standardised(advantage), length),
            target=cut(target, length),
            privileged=None if known is None else cut(known, length),
        )
        metrics = {"train/explained_variance": explained_variance(value, target), "train/return_scale": float(scale)}
        if network.believed and known is not None:
            mean, log_std = network.beliefs(extras["memory"])
            metrics["train/task_error"] = float((mean - known).square().mean().sqrt())
            metrics["train/task_std"] = float(log_std.exp().mean())
        return chunks, metrics

    def inputs(self, segment: Segment) -> tuple[Float[Tensor, "T N O"], Float[Tensor, "T N I"]]:
        """Normalised observations and memory inputs, as `act` saw them."""
        first, goes_on = segment.initial_state, (~segment.trial_start).float()
        obs = self.policy.obs_norm(segment.obs)
        action = torch.cat((first.last_action[None], segment.action[:-1].clamp(-1.0, 1.0))) * goes_on[..., None]
        reward = torch.cat((first.last_reward[None], self.policy.reward_norm(segment.reward[:-1]))) * goes_on
        return obs, policy_inputs(obs, action, reward, segment.episode_start.float())

    def _memory_before(self, segment: Segment, stride: int) -> Float[Tensor, "K N H2"]:
        """Output and cell before every `stride`-th step."""
        first, extras, parts = segment.initial_state, segment.extras, []
        if stride == len(segment.reward):
            return torch.cat((first.memory, first.cell), dim=-1)[None]
        for start, after in ((first.memory, extras["memory"]), (first.cell, extras["cell"])):
            rows = stride * len(after) // len(segment.reward)  # per chunk
            parts.append(torch.cat((start[None], after[rows - 1 : -1 : rows])))
        return torch.cat(parts, dim=-1) * (~segment.trial_start[::stride, :, None]).float()

    def _next_value(self, segment: Segment, value: Float[Tensor, "T N"], known: Tensor | None) -> Float[Tensor, "T N"]:
        """Value after each step: the next one's, or of going on from where a trial, or the segment, ended.

        There, privileged numbers that change within a trial are taken as they were a step before.
        """
        policy, after = self.policy, value.roll(-1, dims=0)
        t, n = segment.trial_end.nonzero(as_tuple=True)
        reward = policy.reward_norm(segment.reward[t, n])
        memory = segment.extras["memory"][t, n]
        if policy.network.memory.recorded:
            cells = segment.extras["cell"]
            cell = cells[t * len(cells) // len(segment.reward), n]
        else:
            cell = self._last_cell(segment)[n]
        at_end = RL2State(memory, cell, segment.action[t, n].clamp(-1.0, 1.0), reward, torch.zeros_like(reward))
        after[t, n] = policy.value(segment.final_obs[t, n], at_end, None if known is None else known[t, n])
        if not bool(segment.trial_end[-1].all()):
            going_on = policy.value(segment.next_obs, segment.final_state, None if known is None else known[-1])
            after[-1] = torch.where(segment.trial_end[-1], after[-1], going_on)
        return after

    @torch.no_grad()
    def _last_cell(self, segment: Segment) -> Float[Tensor, "N C"]:
        """What the memory carries after the segment's last step, whose trials' next may have begun."""
        memory = self.policy.network.memory
        state = torch.cat((segment.initial_state.memory, segment.initial_state.cell), dim=-1)
        return memory.sequence(self.inputs(segment)[1], state)[1][:, memory.hidden :]

    def _evaluate(self, chunks: Chunks) -> tuple[Tensor, Tensor, Tensor | None]:
        network = self.policy.network
        mean, value, outputs = network(chunks.inputs, chunks.obs, chunks.memory, chunks.privileged)
        if not network.believed or chunks.privileged is None:
            return mean, value, None
        return mean, value, self.config.task_weight * gaussian_nll(*network.beliefs(outputs), chunks.privileged)
