"""VariBAD: a posterior over tasks by a recurrent encoder, and a policy that is told it (Zintgraf et al. 2020).

Variational Bayes-adaptive deep RL (arXiv:1910.08348). The encoder takes in each transition of a trial and says what it
believes of the task, q(m) = N(μ, σ²); it is trained to predict the rewards and states of the whole trial, past and
future, and by nothing else. The policy is trained by PPO on [observation, μ, log σ]: it knows what it does not know,
and may act to find out.

Differs from the published program in that the encoder sees whole transitions, since observations jump where an episode
ends, and in that it learns from the trials just collected: there is no buffer of earlier ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from metarl.agents.configs import VariBadConfig
from metarl.core.info import PolicyInfo
from metarl.core.seeding import on_device
from metarl.core.types import Metrics, Segment
from metarl.rl.adam import Adam
from metarl.rl.elbo import kl_to_previous, negative_elbo
from metarl.rl.encoder import Encoded, EncodingPolicy, TransitionEncoder
from metarl.rl.finite import Guard, finite_only
from metarl.rl.learner import BaseLearner
from metarl.rl.networks import ActorCritic, mlp, seeded
from metarl.rl.normalize import RunningNorm
from metarl.rl.parallel import ShardedGradient, Shares
from metarl.rl.policy import BAND
from metarl.rl.ppo import PPO, Chunks, Settings
from metarl.rl.returns import discounted_return

Drawn = tuple[Int64[Tensor, "E"], Int64[Tensor, "D"], Float32[Tensor, "E n Z"]]
"""Beliefs, steps, and noise."""
_BELIEF_LOG_STD = (-5.0, 2.0)


class Encoder(TransitionEncoder):
    """From a trial's transitions to what is believed of its task after each."""

    def __init__(self, inputs: int, hidden: int, latent: int) -> None:
        super().__init__(inputs, hidden)
        self.posterior = nn.Linear(hidden, 2 * latent)

    def forward(self, transitions: Float[Tensor, "T N I"]) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation (T + 1, N, Z): at a trial's begin, and after each transition."""
        nothing = transitions.new_zeros(transitions.shape[1], self.memory.hidden)
        return self.believed(self.memories(transitions, nothing))

    def believed(self, memory: Float[Tensor, "*B H"]) -> tuple[Float[Tensor, "*B Z"], Float[Tensor, "*B Z"]]:
        """Mean and log standard deviation of the posterior."""
        mean, log_std = self.posterior(memory).chunk(2, dim=-1)
        return mean, log_std.clamp(*_BELIEF_LOG_STD)


class VariBadPolicy(EncodingPolicy):
    """Acts on the observation and on mean and log standard deviation of the posterior."""

    encoder: Encoder

    def __init__(self, config: VariBadConfig, info: PolicyInfo) -> None:
        obs_size, action_size, latent = info.observation_size, info.action_size, config.latent_size
        encoder = Encoder(2 * obs_size + action_size + 1, config.encoder_size, latent)
        network = ActorCritic(obs_size + 2 * latent, config.hidden_size, action_size, config.initial_std)
        super().__init__(info, encoder, network)
        self.belief_norm = RunningNorm(2 * latent)

    def belief(self, state: Encoded) -> Float32[Tensor, "N Z2"]:
        """Mean and log standard deviation of the posterior."""
        return torch.cat(self.encoder.believed(state.memory), dim=-1)

    @torch.no_grad()
    def read_out(self, state: Encoded) -> Mapping[str, Float32[Tensor, "N Z"]]:
        """The posterior."""
        mean, log_std = self.encoder.believed(state.memory)
        return {"posterior": mean, f"posterior{BAND}": log_std.exp()}

    def features(self, obs: Float[Tensor, "*B O"], belief: Float[Tensor, "*B Z2"]) -> Float[Tensor, "*B F"]:
        """What the heads see."""
        return super().features(obs, self.belief_norm(belief))


class VariBad(BaseLearner):
    """PPO for the policy, the evidence lower bound for encoder and decoders, both on the trials just collected."""

    policy: VariBadPolicy

    def __init__(
        self, config: VariBadConfig, info: PolicyInfo, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> None:
        self.config, size = config, info.observation_size
        if torch.device(device).type == "cuda":  # whole trials as well, by worlds and captured steps that stay
            self.segment_steps = info.episode_steps * info.episodes_per_trial
        taken = config.latent_size + size + info.action_size
        with seeded(generator):
            self.policy = VariBadPolicy(config, info).to(device)
            reward = mlp(taken + size, config.decoder_size, 2, 1)
            self._decoders = nn.ModuleDict({"reward": reward, "state": mlp(taken, config.decoder_size, 2, size)})
        self._decoders.to(device)
        self.return_norm = RunningNorm().to(device)
        network = self.policy.network
        self._ppo = PPO(network, network.raw_log_std, self._evaluate, Settings.of(config))
        learned = [*self.policy.encoder.named_parameters(), *self._decoders.named_parameters()]
        self._names, self._learned = [name for name, _ in learned], [parameter for _, parameter in learned]
        self._adam = Adam(self._learned, lr=config.encoder_learning_rate)
        self._guard, self._gradient = Guard("try a lower encoder_learning_rate"), ShardedGradient(1)

    def record(
        self, obs: Tensor, state: Encoded, noise: Tensor, action: Tensor, next_state: Encoded
    ) -> Mapping[str, Tensor]:
        """The noise, of which densities are made."""
        return {"noise": noise}

    def share(self, shares: Shares) -> None:
        """PPO's minibatches and the encoder's trials are cut into the pieces."""
        self._ppo.share(shares)
        self._gradient.share(shares)

    def update(self, segment: Segment, generator: torch.Generator, progress: float) -> Metrics:
        """PPO's passes over the trials, then `encoder_steps` on the encoder."""
        policy = self.policy
        with torch.no_grad():
            belief = torch.cat(policy.encoder(policy.context(segment)), dim=-1)
        chunks, metrics = self.prepare(segment, belief)
        metrics |= self._ppo.update(chunks, generator, progress) | self._learn(segment, generator)
        # The statistics move only now: collection and update saw the same normalisation.
        policy.obs_norm.update(segment.obs)
        policy.reward_norm.update(segment.reward)
        policy.belief_norm.update(belief)
        self.return_norm.update(discounted_return(segment.reward, self.config.discount, segment.trial_start))
        return finite_only(metrics)

    @torch.no_grad()
    def prepare(self, segment: Segment, belief: Float[Tensor, "T1 N Z2"]) -> tuple[Chunks, Metrics]:
        """Advantages and features of all steps, by the beliefs at the trials' begin and after each step."""
        policy, scale = self.policy, self.return_norm.std.float()
        features = policy.features(segment.obs, belief[:-1])
        value = policy.network.critic(features)[..., 0]
        going_on = policy.features(segment.final_obs[-1], belief[-1])
        after = torch.cat((value[1:], policy.network.critic(going_on)[None, ..., 0]))
        return self._ppo.chunks(segment, features, segment.obs, value, after, scale)

    def _evaluate(self, chunks: Chunks) -> tuple[Tensor, Tensor, None]:
        network = self.policy.network
        return network.actor(chunks.inputs), network.critic(chunks.inputs)[..., 0], None

    # ----------------------------------------------------------------------------------------- encoder and decoders

    def _learn(self, segment: Segment, generator: torch.Generator) -> Metrics:
        """Gradient steps on the evidence lower bound of some trials each."""
        device, records = segment.reward.device, []
        generator = on_device(generator, device)
        for _ in range(self.config.encoder_steps):
            trials = torch.randperm(segment.reward.shape[1], generator=generator, device=device)
            trials = trials[: self.config.encoder_trials]
            drawn = self.draw(segment, len(trials), generator)
            places = torch.arange(len(trials), device=device)
            gradients, record = self._gradient(partial(self.elbo, segment, trials, drawn), self._learned, places)
            for parameter, gradient in zip(self._learned, gradients, strict=True):
                parameter.grad = gradient
            if not self._guard.passes(record, *gradients):
                continue
            nn.utils.clip_grad_norm_(self._learned, self.config.max_grad_norm)
            self._adam.step()
            records.append(record[:-1])
        names = ("train/reward_error", "train/state_error", "train/kl_to_previous")
        return dict(zip(names, torch.stack(records).mean(dim=0).tolist(), strict=True)) if records else {}

    def draw(self, segment: Segment, number: int, generator: torch.Generator) -> Drawn:
        """Which beliefs of `number` trials, about which of their steps, and the noise to sample them by."""
        config, device, num_steps = self.config, segment.reward.device, len(segment.reward)
        beliefs = torch.randperm(num_steps + 1, generator=generator, device=device)[: config.elbo_beliefs]
        steps = torch.randperm(num_steps, generator=generator, device=device)[: config.elbo_steps]
        noise = torch.randn(len(beliefs), number, config.latent_size, generator=generator, device=device)
        return beliefs, steps, noise

    def elbo(
        self, segment: Segment, trials: Int64[Tensor, "n"], drawn: Drawn, places: Int64[Tensor, "m"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4"]]:
        """−ELBO by some beliefs of the trials at `places` of `trials`, what it is made of, and itself once more.

        Rewards and changes of state are predicted in units of their standard deviations.
        """
        config, policy = self.config, self.policy
        with torch.no_grad():
            context = policy.context(segment)[:, trials[places]]
        num_steps, size, (beliefs, steps, noise) = len(context), policy.info.observation_size, drawn
        mean, log_std = policy.encoder(context)
        noise = noise[:, places]
        z = mean[beliefs] + log_std[beliefs].exp() * noise
        rows = torch.cat(
            (
                z[:, None].expand(-1, len(steps), -1, -1),
                context[steps].expand(len(beliefs), -1, -1, -1),
            ),
            dim=-1,
        )
        before, reward, after = (context[steps][..., part] for part in (slice(size), -size - 1, slice(-size, None)))
        wrong_reward = (self._decoders["reward"](_without_reward(rows, size))[..., 0] - reward).square()
        change = self._decoders["state"](rows[..., : -size - 1])
        wrong_state = (change - (after - before)).square().mean(dim=-1)
        kl = kl_to_previous(mean, log_std)[beliefs]
        error = config.reward_weight * wrong_reward + config.state_weight * wrong_state
        loss = negative_elbo(error, num_steps, kl, config.kl_weight)
        return loss, torch.stack((wrong_reward.mean(), wrong_state.mean(), kl.mean(), loss)).detach()

    def modules(self) -> Mapping[str, nn.Module]:
        """Policy with encoder and normalisers, decoders, and the scale of returns."""
        return {"policy": self.policy, "decoders": self._decoders, "return_norm": self.return_norm}

    def optimizers(self) -> Mapping[str, tuple[torch.optim.Optimizer, Sequence[str]]]:
        """Encoder's and decoders'."""
        return {"encoder_adam": (self._adam, self._names)}

    def state_dict(self) -> dict[str, Tensor]:
        """And PPO's Adam."""
        return super().state_dict() | self._ppo.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
        super().load_state_dict(state)
        self._ppo.load_state_dict(state)


def _without_reward(rows: Float[Tensor, "*B I"], size: int) -> Float[Tensor, "*B I1"]:
    """[..., reward, state] without the reward."""
    return torch.cat((rows[..., : -size - 1], rows[..., -size:]), dim=-1)
