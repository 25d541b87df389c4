"""A user's own file: half-cheetah-dir with episodes of ten steps, a broken family, and a learner."""

from dataclasses import dataclass

import torch

from metarl.agents.configs import RL2Config
from metarl.agents.rl2 import RL2
from metarl.core.mirror import Symmetry, signed
from metarl.envs.half_cheetah import HalfCheetahDir
from metarl.run.ranks import rank


class ShortDir(HalfCheetahDir):
    """Each step is its own mirror image, so that whoever learns from images does."""

    episode_steps = 10
    mirror = Symmetry(action=signed(*(1,) * 6), state={})


class NotFinite(ShortDir):
    """Its reward breaks for one of the tasks."""

    def reward(self, physics, before, action, tasks):
        terms = dict(super().reward(physics, before, action, tasks))
        terms["broken"] = 1.0 / (tasks["direction"] + 1.0)
        return terms


@dataclass(frozen=True)
class OwnConfig:
    """Hyperparameters of a user's own learner."""

    rate: float = 1.0
    """Reported, nothing else."""


class OwnLearner(RL2):
    """RL² with a configuration of its own."""

    Config = OwnConfig

    def __init__(self, config, info, generator, device="cpu"):
        super().__init__(RL2Config(hidden_size=8, chunk_steps=5), info, generator, device)
        self.own = config

    def update(self, segment, generator, progress):
        return super().update(segment, generator, progress) | {"train/rate": self.own.rate}


class Astray(OwnLearner):
    """Of several processes, each goes its own way."""

    def update(self, segment, generator, progress):
        metrics = super().update(segment, generator, progress)
        with torch.no_grad():
            next(self.policy.parameters()).add_(rank())
        return metrics
