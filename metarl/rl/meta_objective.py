"""The outer loop of gradient-based meta-learning: return after adaptation, as a function of the meta-parameters.

With θᵢ' = adapt(ψ, data of task i), the loss is the mean over tasks of −E[π(a|s; θᵢ') / π_sampling(a|s) A], its trust
region the mean divergence of the *adapted* policies. All tasks are computed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap

from metarl.core.graphs import Replay, looks
from metarl.rl.inner_loop import InnerLoop, Stage
from metarl.rl.objectives import clipped_advantage, gaussian_kl, gaussian_log_prob
from metarl.rl.trust_region import Product

Total = Callable[[Float[Tensor, "n Q"]], Float[Tensor, "Q"]]
"""Rows of this process's pieces -> the sum of those of all pieces."""


class Sampled(NamedTuple):
    """Episodes after adaptation, with the policy as it was when it sampled them."""

    stage: Stage
    mean: Float[Tensor, "M B A"]
    log_std: Float[Tensor, "M A"]


class MetaObjective:
    """Loss, divergence, gradient and Fisher products of one iteration's data."""

    def __init__(
        self,
        inner: InnerLoop,
        stages: tuple[Stage, ...],
        sampled: Sampled,
        credit: Float[Tensor, "M"] | None = None,
    ) -> None:
        """`stages` are those adapted from, one per inner step, over M tasks each.

        With `credit`, what came of a task after adaptation counts for the actions that were adapted from too: the term
        of E-MAML (Stadie et al. 2018, arXiv:1803.01118), which explores for the sake of what is learnt of it.
        """
        self._inner, self._stages, self._sampled, self._credit = inner, stages, sampled, credit

    @property
    def data(self) -> list[Tensor]:
        """All tensors that it depends on beside the meta-parameters."""
        sampled = self._sampled
        return [*(x for stage in self._stages for x in stage), *sampled.stage, sampled.mean, sampled.log_std]

    def apart(self) -> MetaObjective:
        """The same, with data of its own."""
        stages = tuple(Stage(*(x.clone() for x in stage)) for stage in self._stages)
        stage, mean, log_std = self._sampled
        own = Sampled(Stage(*(x.clone() for x in stage)), mean.clone(), log_std.clone())
        return MetaObjective(self._inner, stages, own)

    def thinned(self, stride: int) -> MetaObjective:
        """Return every `stride`-th step only, enough to know the curvature by (Schulman et al. 2015, appendix C)."""
        stages = tuple(_thin(stage, stride) for stage in self._stages)
        mean = self._sampled.mean[:, ::stride]
        return MetaObjective(
            self._inner, stages, Sampled(_thin(self._sampled.stage, stride), mean, self._sampled.log_std)
        )

    @torch.no_grad()
    def evaluate(self, meta: Float[Tensor, "Q"]) -> tuple[float, float]:
        """Loss and divergence."""
        visited = self._trajectories(meta)
        kl = vmap(self._divergence)(visited[:, -1], self._sampled).mean()
        return float(self._loss(visited)), float(kl)

    def gradient(self, meta: Float[Tensor, "Q"]) -> Float[Tensor, "Q"]:
        """The loss's gradient, through the adaptation."""
        gradient: Tensor = grad(lambda meta: self._loss(self._trajectories(meta)))(meta)
        return gradient

    def fisher(self, meta: Float[Tensor, "Q"]) -> Product:
        """Returns v -> F v, with F the Hessian of the divergence at `meta`, what sampled.

        There the divergence has no slope, so F is the mean over tasks of Jᵀ F(θ') J, with J the Jacobian of adaptation
        and F(θ') the Fisher matrix of the adapted policy: no third derivative is needed.
        """
        adapted, pull = _vjp(self._adapt, meta)

        def product(v: Float[Tensor, "Q"]) -> Float[Tensor, "Q"]:
            moved = _jvp(self._adapt, meta, v)
            image: Tensor = pull(vmap(self._fisher_product)(adapted, moved, self._sampled.stage))[0]
            return image / len(adapted)

        return product

    def clipped_gradient(
        self, meta: Float[Tensor, "Q"], reference: Float[Tensor, "Q"], clip: float, kl_weight: float
    ) -> Float[Tensor, "Q"]:
        """Gradient of ProMP's loss (Rothfuss et al. 2018, eq. 11).

        The ratio after adaptation is clipped as in PPO, and `kl_weight` holds the policies that sampled the stages
        adapted from to those of `reference`.
        """
        before = self._trajectories(reference)

        def loss(meta: Tensor) -> Tensor:
            now = self._trajectories(meta)
            total = vmap(partial(self._clipped, clip=clip))(now[:, -1], self._sampled)
            for number, stage in enumerate(self._stages):
                total = total + kl_weight * vmap(self._drift)(before[:, number], now[:, number], stage)
            return total.mean()

        gradient: Tensor = grad(loss)(meta)
        return gradient

    def _loss(self, visited: Float[Tensor, "M L P"]) -> Float[Tensor, ""]:
        """Of the parameters that each task's policy had before each step of adaptation, and after the last."""
        loss = vmap(self._surrogate)(visited[:, -1], self._sampled)
        if self._credit is not None:
            for number, stage in enumerate(self._stages):
                loss = loss - self._credit * vmap(self._likelihood)(visited[:, number], stage)
        return loss.mean()

    def _trajectories(self, meta: Tensor) -> Float[Tensor, "M L P"]:
        visited: Tensor = vmap(self._inner.trajectory, in_dims=(None, 0))(meta, self._stages)
        return visited

    def _adapt(self, meta: Tensor) -> Float[Tensor, "M P"]:
        return self._trajectories(meta)[:, -1]

    # Of a single task:

    def _surrogate(self, parameters: Tensor, sampled: Sampled) -> Tensor:
        stage = sampled.stage
        ratio = torch.exp(self._log_prob(parameters, stage) - stage.log_prob)
        return -(stage.weight * ratio * stage.advantage).sum()

    def _likelihood(self, parameters: Tensor, stage: Stage) -> Tensor:
        """Of the stage's actions, as a ratio to what it was: its gradient is that of their mean log density."""
        return (stage.weight * torch.exp(self._log_prob(parameters, stage) - stage.log_prob)).sum()

    def _clipped(self, parameters: Tensor, sampled: Sampled, clip: float) -> Tensor:
        stage = sampled.stage
        log_prob = self._log_prob(parameters, stage)
        return -(stage.weight * clipped_advantage(log_prob, stage.log_prob, stage.advantage, clip)).sum()

    def _log_prob(self, parameters: Tensor, stage: Stage) -> Tensor:
        mean, log_std = self._inner.policy(parameters, stage.obs)
        return gaussian_log_prob(mean, log_std, stage.action)

    def _divergence(self, parameters: Tensor, sampled: Sampled) -> Tensor:
        mean, log_std = self._inner.policy(parameters, sampled.stage.obs)
        return (sampled.stage.weight * gaussian_kl(sampled.mean, sampled.log_std, mean, log_std)).sum()

    def _drift(self, reference: Tensor, parameters: Tensor, stage: Stage) -> Tensor:
        old_mean, old_log_std = self._inner.policy(reference, stage.obs)
        mean, log_std = self._inner.policy(parameters, stage.obs)
        return (stage.weight * gaussian_kl(old_mean, old_log_std, mean, log_std)).sum()

    def _fisher_product(self, parameters: Tensor, v: Tensor, stage: Stage) -> Tensor:
        """Σ weight Jᵀ G J v with J of (mean, log σ) and G their metric, diag(1/σ²) and diag(2)."""

        def output(parameters: Tensor) -> tuple[Tensor, Tensor]:
            mean, log_std = self._inner.policy(parameters, stage.obs)
            return mean, log_std

        (_, log_std), pull = _vjp(output, parameters)
        mean_change, log_std_change = _jvp(output, parameters, v)
        mean_force = stage.weight[:, None] * mean_change * torch.exp(-2.0 * log_std)
        product: Tensor = pull((mean_force, 2.0 * stage.weight.sum() * log_std_change))[0]
        return product


class SharedObjective:
    """The same of all tasks, cut into pieces: each is computed in one process, and the sums are those of all."""

    def __init__(self, own: Sequence[MetaObjective], weights: Sequence[float], total: Total) -> None:
        """`weights` are the own pieces' shares of all tasks; `total` adds the rows of all pieces, given the own."""
        self._own, self._weights, self._total = own, weights, total

    def thinned(self, stride: int) -> SharedObjective:
        """See `MetaObjective.thinned`."""
        return SharedObjective([piece.thinned(stride) for piece in self._own], self._weights, self._total)

    def evaluate(self, meta: Float[Tensor, "Q"]) -> tuple[float, float]:
        """Loss and divergence."""
        loss, kl = self._mean([meta.new_tensor(piece.evaluate(meta)) for piece in self._own]).tolist()
        return loss, kl

    def gradient(self, meta: Float[Tensor, "Q"]) -> Float[Tensor, "Q"]:
        """The loss's gradient."""
        return self._mean([piece.gradient(meta) for piece in self._own])

    def fisher(self, meta: Float[Tensor, "Q"]) -> Product:
        """See `MetaObjective.fisher`."""
        products = [piece.fisher(meta) for piece in self._own]
        return lambda v: self._mean([product(v) for product in products])

    def clipped_gradient(
        self, meta: Float[Tensor, "Q"], reference: Float[Tensor, "Q"], clip: float, kl_weight: float
    ) -> Float[Tensor, "Q"]:
        """See `MetaObjective.clipped_gradient`."""
        return self._mean([piece.clipped_gradient(meta, reference, clip, kl_weight) for piece in self._own])

    def _mean(self, values: Sequence[Float[Tensor, "Q"]]) -> Float[Tensor, "Q"]:
        return self._total(torch.stack([weight * value for weight, value in zip(self._weights, values, strict=True)]))


class FisherProducts:
    """Products with one Fisher matrix after another, each an objective's.

    On a GPU, where the many small kernels of a product take longer to launch than to run, they are captured once for
    data of the same shapes: that of the next objective is then copied to where the first one's lay.
    """

    def __init__(self) -> None:
        self._shapes: list[torch.Size] | None = None
        self._held: _Held | None = None

    def of(self, objective: MetaObjective | SharedObjective, meta: Float[Tensor, "Q"]) -> Product:
        """Returns v -> F v at `meta`, for use until the next call."""
        if looks(meta.device) or isinstance(objective, SharedObjective):
            return objective.fisher(meta)
        shapes = [part.shape for part in objective.data]
        if shapes != self._shapes:  # perhaps they differ each time, as where robots fall: a capture has to be worth it
            self._shapes, self._held = shapes, None
            return objective.fisher(meta)
        if self._held is None:
            self._held = _Held(objective, meta)
        return self._held.of(objective, meta)


class _Held:
    """An objective's products, with data and parameters where they can be replaced."""

    def __init__(self, objective: MetaObjective, meta: Float[Tensor, "Q"]) -> None:
        self._objective, self._meta = objective.apart(), meta.clone()
        self._given, self._found = torch.empty_like(meta), torch.empty_like(meta)
        self._replay = Replay(self._work, meta.device, "the Fisher product", warm_up=1)

    def of(self, objective: MetaObjective, meta: Float[Tensor, "Q"]) -> Product:
        for own, new in zip([self._meta, *self._objective.data], [meta, *objective.data], strict=True):
            own.copy_(new)
        return self._product

    def _product(self, v: Float[Tensor, "Q"]) -> Float[Tensor, "Q"]:
        self._given.copy_(v)
        self._replay()
        return self._found.clone()

    def _work(self) -> None:
        self._found.copy_(self._objective.fisher(self._meta)(self._given))


def _thin(stage: Stage, stride: int) -> Stage:
    obs, action, log_prob, advantage, weight = (x[:, ::stride] for x in stage)
    return Stage(obs, action, log_prob, advantage, weight / weight.sum(dim=1, keepdim=True).clamp(min=1e-8))


def _vjp(function: Callable[[Tensor], Any], at: Tensor) -> tuple[Any, Callable[[Any], tuple[Tensor]]]:
    """The function's value, and w -> (wᵀ J,)."""
    value, pull, *_ = vjp(function, at)
    return value, pull


def _jvp(function: Callable[[Tensor], Any], at: Tensor, v: Tensor) -> Any:
    """J v."""
    return jvp(function, (at,), (v,))[1]
