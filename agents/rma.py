"""RMA: a teacher that knows its task, and a student that acts in its place (Kumar et al. 2021, arXiv:2107.04034).

Rapid motor adaptation has two phases. In the first, PPO trains a policy on [observation, z], where z is what an
encoder makes of the privileged numbers. In the second, policy and encoder stay as they are, and a student, which sees
nothing but the trial's transitions, learns by regression to say z: it acts itself, so that it learns of the states that
it comes to, and the teacher says what z was there (DAgger: Ross et al. 2011, arXiv:1011.0686).

The policy that is saved is the student's, whose z comes of its memory alone: what it earns before the second phase is
that of an untrained student. Nothing pays it for finding out: it learns of its task by what it does anyway.

Differs from the published program in that

- the student is a recurrent network over the whole trial, and no convolution over the last 50 steps: it forgets
  nothing that it has found out, as the other learners here, and its state is small;
- it may be fed the reward, without which it cannot tell tasks apart that differ in nothing else;
- z is bounded, so that the policy never meets one that it was not trained by;
- rewards count beyond an episode's time limit, until the trial's end, as for the learners it is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from metarl.agents.baseline_configs import RmaConfig
from metarl.core.errors import UserError
from metarl.core.info import PolicyInfo
from metarl.core.seeding import on_device
from metarl.core.types import Metrics, Segment
from metarl.rl.adam import Adam
from metarl.rl.encoder import Encoded, EncodingPolicy, TransitionEncoder
from metarl.rl.finite import Guard, finite_only
from metarl.rl.images import ImageMemory, image_of, mirrored, with_image
from metarl.rl.learner import BaseLearner
from metarl.rl.networks import ActorCritic, head, seeded
from metarl.rl.normalize import RunningNorm
from metarl.rl.parallel import ShardedGradient, Shares
from metarl.rl.policy import PolicyModule
from metarl.rl.ppo import PPO, Chunks, Settings, chunk_length, cut, segment_length, side_by_side
from metarl.rl.returns import discounted_return

_LAYERS = 2  # hidden ones, of policy, value and the teacher's encoder


class Student(TransitionEncoder):
    """From a trial's transitions to an estimate of z after each."""

    def __init__(self, inputs: int, hidden: int, latent: int) -> None:
        super().__init__(inputs, hidden)
        self.latent = nn.Linear(hidden, latent)

    def estimate(self, memory: Float[Tensor, "*B H"]) -> Float[Tensor, "*B Z"]:
        """The z that it takes to be the task's."""
        return torch.tanh(self.latent(memory))


class RmaPolicy(EncodingPolicy):
    """Acts on the observation and on the student's estimate of z."""

    encoder: Student

    def __init__(self, config: RmaConfig, info: PolicyInfo) -> None:
        obs_size, action_size, latent = info.observation_size, info.action_size, config.latent_size
        student = Student(2 * obs_size + action_size + 1, config.student_size, latent)
        network = ActorCritic(obs_size + latent, config.hidden_size, action_size, config.initial_std, _LAYERS)
        super().__init__(info, student, network)
        self._feedback = config.feedback

    def belief(self, state: Encoded) -> Float32[Tensor, "N Z"]:
        """The estimate of z."""
        return self.encoder.estimate(state.memory)

    @torch.no_grad()
    def read_out(self, state: Encoded) -> Mapping[str, Float32[Tensor, "N Z"]]:
        """The estimate of z."""
        return {"z": self.belief(state)}


class Teacher(PolicyModule):
    """The policy on z as it is; the student's memory stays as it was."""

    replayable = told = True

    def __init__(self, config: RmaConfig, policy: RmaPolicy) -> None:
        super().__init__(policy.info)
        size = policy.info.privileged_size
        self.student = [policy]  # in a list, so that its tensors are not this module's
        self.network = policy.network
        self.encoder = head(size, config.hidden_size, config.latent_size, 1.0, _LAYERS)
        self.norm = RunningNorm(size)

    def initial_state(self, n: int, device: torch.device | str = "cpu") -> Encoded:
        """The student's."""
        return self.student[0].initial_state(n, device)

    @torch.no_grad()
    def act(
        self, obs: Float32[Tensor, "N OP"], state: Encoded, noise: Float32[Tensor, "N A"], deterministic: bool = False
    ) -> tuple[Float32[Tensor, "N A"], Encoded]:
        """By [observation, privileged numbers]: sample the Gaussian policy, or take its mean."""
        obs, privileged = torch.split(obs, [self.info.observation_size, self.info.privileged_size], dim=1)
        features = self.student[0].features(obs, self.latent(self.known(privileged)))
        return self.network.action(features, noise, deterministic), state

    def known(self, privileged: Float[Tensor, "*B P"] | None) -> Float[Tensor, "*B P"]:
        """Privileged numbers normalised."""
        assert privileged is not None
        known: Tensor = self.norm(privileged)
        return known

    def latent(self, known: Float[Tensor, "*B P"]) -> Float[Tensor, "*B Z"]:
        """The z of normalised privileged numbers, within (-1, 1)."""
        return torch.tanh(self.encoder(known))


class Rma(BaseLearner):
    """PPO for the teacher, then regression for the student."""

    policy: RmaPolicy
    wants_privileged = True

    def __init__(
        self, config: RmaConfig, info: PolicyInfo, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> None:
        if not info.privileged_size:
            raise UserError("rma needs a task to tell its teacher of: this family's tasks have no parameters")
        self.config = config
        steps = segment_length(info.trial_steps, config.segment_steps)
        self.segment_steps = steps if config.segment_steps else None
        self._chunk = chunk_length(steps, config.chunk_steps)
        self.kept_every = {"memory": self._chunk}
        with seeded(generator):
            self.policy = RmaPolicy(config, info)
            self.teacher = Teacher(config, self.policy)
        self.policy.to(device)
        self.teacher.to(device)
        self.return_norm = RunningNorm().to(device)
        self._second = torch.zeros(())
        """1 in the second phase, in which the student acts."""
        self._mirror = info.mirror if config.mirror else None
        self._image_memory = ImageMemory(config.student_size)
        settings = Settings.of(config).with_images(self._mirror)
        self._ppo = PPO(self.teacher, self.policy.network.raw_log_std, self._evaluate, settings)
        student = self.policy.encoder
        self._names, self._learned = [name for name, _ in student.named_parameters()], list(student.parameters())
        self._adam = Adam(self._learned, lr=config.student_learning_rate)
        self._guard, self._gradient = Guard("try a lower student_learning_rate"), ShardedGradient(1)

    def share(self, shares: Shares) -> None:
        """Minibatches are cut into the pieces, the teacher's and the student's."""
        self._ppo.share(shares)
        self._gradient.share(shares)

    @property
    def behaviour(self) -> PolicyModule:
        """The teacher in the first phase, then the student."""
        return self.policy if bool(self._second) else self.teacher

    def remarks(self, total_steps: int) -> list[str]:
        """When the student takes over."""
        taught = (1.0 - self.config.student_share) * total_steps / 1e6
        return [
            f"a teacher learns for {taught:.2g} M control steps: until then the policy saved is an untrained student"
        ]

    def record(
        self, obs: Tensor, state: Encoded, noise: Tensor, action: Tensor, next_state: Encoded
    ) -> Mapping[str, Tensor]:
        """The noise, of which densities are made, and the student's memory."""
        return {"noise": noise, "memory": next_state.memory}

    def update(self, segment: Segment, generator: torch.Generator, progress: float) -> Metrics:
        """PPO's passes over what the teacher did, or the student's over what it did itself."""
        taught = 1.0 - self.config.student_share
        if bool(self._second):
            metrics = self._imitate(segment, generator, max(0.0, progress - taught) / self.config.student_share)
        else:
            metrics = self._teach(segment, generator, min(1.0, progress / taught))
        self._second.fill_(progress >= taught)
        return finite_only(metrics)

    # -------------------------------------------------------------------------------------------------- the teacher

    def _teach(self, segment: Segment, generator: torch.Generator, progress: float) -> Metrics:
        chunks, metrics = self.prepare(segment)
        metrics |= self._ppo.update(chunks, generator, progress)
        self._image_memory.clear()  # the student's is empty as well when it takes over
        # The statistics move only now: collection and update saw the same normalisation. The student finds the last.
        mirror = self._mirror
        self.policy.obs_norm.update(with_image(segment.obs, mirror.observation if mirror else None))
        self.policy.reward_norm.update(segment.reward)
        self.teacher.norm.update(with_image(cast(Tensor, segment.privileged), mirror.privileged if mirror else None))
        self.return_norm.update(discounted_return(segment.reward, self.config.discount, segment.trial_start))
        return metrics

    @torch.no_grad()
    def prepare(self, segment: Segment) -> tuple[Chunks, Metrics]:
        """Advantages and observations of all steps, with what was known of the task in each."""
        known, critic = self.teacher.known(segment.privileged), self.policy.network.critic
        obs, z = self.policy.obs_norm(segment.obs), self.teacher.latent(known)
        value = critic(torch.cat((obs, z), dim=-1))[..., 0]
        after, scale = self._next_value(segment, value, z), self.return_norm.std.float()
        chunks, metrics = self._ppo.chunks(segment, obs, obs, value, after, scale, known)
        if self._mirror is not None:
            image = mirrored(segment, self._mirror)
            obs, known = self.policy.obs_norm(image.obs), self.teacher.known(image.privileged)
            chunks = side_by_side(chunks, image_of(chunks, self._mirror, obs, obs, known))
        return chunks, metrics

    def _next_value(
        self, segment: Segment, value: Float[Tensor, "T N"], z: Float[Tensor, "T N Z"]
    ) -> Float[Tensor, "T N"]:
        """Value after each step: the next one's, or of going on from where a trial, or the segment, ended.

        There, privileged numbers that change within a trial are taken as they were a step before.
        """
        critic, after = self.policy.network.critic, value.roll(-1, dims=0)
        after[-1] = critic(self.policy.features(segment.next_obs, z[-1]))[..., 0]
        t, n = segment.trial_end.nonzero(as_tuple=True)
        after[t, n] = critic(self.policy.features(segment.final_obs[t, n], z[t, n]))[..., 0]
        return after

    def _evaluate(self, chunks: Chunks) -> tuple[Tensor, Tensor, None]:
        assert chunks.privileged is not None
        network, features = self.policy.network, torch.cat((chunks.obs, self.teacher.latent(chunks.privileged)), dim=-1)
        return network.actor(features), network.critic(features)[..., 0], None

    # -------------------------------------------------------------------------------------------------- the student

    def _imitate(self, segment: Segment, generator: torch.Generator, progress: float) -> Metrics:
        """`num_epochs` passes over the segment's chunks: Adam on the mean squared error of z."""
        config, device, records = self.config, segment.reward.device, []
        rate = config.student_learning_rate + progress * (config.final_learning_rate - config.student_learning_rate)
        for group in self._adam.param_groups:
            group["lr"] = rate
        generator = on_device(generator, device)
        context, before, target = lessons = self.lessons(segment)
        batch_size = config.batch_size
        if self._mirror is not None:
            image = self.lessons(mirrored(segment, self._mirror), acted=False)
            context, before, target = (torch.cat(pair, dim=-2) for pair in zip(lessons, image, strict=True))
            batch_size *= 2

        def error(chunks: Int64[Tensor, "n"]) -> tuple[Tensor, Tensor]:
            loss = self.error(context[:, chunks], before[chunks], target[:, chunks])
            return loss, loss[None]

        for _ in range(config.num_epochs):
            order = torch.randperm(len(before), generator=generator, device=device)
            for minibatch in torch.split(order, max(1, batch_size // self._chunk)):
                gradients, (loss,) = self._gradient(error, self._learned, minibatch)
                for parameter, gradient in zip(self._learned, gradients, strict=True):
                    parameter.grad = gradient
                if self._guard.passes(loss, *gradients):
                    nn.utils.clip_grad_norm_(self._learned, config.max_grad_norm)
                    self._adam.step()
                    records.append(loss)
        wrong = {"train/latent_error": float(torch.stack(records).mean().sqrt())} if records else {}
        return wrong | self._guard.metrics() | {"train/learning_rate": rate}

    @torch.no_grad()
    def lessons(
        self, segment: Segment, acted: bool = True
    ) -> tuple[Float[Tensor, "L S I"], Float[Tensor, "S H"], Float[Tensor, "L S Z"]]:
        """Transitions in chunks, the memory before each chunk, and the teacher's z of each step.

        Who acted had that memory; of a mirror image nobody did, and it is computed.
        """
        length, context = self._chunk, self.policy.context(segment)
        if acted:
            kept = segment.extras["memory"]
            rows = length * len(kept) // len(segment.reward)  # per chunk
            before = torch.cat((segment.initial_state.memory[None], kept[rows - 1 : -1 : rows]))
            before = (before * ~segment.trial_start[::length, :, None]).flatten(0, 1)
        else:
            before = self._image_memory.before(self.policy.encoder.sequence, context, segment, length)
        target = self.teacher.latent(self.teacher.known(segment.privileged))
        return cut(context, length), before, cut(target, length)

    def error(
        self, context: Float[Tensor, "L S I"], before: Float[Tensor, "S H"], target: Float[Tensor, "L S Z"]
    ) -> Float[Tensor, ""]:
        """Mean squared error of z: of the first step's before it, and of each step's once it is known."""
        estimate = self.policy.encoder.estimate(self.policy.encoder.memories(context, before))
        return (estimate - torch.cat((target[:1], target))).square().mean()

    # ---------------------------------------------------------------------------------------------------- the state

    def modules(self) -> Mapping[str, nn.Module]:
        """Student with policy and normalisers, teacher, and the scale of returns."""
        own = {"teacher_encoder": self.teacher.encoder, "teacher_norm": self.teacher.norm}
        return {"policy": self.policy, "return_norm": self.return_norm} | own

    def optimizers(self) -> Mapping[str, tuple[torch.optim.Optimizer, Sequence[str]]]:
        """The student's."""
        return {"student_adam": (self._adam, self._names)}

    def state_dict(self) -> dict[str, Tensor]:
        """And PPO's Adam, and the phase."""
        own = {"second_phase": self._second.clone()} | self._image_memory.state_dict()
        return super().state_dict() | self._ppo.state_dict() | own

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
        super().load_state_dict(state)
        self._ppo.load_state_dict(state)
        self._image_memory.load_state_dict(state)
        if "second_phase" not in state:
            raise ValueError("the tensor second_phase is missing")
        self._second = state["second_phase"].clone()
