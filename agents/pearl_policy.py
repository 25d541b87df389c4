"""The policy of PEARL: its belief is the posterior over z in natural parameters, and the z it acts by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor, nn

from metarl.agents.configs import PearlConfig
from metarl.rl.networks import mlp
from metarl.rl.posterior import factors, moments
from metarl.rl.sac import split_head
from metarl.types import Transition


@dataclass(frozen=True)
class PearlBelief:
    """What the policy knows of the task: sums over the trial's transitions, and the z of the running episode."""

    weighted: Float32[Tensor, "N Z"]
    """Σ μ/σ² of the factors."""
    precision: Float32[Tensor, "N Z"]
    """Σ 1/σ² of the factors."""
    z: Float32[Tensor, "N Z"]
    """Drawn once per episode."""
    episode: Int64[Tensor, "N"]
    """Number of the running episode, from 0."""
    generator: torch.Generator
    """Source of the trial's z and action noise."""


class PearlPolicy(nn.Module):
    """Encoder and actor. The first `prior_episodes` of a trial explore with z ~ N(0, 1); then z ~ q(z|c)."""

    def __init__(self, config: PearlConfig, obs_size: int, action_size: int) -> None:
        super().__init__()
        self.config = config
        latent = config.latent_size
        inputs = obs_size + action_size + 1 + (obs_size if config.use_next_obs_in_context else 0)
        self.encoder = mlp(inputs, config.encoder_size, config.encoder_layers, 2 * latent)
        self.actor = mlp(obs_size + latent, config.hidden_size, config.hidden_layers, 2 * action_size)

    def begin(self, n: int, generator: torch.Generator) -> PearlBelief:
        """No context yet, and a z of the prior."""
        zeros = torch.zeros(n, self.config.latent_size)
        z = torch.randn(zeros.shape, generator=generator)
        return PearlBelief(zeros, zeros, z, torch.zeros(n, dtype=torch.long), generator)

    @torch.no_grad()
    def act(
        self, obs: Float32[Tensor, "N O"], belief: PearlBelief, deterministic: bool = False
    ) -> tuple[Float32[Tensor, "N A"], PearlBelief, Mapping[str, Tensor]]:
        """Sample the squashed Gaussian, or take tanh of its mean. Records whether z was the prior's, as `prior`."""
        mean, log_std = split_head(self.actor(torch.cat((obs, belief.z), dim=-1)))
        if not deterministic:
            mean = mean + log_std.exp() * torch.randn(mean.shape, generator=belief.generator)
        return torch.tanh(mean), belief, {"prior": belief.episode < self.config.prior_episodes}

    @torch.no_grad()
    def observe(self, belief: PearlBelief, transition: Transition) -> PearlBelief:
        """Multiply the transition's factor into the posterior; z stays until the episode ends."""
        row = [transition.obs, transition.action, transition.reward[:, None]]
        if self.config.use_next_obs_in_context:
            row.append(transition.final_obs)
        weighted, precision = factors(self.encoder(torch.cat(row, dim=-1)))
        return replace(belief, weighted=belief.weighted + weighted, precision=belief.precision + precision)

    def end_episode(self, belief: PearlBelief, worlds: Bool[Tensor, "N"]) -> PearlBelief:
        """A new z where an episode ended: of the prior while exploring, then of the posterior."""
        episode = belief.episode + worlds.long()
        noise = torch.randn(belief.z.shape, generator=belief.generator)
        mean, variance = moments(belief.weighted, belief.precision)
        exploring = (episode < self.config.prior_episodes)[:, None]
        drawn = torch.where(exploring, noise, mean + variance.sqrt() * noise)
        return replace(belief, z=torch.where(worlds[:, None], drawn, belief.z), episode=episode)

    def signal(self, belief: PearlBelief) -> Mapping[str, Float32[Tensor, "N Z"]]:
        """The posterior over z, of all the trial so far."""
        mean, variance = moments(belief.weighted, belief.precision)
        return {"posterior mean": mean, "posterior std": variance.sqrt()}

    def infer(self, context: Float[Tensor, "M C I"]) -> tuple[Float[Tensor, "M Z"], Float[Tensor, "M Z"]]:
        """Mean and variance of the posterior of M tasks, from C transitions of each."""
        weighted, precision = factors(self.encoder(context))
        return moments(weighted.sum(dim=1), precision.sum(dim=1))
