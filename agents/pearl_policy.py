"""The policies of PEARL: the adaptation state is a product of factors in natural parameters, and the z acted by.

What becomes of the factors is one of two heads: `PosteriorPolicy` draws z from their product, as published;
`PrototypePolicy` (in `pearl_prototypes.py`) snaps to the nearest task met in training.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from metarl.agents.configs import PearlConfig
from metarl.core.info import PolicyInfo
from metarl.core.types import Segment, Transition
from metarl.rl.networks import mlp
from metarl.rl.policy import PolicyModule
from metarl.rl.posterior import factors, kl_to_prior, moments
from metarl.rl.replay import TaskReplay
from metarl.rl.sac import split_head
from metarl.rl.state import any_of


class PearlState(NamedTuple):
    """What the policy knows of the task: sums over the trial's transitions, and the z of the running episode."""

    weighted: Float[Tensor, "N Z"]
    """Σ μ/σ² of the factors."""
    precision: Float[Tensor, "N Z"]
    """Σ 1/σ² of the factors."""
    z: Float[Tensor, "N Z"]
    """Drawn once per episode."""
    episode: Int64[Tensor, "N"]
    """Number of the running episode, from 0."""
    fresh: Bool[Tensor, "N"]
    """The episode has no z yet: `act` is to draw it."""


class PearlPolicy(PolicyModule, ABC):
    """Encoder and actor. The first `prior_episodes` of a trial explore with z of the prior; later ones adapt."""

    outputs_per_dimension: ClassVar[int]
    """Numbers the encoder gives for each dimension of z."""
    separable: ClassVar[bool] = False
    """The losses of several tasks are the mean of those of each, so that they can be computed apart."""
    loss_name: ClassVar[str]
    """Name of the second value of `learn` in the metrics."""

    def __init__(self, config: PearlConfig, info: PolicyInfo) -> None:
        super().__init__(info)
        self.config = config
        obs_size, action_size, latent = info.observation_size, info.action_size, config.latent_size
        self.noise_size = action_size + latent
        self.context_width = obs_size + action_size + 1 + config.use_next_obs_in_context * obs_size
        outputs = self.outputs_per_dimension * latent
        self.encoder = mlp(self.context_width, config.encoder_size, config.encoder_layers, outputs)
        self.actor = mlp(obs_size + latent, config.hidden_size, config.hidden_layers, 2 * action_size)

    # --------------------------------------------------------------------------------------------- what a head defines

    @abstractmethod
    def factors(self, context: Float[Tensor, "*B I"]) -> tuple[Float[Tensor, "*B Z"], Float[Tensor, "*B Z"]]:
        """Natural parameters (μ/σ², 1/σ²) of each transition's factor."""

    @abstractmethod
    def draw_prior(self, noise: Float32[Tensor, "N Z"]) -> Float[Tensor, "N Z"]:
        """A z for each world that knows nothing."""

    @abstractmethod
    def draw(
        self, weighted: Float[Tensor, "N Z"], precision: Float[Tensor, "N Z"], prior: Float[Tensor, "N Z"]
    ) -> Float[Tensor, "N Z"]:
        """A z given the factors' sums; all randomness comes from a draw of the prior."""

    @abstractmethod
    def place(self, weighted: Float[Tensor, "*B Z"], precision: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B Z"]:
        """Return where factors put their task in the space of z, by which tasks are identified."""

    @abstractmethod
    def landmarks(self, context: TaskReplay) -> tuple[Int64[Tensor, "P"], Float32[Tensor, "P Z"]]:
        """The slots whose tasks are known, and the places of these tasks."""

    @abstractmethod
    def draw_for(
        self, slots: Int64[Tensor, "*K M"], context: Float32[Tensor, "*K M C W"], replay: TaskReplay, g: torch.Generator
    ) -> Float32[Tensor, "..."]:
        """What `learn` takes that is drawn by chance; `replay` holds all trials."""

    @abstractmethod
    def learn(
        self, slots: Int64[Tensor, "M"], context: Float32[Tensor, "M C I"], drawn: Float32[Tensor, "..."]
    ) -> tuple[Float32[Tensor, "M Z"], Float32[Tensor, ""]]:
        """A z of each task for actor and critics, and what else the encoder is to descend.

        `context` is of the prior episodes of each task's last trial.
        """

    @property
    @abstractmethod
    def loss_weight(self) -> float:
        """Weight of the loss that `learn` returns, beside the critics'."""

    def forget(self, slots: Int64[Tensor, "n"]) -> None:
        """Other tasks take these slots."""

    # ------------------------------------------------------------------------------------------------- what they share

    def initial_state(self, n: int, device: torch.device | str = "cpu") -> PearlState:
        """No context yet, and a z to be drawn."""
        zeros = torch.zeros(n, self.config.latent_size, device=device, dtype=self._dtype)
        episode = torch.zeros(n, dtype=torch.long, device=device)
        return PearlState(zeros, zeros, zeros, episode, torch.ones(n, dtype=torch.bool, device=device))

    @property
    def _dtype(self) -> torch.dtype:
        """Of weights and state."""
        return next(self.encoder.parameters()).dtype

    def fixed(self) -> PearlPolicy:
        """Itself in float64: see `PolicyModule.fixed`.

        A factor's precision is the exponential of what the encoder says, there are as many factors as steps, and the
        networks are shown observations as they are: in float32 the sums would hold four digits that two machines agree
        on, the action five.
        """
        return copy.deepcopy(self).double()

    @torch.no_grad()
    def act(
        self,
        obs: Float32[Tensor, "N O"],
        state: PearlState,
        noise: Float32[Tensor, "N A2"],
        deterministic: bool = False,
    ) -> tuple[Float32[Tensor, "N A"], PearlState]:
        """Sample the squashed Gaussian, or take tanh of its mean; at an episode's first step draw z.

        That is of the prior while exploring, then of the context.
        """
        size = self.info.action_size
        if any_of(state.fresh):
            prior = self.draw_prior(noise[:, size:])
            drawn = self.draw(state.weighted, state.precision, prior)
            drawn = torch.where(self.exploring(state)[:, None], prior, drawn)
            z = torch.where(state.fresh[:, None], drawn.to(self._dtype), state.z)
            state = state._replace(z=z, fresh=torch.zeros_like(state.fresh))
        mean, log_std = split_head(self.actor(torch.cat((obs.to(self._dtype), state.z), dim=-1)))
        if not deterministic:
            mean = mean + log_std.exp() * noise[:, :size]
        return torch.tanh(mean).float(), state

    @torch.no_grad()
    def observe(self, state: PearlState, transition: Transition) -> PearlState:
        """Multiply the transition's factor into the product, if it is finite; z stays until the episode ends."""
        sums = self.factors(self._context(transition).to(self._dtype))
        weighted, precision = (torch.nan_to_num(part, 0.0, 0.0, 0.0) for part in sums)
        return state._replace(weighted=state.weighted + weighted, precision=state.precision + precision)

    def end_episode(self, state: PearlState, worlds: Bool[Tensor, "N"]) -> PearlState:
        """A new z is to be drawn where an episode ended."""
        return state._replace(episode=state.episode + worlds.long(), fresh=state.fresh | worlds)

    def exploring(self, state: PearlState) -> Bool[Tensor, "N"]:
        """Worlds whose z is of the prior."""
        return state.episode < self.config.prior_episodes

    def read_out(self, state: PearlState) -> Mapping[str, Float32[Tensor, "N Z"]]:
        """Return where the trial so far places the task."""
        return {"belief": self.place(state.weighted, state.precision).float()}

    @torch.no_grad()
    def explored(self, segment: Segment) -> Float32[Tensor, "N Z"]:
        """The place of each world's task by its prior episodes alone: what its first adapted z was drawn from."""
        prior = segment.extras["prior"][..., None]
        weighted, precision = self.factors(self._context(segment))
        return self.place((weighted * prior).sum(dim=0), (precision * prior).sum(dim=0))

    def _context(self, taken: Transition | Segment) -> Float32[Tensor, "*B I"]:
        """Return what the encoder sees of each transition."""
        row = [taken.obs, taken.action, taken.reward[..., None]]
        if self.config.use_next_obs_in_context:
            row.append(taken.final_obs)
        return torch.cat(row, dim=-1)


class PosteriorPolicy(PearlPolicy):
    """Draws z from a Gaussian posterior, whose prior is N(0, 1); the critics' loss and the KL train the encoder."""

    outputs_per_dimension = 2
    loss_name = "kl"
    separable = True
    replayable = True

    def read_out(self, state: PearlState) -> Mapping[str, Float32[Tensor, "N Z"]]:
        """The posterior over z, of all the trial so far."""
        mean, variance = moments(state.weighted, state.precision)
        return {"posterior mean": mean.float(), "posterior std": variance.sqrt().float()}

    def factors(self, context: Float[Tensor, "*B I"]) -> tuple[Float[Tensor, "*B Z"], Float[Tensor, "*B Z"]]:
        """The encoder's Gaussian of each transition."""
        return factors(self.encoder(context))

    def draw_prior(self, noise: Float32[Tensor, "N Z"]) -> Float[Tensor, "N Z"]:
        """N(0, 1)."""
        return noise

    def draw(
        self, weighted: Float[Tensor, "N Z"], precision: Float[Tensor, "N Z"], prior: Float[Tensor, "N Z"]
    ) -> Float[Tensor, "N Z"]:
        """Draw z of q(z|c): the prior's draw, scaled and shifted."""
        mean, variance = moments(weighted, precision)
        return mean + variance.sqrt() * prior

    def place(self, weighted: Float[Tensor, "*B Z"], precision: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B Z"]:
        """The posterior's mean."""
        return moments(weighted, precision)[0]

    def landmarks(self, context: TaskReplay) -> tuple[Int64[Tensor, "P"], Float32[Tensor, "P Z"]]:
        """Posterior means of all the context there is of each task: the prior episodes of its last trial."""
        slots = context.size.nonzero()[:, 0]
        held = (context.rows[slot, : context.size[slot], : self.context_width] for slot in slots)
        means = [self.infer(rows[None])[0] for rows in held]
        return slots, torch.cat(means) if means else context.rows.new_empty(0, self.config.latent_size)

    def draw_for(
        self, slots: Int64[Tensor, "*K M"], context: Float32[Tensor, "*K M C W"], replay: TaskReplay, g: torch.Generator
    ) -> Float32[Tensor, "*K M Z"]:
        """Standard normal noise."""
        return torch.randn(*slots.shape, self.config.latent_size, generator=g, device=slots.device)

    def learn(
        self, slots: Int64[Tensor, "M"], context: Float32[Tensor, "M C I"], drawn: Float32[Tensor, "M Z"]
    ) -> tuple[Float32[Tensor, "M Z"], Float32[Tensor, ""]]:
        """A draw of q(z|c) with the gradient through it, and the mean KL to the prior."""
        mean, variance = self.infer(context)
        return mean + variance.sqrt() * drawn, kl_to_prior(mean, variance).mean()

    @property
    def loss_weight(self) -> float:
        """`kl_weight`."""
        return self.config.kl_weight

    def infer(self, context: Float[Tensor, "M C I"]) -> tuple[Float[Tensor, "M Z"], Float[Tensor, "M Z"]]:
        """Mean and variance of the posterior of M tasks, from C transitions of each."""
        weighted, precision = self.factors(context)
        return moments(weighted.sum(dim=1), precision.sum(dim=1))
