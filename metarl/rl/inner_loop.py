"""The inner loop of gradient-based meta-learning: from one parameter vector to a task's own, differentiably.

Everything here is for a single task; `torch.func.vmap` makes it all tasks at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import grad

from metarl.rl.functional import FlatModule
from metarl.rl.objectives import gaussian_log_prob

_HIDDEN = 8  # units of the learned update rule, per parameter of the policy


class Stage(NamedTuple):
    """Episodes sampled with one parameter vector: B steps. Over M tasks, every field has a leading dimension M."""

    obs: Float[Tensor, "B O"]
    """Normalised observations, which are the input of the policy's network."""
    action: Float[Tensor, "B A"]
    """Sampled actions, in the unit of the network."""
    log_prob: Float[Tensor, "B"]
    """Log-density of each action when it was sampled."""
    advantage: Float[Tensor, "B"]
    """Mean 0 and standard deviation 1 within the task."""
    weight: Float[Tensor, "B"]
    """1 / number of valid steps, or 0 for padding: weighted sums are means."""


# ------------------------------------------------------------------------------------------------- update rules


class FixedRate(nn.Module):
    """θ − α g (Finn et al. 2017, arXiv:1703.03400, eq. 1)."""

    memory_size = 0

    def __init__(self, size: int, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(
        self, parameters: Float[Tensor, "P"], gradient: Float[Tensor, "P"], memory: Float[Tensor, "P H"]
    ) -> tuple[Float[Tensor, "P"], Float[Tensor, "P H"]]:
        """The next parameters, and the rule's memory."""
        return parameters - self.rate * gradient, memory


class LearnedRate(nn.Module):
    """θ − α ∘ g with a learned α for every parameter: Meta-SGD (Li et al. 2017, arXiv:1707.09835, eq. 2)."""

    memory_size = 0

    def __init__(self, size: int, rate: float) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.full((size,), rate))

    def forward(
        self, parameters: Float[Tensor, "P"], gradient: Float[Tensor, "P"], memory: Float[Tensor, "P H"]
    ) -> tuple[Float[Tensor, "P"], Float[Tensor, "P H"]]:
        """The next parameters, and the rule's memory."""
        return parameters - self.rate * gradient, memory


class RecurrentRule(nn.Module):
    """A gated recurrent unit that turns gradients into steps, one set of weights for each of `size` parameters.

    There may be more, which do not adapt: their gradient is 0. As Andrychowicz et al. 2016 (arXiv:1606.04474) each
    parameter has a memory of its own. Its inputs are the gradient relative to the root mean square of all, squashed,
    and the logarithm of that: bounded and smooth, since the meta-gradient passes through them. It starts as θ − α g:
    the outputs, a gain on g and a push, begin at zero.
    """

    memory_size = _HIDDEN

    def __init__(self, size: int, rate: float) -> None:
        super().__init__()
        self.size = size
        self.rate = nn.Parameter(torch.tensor(rate))
        self.gates = nn.Linear(2 + _HIDDEN, 2 * _HIDDEN)
        self.candidate = nn.Linear(2 + _HIDDEN, _HIDDEN)
        self.output = nn.Linear(_HIDDEN, 2)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self, parameters: Float[Tensor, "P"], gradient: Float[Tensor, "P"], memory: Float[Tensor, "P H"]
    ) -> tuple[Float[Tensor, "P"], Float[Tensor, "P H"]]:
        """The next parameters, and the rule's memory."""
        scale = (gradient.square().sum() / self.size + 1e-12).sqrt()
        relative = torch.tanh(gradient / scale)
        inputs = torch.stack((relative, (scale.log() / 10.0).expand_as(relative)), dim=-1)
        update, reset = torch.sigmoid(self.gates(torch.cat((inputs, memory), dim=-1))).chunk(2, dim=-1)
        candidate = torch.tanh(self.candidate(torch.cat((inputs, reset * memory), dim=-1)))
        memory = (1.0 - update) * memory + update * candidate
        gain, push = self.output(memory).unbind(dim=-1)
        return parameters - self.rate * ((1.0 + gain) * gradient + push * scale), memory


UpdateRule = FixedRate | LearnedRate | RecurrentRule


# --------------------------------------------------------------------------------------------------- adaptation


@dataclass(frozen=True)
class InnerLoop:
    """How a policy's parameters θ become a task's own.

    The meta-parameters ψ are θ followed by the update rule's own parameters.
    """

    policy: FlatModule
    """(θ, obs) -> mean and log standard deviation of the action."""
    rule: FlatModule
    """An `UpdateRule`."""
    objective: Literal["reinforce", "lvc"] = "reinforce"
    """Log-likelihood, or likelihood ratio: low-variance curvature (Rothfuss et al. 2018, arXiv:1810.06784, eq. 9)."""
    first_order: bool = False
    """Take the inner gradient for a constant (FOMAML)."""
    adapted: Float[Tensor, "P"] | None = None
    """1 for the parameters that adapt, 0 for the others; None where all do."""

    @property
    def memory_size(self) -> int:
        """Numbers that the update rule remembers for each parameter."""
        size: int = self.rule.module.memory_size  # type: ignore[assignment]
        return size

    def read(self) -> Float[Tensor, "Q"]:
        """A copy of the present meta-parameters ψ."""
        policy = self.policy.read()
        return torch.cat((policy, self.rule.read().to(policy.device)))

    def write(self, meta: Float[Tensor, "Q"]) -> None:
        """Make ψ the present meta-parameters."""
        self.policy.write(meta[: self.policy.size])
        self.rule.write(meta[self.policy.size :])

    def loss(self, parameters: Float[Tensor, "P"], stage: Stage) -> Float[Tensor, ""]:
        """−E[log π(a|s) A], or −E[π(a|s) / π_sampling(a|s) A]: equal in gradient, not in curvature."""
        mean, log_std = self.policy(parameters, stage.obs)
        credit = gaussian_log_prob(mean, log_std, stage.action)
        if self.objective == "lvc":
            credit = torch.exp(credit - stage.log_prob)
        return -(stage.weight * credit * stage.advantage).sum()

    def step(
        self, meta: Float[Tensor, "Q"], parameters: Float[Tensor, "P"], memory: Float[Tensor, "P H"], stage: Stage
    ) -> tuple[Float[Tensor, "P"], Float[Tensor, "P H"]]:
        """One step of adaptation, from the stage that `parameters` sampled. Returns them adapted, and the memory."""
        gradient = grad(self.loss)(parameters, stage)
        if self.first_order:
            gradient = gradient.detach()
        mask = None if self.adapted is None else self.adapted.to(gradient.device)
        if mask is not None:
            gradient = gradient * mask
        adapted, memory = self.rule(meta[self.policy.size :], parameters, gradient, memory)
        if mask is not None:  # a rule may push where there is no gradient
            adapted = torch.where(mask > 0, adapted, parameters)
        return adapted, memory

    def trajectory(self, meta: Float[Tensor, "Q"], stages: Sequence[Stage]) -> Float[Tensor, "L P"]:
        """Parameters before and after each of the steps, one per stage: L = number of stages + 1."""
        parameters = meta[: self.policy.size]
        memory = parameters.new_zeros(self.policy.size, self.memory_size)
        visited = [parameters]
        for stage in stages:
            parameters, memory = self.step(meta, parameters, memory, stage)
            visited.append(parameters)
        return torch.stack(visited)
