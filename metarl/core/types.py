"""The values that flow between environments, policies and learners. Letters: T time, N worlds, O obs, A action."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from metarl.core.renamed import old_names

Metrics = dict[str, float]
"""Scalars of one training iteration, by name (`group/name`)."""
Trial = Literal["steps", "episodes", "falls"]
"""What a trial is worth. It lasts K × `episode_steps` control steps either way, and a robot that falls begins its next
episode at once. `steps`: all rewards count, so that a fall costs little. `episodes`: those of K episodes do, so that a
fall forfeits the rest of its episode; after a fall that ends the K-th one, another K episodes are played. `falls`: no
reward after a fall counts for what was done before it, as if the trial were over."""


@dataclass(frozen=True)
class Step:
    """What one control step of all worlds returns."""

    obs: Float32[Tensor, "N O"]
    """Observation to act on next: the next episode's first one where an episode ended (same-step reset)."""
    final_obs: Float32[Tensor, "N O"]
    """Observation this step led to, before any reset; equals `obs` where the episode goes on."""
    reward: Float32[Tensor, "N"]
    """Reward of the step: the sum of `reward_terms`."""
    reward_terms: Mapping[str, Float[Tensor, "N"]]
    """The named parts of the reward."""
    terminated: Bool[Tensor, "N"]
    """The episode ended by its own rules (a fall) or by divergence of the physics."""
    truncated: Bool[Tensor, "N"]
    """The episode ended by its time limit; bootstrap from `final_obs`."""
    diverged: Bool[Tensor, "N"]
    """The physics went bad in this step (also `terminated`)."""
    episode_start: Bool[Tensor, "N"]
    """`obs` is the first observation of an episode."""
    trial_start: Bool[Tensor, "N"]
    """The trial is over: `obs` is the first of the next one where its task was queued, else call `begin`."""
    lost: Bool[Tensor, "N"]
    """No reward after this fall counts for what was done before it, although the robot goes on: see `Trial`."""

    @property
    def ended(self) -> Bool[Tensor, "N"]:
        """The episode ended in this step, for whatever reason."""
        return self.terminated | self.truncated

    def to(self, device: torch.device) -> Step:
        """The same on another device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        terms = {name: value.to(device) for name, value in self.reward_terms.items()}
        return Step(**vars(self) | moved | {"reward_terms": terms})


@dataclass(frozen=True)
class Transition:
    """What a policy may learn from after acting."""

    obs: Float32[Tensor, "N O"]
    action: Float32[Tensor, "N A"]
    reward: Float32[Tensor, "N"]
    final_obs: Float32[Tensor, "N O"]
    terminated: Bool[Tensor, "N"]


@dataclass(frozen=True)
class Segment:
    """What N worlds did in T control steps, time-major: a whole trial each, or a part of it.

    Step t acts on `obs[t]` and leads to `final_obs[t]`.
    """

    obs: Float32[Tensor, "T N O"]
    final_obs: Float32[Tensor, "T N O"]
    action: Float32[Tensor, "T N A"]
    reward: Float32[Tensor, "T N"]
    terminated: Bool[Tensor, "T N"]
    truncated: Bool[Tensor, "T N"]
    diverged: Bool[Tensor, "T N"]
    episode_start: Bool[Tensor, "T N"]
    """`obs[t]` is the first observation of an episode."""
    trial_start: Bool[Tensor, "T N"]
    """`obs[t]` is the first observation of a trial."""
    trial_end: Bool[Tensor, "T N"]
    """The trial ended with the step."""
    next_obs: Float32[Tensor, "N O"]
    """What the next segment would act on first."""
    task_number: Int64[Tensor, "T N"]
    """Which task each world ran: its place in the run's fixed list, or a number that no other task of the run has."""
    extras: Mapping[str, Tensor]
    """What the learner wanted recorded of each step, shape (T, N, ...)."""
    initial_state: Any
    """The policy's adaptation state before the first step."""
    final_state: Any
    """And the one to go on from; where the trial is over and no other follows, as if its last episode went on."""
    privileged: Float32[Tensor, "T N P"] | None = None
    """`TrialEnv.privileged` when `obs[t]` was acted on, for a learner that wants it."""
    lost: Bool[Tensor, "T N"] | None = None
    """A fall in the step after which nothing counts; None where no fall is one."""

    @property
    def value_end(self) -> Bool[Tensor, "T N"]:
        """No later reward counts for what was done: the trial ended with the step, or in effect by a fall."""
        return self.trial_end if self.lost is None else self.trial_end | self.lost

    @property
    def ended(self) -> Bool[Tensor, "T N"]:
        """An episode ended in the step."""
        return self.terminated | self.truncated

    def episode_returns(self, num_episodes: int) -> Float64[Tensor, "N K"]:
        """Undiscounted return of the first `num_episodes` episodes of each world."""
        return episode_returns(self.reward, self.episode_start, num_episodes)


def episode_returns(
    reward: Float32[Tensor, "T N"], episode_start: Bool[Tensor, "T N"], num_episodes: int
) -> Float64[Tensor, "N K"]:
    """Undiscounted return of the first `num_episodes` episodes of each world; the first one begins at step 0."""
    number = (episode_start.long().cumsum(0) - 1).clamp(max=num_episodes)
    returns = reward.new_zeros(num_episodes + 1, reward.shape[1]).double()
    returns.scatter_add_(0, number, reward.double())
    return returns[:num_episodes].T.contiguous()


__getattr__ = old_names(__name__)
