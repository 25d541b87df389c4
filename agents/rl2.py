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

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from metarl.agents.configs import RL2Config
from metarl.agents.rl2_policy import (
    BelievingRL2Policy,
    EstimatingRL2Policy,
    RL2Policy,
    RL2State,
    policy_inputs,
    whole_steps,
)
from metarl.core.info import Mirror, PolicyInfo
from metarl.core.mirror import reflect
from metarl.core.types import Metrics, Segment
from metarl.rl.estimator import Regression
from metarl.rl.finite import finite_only
from metarl.rl.images import ImageMemory, image_of, mirrored, with_image
from metarl.rl.learner import BaseLearner
from metarl.rl.networks import seeded
from metarl.rl.normalize import RunningNorm
from metarl.rl.objectives import gaussian_nll
from metarl.rl.parallel import Shares
from metarl.rl.ppo import PPO, Chunks, Settings, chunk_length, segment_length, side_by_side
from metarl.rl.returns import discounted_return


class RL2(BaseLearner):
    """PPO over whole trials, or over segments of them, on chunks of sequences."""

    policy: RL2Policy

    def __init__(
        self, config: RL2Config, info: PolicyInfo, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> None:
        self.config = config
        steps = segment_length(info.trial_steps, config.segment_steps)
        self.segment_steps = steps if config.segment_steps else None
        self.kept_every = {"cell": chunk_length(whole_steps(config, info), config.chunk_steps)}
        self.wants_privileged = config.privileged_critic or config.task_weight > 0
        with seeded(generator):
            believing = EstimatingRL2Policy if config.estimator_size and info.privileged_size else BelievingRL2Policy
            kind = believing if config.task_weight > 0 else RL2Policy
            self.policy = kind(config, info).to(device)
        self.return_norm = RunningNorm().to(device)
        self._mirror = info.mirror if config.mirror else None
        self._image_memory = ImageMemory(self.policy.network.memory.state_size)
        settings = Settings.of(config)
        self._longest = config.chunk_steps
        if not self.policy.network.memory.recorded:  # whole segments are its chunks: as many steps per minibatch
            self._longest = steps
            chunks = max(2, config.minibatch_chunks * min(config.chunk_steps, self._longest) // self._longest)
            settings = replace(settings, minibatch_chunks=chunks)
        settings = settings.with_images(self._mirror)
        own = nn.ModuleDict({"network": self.policy.network})
        self._ppo = PPO(own, self.policy.network.raw_log_std, self._evaluate, settings)
        policy = self.policy
        self._regression = Regression(policy.estimator) if isinstance(policy, EstimatingRL2Policy) else None

    def record(
        self, obs: Tensor, state: RL2State, noise: Tensor, action: Tensor, next_state: RL2State
    ) -> Mapping[str, Tensor]:
        """The noise, of which densities are made, and the memory, or its output alone where that would be too much."""
        kept = {"noise": noise, "memory": next_state.memory}
        return kept | {"cell": next_state.cell} if self.policy.network.memory.recorded else kept

    def share(self, shares: Shares) -> None:
        """Minibatches are cut into the pieces."""
        self._ppo.share(shares)

    def update(self, segment: Segment, generator: torch.Generator, progress: float) -> Metrics:
        """`num_epochs` of PPO over the segment."""
        chunks, metrics = self.prepare(segment)
        metrics |= self._ppo.update(chunks, generator, progress)
        if self._regression is not None:
            starts = segment.trial_start[:: len(chunks.action)]
            metrics |= self._regression.update(chunks, starts, bool(segment.trial_end[-1].all()), progress)
        metrics = finite_only(metrics)
        # The statistics move only now: collection and update saw the same normalisation.
        mirror = self._mirror
        self.policy.obs_norm.update(with_image(segment.obs, mirror.observation if mirror else None))
        self.policy.reward_norm.update(segment.reward)
        if segment.privileged is not None:
            self.policy.privileged_norm.update(with_image(segment.privileged, mirror.privileged if mirror else None))
        self.return_norm.update(discounted_return(segment.reward, self.config.discount, segment.trial_start))
        return metrics

    def modules(self) -> Mapping[str, nn.Module]:
        """The policy with its normalisers, and the scale of returns."""
        return {"policy": self.policy, "return_norm": self.return_norm}

    def state_dict(self) -> dict[str, Tensor]:
        """And PPO's Adam, what the memories of mirrored worlds hold, and the estimator's Adam and memory."""
        estimator = self._regression.state_dict() if self._regression else {}
        return super().state_dict() | self._ppo.state_dict() | self._image_memory.state_dict() | estimator

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
        super().load_state_dict(state)
        self._ppo.load_state_dict(state)
        self._image_memory.load_state_dict(state)
        if self._regression:
            self._regression.load_state_dict(state)

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
        memory = self._memory_before(segment, length).flatten(0, 1)
        values = value, self._next_value(segment, value, known)
        chunks, metrics = self._ppo.chunks(segment, inputs, obs, *values, scale, known, memory)
        if self._mirror is not None:
            chunks = side_by_side(chunks, self._image(segment, chunks, length, self._mirror))
        if network.believed and known is not None:
            mean, log_std = network.beliefs(extras["memory"])
            metrics["train/task_error"] = float((mean - known).square().mean().sqrt())
            metrics["train/task_std"] = float(log_std.exp().mean())
        return chunks, metrics

    def _image(self, segment: Segment, chunks: Chunks, length: int, mirror: Mirror) -> Chunks:
        """The chunks of the mirrored segment; its memories are computed by the parameters that collected the other."""
        image, first = mirrored(segment, mirror), segment.initial_state
        first = first._replace(last_action=reflect(first.last_action, mirror.action))
        obs, inputs = self.inputs(replace(image, initial_state=first))
        before = self._image_memory.before(self.policy.network.memory.sequence, inputs, segment, length)
        known = None if image.privileged is None else self.policy.privileged_norm(image.privileged)
        return image_of(chunks, mirror, inputs, obs, known, before)

    def inputs(self, segment: Segment) -> tuple[Float[Tensor, "T N O"], Float[Tensor, "T N I"]]:
        """Normalised observations and memory inputs, as `act` saw them."""
        first, goes_on = segment.initial_state, (~segment.trial_start).float()
        obs = self.policy.obs_norm(segment.obs)
        fed = self.policy.fed(segment.action[:-1].clamp(-1.0, 1.0), self.policy.reward_norm(segment.reward[:-1]))
        action = torch.cat((first.last_action[None], fed[0])) * goes_on[..., None]
        reward = torch.cat((first.last_reward[None], fed[1])) * goes_on
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
            cell = self._last_cell(segment, n)
        fed = policy.fed(segment.action[t, n].clamp(-1.0, 1.0), reward)
        at_end = RL2State(memory, cell, *fed, torch.zeros_like(reward), reward.new_zeros(len(reward), 0))
        after[t, n] = policy.value(segment.final_obs[t, n], at_end, None if known is None else known[t, n])
        if not bool(segment.trial_end[-1].all()):
            going_on = policy.value(segment.next_obs, segment.final_state, None if known is None else known[-1])
            after[-1] = torch.where(segment.trial_end[-1], after[-1], going_on)
        return after

    @torch.no_grad()
    def _last_cell(self, segment: Segment, worlds: Int[Tensor, "K"]) -> Float[Tensor, "K C"]:
        """What the memory of worlds carries after the segment's last step, whose trials' next may have begun."""
        memory, first = self.policy.network.memory, segment.initial_state
        cell: Tensor = first.cell[worlds]
        if not len(worlds):
            return cell
        state = torch.cat((first.memory[worlds], cell), dim=-1)
        return memory.sequence(self.inputs(segment)[1][:, worlds], state)[1][:, memory.hidden :]

    def _evaluate(self, chunks: Chunks) -> tuple[Tensor, Tensor, Tensor | None]:
        network = self.policy.network
        mean, value, outputs = network(chunks.inputs, chunks.obs, chunks.memory, chunks.privileged)
        if not network.believed or chunks.privileged is None:
            return mean, value, None
        return mean, value, self.config.task_weight * gaussian_nll(*network.beliefs(outputs), chunks.privileged)
