"""What the learners made of Stable-Baselines3's algorithms share.

The algorithm brings its networks, optimisers and `train()`; it never gets an environment. Data is collected by metarl's
collector and written into SB3's own buffers as SB3's `collect_rollouts` would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TypeVar

import numpy as np
import torch
from gymnasium.spaces import Box
from jaxtyping import Bool
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from torch import Tensor, nn

from metarl.core.errors import UserError
from metarl.core.types import Metrics, Transition

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


def update(model: BaseAlgorithm, train: Callable[[], None], generator: torch.Generator) -> Metrics:
    """The algorithm's own `train`, its draws from `generator`: what it logged that varies and is finite.

    Where a parameter is not finite afterwards, all are put back and it is a `UserError`.
    """
    variables = [getattr(model, name) for name in model._get_torch_save_params()[1]]
    before = deepcopy(model.get_parameters()), [variable.detach().clone() for variable in variables]
    try:
        with global_streams(generator):
            train()
        sound = all(bool(value.isfinite().all()) for value in (*model.policy.parameters(), *variables))
    except ValueError:  # torch's: the mean of a Gaussian is not a number
        sound = False
    if not sound:
        model.set_parameters(before[0])  # type: ignore[arg-type]
        for variable, value in zip(variables, before[1], strict=True):
            variable.data.copy_(value)
        raise UserError("a gradient of this iteration was not finite; try a lower learning_rate")
    logged = model.logger.name_to_value
    values = {name: float(value) for name, value in logged.items() if name not in _NOT_METRICS}
    return {name: value for name, value in values.items() if math.isfinite(value)}


class MemorylessPolicy(nn.Module):
    """Believes nothing of its task: its belief is its source of noise."""

    def begin(self, n: int, generator: torch.Generator) -> torch.Generator:
        """Nothing to believe."""
        return generator

    def observe(self, belief: torch.Generator, transition: Transition) -> torch.Generator:
        """Nothing to learn."""
        return belief

    def end_episode(self, belief: torch.Generator, worlds: Bool[Tensor, "N"]) -> torch.Generator:
        """Nothing to remember."""
        return belief
