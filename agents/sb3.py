"""What the learners made of Stable-Baselines3's algorithms share.

The algorithm brings its networks, optimisers and `train()`; it never gets an environment. Data is collected by metarl's
collector and written into SB3's own buffers as SB3's `collect_rollouts` would have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from gymnasium.spaces import Box
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger

from metarl.types import Metrics

M = TypeVar("M", bound=BaseAlgorithm)

_NOT_METRICS = ("train/n_updates", "train/clip_range", "train/loss")


def build(model: M, obs_size: int, action_size: int, generator: torch.Generator) -> M:
    """Give an algorithm made with `env=None, _init_setup_model=False` its spaces and networks, as SB3's `load` does."""
    model.observation_space = Box(-np.inf, np.inf, (obs_size,), np.float32)
    model.action_space = Box(-1.0, 1.0, (action_size,), np.float32)
    model.n_envs = 1
    model.set_logger(Logger(folder=None, output_formats=[]))
    with global_streams(generator):
        model._setup_model()
    return model


@contextmanager
def global_streams(generator: torch.Generator) -> Iterator[None]:
    """Seed torch's and NumPy's global streams, which SB3 draws from, for the block; they go on as they were after it.

    The seed is one draw from `generator`.
    """
    seed = int(torch.randint(2**31, (), generator=generator))
    before = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)


def recorded(model: BaseAlgorithm) -> Metrics:
    """What the algorithm's `train()` logged that varies and is finite."""
    logged = model.logger.name_to_value
    values = {name: float(value) for name, value in logged.items() if name not in _NOT_METRICS}
    return {name: value for name, value in values.items() if math.isfinite(value)}
