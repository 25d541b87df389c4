"""PPO for policies with a memory (Schulman et al. 2017, arXiv:1707.06347): on chunks of sequences, across episode ends.

A segment of N worlds is cut into `Chunks`, which start from the memory that was theirs when they were collected. `PPO`
takes its gradient steps on minibatches of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Float32, Shaped
from torch import Tensor, nn

from metarl.core.graphs import Replay, looks
from metarl.core.info import Mirror
from metarl.core.seeding import on_device
from metarl.core.types import Metrics, Segment
from metarl.rl.adam import Adam
from metarl.rl.finite import Guard
from metarl.rl.networks import LOG_STD_MAX, LOG_STD_MIN
from metarl.rl.objectives import approximate_kl, clipped_surrogate, gaussian_entropy, gaussian_log_prob, noise_log_prob
from metarl.rl.parallel import ShardedGradient, Shares
from metarl.rl.returns import explained_variance, gae, standardised
from metarl.rl.state import load_optimizer, optimizer_tensors

_SHARDS = 2  # per minibatch; a constant, so that results do not depend on the machine


@dataclass(frozen=True)
class Settings:
    """Hyperparameters; a learner's configuration has fields of the same names."""

    learning_rate: float
    final_learning_rate: float
    num_epochs: int
    minibatch_chunks: int
    discount: float
    gae_lambda: float
    clip: float
    value_weight: float
    entropy_weight: float
    max_grad_norm: float

    @staticmethod
    def of(config: Any) -> Settings:
        """Those of a learner's configuration."""
        return Settings(**{field.name: getattr(config, field.name) for field in fields(Settings)})

    def with_images(self, mirror: Mirror | None) -> Settings:
        """Where there is a mirror, minibatches of a chunk and its image each: as many gradient steps as without."""
        return self if mirror is None else replace(self, minibatch_chunks=2 * self.minibatch_chunks)


@dataclass(frozen=True)
class Chunks:
    """A segment cut into sequences of L steps: S = N · T / L of them."""

    inputs: Float32[Tensor, "L S I"]
    """Inputs of the memory."""
    obs: Float32[Tensor, "L S O"]
    """Normalised observations, which are the input of the network."""
    memory: Float32[Tensor, "S H"]
    """The memory before the first step of each chunk, as it was when the chunk was collected."""
    action: Float32[Tensor, "L S A"]
    log_prob: Float32[Tensor, "L S"]
    advantage: Float32[Tensor, "L S"]
    target: Float32[Tensor, "L S"]
    """Value targets."""
    privileged: Float32[Tensor, "L S P"] | None = None
    """Normalised privileged numbers, for a learner that wants them."""

    def select(self, index: Tensor) -> Chunks:
        """The chunks at `index`."""
        held = _tensors(self)
        return Chunks(**{k: v[index] if k == "memory" else v[:, index] for k, v in held.items()})


def side_by_side(one: Chunks, other: Chunks) -> Chunks:
    """The chunks of both."""
    others = vars(other)
    held = {k: (v, others[k], 0 if k == "memory" else 1) for k, v in vars(one).items() if v is not None}
    return Chunks(**{k: torch.cat((mine, theirs), dim=dim) for k, (mine, theirs, dim) in held.items()})


def chunk_length(num_steps: int, longest: int) -> int:
    """The largest divisor of `num_steps` that is at most `longest`."""
    return max(length for length in range(1, min(longest, num_steps) + 1) if num_steps % length == 0)


def segment_length(trial_steps: int, segment_steps: int) -> int:
    """Control steps between two updates: the trial's largest divisor of at most `segment_steps`.

    All of the trial where that is 0, or the divisor less than half of it.
    """
    found = chunk_length(trial_steps, segment_steps or trial_steps)
    return found if 2 * found >= segment_steps else trial_steps


def cut(x: Shaped[Tensor, "T N *F"], length: int) -> Shaped[Tensor, "L S *F"]:
    """A segment's tensor in chunks of `length` steps, which must divide its length."""
    return x.reshape(-1, length, *x.shape[1:]).transpose(0, 1).flatten(1, 2).contiguous()


def advantages(
    reward: Float[Tensor, "T N"],
    terminated: Bool[Tensor, "T N"],
    trial_end: Bool[Tensor, "T N"],
    value: Float[Tensor, "T N"],
    next_value: Float[Tensor, "T N"],
    discount: float,
    gae_lambda: float,
) -> Float[Tensor, "T N"]:
    """GAE over trials: falls and time limits of episodes cut nothing, since the trial goes on after them.

    Where a trial ends, `next_value` is that of going on from where it ended, unless by a fall, and the trace is cut; at
    the segment's end, too, the next value stands for all that is to come.
    """
    last = discount * (~terminated).to(reward.dtype) * next_value
    earned = torch.where(trial_end, reward + last, reward)
    rates = discount * (~trial_end).to(reward.dtype)
    return gae(earned, rates, value, next_value, gae_lambda)


def ppo_loss(
    mean: Float[Tensor, "L S A"], log_std: Float[Tensor, "A"], value: Float[Tensor, "L S"], data: Chunks, by: Settings
) -> tuple[Float[Tensor, ""], Float[Tensor, "3"]]:
    """PPO's loss on chunks, and (policy loss, value loss, KL)."""
    log_prob = gaussian_log_prob(mean, log_std, data.action)
    policy_loss = clipped_surrogate(log_prob, data.log_prob, data.advantage, by.clip)
    value_loss = (value - data.target).square().mean()
    loss = policy_loss + by.value_weight * value_loss - by.entropy_weight * gaussian_entropy(log_std)
    kl = approximate_kl(log_prob.detach(), data.log_prob)
    return loss, torch.stack((policy_loss, value_loss, kl)).detach()


def _tensors(chunks: Chunks | None) -> dict[str, Tensor]:
    """Those that there are, by name."""
    return {} if chunks is None else {k: v for k, v in vars(chunks).items() if v is not None}


class _Minibatch:
    """A gradient step on so many chunks, that are named in the same place each time, captured as a graph."""

    def __init__(self, step: Callable[[Tensor], Tensor | None], minibatch: Tensor) -> None:
        self._step, self._index = step, minibatch.clone()
        self._record = torch.zeros(4, device=minibatch.device)
        self._replay = Replay(self._work, minibatch.device, "PPO's gradient step")

    def __call__(self, minibatch: Tensor) -> Float[Tensor, "4"]:
        """Take it; its diagnostics."""
        self._index.copy_(minibatch)
        self._replay()
        return self._record.clone()

    def _work(self) -> None:
        record = self._step(self._index)
        assert record is not None
        self._record.copy_(record)


def _means(records: list[Tensor]) -> list[float]:
    """Of the records that are finite; zeros where there is none."""
    if not records:
        return [0.0] * 4
    rows = torch.stack(records)
    if looks(rows.device):  # which leaves out the others before
        return rows.mean(dim=0).tolist()
    sound = rows.isfinite().all(dim=1, keepdim=True)
    return (torch.where(sound, rows, 0.0).sum(dim=0) / sound.sum().clamp(min=1)).tolist()


class PPO:
    """The gradient steps on a segment's chunks, with their optimiser."""

    def __init__(
        self,
        module: nn.Module,
        raw_log_std: nn.Parameter,
        evaluate: Callable[[Chunks], tuple[Tensor, Tensor, Tensor | None]],
        settings: Settings,
    ) -> None:
        """`evaluate` gives, by the parameters of `module`, mean actions (L, S, A), values (L, S), and a loss to add."""
        self.settings = settings
        self._evaluate, self._raw_log_std = evaluate, raw_log_std
        self._names = [name for name, _ in module.named_parameters()]
        self._parameters = list(module.parameters())
        self._device = self._parameters[0].device
        self._optimizer = Adam(self._parameters, lr=settings.learning_rate, eps=1e-5)
        # On a GPU its rate and the data lie in one place, and steps are replayed: one for each size of minibatches.
        self._rate = torch.zeros((), device=self._device)
        self._held: Chunks | None = None
        self._steps: dict[int, _Minibatch] = {}
        self._gradient = ShardedGradient(_SHARDS)
        self._guard = Guard()

    def share(self, shares: Shares) -> None:
        """Compute this process's pieces of each minibatch's gradient alone."""
        self._gradient.share(shares)

    def update(self, chunks: Chunks, generator: torch.Generator, progress: float) -> Metrics:
        """`num_epochs` passes over the chunks, a gradient step per minibatch; `Diverged` where too few are finite."""
        by = self.settings
        rate = by.learning_rate + progress * (by.final_learning_rate - by.learning_rate)
        for group in self._optimizer.param_groups:
            group["lr"] = rate if looks(self._device) else self._rate.fill_(rate)
        records, device = [], chunks.memory.device
        generator = on_device(generator, device)
        take = partial(self.step, chunks) if looks(device) else partial(self._replayed, self._hold(chunks))
        for _ in range(by.num_epochs):
            order = torch.randperm(len(chunks.memory), generator=generator, device=device)
            for minibatch in torch.split(order, by.minibatch_chunks):
                record = take(minibatch)
                if record is not None:
                    records.append(record)
        self._guard.read()
        means = _means(records)
        return {
            **dict(zip(("train/policy_loss", "train/value_loss", "train/kl", "train/grad_norm"), means, strict=True)),
            **self._guard.metrics(),
            "train/learning_rate": rate,
            "train/std": float(self._raw_log_std.detach().exp().mean()),
        }

    def _hold(self, chunks: Chunks) -> Chunks:
        """The chunks, where those of the last update were."""
        new, old = _tensors(chunks), _tensors(self._held)
        if self._held is None or {k: v.shape for k, v in new.items()} != {k: v.shape for k, v in old.items()}:
            self._held, self._steps = Chunks(**{k: v.clone() for k, v in new.items()}), {}
        else:
            torch._foreach_copy_(list(old.values()), list(new.values()))
        return self._held

    def _replayed(self, held: Chunks, minibatch: Tensor) -> Float[Tensor, "4"]:
        """`step` on a GPU."""
        size = len(minibatch)
        if size not in self._steps:
            self._steps[size] = _Minibatch(partial(self.step, held), minibatch)
        return self._steps[size](minibatch)

    @torch.no_grad()
    def chunks(
        self,
        segment: Segment,
        inputs: Float32[Tensor, "T N I"],
        obs: Float32[Tensor, "T N O"],
        value: Float32[Tensor, "T N"],
        next_value: Float32[Tensor, "T N"],
        scale: Float32[Tensor, ""],
        privileged: Float32[Tensor, "T N P"] | None = None,
        memory: Float32[Tensor, "S H"] | None = None,
    ) -> tuple[Chunks, Metrics]:
        """A segment's chunks with their advantages: one for each row of `memory`, or of one step each without.

        `value` is that of each step, `next_value` that after it, and `scale` what rewards are divided by.
        """
        by, log_std = self.settings, self._raw_log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        memory = value.new_empty(value.numel(), 0) if memory is None else memory
        length = value.numel() // len(memory)
        ends = segment.terminated, segment.value_end
        advantage = advantages(segment.reward / scale, *ends, value, next_value, by.discount, by.gae_lambda)
        target = advantage + value
        chunks = Chunks(
            inputs=cut(inputs, length),
            obs=cut(obs, length),
            memory=memory,
            action=cut(segment.action, length),
            log_prob=cut(noise_log_prob(segment.extras["noise"], log_std), length),
            advantage=cut(standardised(advantage), length),
            target=cut(target, length),
            privileged=None if privileged is None else cut(privileged, length),
        )
        explained = explained_variance(value, target)
        return chunks, {"train/explained_variance": explained, "train/return_scale": float(scale)}

    def step(self, chunks: Chunks, minibatch: Tensor) -> Float[Tensor, "4"] | None:
        """One Adam step on the chunks at `minibatch`: its diagnostics, or None where it is not finite and left out.

        On a GPU, which is not waited for, the diagnostics of a step left out are not finite.
        """
        gradients, diagnostics = self._gradient(
            lambda index: self._loss(chunks.select(index)), self._parameters, minibatch
        )
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        watched = (diagnostics, *gradients, *self._parameters)
        if looks(diagnostics.device):
            if not self._guard.passes(*watched):
                return None
        else:
            self._optimizer.found_inf = bad = self._guard.flag(watched)  # type: ignore[attr-defined]
            self._guard.note(bad)
            diagnostics = diagnostics + torch.where(bad > 0, torch.nan, 0.0)
        norm = nn.utils.clip_grad_norm_(self._parameters, self.settings.max_grad_norm)
        self._optimizer.step()
        with torch.no_grad():
            self._raw_log_std.clamp_(LOG_STD_MIN, LOG_STD_MAX)  # else its gradient dies outside
        return torch.cat((diagnostics, norm[None]))

    def _loss(self, chunks: Chunks) -> tuple[Tensor, Tensor]:
        mean, value, added = self._evaluate(chunks)
        log_std = self._raw_log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        loss, diagnostics = ppo_loss(mean, log_std, value, chunks, self.settings)
        return loss if added is None else loss + added, diagnostics

    def state_dict(self) -> dict[str, Tensor]:
        """Adam's moments, by parameter."""
        return optimizer_tensors(self._optimizer, self._names, "adam")

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`; `ValueError` where it does not fit."""
        load_optimizer(self._optimizer, self._names, state, "adam")
        self._held, self._steps = None, {}  # which work on moments of before
