"""What the learners made of Stable-Baselines3's algorithms share.

The algorithm brings its networks, optimisers and `train()`; it never gets an environment. Data is collected by metarl's
collector and written into SB3's own buffers as SB3's `collect_rollouts` would have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium.spaces import Box
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger

from metarl.core.errors import Diverged
from metarl.core.types import Metrics
from metarl.rl.finite import Guard, finite_only

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


def guard(model: BaseAlgorithm) -> list[Guard]:
    """Have the algorithm's optimisers leave out steps that are not finite; `Diverged` after a few in a row of one."""
    found = []
    for optimizer in optimizers(model).values():
        found.append(Guard())
        optimizer.register_step_pre_hook(partial(_leave_out, found[-1]))
    return found


def _leave_out(guard: Guard, optimizer: torch.optim.Optimizer, *_: Any) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not guard.passes(*gradients, *parameters):
        optimizer.zero_grad(set_to_none=True)  # the step then changes nothing


def optimizers(model: Any) -> dict[str, torch.optim.Optimizer]:
    """The algorithm's optimisers, by what they train."""
    parts = {"policy": model.policy, "actor": getattr(model, "actor", None), "critic": getattr(model, "critic", None)}
    found = {name: getattr(part, "optimizer", None) for name, part in parts.items()}
    found["temperature"] = getattr(model, "ent_coef_optimizer", None)
    return {name: optimizer for name, optimizer in found.items() if optimizer is not None}


def update(model: BaseAlgorithm, train: Callable[[], None], generator: torch.Generator, guards: list[Guard]) -> Metrics:
    """The algorithm's own `train`, its draws from `generator`: what it logged that varies and is finite."""
    try:
        with global_streams(generator), np.errstate(over="ignore", invalid="ignore"):  # the guards tell
            train()
    except ValueError as error:  # torch's: the mean of a Gaussian is not a number
        raise Diverged(f"the training diverged: {str(error).splitlines()[0]}; try a lower learning_rate") from None
    logged = {name: value for name, value in model.logger.name_to_value.items() if name not in _NOT_METRICS}
    counted = [guard.metrics() for guard in guards]
    steps = {name: max(one[name] for one in counted) for name in counted[0]}  # of the optimiser that has most
    return finite_only({name: float(value) for name, value in logged.items()} | steps)
