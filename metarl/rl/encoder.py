"""Policies that adapt by an encoder: it takes in each transition of a trial, and the policy acts on what it says."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from metarl.core.info import PolicyInfo
from metarl.core.types import Segment, Transition
from metarl.rl.cells import Gru
from metarl.rl.networks import ActorCritic
from metarl.rl.normalize import RunningNorm
from metarl.rl.policy import PolicyModule

_EMBEDDING = 64


class Encoded(NamedTuple):
    """What the policy knows of the task."""

    memory: Float32[Tensor, "N H"]
    """The encoder's."""


class TransitionEncoder(nn.Module):
    """A memory of a trial's transitions, one after the other."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, _EMBEDDING)
        self.memory = Gru(_EMBEDDING, hidden)

    def step(self, transition: Float[Tensor, "N I"], memory: Float[Tensor, "N H"]) -> Float[Tensor, "N H"]:
        """The memory after a transition."""
        return torch.gru_cell(torch.relu(self.embed(transition)), memory, *self.memory.parameters())

    def memories(self, transitions: Float[Tensor, "T N I"], before: Float[Tensor, "N H"]) -> Float[Tensor, "T1 N H"]:
        """The memory `before` the first of T transitions, and after each."""
        outputs, _ = self.sequence(transitions, before)
        return torch.cat((before[None], outputs))

    def sequence(
        self, transitions: Float[Tensor, "T N I"], before: Float[Tensor, "N H"]
    ) -> tuple[Float[Tensor, "T N H"], Float[Tensor, "N H"]]:
        """The memory after each transition, and after the last."""
        return self.memory.sequence(torch.relu(self.embed(transitions)), before)


class EncodingPolicy(PolicyModule):
    """Acts on the observation and on what it believes of its task."""

    replayable = True
    _feedback = "full"
    """What the encoder is fed beside observations: action and reward, or the `action` alone."""

    def __init__(self, info: PolicyInfo, encoder: TransitionEncoder, network: ActorCritic) -> None:
        super().__init__(info)
        self.encoder, self.network = encoder, network
        self.obs_norm, self.reward_norm = RunningNorm(info.observation_size), RunningNorm()

    def initial_state(self, n: int, device: torch.device | str = "cpu") -> Encoded:
        """No transition yet."""
        return Encoded(torch.zeros(n, self.encoder.memory.hidden, device=device))

    @torch.no_grad()
    def act(
        self, obs: Float32[Tensor, "N O"], state: Encoded, noise: Float32[Tensor, "N A"], deterministic: bool = False
    ) -> tuple[Float32[Tensor, "N A"], Encoded]:
        """Sample the Gaussian policy, or take its mean."""
        return self.network.action(self.features(obs, self.belief(state)), noise, deterministic), state

    @torch.no_grad()
    def observe(self, state: Encoded, transition: Transition) -> Encoded:
        """Take in the transition."""
        return Encoded(self.encoder.step(self.context(transition), state.memory))

    def belief(self, state: Encoded) -> Float32[Tensor, "N Z"]:
        """What the policy is told of its task."""
        raise NotImplementedError

    def features(self, obs: Float[Tensor, "*B O"], belief: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B F"]:
        """What the heads see."""
        return torch.cat((self.obs_norm(obs), belief), dim=-1)

    def context(self, taken: Transition | Segment) -> Float32[Tensor, "*B I"]:
        """What the encoder sees of each transition: 2 O + A + 1 numbers."""
        full = self._feedback == "full"
        reward = self.reward_norm(taken.reward) if full else torch.zeros_like(taken.reward)
        row = (taken.action.clamp(-1.0, 1.0), reward[..., None])
        return torch.cat((self.obs_norm(taken.obs), *row, self.obs_norm(taken.final_obs)), dim=-1)
