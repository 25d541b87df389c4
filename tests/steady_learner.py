"""A user's own learner whose best is known: it pushes the point of point-goal one way, and never learns."""

import time
from dataclasses import dataclass
from typing import ClassVar

import torch

from metarl.core.errors import UserError
from metarl.core.parameters import Between, Checked, OneOf, number
from metarl.rl.learner import BaseLearner
from metarl.rl.policy import PolicyModule
from metarl.rl.state import load_module, module_tensors


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


class SteadyPolicy(PolicyModule):
    def __init__(self, info, push):
        super().__init__(info)
        self.register_buffer("push", torch.tensor(push))

    def act(self, obs, state, noise, deterministic=False):
        return self.push.expand(len(obs), self.info.action_size), state


class Steady(BaseLearner):
    Config = SteadyConfig

    def __init__(self, config, info, generator, device="cpu"):
        self.config, self.policy, self.count = config, SteadyPolicy(info, config.push).to(device), 0

    def update(self, segment, generator, progress):
        if self.config.push > self.config.breaks_above:
            raise UserError("reward term 'push' is inf")
        time.sleep(self.config.seconds)
        self.count += 1
        return {}

    def state_dict(self):
        return module_tensors(self.policy, "policy") | {"count": torch.tensor(self.count)}

    def load_state_dict(self, state):
        load_module(self.policy, state, "policy")
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
