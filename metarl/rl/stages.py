"""From what a policy did to what it adapts from: episodes of M tasks as a `Stage`, with advantages."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from metarl.rl import baseline
from metarl.rl.inner_loop import Stage
from metarl.rl.returns import gae


def episode_index(ended: Bool[Tensor, "T N"]) -> tuple[Int64[Tensor, "T N"], Int64[Tensor, "T N"]]:
    """Number of each step's episode, and the steps since that began; both count from 0."""
    before = ended.roll(1, dims=0)
    before[0] = False
    episode = before.long().cumsum(0)
    step = torch.arange(len(ended), device=ended.device)[:, None].expand_as(ended)
    begin = torch.where(before, step, 0).cummax(0).values
    return episode, step - begin


def times_adapted(ended: Bool[Tensor, "T N"], least_steps: int) -> Int64[Tensor, "T N"]:
    """How often each world has adapted ahead of each step.

    It does so where an episode ends with which it has played `least_steps` or more since the last time.
    """
    number, played = (torch.zeros_like(ended[0], dtype=torch.long) for _ in range(2))
    times = torch.empty_like(ended, dtype=torch.long)
    for t in range(len(ended)):
        times[t] = number
        played = played + 1
        due = ended[t] & (played >= least_steps)
        number, played = number + due, played.masked_fill(due, 0)
    return times


def make_stage(
    obs: Float[Tensor, "T N O"],
    action: Float[Tensor, "T N A"],
    log_prob: Float[Tensor, "T N"],
    reward: Float[Tensor, "T N"],
    ended: Bool[Tensor, "T N"],
    valid: Bool[Tensor, "T N"],
    discount: float,
    gae_lambda: float,
) -> Stage:
    """A stage of N tasks from the steps that are `valid`: whole episodes, in one stretch per task.

    The baseline is fitted to each task's own steps, and the value after an episode's last one is zero, be that a fall
    or the time limit: the objective of this lineage is the return of an episode of known length, and the time is
    among the baseline's features. Advantages are normalised within the task.
    """
    episode, age = episode_index(ended)
    episodes = _Episodes(episode, age, valid)
    rewards, discounts = episodes.pack(reward), episodes.pack(discount * (~ended).to(reward.dtype))
    zeros = torch.zeros_like(rewards)
    returns = episodes.unpack(gae(rewards, discounts, zeros, zeros, 1.0))

    weight = valid.to(reward.dtype).T
    weight = weight / weight.sum(dim=1, keepdim=True)
    inputs = baseline.features(obs.transpose(0, 1), age.T)
    coefficients = baseline.fit(inputs, returns.T, valid.to(reward.dtype).T)
    value = (inputs @ coefficients[..., None])[..., 0].T * valid
    values = episodes.pack(value)
    following = torch.cat((values[1:], zeros[:1]))
    advantage = episodes.unpack(gae(rewards, discounts, values, following, gae_lambda)).T
    mean = (weight * advantage).sum(dim=1, keepdim=True)
    spread = (weight * (advantage - mean).square()).sum(dim=1, keepdim=True).sqrt()
    normalised = torch.where(valid.T, (advantage - mean) / (spread + 1e-8), 0.0)
    return Stage(
        obs.transpose(0, 1).contiguous(),
        action.transpose(0, 1).contiguous(),
        log_prob.T.contiguous(),
        normalised.contiguous(),
        weight.contiguous(),
    )


class _Episodes:
    """Lays steps out by episode, (age, world and episode): a recursion over time is then as long as one episode."""

    def __init__(self, episode: Tensor, age: Tensor, valid: Tensor) -> None:
        self._valid = valid
        num_worlds, most = episode.shape[1], int(episode.max()) + 1
        world = torch.arange(num_worlds, device=episode.device).expand_as(episode)
        self._shape = (int(age.max()) + 1, num_worlds * most)
        self._place = age * self._shape[1] + world * most + episode

    def pack(self, x: Float[Tensor, "T N"]) -> Float[Tensor, "H E"]:
        """Valid steps at their places, zeros elsewhere."""
        packed = x.new_zeros(self._shape)
        packed.view(-1)[self._place.reshape(-1)] = torch.where(self._valid, x, 0.0).reshape(-1)
        return packed

    def unpack(self, packed: Float[Tensor, "H E"]) -> Float[Tensor, "T N"]:
        """Inverse of `pack`; zeros where steps are not valid."""
        return torch.where(self._valid, packed.reshape(-1)[self._place], 0.0)
