"""VariBAD: a posterior over tasks by a recurrent encoder, and a policy that is told it (Zintgraf et al. 2020).

Variational Bayes-adaptive deep RL (arXiv:1910.08348). The encoder takes in each transition of a trial and says what it
believes of the task, q(m) = N(μ, σ²); it is trained to predict the rewards and states of the whole trial, past and
future, and by nothing else. The policy is trained by PPO on [observation, μ, log σ]: it knows what it does not know,
and may act to find out.

Differs from the published program in that

- the encoder sees whole transitions, since observations jump where an episode ends;
- it learns from the trials just collected, when they are over: there is no buffer of earlier ones;
- the policy is updated in the course of a trial too, as RL²'s;
- most gradient steps look at the beliefs of a trial's beginning alone, where most is found out and passes are short.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from metarl.agents.configs import VariBadConfig
from metarl.core.errors import UserError
from metarl.core.info import Mirror, PolicyInfo
from metarl.core.seeding import on_device
from metarl.core.types import Metrics, Segment
from metarl.rl.adam import Adam
from metarl.rl.elbo import kl_to_previous, negative_elbo
from metarl.rl.encoder import Encoded, EncodingPolicy, TransitionEncoder
from metarl.rl.finite import Guard, finite_only
from metarl.rl.images import ImageMemory, image_of, mirrored, with_image
from metarl.rl.learner import BaseLearner
from metarl.rl.networks import ActorCritic, bounded_log_std, mlp, seeded
from metarl.rl.normalize import RunningNorm
from metarl.rl.parallel import ShardedGradient, Shares
from metarl.rl.policy import BAND
from metarl.rl.ppo import PPO, Chunks, Settings, segment_length, side_by_side
from metarl.rl.returns import discounted_return

Drawn = tuple[int, Int64[Tensor, "E"], Int64[Tensor, "D"], Float32[Tensor, "E n Z"]]
"""Steps that the encoder sees, beliefs, steps to predict, and noise."""
_LEAST_SEEN = 16
_LAYERS = 2  # hidden ones, of policy and value


class Encoder(TransitionEncoder):
    """From a trial's transitions to what is believed of its task after each."""

    def __init__(self, inputs: int, hidden: int, latent: int) -> None:
        super().__init__(inputs, hidden)
        self.posterior = nn.Linear(hidden, 2 * latent)

    def forward(
        self, transitions: Float[Tensor, "T N I"], before: Float[Tensor, "N H"] | None = None
    ) -> tuple[Float[Tensor, "T1 N Z"], Float[Tensor, "T1 N Z"]]:
        """Mean and log standard deviation: `before` the first transition, or at a trial's begin, and after each."""
        if before is None:
            before = transitions.new_zeros(transitions.shape[1], self.memory.hidden)
        return self.believed(self.memories(transitions, before))

    def believed(self, memory: Float[Tensor, "*B H"]) -> tuple[Float[Tensor, "*B Z"], Float[Tensor, "*B Z"]]:
        """Mean and log standard deviation of the posterior."""
        mean, raw = self.posterior(memory).chunk(2, dim=-1)
        return mean, bounded_log_std(raw)


class VariBadPolicy(EncodingPolicy):
    """Acts on the observation and on mean and log standard deviation of the posterior."""

    encoder: Encoder

    def __init__(self, config: VariBadConfig, info: PolicyInfo) -> None:
        obs_size, action_size, latent = info.observation_size, info.action_size, config.latent_size
        encoder = Encoder(2 * obs_size + action_size + 1, config.encoder_size, latent)
        network = ActorCritic(obs_size + 2 * latent, config.hidden_size, action_size, config.initial_std, _LAYERS)
        super().__init__(info, encoder, network)

    def belief(self, state: Encoded) -> Float32[Tensor, "N Z2"]:
        """Mean and log standard deviation of the posterior."""
        return torch.cat(self.encoder.believed(state.memory), dim=-1)

    @torch.no_grad()
    def read_out(self, state: Encoded) -> Mapping[str, Float32[Tensor, "N Z"]]:
        """The posterior."""
        mean, log_std = self.encoder.believed(state.memory)
        return {"posterior": mean, f"posterior{BAND}": log_std.exp()}


class VariBad(BaseLearner):
    """PPO for the policy, the evidence lower bound for encoder and decoders, both on the trials just collected."""

    policy: VariBadPolicy

    def __init__(
        self, config: VariBadConfig, info: PolicyInfo, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> None:
        self.config, size = config, info.observation_size
        steps = segment_length(info.trial_steps, config.segment_steps)
        if config.segment_steps or torch.device(device).type == "cuda":  # there, by worlds and captured steps that stay
            self.segment_steps = steps
        taken = config.latent_size + size + info.action_size
        with seeded(generator):
            self.policy = VariBadPolicy(config, info).to(device)
            reward = mlp(taken + size, config.decoder_size, 2, 1)
            self._decoders = nn.ModuleDict({"reward": reward, "state": mlp(taken, config.decoder_size, 2, size)})
        self._decoders.to(device)
        self.return_norm = RunningNorm().to(device)
        self._mirror = info.mirror if config.mirror else None
        self._image_memory = ImageMemory(config.encoder_size)
        network, settings = self.policy.network, Settings.of(config).with_images(self._mirror)
        self._ppo = PPO(network, network.raw_log_std, self._evaluate, settings)
        learned = [*self.policy.encoder.named_parameters(), *self._decoders.named_parameters()]
        self._names, self._learned = [name for name, _ in learned], [parameter for _, parameter in learned]
        self._adam = Adam(self._learned, lr=config.encoder_learning_rate)
        self._guard, self._gradient = Guard("try a lower encoder_learning_rate"), ShardedGradient(1)
        self._seen: list[Tensor] = []
        """Contexts of the trial's segments up to now; an iteration ends with a trial, and leaves none."""

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
        """PPO's passes over the segment; where it ends a trial, `encoder_steps` on the encoder."""
        policy = self.policy
        begins, ends = segment.trial_start.any(dim=1), segment.trial_end.any(dim=1)
        if bool((begins != segment.trial_start.all(dim=1)).any() | begins[1:].any()):
            raise UserError("staggered = True: varibad learns from trials that all worlds begin together")
        with torch.no_grad():
            context = policy.context(segment)
            belief = torch.cat(policy.encoder(context, segment.initial_state.memory), dim=-1)
        chunks, metrics = self.prepare(segment, belief)
        if self._mirror is not None:
            seen, image = self._image(segment, chunks, self._mirror)
            context, chunks = torch.cat((context, seen), dim=1), side_by_side(chunks, image)
        metrics |= self._ppo.update(chunks, generator, progress)
        self._seen = [context] if bool(begins[0]) else [*self._seen, context]
        if bool(ends[-1]):
            metrics |= self._learn(torch.cat(self._seen), generator, progress)
            self._seen = []
        # The statistics move only now: collection and update saw the same normalisation.
        policy.obs_norm.update(with_image(segment.obs, self._mirror.observation if self._mirror else None))
        policy.reward_norm.update(segment.reward)
        self.return_norm.update(discounted_return(segment.reward, self.config.discount, segment.trial_start))
        return finite_only(metrics)

    @torch.no_grad()
    def prepare(self, segment: Segment, belief: Float[Tensor, "T1 N Z2"]) -> tuple[Chunks, Metrics]:
        """Advantages and features of all steps, by the beliefs before the first and after each."""
        policy, scale = self.policy, self.return_norm.std.float()
        features = policy.features(segment.obs, belief[:-1])
        value = policy.network.critic(features)[..., 0]
        last = torch.where(segment.trial_end[-1][:, None], segment.final_obs[-1], segment.next_obs)
        going_on = policy.network.critic(policy.features(last, belief[-1]))[None, ..., 0]
        return self._ppo.chunks(segment, features, segment.obs, value, torch.cat((value[1:], going_on)), scale)

    @torch.no_grad()
    def _image(self, segment: Segment, chunks: Chunks, mirror: Mirror) -> tuple[Float[Tensor, "T N I"], Chunks]:
        """The mirrored segment: what the encoder sees of it, and its chunks, by the beliefs that this makes."""
        policy, image = self.policy, mirrored(segment, mirror)
        context = policy.context(image)
        before = self._image_memory.before(policy.encoder.sequence, context, segment, len(context))
        belief = torch.cat(policy.encoder(context, before), dim=-1)[:-1]
        features = policy.features(image.obs, belief)
        return context, image_of(chunks, mirror, features, image.obs)

    def _evaluate(self, chunks: Chunks) -> tuple[Tensor, Tensor, None]:
        network = self.policy.network
        return network.actor(chunks.inputs), network.critic(chunks.inputs)[..., 0], None

    # ----------------------------------------------------------------------------------------- encoder and decoders

    def _learn(self, context: Float[Tensor, "T N I"], generator: torch.Generator, progress: float) -> Metrics:
        """Gradient steps on the evidence lower bound of some trials each; they shorten as those of the policy do."""
        config, device, records = self.config, context.device, []
        shorter = 1.0 + progress * (config.final_learning_rate / config.learning_rate - 1.0)
        for group in self._adam.param_groups:
            group["lr"] = config.encoder_learning_rate * shorter
        generator = on_device(generator, device)
        for _ in range(config.encoder_steps):
            trials = torch.randperm(context.shape[1], generator=generator, device=device)
            trials = trials[: config.encoder_trials]
            drawn = self.draw(len(context), len(trials), generator)
            places = torch.arange(len(trials), device=device)
            gradients, record = self._gradient(partial(self.elbo, context, trials, drawn), self._learned, places)
            for parameter, gradient in zip(self._learned, gradients, strict=True):
                parameter.grad = gradient
            if not self._guard.passes(record, *gradients):
                continue
            nn.utils.clip_grad_norm_(self._learned, config.max_grad_norm)
            self._adam.step()
            records.append(record[:-1])
        names = ("train/reward_error", "train/state_error", "train/kl_to_previous")
        return dict(zip(names, torch.stack(records).mean(dim=0).tolist(), strict=True)) if records else {}

    def draw(self, num_steps: int, number: int, generator: torch.Generator) -> Drawn:
        """How much of `number` trials is seen, which beliefs that makes predict which of their steps, and the noise.

        What is seen is all, a half, a quarter, ... of a trial, each as likely; of the beliefs the first is one.
        """
        config, device = self.config, generator.device
        halvings = max(0, int(math.log2(num_steps / _LEAST_SEEN)))
        seen = -(-num_steps // 2 ** int(torch.randint(halvings + 1, (), generator=generator, device=device)))
        later = 1 + torch.randperm(seen, generator=generator, device=device)[: config.elbo_beliefs - 1]
        beliefs = torch.cat((torch.zeros_like(later[:1]), later))
        steps = torch.randperm(num_steps, generator=generator, device=device)[: config.elbo_steps]
        noise = torch.randn(len(beliefs), number, config.latent_size, generator=generator, device=device)
        return seen, beliefs, steps, noise

    def elbo(
        self, context: Float[Tensor, "T N I"], trials: Int64[Tensor, "n"], drawn: Drawn, places: Int64[Tensor, "m"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4"]]:
        """−ELBO by some beliefs of the trials at `places` of `trials`, what it is made of, and itself once more.

        Rewards and changes of state are predicted in units of their standard deviations.
        """
        config, policy, context = self.config, self.policy, context[:, trials[places]]
        num_steps, size, (seen, beliefs, steps, noise) = len(context), policy.info.observation_size, drawn
        mean, log_std = policy.encoder(context[:seen])
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
        """And PPO's Adam; an iteration ends with a trial, when no world remembers anything, nor does its image."""
        return super().state_dict() | self._ppo.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
        super().load_state_dict(state)
        self._ppo.load_state_dict(state)


def _without_reward(rows: Float[Tensor, "*B I"], size: int) -> Float[Tensor, "*B I1"]:
    """[..., reward, state] without the reward."""
    return torch.cat((rows[..., : -size - 1], rows[..., -size:]), dim=-1)
