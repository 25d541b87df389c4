"""PEARL: off-policy meta-RL with probabilistic context variables (Rakelly et al. 2019, arXiv:1903.08254).

An encoder turns each transition of a task into a Gaussian factor over a latent z; their product is what is known of the
task. Actor and critics see z beside the observation and learn by soft actor-critic from a replay buffer per task, while
the encoder reads a context of its own: the prior episodes of the task's last trial, and nothing older. A trial is
`prior_episodes` with z of the prior, then episodes with z of the posterior.

Where the field's implementations differ or went wrong, this one:
- keeps the last transition of every episode, with the observation it led to (`final_obs`) and not the next episode's;
- bootstraps past a time limit: only falls are terminal; steps in which the physics diverged are not learnt from;
- trains the encoder by the critics' loss and the KL alone: actor and targets see z detached (with `--belief prototype`
  by a contrastive loss alone, see `pearl_prototypes.py`);
- weighs the KL by its *mean* over tasks, so that `meta_batch` does not change it. Published is 0.1 times the sum over
  16 tasks, 1.6 per task, beside errors of rewards times 5: that is `kl_weight` 1.6 / 25 with `reward_scale` 1;
- needs no value network: targets are the smaller of two slowly moving critics (Haarnoja et al. 2018, arXiv:1812.05905);
- visits the tasks of its list in rounds, so that none is without data; those that have none yet are not sampled.

On a GPU blocks of gradient steps are captured as one CUDA graph (`core.graphs`), with all that is drawn drawn before,
and run while the next trial is collected by the policy as it was before them (`pearl_blocks`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy

import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from metarl.agents.configs import PearlConfig
from metarl.agents.pearl_blocks import Beside, Drawn, GradientSteps, Taken, compiled
from metarl.agents.pearl_metrics import buffer_remarks, identification, phase_returns, transitions
from metarl.agents.pearl_policy import PearlPolicy, PearlState, PosteriorPolicy
from metarl.agents.pearl_prototypes import PrototypePolicy
from metarl.core.errors import UserError
from metarl.core.graphs import looks
from metarl.core.info import PolicyInfo
from metarl.core.types import Metrics, Segment
from metarl.rl import sac
from metarl.rl.adam import Adam
from metarl.rl.finite import Guard, finite_only
from metarl.rl.learner import BaseLearner
from metarl.rl.networks import TwinCritic, seeded
from metarl.rl.parallel import ALONE, Shares, Stretch, stretches, summed_gradient
from metarl.rl.replay import TaskReplay, picked, slots_of
from metarl.rl.state import parameters_of, part_of

_CONTEXT = 4000  # the newest transitions of a task's last trial that the encoder may see
_FIRST_TEMPERATURE = 0.2
_RECORDS = ("critic_loss", "actor_loss", "entropy", "value")
_POLICIES: dict[str, type[PearlPolicy]] = {"posterior": PosteriorPolicy, "prototype": PrototypePolicy}


class Pearl(BaseLearner):
    """Meta-trains a `PearlPolicy` by soft actor-critic on replayed data."""

    def __init__(
        self, config: PearlConfig, info: PolicyInfo, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> None:
        self.config, self._obs_size, self._action_size = config, info.observation_size, info.action_size
        self._device = torch.device(device)
        with seeded(generator):
            self._policy = _POLICIES[config.belief](config, info).to(device)
            width = self._obs_size + self._action_size + config.latent_size
            self._critic = TwinCritic(width, config.hidden_size, config.hidden_layers).to(self._device)
        self._target = deepcopy(self._critic)
        initial = config.temperature or _FIRST_TEMPERATURE
        if not math.isfinite(initial):
            raise UserError(f"temperature = {initial} is out of range: it must be finite")
        self._log_temperature = nn.Parameter(torch.tensor(initial, device=self._device).log())
        critics = {"critic": self._critic, "encoder": self._policy.encoder}
        self._learned = {"critic": parameters_of(critics), "actor": parameters_of({"actor": self._policy.actor})}
        if not config.temperature:
            self._learned["actor"]["log_temperature"] = self._log_temperature
        self._optimizers = {
            name: Adam(named.values(), lr=config.learning_rate, fused=True) for name, named in self._learned.items()
        }
        width = 2 * self._obs_size + self._action_size + 2
        self.replay = TaskReplay(config.num_slots, config.replay_size, width, self._device)
        self.context = TaskReplay(config.num_slots, min(config.replay_size, _CONTEXT), width, self._device)
        self._guard, self._shares = Guard("try a lower learning_rate or reward_scale"), ALONE
        self._critics_loss, self._actors_loss = compiled(self._device, self.critic_objective, self.actor_objective)
        work, size = (self.draw, self.noise, self.gradient_step), len(_RECORDS) + 1
        self._gradient_steps = GradientSteps(*work, config.num_updates, size, self._guard, self._device)
        self._beside = None if looks(self._device) else Beside(self._policy)
        self._task_of_slot, self._steps = torch.full((config.num_slots,), -1), torch.zeros((), dtype=torch.long)

    @property
    def policy(self) -> PearlPolicy:
        """What it trains; on a GPU, after the gradient steps that are under way."""
        if self._beside is not None:
            self._beside.wait()
        return self._policy

    @property
    def behaviour(self) -> PearlPolicy:
        """On a GPU the policy as it was before the steps that are under way."""
        return self._policy if self._beside is None else self._beside.acting

    def record(
        self, obs: Tensor, state: PearlState, noise: Tensor, action: Tensor, next_state: PearlState
    ) -> Mapping[str, Tensor]:
        """Whether z was the prior's."""
        return {"prior": self._policy.exploring(state)}

    def share(self, shares: Shares) -> None:
        """The tasks of gradient steps are cut into the pieces."""
        self._shares = shares

    def update(self, segment: Segment, generator: torch.Generator, progress: float) -> Metrics:
        """Put whole trials into the buffers, then `num_updates` gradient steps once these are filled.

        On a GPU these are begun, and told of with the next update.
        """
        beside, told = self._beside, {} if self._beside is None else self._told(self._beside.take())
        metrics = phase_returns(segment) | self._identification(segment)
        self.store(segment)
        if int(self._steps) >= self.config.initial_steps:
            if beside is None:
                told = self._told(self._taken(generator))
            else:
                beside.begin(lambda: self._taken(generator))
        return finite_only(metrics | told)

    def _told(self, taken: Taken | None) -> Metrics:
        """What is to be said of these gradient steps; waits for a GPU."""
        if taken is None:
            return {}
        records = self._gradient_steps.mean(taken).tolist()
        names = (f"train/{name}" for name in (*_RECORDS, self._policy.loss_name))
        told = dict(zip(names, records, strict=True))
        return told | {"train/temperature": float(self._temperature)} | self._guard.metrics()

    @torch.no_grad()
    def store(self, segment: Segment) -> None:
        """Put a trial into the buffers: every step for the actor and critics, those of the prior for the encoder.

        The context of a task is that of its last trial alone.
        """
        device = self._device
        slot = self._slots(segment.task_number[0])
        rows = transitions(segment).transpose(0, 1)
        healthy, prior = ~segment.diverged.T, segment.extras["prior"].T
        owner = slot.to(device)[:, None].expand_as(healthy)
        self.context.clear(torch.unique(slot).to(device))
        for buffer, kept in ((self.replay, healthy), (self.context, healthy & prior)):
            buffer.add(owner[kept], rows[kept])
        self._steps += segment.reward.numel()

    def _identification(self, segment: Segment) -> Metrics:
        """See `identification`: of a trial that is not stored yet, among the tasks of all slots."""
        number = segment.task_number[0]
        slot = number % self.config.num_slots
        slot = torch.where(self._task_of_slot[slot] == number, slot, -1)
        slots, places = self._policy.landmarks(self.context)
        return identification(self.policy, segment, slot, (slots.cpu(), places))

    def _slots(self, task_number: Int64[Tensor, "N"]) -> Int64[Tensor, "N"]:
        """The buffers of these tasks; those of a task that had the slot before are emptied."""
        try:
            slot, taken = slots_of(task_number, self._task_of_slot)
        except ValueError:
            raise UserError(
                f"num_slots = {self.config.num_slots} is too small: two tasks of one iteration would share a buffer; "
                "it must be at least --train-tasks, or --num-worlds where tasks are drawn anew"
            ) from None
        for buffer in (self.replay, self.context):
            buffer.clear(taken.to(self._device))
        self._policy.forget(taken.to(self._device))
        return slot

    @property
    def _temperature(self) -> Float32[Tensor, ""]:
        return self._log_temperature.detach().exp()

    def gradient_steps(self, generator: torch.Generator) -> Float32[Tensor, "R"]:
        """`num_updates` gradient steps; the mean of what they record."""
        return self._gradient_steps.mean(self._taken(generator))

    def _taken(self, generator: torch.Generator) -> Taken:
        ready = ((self.replay.size > 0) & (self.context.size > 0)).nonzero()[:, 0]
        return self._gradient_steps.sum(ready, generator)

    def noise(
        self,
        slots: Int64[Tensor, "*K M"],
        context: Float32[Tensor, "*K M C W"],
        batch: Float32[Tensor, "*K B W"],
        generator: torch.Generator,
    ) -> Iterator[Tensor]:
        """What gradient steps take beside their data, in the order in which they take it, each when it is asked for."""
        yield self._policy.draw_for(slots, context, self.replay, generator)
        for _ in range(2):  # of the targets' actions, and of the actor's
            yield torch.randn(*batch.shape[:-1], self._action_size, generator=generator, device=batch.device)

    def draw(self, ready: Int64[Tensor, "R"], steps: int, generator: torch.Generator) -> Drawn:
        """Tasks, context and batch of several gradient steps at once.

        No task is twice in a step, unless there are fewer than a batch of them.
        """
        config, slots = self.config, picked(ready, steps, self.config.meta_batch, generator)
        context = self.context.sample(slots, config.context_size, generator)
        return slots, context, self.replay.sample(slots, config.batch_size, generator).flatten(1, 2)

    def gradient_step(
        self,
        slots: Int64[Tensor, "M"],
        context: Float32[Tensor, "M C W"],
        batch: Float32[Tensor, "B W"],
        noise: Iterator[Tensor],
    ) -> Float32[Tensor, "R"] | None:
        """One step of encoder and critics, of actor and temperature, and of the targets; None where not all is finite.

        What is not finite is left out; where it is the critics' loss, the actor's step is left out with it. On a GPU,
        which is not waited for, the record of such a step is zero.
        """
        config, waits = self.config, looks(self._device)
        cut = self._shares.pieces if self._policy.separable else 1
        pieces = stretches(len(slots), cut, len(batch) // len(slots))
        drawn, for_targets = next(noise), next(noise)
        found: dict[int, Tensor] = {}

        def critics(piece: Stretch) -> tuple[Tensor, Tensor]:
            tasks, rows, weight = piece
            given = slots[tasks], context[tasks], batch[rows], drawn[tasks], for_targets[rows]
            loss, extra, found[rows.start], value = self._critics_loss(*given)
            return weight * (loss + self._policy.loss_weight * extra), weight * torch.stack((loss, value.mean(), extra))

        def actors(piece: Stretch) -> tuple[Tensor, Tensor]:
            _, rows, weight = piece
            loss, log_prob = self._actors_loss(batch[rows], found[rows.start].detach(), for_actor[rows])
            told = torch.stack((loss, -log_prob.mean()))
            if not config.temperature:
                loss = loss + sac.temperature_loss(self._log_temperature, log_prob, -float(self._action_size))
            return weight * loss, weight * told

        bad, (loss, value, extra) = self._step("critic", pieces, critics)
        if waits and bool(bad):
            self._guard.count(False)
            return None
        for_actor = next(noise)
        bad, (actor, entropy) = self._step("actor", pieces, actors, bad)
        sac.follow(list(self._target.parameters()), list(self._critic.parameters()), config.target_rate)
        if waits and not self._guard.count(not bad):
            return None
        record = torch.stack((loss, actor, entropy, value, extra))
        if waits:
            return record
        self._guard.note(bad)
        return torch.where(bad > 0, 0.0, record)

    def critic_objective(
        self,
        slots: Int64[Tensor, "M"],
        context: Float32[Tensor, "M C W"],
        batch: Float32[Tensor, "B W"],
        drawn: Float32[Tensor, "..."],
        noise: Float32[Tensor, "B A"],
    ) -> tuple[Tensor, Tensor, Float32[Tensor, "B Z"], Float32[Tensor, "2 B"]]:
        """Critics' loss, the encoder's other loss, the z of each transition (one per task), and the critics' values.

        `drawn` is for `learn`, `noise` for the actions of the targets.
        """
        config, obs_size, action_size = self.config, self._obs_size, self._action_size
        z, extra = self._policy.learn(slots, context[..., : self._policy.context_width], drawn)
        z = z.repeat_interleave(len(batch) // len(slots), dim=0)
        taken, reward, next_obs, terminated = torch.split(batch, [obs_size + action_size, 1, obs_size, 1], dim=1)
        with torch.no_grad():
            mean, log_std = sac.split_head(self._policy.actor(torch.cat((next_obs, z), dim=1)))
            action, log_prob = sac.squashed_sample(mean, log_std, noise)
            next_value = self._target(torch.cat((next_obs, action, z), dim=1))
            discount = config.discount * (1.0 - terminated[:, 0])
            target = sac.soft_target(
                config.reward_scale * reward[:, 0], discount, next_value, log_prob, self._temperature
            )
        value = self._critic(torch.cat((taken, z), dim=1))
        return sac.critic_loss(value, target), extra, z, value

    def actor_objective(
        self, batch: Float32[Tensor, "B W"], z: Float32[Tensor, "B Z"], noise: Float32[Tensor, "B A"]
    ) -> tuple[Tensor, Float32[Tensor, "B"]]:
        """The actor's loss, and the log density of the actions it drew; no gradient reaches the critics."""
        obs = batch[:, : self._obs_size]
        mean, log_std = sac.split_head(self._policy.actor(torch.cat((obs, z), dim=1)))
        action, log_prob = sac.squashed_sample(mean, log_std, noise)
        value = self._critic(torch.cat((obs, action, z), dim=1), frozen=True)
        size = self.config.policy_l2 * (mean.square().mean() + log_std.square().mean())
        return sac.actor_loss(value, log_prob, self._temperature) + size, log_prob.detach()

    def _step(
        self,
        name: str,
        pieces: list[Stretch],
        work: Callable[[Stretch], tuple[Tensor, Tensor]],
        bad: Float32[Tensor, ""] | None = None,
    ) -> tuple[Float32[Tensor, ""], Float32[Tensor, "D"]]:
        """One step of an optimiser on the sum of the pieces' losses, unless not all of it is finite: then 1, else 0.

        Nor where `bad` is 1 already. And what `work` tells beside.
        """
        optimizer, parameters = self._optimizers[name], list(self._learned[name].values())
        gradients, told = summed_gradient(self._shares, pieces, work, parameters)
        flag = self._guard.flag([told, *(each for each in gradients if each is not None), *parameters])
        flag = flag if bad is None else torch.maximum(flag, bad)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        if not looks(self._device):
            optimizer.found_inf = flag  # type: ignore[attr-defined]
        if not looks(self._device) or not bool(flag):
            optimizer.step()
        return flag, told

    def remarks(self, total_steps: int) -> list[str]:
        """What the buffers take in memory, and what a checkpoint takes at the training's end."""
        return buffer_remarks(self.config, (self.replay, self.context), total_steps)

    def modules(self) -> Mapping[str, nn.Module]:
        """Policy with encoder, critics and target critics."""
        return {"policy": self.policy, "critic": self._critic, "target": self._target}

    def optimizers(self) -> Mapping[str, tuple[torch.optim.Optimizer, Sequence[str]]]:
        """The critics' and encoder's, the actor's and temperature's."""
        return {f"adam/{part}": (self._optimizers[part], list(named)) for part, named in self._learned.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Networks, temperature, optimisers; with `save_buffers` the buffers, and how far their filling got."""
        state = super().state_dict() | {"log_temperature": self._log_temperature.detach().cpu().clone()}
        if self.config.save_buffers:
            state |= {"task_of_slot": self._task_of_slot.clone(), "steps": self._steps.clone()}
            for part, buffer in (("replay", self.replay), ("context", self.context)):
                state |= {f"{part}/{name}": value for name, value in buffer.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
        # older checkpoints have an optimiser for the temperature
        state = {key.replace("adam/temperature/", "adam/actor/"): value for key, value in state.items()}
        super().load_state_dict(state)
        with torch.no_grad():
            self._log_temperature.copy_(state["log_temperature"])
        if self._beside is not None:
            self._beside.catch_up()
        if "steps" in state:
            self._steps, self._task_of_slot = state["steps"].clone(), state["task_of_slot"].clone()
            self.replay.load_state_dict(part_of(state, "replay/"))
            self.context.load_state_dict(part_of(state, "context/"))
