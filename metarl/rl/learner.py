"""The protocols every algorithm fulfils, so that one loop, one evaluator and one recorder serve them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.types import Metrics, Rollout, Transition

B = TypeVar("B")
"""A belief: what a policy knows of the task. A value passed in and out, one row per world."""


@runtime_checkable
class Policy(Protocol[B]):
    """Acts, and adapts through its belief. A trial is: begin, then act, observe (and end_episode) step by step."""

    def begin(self, n: int, generator: torch.Generator) -> B:
        """Belief of `n` worlds that know nothing of their task yet. All the trial's draws come from `generator`."""
        ...

    def act(
        self, obs: Float32[Tensor, "N O"], belief: B, deterministic: bool = False
    ) -> tuple[Float32[Tensor, "N A"], B, Mapping[str, Tensor]]:
        """Action in [-1, 1] (beyond it is clipped by the environment), belief, and what the learner wants recorded."""
        ...

    def observe(self, belief: B, transition: Transition) -> B:
        """Take in what the action led to."""
        ...

    def end_episode(self, belief: B, worlds: Bool[Tensor, "N"]) -> B:
        """An episode ended in `worlds`; the trial goes on with the next one."""
        ...


Collect = Callable[[Policy[Any]], Rollout]
"""Runs one trial of the iteration's tasks with a policy. Repeatable: each call is a fresh trial of the same tasks."""


@runtime_checkable
class Learner(Protocol):
    """Meta-trains a policy.

    Constructed as `cls(config, obs_size, action_size, generator)`, where `config` is of the class that the table
    `metarl.agents.LEARNERS` names, or the learner's own attribute `Config`.
    """

    @property
    def policy(self) -> Policy[Any]:
        """What it trains."""
        ...

    def train_step(self, collect: Collect, generator: torch.Generator, progress: float) -> Metrics:
        """One iteration: collect, then update.

        All draws of the update come from `generator`; `progress` in [0, 1] is the share of the training done.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to continue exactly: parameters, normalisers, optimiser.

        What the policy needs to act goes by `policy/...`; `state.load_policy` makes do with that.
        """
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore `state_dict`; `ValueError` where a tensor is missing or has the wrong shape."""
        ...


@runtime_checkable
class Remarking(Protocol):
    """A learner with something to say before a training begins, as what its buffers take."""

    def remarks(self, total_steps: int) -> list[str]:
        """One line each; `total_steps` is the training's length [control steps]."""
        ...


@runtime_checkable
class Signalling(Protocol):
    """A policy whose belief can be watched: a few numbers of it, for a plot."""

    def signal(self, belief: Any) -> Mapping[str, Float32[Tensor, "N D"]]:
        """What is worth watching, by its name in a plot; of more than a handful of columns the recorder makes few."""
        ...


def require_device(device: str) -> None:
    """`UserError` for a device that this machine does not have."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device = 'cuda': this machine, or its build of torch, has no CUDA; use cpu")
