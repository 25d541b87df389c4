"""A user's own learner whose best is known: it pushes the point of point-goal one way, and never learns."""

import time
from dataclasses import dataclass
from typing import ClassVar

import torch

from metarl.core.errors import UserError
from metarl.core.parameters import Between, Checked, OneOf, number


@dataclass(frozen=True)
class SteadyConfig(Checked):
    """`push` 0 keeps the point in the square; away from it the return falls."""

    search: ClassVar = {"num_worlds": OneOf(2, 4)}

    push: float = number(0.5, search=Between(0.0, 1.0))
    laps: int = number(2, least=1, search=Between(1, 4))
    breaks_above: float = 2.0
    """A training with a stronger push fails."""
    seconds: float = 0.0
    """Time that an iteration takes."""


class SteadyPolicy:
    def __init__(self, push):
        self.push = push

    def begin(self, n, generator):
        return None

    def act(self, obs, belief, deterministic=False):
        return torch.full((len(obs), 2), self.push), None, {}

    def observe(self, belief, transition):
        return None

    def end_episode(self, belief, worlds):
        return None


class Steady:
    Config = SteadyConfig

    def __init__(self, config, obs_size, action_size, generator):
        self.config, self.policy, self.count = config, SteadyPolicy(config.push), 0

    def train_step(self, collect, generator, progress):
        if self.config.push > self.config.breaks_above:
            raise UserError("reward term 'push' is inf")
        time.sleep(self.config.seconds)
        collect(self.policy)
        self.count += 1
        return {}

    def state_dict(self):
        return {"count": torch.tensor(self.count)}

    def load_state_dict(self, state):
        self.count = int(state["count"])


@dataclass(frozen=True)
class NoRanges:
    push: float = 0.5


@dataclass(frozen=True)
class WrongName(NoRanges):
    search: ClassVar = {"pusch": Between(0.0, 1.0)}


@dataclass(frozen=True)
class WrongRange(NoRanges):
    search: ClassVar = {"push": (0.0, 1.0)}


@dataclass(frozen=True)
class WrongEnd(NoRanges):
    search: ClassVar = {"num_worlds": Between(0, 4)}


class SteadyNoRanges(Steady):
    Config = NoRanges


class SteadyWrongName(Steady):
    Config = WrongName


class SteadyWrongRange(Steady):
    Config = WrongRange


class SteadyWrongEnd(Steady):
    Config = WrongEnd
