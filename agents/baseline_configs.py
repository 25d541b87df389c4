"""Hyperparameters of the baselines: frozen, with a docstring per field and ranges checked on construction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metarl.core.config import require
from metarl.core.parameters import FloatRange, IntRange, Options, Range


@dataclass(frozen=True)
class PPOConfig:
    """PPO without memory (Stable-Baselines3), over the whole distribution of tasks: domain randomisation."""

    train_defaults: ClassVar[Mapping[str, int]] = {"num_worlds": 32, "episodes_per_trial": 1}
    """What a run of this learner takes where the user does not say: it remembers nothing, so one episode per task."""
    search: ClassVar[Mapping[str, Range]] = {
        "learning_rate": FloatRange(2e-4, 3e-3, log=True),
        "num_epochs": IntRange(2, 10),
        "batch_size": Options((800, 1600, 3200)),
        "discount": Options((0.95, 0.97, 0.99)),
        "gae_lambda": FloatRange(0.8, 0.98),
        "clip": FloatRange(0.1, 0.3),
        "entropy_weight": Options((0.0, 1e-3, 1e-2)),
        "initial_std": FloatRange(0.2, 1.0, log=True),
        "num_worlds": Options((16, 32, 64)),
    }
    """Where `metarl tune` searches."""

    hidden_size: int = 64
    """Units of each of the two hidden layers, of the policy and of the value."""
    learning_rate: float = 1e-3
    """Adam's step size at the start."""
    final_learning_rate: float = 1e-4
    """Adam's step size at the end; it falls linearly over --total-steps."""
    num_epochs: int = 5
    """Passes over each iteration's data."""
    batch_size: int = 1600
    """Control steps per gradient step."""
    discount: float = 0.97
    """Discount γ per control step, within an episode."""
    gae_lambda: float = 0.9
    """λ of the generalised advantage estimate."""
    clip: float = 0.2
    """PPO's ratio clip ε."""
    value_weight: float = 0.5
    """Weight of the value loss."""
    entropy_weight: float = 0.0
    """Weight of the entropy bonus, per nat."""
    initial_std: float = 0.3
    """Standard deviation of the untrained policy, in units of the action range [-1, 1]."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this norm."""

    def __post_init__(self) -> None:
        for field in ("hidden_size", "num_epochs"):
            require(self, field, getattr(self, field) >= 1, "at least 1")
        require(self, "batch_size", self.batch_size >= 2, "at least 2")
        require(self, "learning_rate", 0 < self.learning_rate <= 1, "in (0, 1]")
        require(self, "final_learning_rate", 0 <= self.final_learning_rate <= 1, "in [0, 1]")
        require(self, "discount", 0 <= self.discount < 1, "in [0, 1)")
        require(self, "gae_lambda", 0 <= self.gae_lambda <= 1, "in [0, 1]")
        require(self, "clip", 0 < self.clip < 1, "in (0, 1)")
        require(self, "initial_std", 0.01 <= self.initial_std <= 7, "in [0.01, 7]")
        for field in ("value_weight", "entropy_weight"):
            require(self, field, getattr(self, field) >= 0, "at least 0")
        require(self, "max_grad_norm", self.max_grad_norm > 0, "above 0")


@dataclass(frozen=True)
class PPOOracleConfig(PPOConfig):
    """PPO that is shown the task beside the observation: what adaptation could gain at best."""

    task_visible: ClassVar[bool] = True
    """The task stands behind the observation, in training and ever after."""


@dataclass(frozen=True)
class RecurrentPPOConfig(PPOConfig):
    """PPO with LSTMs over whole trials (sb3-contrib): RL² by another implementation."""

    train_defaults: ClassVar[Mapping[str, int]] = {}

    hidden_size: int = 128
    """Units of the memory of the policy and of that of the value, and of the hidden layer after each."""
    num_epochs: int = 4
    """Passes over each iteration's data."""
    batch_size: int = 3200
    """Control steps per gradient step; gradients flow back through all of a trial's that are in it."""


@dataclass(frozen=True)
class SACConfig:
    """Soft actor-critic without memory (Stable-Baselines3), over the whole distribution of tasks."""

    train_defaults: ClassVar[Mapping[str, int]] = {"num_worlds": 10, "episodes_per_trial": 1, "total_steps": 300_000}
    """What a run of this learner takes where the user does not say."""
    search: ClassVar[Mapping[str, Range]] = {
        "hidden_size": Options((128, 256)),
        "num_updates": IntRange(125, 1000, log=True),
        "batch_size": Options((128, 256, 512)),
        "learning_rate": FloatRange(2e-4, 3e-3, log=True),
        "discount": Options((0.95, 0.97, 0.99)),
        "target_rate": FloatRange(0.002, 0.02, log=True),
    }
    """Where `metarl tune` searches."""

    hidden_size: int = 256
    """Units of each of the two hidden layers, of the actor and of the critics."""
    initial_steps: int = 10_000
    """Control steps of uniformly random actions that only fill the buffer."""
    num_updates: int = 500
    """Gradient steps per iteration."""
    batch_size: int = 256
    """Transitions per gradient step."""
    learning_rate: float = 1e-3
    """Adam's step size, of all networks."""
    discount: float = 0.97
    """Discount γ per control step."""
    target_rate: float = 0.005
    """Share of the way the target critics move per gradient step."""
    temperature: float = 0.0
    """Entropy temperature α; 0 adjusts it to an entropy of −1 nat per action dimension."""
    replay_size: int = 300_000
    """Transitions kept, the newest."""
    save_buffer: bool = True
    """Checkpoints hold the buffer. Without it they are small, but a resumed run fills its buffer anew first."""

    def __post_init__(self) -> None:
        for field in ("hidden_size", "num_updates", "batch_size", "replay_size"):
            require(self, field, getattr(self, field) >= 1, "at least 1")
        require(self, "initial_steps", self.initial_steps >= 0, "at least 0")
        require(self, "learning_rate", 0 < self.learning_rate <= 1, "in (0, 1]")
        require(self, "discount", 0 <= self.discount < 1, "in [0, 1)")
        require(self, "target_rate", 0 < self.target_rate <= 1, "in (0, 1]")
        require(self, "temperature", self.temperature >= 0, "at least 0")
