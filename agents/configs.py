"""Hyperparameters of the learners: frozen, with a docstring per field and ranges checked on construction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.config import require


@dataclass(frozen=True)
class RL2Config:
    """RL²: a recurrent policy trained by PPO over whole trials."""

    cell: Literal["gru", "lstm"] = "lstm"
    """Memory cell; on a CPU the LSTM is the faster one."""
    hidden_size: int = 128
    """Units of the memory, and of the hidden layer of each head."""
    learning_rate: float = 1e-3
    """Adam's step size at the start."""
    final_learning_rate: float = 1e-4
    """Adam's step size at the end; it falls linearly over --total-steps."""
    num_epochs: int = 4
    """Passes over each iteration's data."""
    minibatch_chunks: int = 32
    """Chunks per gradient step."""
    chunk_steps: int = 50
    """Control steps per chunk: how far gradients flow back in time. At most: it becomes a divisor of the trial's."""
    discount: float = 0.97
    """Discount γ per control step, within a trial also across episode ends."""
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
        for field in ("hidden_size", "num_epochs", "minibatch_chunks", "chunk_steps"):
            require(self, field, getattr(self, field) >= 1, "at least 1")
        require(self, "learning_rate", 0 < self.learning_rate <= 1, "in (0, 1]")
        require(self, "final_learning_rate", 0 <= self.final_learning_rate <= 1, "in [0, 1]")
        require(self, "discount", 0 <= self.discount < 1, "in [0, 1)")
        require(self, "gae_lambda", 0 <= self.gae_lambda <= 1, "in [0, 1]")
        require(self, "clip", 0 < self.clip < 1, "in (0, 1)")
        require(self, "initial_std", 0.01 <= self.initial_std <= 7, "in [0.01, 7]")
        for field in ("value_weight", "entropy_weight"):
            require(self, field, getattr(self, field) >= 0, "at least 0")
        require(self, "max_grad_norm", self.max_grad_norm > 0, "above 0")
