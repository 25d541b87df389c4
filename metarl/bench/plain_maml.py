"""One meta-update of MAML-TRPO as one would write it first: a Python loop over tasks and `torch.autograd.grad`.

What `metarl bench` compares the learner with, and what the tests compare its results with: the same maths, no
`torch.func`, no code shared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

Weights = list[Tensor]
"""Weight and bias of each layer, then the log standard deviation."""


@dataclass(frozen=True)
class PlainTask:
    """One task's data, by the names of `Stage` and `Sampled`: before adaptation, and after it."""

    before: list[Mapping[str, Tensor]]
    after: Mapping[str, Tensor]


def update(
    weights: Weights, tasks: list[PlainTask], rate: float, max_kl: float, iterations: int, damping: float
) -> Weights:
    """The weights after a trust-region step; the same ones where its line search fails."""
    loss, kl = (_mean(of, weights, tasks, rate) for of in (_surrogate, _divergence))
    gradient = _flat(torch.autograd.grad(loss, weights))
    slope = _flat(torch.autograd.grad(kl, weights, create_graph=True))

    def product(v: Tensor) -> Tensor:
        return _flat(torch.autograd.grad(slope.dot(v), weights, retain_graph=True)) + damping * v

    step = _solve(product, -gradient, iterations)
    step = step * (2.0 * max_kl / step.dot(product(step))).sqrt()
    for attempt in range(15):
        trial = _moved(weights, 0.8**attempt * step)
        if _mean(_surrogate, trial, tasks, rate) < loss and _mean(_divergence, trial, tasks, rate) <= max_kl:
            return trial
    return weights


def adapt(weights: Weights, task: PlainTask, rate: float) -> Weights:
    """A task's own weights."""
    for stage in task.before:
        loss = -(stage["weight"] * _log_prob(weights, stage) * stage["advantage"]).sum()
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        weights = [weight - rate * gradient for weight, gradient in zip(weights, gradients, strict=True)]
    return weights


def _mean(
    of: Callable[[Weights, Mapping[str, Tensor]], Tensor], weights: Weights, tasks: list[PlainTask], rate: float
) -> Tensor:
    return torch.stack([of(adapt(weights, task, rate), task.after) for task in tasks]).mean()


def _forward(weights: Weights, obs: Tensor) -> Tensor:
    *layers, _ = weights
    for number in range(0, len(layers), 2):
        obs = linear(obs, layers[number], layers[number + 1])
        obs = obs if number == len(layers) - 2 else obs.tanh()
    return obs


def _log_prob(weights: Weights, stage: Mapping[str, Tensor]) -> Tensor:
    z = (stage["action"] - _forward(weights, stage["obs"])) / weights[-1].exp()
    return (-0.5 * z**2 - weights[-1] - 0.5 * math.log(2.0 * math.pi)).sum(dim=1)


def _surrogate(weights: Weights, after: Mapping[str, Tensor]) -> Tensor:
    ratio = (_log_prob(weights, after) - after["log_prob"]).exp()
    return -(after["weight"] * ratio * after["advantage"]).sum()


def _divergence(weights: Weights, after: Mapping[str, Tensor]) -> Tensor:
    old, new = after["log_std"], weights[-1]
    difference = after["mean"] - _forward(weights, after["obs"])
    kl = new - old + ((2.0 * old).exp() + difference**2) / (2.0 * (2.0 * new).exp()) - 0.5
    return (after["weight"] * kl.sum(dim=1)).sum()


def _solve(product: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    x, r, p = torch.zeros_like(b), b, b
    for _ in range(iterations):
        image = product(p)
        length = r.dot(r) / p.dot(image)
        x, following = x + length * p, r - length * image
        p = following + following.dot(following) / r.dot(r) * p
        r = following
    return x


def _flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _moved(weights: Weights, step: Tensor) -> Weights:
    parts = torch.split(step, [weight.numel() for weight in weights])
    return [
        (weight + part.view_as(weight)).detach().requires_grad_() for weight, part in zip(weights, parts, strict=True)
    ]
