"""MAML-TRPO: model-agnostic meta-learning of a policy (Finn et al. 2017, arXiv:1703.03400), all tasks at once.

A policy plays `shots` episodes on its task, takes a policy-gradient step, and plays on: the adaptation state is the
adapted parameters. They are trained so that the return after adaptation is high, by a trust-region step whose gradient
passes through the adaptation exactly. Options make it FOMAML, Meta-SGD, ANIL, ProMP, E-MAML, or adapt by a learned
optimiser.

Where the field's implementations differ or went wrong, this one:
- sums log-probabilities and divergences over action dimensions (a mean takes the d-th root of every ratio);
- refits the linear baseline to each task, in each step, on its own batch, and normalises advantages within the task;
- takes every task's own inner gradient, whatever the number of tasks (a mean over tasks would divide α by it);
- holds the *adapted* policies to the trust region, against those that sampled, with their own standard deviations;
- searches along a line of values: when every trial is rejected, the parameters are the very ones before;
- keeps the lineage's ±10 output for actions of ±1, to which its step size belongs: a gradient step on the mean of a
  Gaussian is α / σ, so that without the scale the same α would move actions a hundred times as far. The lineage's
  α = 0.1 and σ = 1 (a tenth of the actuator's range) are experiments/maml_trpo_published.toml; the defaults, α = 1
  and σ = 3, explore and adapt further and learn several times faster.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Bool, Float32
from torch import Tensor, nn

from metarl.agents.configs import MamlTrpoConfig
from metarl.agents.maml_policy import MamlPolicy, MamlState
from metarl.core.errors import UserError
from metarl.core.info import PolicyInfo
from metarl.core.types import Metrics, Segment
from metarl.rl.adam import Adam
from metarl.rl.finite import Guard, finite_only
from metarl.rl.inner_loop import Stage
from metarl.rl.learner import BaseLearner
from metarl.rl.meta_objective import FisherProducts, MetaObjective, Sampled, SharedObjective
from metarl.rl.networks import LOG_STD_MAX, LOG_STD_MIN, seeded
from metarl.rl.parallel import ALONE, Shares, stretches
from metarl.rl.stages import episode_index, times_adapted
from metarl.rl.trust_region import line_search, longest_step


class MamlTrpo(BaseLearner):
    """Meta-trains a `MamlPolicy`, by trust-region steps or by PPO."""

    policy: MamlPolicy

    def __init__(
        self, config: MamlTrpoConfig, info: PolicyInfo, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> None:
        self.config, self._device = config, torch.device(device)
        with seeded(generator):
            self.policy = MamlPolicy(config, info).to(device)
        self._meta = nn.Parameter(self.policy.inner.read())
        self._adam = Adam([self._meta], lr=config.ppo_learning_rate, eps=1e-5)
        self._guard, self._shares, self._fisher = Guard("try a smaller inner_step_size"), ALONE, FisherProducts()

    def share(self, shares: Shares) -> None:
        """Tasks are cut into the pieces: their gradients, products of the Fisher matrix and losses are gathered."""
        self._shares = shares

    def record(
        self, obs: Tensor, state: MamlState, noise: Tensor, action: Tensor, next_state: MamlState
    ) -> Mapping[str, Tensor]:
        """The Gaussian that was sampled, in the network's unit."""
        log_std = self.policy.inner.policy.named(state.parameters)["raw_log_std"].clamp(LOG_STD_MIN, LOG_STD_MAX)
        return {"mean": action * self.config.action_scale - noise * log_std.exp(), "log_std": log_std}

    def update(self, segment: Segment, generator: torch.Generator, progress: float) -> Metrics:
        """One meta-update from whole trials, their episodes before and after adaptation."""
        times: dict[str, float] = {}
        inner = self.policy.inner
        with _timed(times, "advantages"):
            objective, metrics = self._objective(segment)
        update = self._trust_region_step if self.config.outer == "trpo" else self._ppo_steps
        updated, progress_made = update(objective, inner.read(), times)
        inner.write(updated)
        self.policy.obs_norm.update(segment.obs)  # only now: collection and update saw the same normalisation
        spent = {f"time/{name}": seconds for name, seconds in times.items()}
        std = float(self.policy.network.raw_log_std.detach().exp().mean()) / self.config.action_scale
        progress_made |= {"train/std": std} | self._guard.metrics()
        return finite_only(metrics | progress_made | spent)

    def optimizers(self) -> Mapping[str, tuple[torch.optim.Optimizer, Sequence[str]]]:
        """PPO's; without moments until it is used."""
        return {"adam": (self._adam, ["meta"])}

    # ------------------------------------------------------------------------------------------ the data of a trial

    def _objective(self, segment: Segment) -> tuple[MetaObjective | SharedObjective, Metrics]:
        """The objective of all tasks, by this process's pieces and those of the others where they are shared out."""
        shares, masks = self._shares, self.masks(segment)
        pieces = stretches(segment.reward.shape[1], shares.pieces, 1)
        own = [pieces[i] for i in shares.own(len(pieces))]
        cut = [self.stages(segment, masks, worlds) for worlds, *_ in own]
        credit = self._credit(segment, masks[-1]) if self.config.exploration_weight else None
        objectives = [
            MetaObjective(self.policy.inner, stages, sampled, None if credit is None else credit[worlds])
            for (stages, sampled, _), (worlds, *_) in zip(cut, own, strict=True)
        ]
        if shares.pieces == 1:
            return objectives[0], cut[0][2]
        total = partial(shares.total, number=len(pieces))
        return SharedObjective(objectives, [weight for *_, weight in own], total), cut[0][2]

    def _credit(self, segment: Segment, after: Bool[Tensor, "T N"]) -> Float32[Tensor, "N"]:
        """What each world's episodes after adaptation earned, of mean 0 and deviation 1 over the worlds, weighted."""
        earned = (segment.reward * after).sum(dim=0) / (segment.ended & after).sum(dim=0).clamp(min=1)
        earned = earned - earned.mean()
        return self.config.exploration_weight * earned / earned.square().mean().sqrt().clamp(min=1e-8)

    def masks(self, segment: Segment) -> list[Bool[Tensor, "T N"]]:
        """Steps of whole episodes before each step of adaptation, and those after the last.

        `UserError` where a trial ends before its policy has adapted.
        """
        config = self.config
        episode, age = episode_index(segment.ended)
        least = self.policy.least_steps
        number = episode // config.shots if least is None else times_adapted(segment.ended, least)
        number = number.clamp(max=config.inner_steps)
        cut_short = ~segment.terminated[-1] & (age[-1] < age.max())  # by the trial's end, not by their own time limit
        whole = ~(cut_short & (episode == episode[-1]))
        masks = [(number == i) & whole for i in range(config.inner_steps + 1)]
        if not bool(masks[-1].any(dim=0).all()):
            needed = config.shots * config.inner_steps + 1
            raise UserError(
                f"a trial ends before its policy has adapted: {config.inner_steps} x {config.shots} shots need "
                f"--episodes-per-trial of at least {needed}"
            )
        return masks

    @torch.no_grad()
    def stages(
        self, segment: Segment, masks: Sequence[Bool[Tensor, "T N"]] = (), worlds: slice = slice(None)
    ) -> tuple[tuple[Stage, ...], Sampled, Metrics]:
        """Cut the trials of some worlds where the policies adapted: the stages adapted from, and what came after.

        `masks` are those of `masks`, if they are known; the metrics are of all worlds.
        """
        masks = masks or self.masks(segment)
        own = [mask[:, worlds] for mask in masks]
        obs = self.policy.obs_norm(segment.obs[:, worlds])
        stages = [self._stage(segment, obs, mask, worlds) for mask in own]
        mean = segment.extras["mean"][_window(own[-1]), worlds].transpose(0, 1).contiguous()
        sampled = Sampled(stages[-1], mean, segment.extras["log_std"][-1][worlds])
        before, after = (_mean_return(segment, mask) for mask in (masks[0], masks[-1]))
        return tuple(stages[:-1]), sampled, {"train/return_before": before, "train/return_after": after}

    def _stage(
        self, segment: Segment, obs: Float32[Tensor, "T N O"], valid: Bool[Tensor, "T N"], worlds: slice
    ) -> Stage:
        window = _window(valid)
        return self.policy.stage(
            obs[window],
            segment.action[window, worlds],
            segment.extras["mean"][window, worlds],
            segment.extras["log_std"][window, worlds],
            segment.reward[window, worlds],
            segment.ended[window, worlds],
            valid[window],
        )

    # -------------------------------------------------------------------------------------------------- meta-updates

    def _trust_region_step(
        self, objective: MetaObjective | SharedObjective, meta: Tensor, times: dict[str, float]
    ) -> tuple[Tensor, Metrics]:
        config = self.config
        with _timed(times, "gradient"):
            loss, _ = objective.evaluate(meta)
            gradient = objective.gradient(meta)
        unmoved = {"train/kl": 0.0, "train/improvement": 0.0, "train/step": 0.0}
        if not self._guard.passes(meta.new_tensor(loss), gradient, meta):
            return meta, unmoved
        with _timed(times, "conjugate_gradient"):
            product = self._fisher.of(objective.thinned(config.fisher_stride), meta)
            step = longest_step(
                lambda v: product(v) + config.cg_damping * v, gradient, config.max_kl, config.cg_iterations
            )
        if step is None:
            return meta, unmoved
        with _timed(times, "line_search"):
            found = line_search(meta, step, objective.evaluate, loss, config.max_kl)
        return found.parameters, {
            "train/kl": found.kl,
            "train/improvement": loss - found.loss,
            "train/step": found.share,
            "train/grad_norm": float(gradient.norm()),
        }

    def _ppo_steps(
        self, objective: MetaObjective | SharedObjective, meta: Tensor, times: dict[str, float]
    ) -> tuple[Tensor, Metrics]:
        config = self.config
        with _timed(times, "gradient"):
            before, _ = objective.evaluate(meta)
            with torch.no_grad():
                self._meta.copy_(meta)
            for _ in range(config.ppo_epochs):
                now = self._meta.detach().clone().to(meta.device)
                gradient = objective.clipped_gradient(now, meta, config.ppo_clip, config.ppo_inner_kl)
                self._meta.grad = gradient.to(self._meta.device)
                if self._guard.passes(self._meta.grad, self._meta.detach()):
                    self._adam.step()
            updated = self._meta.detach().clone()
            loss, kl = objective.evaluate(updated.to(meta.device))
        return updated, {"train/kl": kl, "train/improvement": before - loss}


def _window(valid: Bool[Tensor, "T N"]) -> slice:
    """The stretch of time in which any world has a valid step."""
    times = valid.any(dim=1).nonzero()[:, 0]
    return slice(int(times[0]), int(times[-1]) + 1)


def _mean_return(segment: Segment, mask: Bool[Tensor, "T N"]) -> float:
    """Mean return of the whole episodes under the mask."""
    return float((segment.reward.double() * mask).sum() / (segment.ended & mask).sum())


@contextmanager
def _timed(times: dict[str, float], name: str) -> Iterator[None]:
    """Note how long the block takes [s]."""
    begun = time.perf_counter()
    yield
    times[name] = time.perf_counter() - begun
