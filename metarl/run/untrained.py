"""Policies that never train: what a family looks like before any training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from metarl.core.registry import absolute, make_family
from metarl.core.seeding import WorldRandom
from metarl.core.types import Transition
from metarl.rl.learner import Policy
from metarl.run.records import Origin
from metarl.sim.family import Family
from metarl.sim.make import make_env

EPISODES = 2
"""Episodes per task where the user does not say."""


def untrained(agent: str, family: str) -> tuple[Policy, Family, Origin]:
    """The policy of `UNTRAINED` for the family named, the family, and what records say of them."""
    made = make_family(family)
    with make_env(made, 1, threads=1) as env:
        policy = UNTRAINED[agent](env.info.action_size)
    return policy, made, Origin(agent=agent, family=absolute(family))


class ZeroPolicy:
    """Action 0: every actuator at the middle of its control range. Believes nothing."""

    def __init__(self, action_size: int) -> None:
        self.action_size = action_size

    def begin(self, n: int, generator: torch.Generator) -> None:
        """Nothing to believe."""

    def act(
        self, obs: Float32[Tensor, "N O"], belief: None, deterministic: bool = False
    ) -> tuple[Float32[Tensor, "N A"], None, Mapping[str, Tensor]]:
        """Zeros."""
        return torch.zeros(len(obs), self.action_size), None, {}

    def observe(self, belief: None, transition: Transition) -> None:
        """Nothing to learn."""

    def end_episode(self, belief: None, worlds: Bool[Tensor, "N"]) -> None:
        """Nothing to remember."""


class RandomPolicy:
    """Actions from U[-1, 1], drawn anew at every step, `deterministic` or not: it has no mean worth showing.

    Its belief is a stream per world, so that what a world draws does not depend on how many there are: a video shows
    the evaluation's first tasks.
    """

    def __init__(self, action_size: int) -> None:
        self.action_size = action_size

    def begin(self, n: int, generator: torch.Generator) -> WorldRandom:
        """The streams, keyed by one draw from `generator`."""
        key = int(torch.randint(2**62, (), generator=generator))
        return WorldRandom(key, torch.arange(n), torch.zeros(n, dtype=torch.long))

    def act(
        self, obs: Float32[Tensor, "N O"], belief: WorldRandom, deterministic: bool = False
    ) -> tuple[Float32[Tensor, "N A"], WorldRandom, Mapping[str, Tensor]]:
        """The next of the stream."""
        return belief.uniform(-1.0, 1.0, self.action_size).float(), belief, {}

    def observe(self, belief: WorldRandom, transition: Transition) -> WorldRandom:
        """Nothing to learn."""
        return belief

    def end_episode(self, belief: WorldRandom, worlds: Bool[Tensor, "N"]) -> WorldRandom:
        """The stream goes on."""
        return belief


UNTRAINED: dict[str, type[ZeroPolicy] | type[RandomPolicy]] = {"zero": ZeroPolicy, "random": RandomPolicy}
"""What `--agent` offers."""
