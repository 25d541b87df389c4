"""Hyperparameters of the baselines, declared with their ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metarl.core.parameters import (
    Between,
    Checked,
    Log,
    OneOf,
    Search,
    number,
    require,
    transitions_memory,
    weights_memory,
)


@dataclass(frozen=True)
class PPOConfig(Checked):
    """PPO without memory (Stable-Baselines3), over the whole distribution of tasks: domain randomisation."""

    train_defaults: ClassVar[Mapping[str, int]] = {"num_worlds": 32, "episodes_per_trial": 1}
    """Defaults of this learner for a run's options: it remembers nothing, so one episode per task."""
    search: ClassVar[Mapping[str, Search]] = {"num_worlds": OneOf(16, 32, 64)}
    """Options of the run that `metarl tune` searches, with their ranges."""

    history: int = number(1, least=1, most=64)
    """Observations that it is shown: the present one and those before it in the episode. 1 is no memory at all."""
    hidden_size: int = number(64, least=1, most=8192, memory=weights_memory)
    """Units of each of the two hidden layers, of the policy and of the value."""
    learning_rate: float = number(1e-3, above=0, most=1, search=Log(2e-4, 3e-3))
    """Adam's step size at the start."""
    final_learning_rate: float = number(1e-4, least=0, most=1)
    """Adam's step size at the end; it falls linearly over --total-steps."""
    num_epochs: int = number(5, least=1, most=10_000, search=Between(2, 10))
    """Passes over each iteration's data."""
    batch_size: int = number(1600, least=2, most=10**7, search=OneOf(800, 1600, 3200))
    """Control steps per gradient step."""
    discount: float = number(0.97, least=0, below=1, search=OneOf(0.95, 0.97, 0.99))
    """Discount γ per control step, within an episode."""
    gae_lambda: float = number(0.9, least=0, most=1, search=Between(0.8, 0.98))
    """λ of the generalised advantage estimate."""
    clip: float = number(0.2, above=0, below=1, search=Between(0.1, 0.3))
    """PPO's ratio clip ε."""
    value_weight: float = number(0.5, least=0, most=1e6)
    """Weight of the value loss."""
    entropy_weight: float = number(0.0, least=0, most=1e6, search=OneOf(0.0, 1e-3, 1e-2))
    """Weight of the entropy bonus, per nat."""
    initial_std: float = number(0.3, least=0.01, most=7, search=Log(0.2, 1.0))
    """Standard deviation of the untrained policy, in units of the action range [-1, 1]."""
    max_grad_norm: float = number(0.5, above=0, most=1e12)
    """Gradients are scaled down to this norm."""


@dataclass(frozen=True)
class PPOOracleConfig(PPOConfig):
    """PPO that is shown the task beside the observation: what adaptation could gain at best."""

    task_visible: ClassVar[bool] = True
    """The task stands behind the observation, in training and ever after."""


@dataclass(frozen=True)
class RecurrentPPOConfig(PPOConfig):
    """PPO with LSTMs over whole trials (sb3-contrib): RL² by another implementation."""

    train_defaults: ClassVar[Mapping[str, int]] = {}

    hidden_size: int = number(128, least=1, most=8192, memory=weights_memory)
    """Units of the memory of the policy and of that of the value, and of the hidden layer after each."""
    num_epochs: int = number(4, least=1, most=10_000, search=Between(2, 10))
    """Passes over each iteration's data."""
    batch_size: int = number(3200, least=2, most=10**7, search=OneOf(800, 1600, 3200))
    """Control steps per gradient step; gradients flow back through all of a trial's that are in it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "history", self.history == 1, "1: its memory holds the earlier observations")


@dataclass(frozen=True)
class SACConfig(Checked):
    """Soft actor-critic without memory (Stable-Baselines3), over the whole distribution of tasks."""

    train_defaults: ClassVar[Mapping[str, int]] = {"num_worlds": 10, "episodes_per_trial": 1, "total_steps": 300_000}
    """Defaults of this learner for a run's options."""

    hidden_size: int = number(256, least=1, most=8192, memory=weights_memory, search=OneOf(128, 256))
    """Units of each of the two hidden layers, of the actor and of the critics."""
    initial_steps: int = number(10_000, least=0, most=10**9)
    """Control steps of uniformly random actions that only fill the buffer."""
    num_updates: int = number(500, least=1, most=10**7, search=Log(125, 1000))
    """Gradient steps per iteration."""
    batch_size: int = number(256, least=1, most=10**7, search=OneOf(128, 256, 512))
    """Transitions per gradient step."""
    learning_rate: float = number(1e-3, above=0, most=1, search=Log(2e-4, 3e-3))
    """Adam's step size, of all networks."""
    discount: float = number(0.97, least=0, below=1, search=OneOf(0.95, 0.97, 0.99))
    """Discount γ per control step."""
    target_rate: float = number(0.005, above=0, most=1, search=Log(0.002, 0.02))
    """Share of the way the target critics move per gradient step."""
    temperature: float = number(0.0, least=0, most=1e6)
    """Entropy temperature α; 0 adjusts it to an entropy of −1 nat per action dimension."""
    replay_size: int = number(300_000, least=1, most=2**30, memory=transitions_memory)
    """Transitions kept, the newest."""
    save_buffer: bool = True
    """Checkpoints hold the buffer. Without it they are small, but a resumed run fills its buffer anew first."""
