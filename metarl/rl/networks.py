"""Networks: a recurrent actor-critic whose heads also see the observation, and a Gaussian policy that is a value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarl.rl.cells import Cell

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
"""Bounds of the policy's log standard deviation: e⁻⁵ to e² of the action's unit."""
BELIEF_LOG_STD_MIN = -4.0
"""Bound of a belief's log standard deviation, in units of the prior's."""


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Networks made in the block take their initial weights from one draw of `generator`."""
    seed = int(torch.randint(2**31, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def bounded_log_std(raw: Float[Tensor, "*B P"]) -> Float[Tensor, "*B P"]:
    """A belief's log standard deviation, bounded below: a certain guess would make one outlier the whole gradient.

    Not by a clamp, which would leave none.
    """
    return BELIEF_LOG_STD_MIN + nn.functional.softplus(raw - BELIEF_LOG_STD_MIN)


def as_gaussian(numbers: Float[Tensor, "*B P2"]) -> tuple[Float[Tensor, "*B P"], Float[Tensor, "*B P"]]:
    """What a network says of P numbers: their means, and their log standard deviations."""
    mean, raw = numbers.chunk(2, dim=-1)
    return mean, bounded_log_std(raw)


def orthogonal(layer: nn.Linear, gain: float) -> nn.Linear:
    """Initialise in place: orthogonal weights, zero bias. Returns the layer."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def head(inputs: int, hidden: int, outputs: int, gain: float, layers: int = 1) -> nn.Sequential:
    """Hidden layers of tanh units; `gain` scales the output layer's initial weights."""
    parts: list[nn.Module] = []
    for size in (inputs, *[hidden] * (layers - 1)):
        parts += [orthogonal(nn.Linear(size, hidden), math.sqrt(2.0)), nn.Tanh()]
    return nn.Sequential(*parts, orthogonal(nn.Linear(hidden, outputs), gain))


class Generated(nn.Module):
    """A linear layer whose weights are linear functions of an embedding e of length K: y = (W₀ + Σ e_k W_k) [x, 1].

    W₀ begins as an ordinary layer's weights and the others as zero, so that every embedding begins with the same layer
    (Bias-HyperInit: Beck et al. 2022, arXiv:2210.11348). The products are summed without making the weights: whichever
    is smaller comes first, the outer products of x and e or those of x and all W_k.
    """

    def __init__(self, embedding: int, inputs: int, outputs: int, gain: float) -> None:
        super().__init__()
        self.base = orthogonal(nn.Linear(inputs, outputs), gain)
        self.weight = nn.Parameter(torch.zeros(inputs, embedding * outputs))
        self.bias = nn.Parameter(torch.zeros(outputs, embedding))

    def forward(self, x: Float[Tensor, "*B I"], embedding: Float[Tensor, "*B K"]) -> Float[Tensor, "*B O"]:
        """The layer's output for each input by its own embedding."""
        inputs, outputs = self.base.in_features, self.base.out_features
        y: Tensor = self.base(x) + nn.functional.linear(embedding, self.bias)
        if inputs < outputs:
            return y + (x[..., None] * embedding[..., None, :]).flatten(-2) @ self.weight.view(-1, outputs)
        parts = (x @ self.weight).reshape(*embedding.shape, outputs)
        return y + (embedding[..., None, :] @ parts).squeeze(-2)


class HyperHead(nn.Module):
    """A policy head over observations whose weights the memory generates (Beck et al. 2023, arXiv:2309.14970)."""

    def __init__(self, memory: int, inputs: int, hidden: int, outputs: int) -> None:
        """`memory` is the length of the memory's output; a quarter as many numbers of it choose the weights."""
        super().__init__()
        self.memory, self.embedding = memory, max(1, memory // 4)
        self.embed = orthogonal(nn.Linear(memory, self.embedding), 1.0)
        self.first = Generated(self.embedding, inputs, hidden, math.sqrt(2.0))
        self.last = Generated(self.embedding, hidden, outputs, 0.01)

    def forward(self, features: Float[Tensor, "*B F"]) -> Float[Tensor, "*B O"]:
        """From [memory's output, observation]."""
        # Adam moves each of the K generated terms by its step: their mean moves as an ordinary layer, not their sum.
        embedding = self.embed(features[..., : self.memory]) / self.embedding
        y: Tensor = self.last(torch.tanh(self.first(features[..., self.memory :], embedding)), embedding)
        return y


class RecurrentActorCritic(nn.Module):
    """A memory with a Gaussian policy head and a value head on [memory, observation] (RNN+S).

    Feeding the observation past the memory closes much of the gap to hypernetwork policies (Beck et al. 2023,
    arXiv:2309.14970). The value head may be shown more than the policy (an asymmetric critic: Pinto et al. 2017,
    arXiv:1710.06542), and a third head may say from the memory what that is.
    """

    def __init__(
        self,
        memory: Cell,
        obs_size: int,
        action_size: int,
        *,
        policy_head: str = "mlp",
        shown: int = 0,
        believed: int = 0,
    ) -> None:
        """`shown` is how many privileged numbers the value head sees, `believed` how many the memory is asked for.

        The policy head is one of [memory, observation] (mlp), of what the memory believes too, if it is asked (belief),
        or one of the observation alone whose weights the memory generates (hyper).
        """
        super().__init__()
        self.hidden = hidden = memory.hidden
        self.memory = memory
        self.believing = policy_head == "belief" and believed > 0
        self.actor: nn.Module = (
            HyperHead(hidden, obs_size, hidden, action_size)
            if policy_head == "hyper"
            else head(hidden + obs_size + 2 * believed * self.believing, hidden, action_size, gain=0.01)
        )
        self.critic = head(hidden + obs_size + shown, hidden, 1, gain=1.0)
        self.raw_log_std = nn.Parameter(torch.zeros(action_size))
        self.shown, self.believed = shown, believed
        if believed:
            self.belief = head(hidden, hidden, 2 * believed, gain=0.01)

    @property
    def state_size(self) -> int:
        """Length of the memory's state."""
        return self.memory.state_size

    @property
    def log_std(self) -> Float[Tensor, "A"]:
        """The policy's log standard deviation, clamped."""
        return self.raw_log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def mean(self, features: Float[Tensor, "*B F"]) -> Float[Tensor, "*B A"]:
        """The policy's mean action, from [output, observation].

        What it believes is told to the policy head as it is: only its truth decides what the memory comes to believe.
        """
        if self.believing:
            beliefs = torch.cat(self.beliefs(features[..., : self.hidden]), dim=-1)
            features = torch.cat((features, beliefs.detach()), dim=-1)
        mean: Tensor = self.actor(features)
        return mean

    def value(
        self, features: Float[Tensor, "*B F"], privileged: Float[Tensor, "*B P"] | None = None
    ) -> Float[Tensor, "*B"]:
        """Values, from [output, observation], and the privileged numbers where the value head is shown them."""
        if self.shown:
            assert privileged is not None
            features = torch.cat((features, privileged), dim=-1)
        value: Tensor = self.critic(features)[..., 0]
        return value

    def beliefs(self, outputs: Float[Tensor, "*B H"]) -> tuple[Float[Tensor, "*B P"], Float[Tensor, "*B P"]]:
        """Mean and log standard deviation of the privileged numbers, by the memory's output."""
        return as_gaussian(self.belief(outputs))

    def forward(
        self,
        inputs: Float[Tensor, "T N I"],
        obs: Float[Tensor, "T N O"],
        state: Float[Tensor, "N H"],
        privileged: Float[Tensor, "T N P"] | None = None,
    ) -> tuple[Float[Tensor, "T N A"], Float[Tensor, "T N"], Float[Tensor, "T N H2"]]:
        """Action means, values, and the memory's outputs."""
        outputs, _ = self.memory.sequence(inputs, state)
        features = torch.cat((outputs, obs), dim=-1)
        return self.mean(features), self.value(features, privileged), outputs


class ActorCritic(nn.Module):
    """Heads for the policy's mean action and the value, which share nothing."""

    def __init__(self, inputs: int, hidden: int, action_size: int, std: float, layers: int = 1) -> None:
        super().__init__()
        self.actor = head(inputs, hidden, action_size, 0.01, layers)
        self.critic = head(inputs, hidden, 1, 1.0, layers)
        self.raw_log_std = nn.Parameter(torch.full((action_size,), math.log(std)))

    @property
    def log_std(self) -> Float[Tensor, "A"]:
        """The policy's log standard deviation, clamped."""
        return self.raw_log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def action(
        self, features: Float[Tensor, "N F"], noise: Float[Tensor, "N A"], deterministic: bool
    ) -> Float[Tensor, "N A"]:
        """Sample the Gaussian policy, or take its mean."""
        mean: Tensor = self.actor(features)
        return mean if deterministic else mean + noise * self.log_std.exp()


class GaussianMlp(nn.Module):
    """Two tanh hidden layers and a Gaussian with a standard deviation of its own, the same in every state."""

    def __init__(self, obs_size: int, action_size: int, hidden: int, std: float) -> None:
        """`std` is the initial standard deviation, in the unit of the network's output."""
        super().__init__()
        gain = math.sqrt(2.0)
        self.layers = nn.ModuleList(
            (
                orthogonal(nn.Linear(obs_size, hidden), gain),
                orthogonal(nn.Linear(hidden, hidden), gain),
                orthogonal(nn.Linear(hidden, action_size), 0.01),
            )
        )
        self.raw_log_std = nn.Parameter(torch.full((action_size,), math.log(std)))

    def forward(self, obs: Float[Tensor, "*B O"]) -> tuple[Float[Tensor, "*B A"], Float[Tensor, "A"]]:
        """Mean and log standard deviation of the action."""
        x = obs
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(x))
        return self.layers[-1](x), self.raw_log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def forward_each(
        self, weights: Mapping[str, Tensor], obs: Float[Tensor, "N O"]
    ) -> tuple[Float[Tensor, "N A"], Float[Tensor, "N A"]]:
        """`forward` with weights (N, ...) of their own for every row: one batched product per layer."""
        x, last = obs[:, None], len(self.layers) - 1
        for number in range(last + 1):
            weight, bias = weights[f"layers.{number}.weight"], weights[f"layers.{number}.bias"]
            x = torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
            x = x if number == last else torch.tanh(x)
        return x[:, 0], weights["raw_log_std"].clamp(LOG_STD_MIN, LOG_STD_MAX)


def mlp(inputs: int, hidden: int, layers: int, outputs: int) -> nn.Sequential:
    """`layers` hidden layers of ReLU units."""
    sizes = [inputs, *[hidden] * layers]
    parts: list[nn.Module] = []
    for before, after in pairwise(sizes):
        parts += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(hidden, outputs))


class TwinCritic(nn.Module):
    """Two MLPs with one output each, as one batched network: a product per layer computes both."""

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        sizes = [inputs, *[hidden] * layers, 1]
        pairs = list(pairwise(sizes))
        self.weights = nn.ParameterList(_uniform(2, before, after, fan_in=before) for before, after in pairs)
        self.biases = nn.ParameterList(_uniform(2, 1, after, fan_in=before) for before, after in pairs)

    def forward(self, inputs: Float[Tensor, "B I"], frozen: bool = False) -> Float[Tensor, "2 B"]:
        """Both values; `frozen` lets gradients through to the inputs only, and saves the parameters'.

        The last layer is a product and a sum: three times as fast on the CPU as a matrix product with one column.
        """
        layers = [(weight, bias) for weight, bias in zip(self.weights, self.biases, strict=True)]
        if frozen:
            layers = [(weight.detach(), bias.detach()) for weight, bias in layers]
        x = inputs.expand(2, -1, -1)
        for weight, bias in layers[:-1]:
            x = torch.relu_(torch.baddbmm(bias, x, weight))
        weight, bias = layers[-1]
        value: Tensor = torch.linalg.vecdot(x, weight.mT) + bias[..., 0]
        return value


def _uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """Drawn as `nn.Linear` does: U(−1/√fan_in, 1/√fan_in)."""
    bound = 1.0 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
