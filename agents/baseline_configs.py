"""Hyperparameters of the baselines, declared with their ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from metarl.agents.configs import PPOFields
from metarl.core.parameters import (
    Between,
    Checked,
    Log,
    OneOf,
    number,
    require,
    transitions_memory,
    weights_memory,
)


@dataclass(frozen=True)
class PPOConfig(PPOFields):
    """PPO without memory (Stable-Baselines3), over the whole distribution of tasks: domain randomisation."""

    train_defaults: ClassVar[Mapping[str, int]] = {"num_worlds": 32, "episodes_per_trial": 1}
    """Defaults of this learner for a run's options: it remembers nothing, so one episode per task."""

    history: int = number(1, least=1, most=64)
    """Observations that it is shown: the present one and those before it in the episode. 1 is no memory at all."""
    hidden_size: int = number(64, least=1, most=8192, memory=weights_memory)
    """Units of each of the two hidden layers, of the policy and of the value."""
    num_epochs: int = number(5, least=1, most=10_000, search=Between(2, 10))
    """Passes over each iteration's data."""
    batch_size: int = number(1600, least=2, most=10**7, search=OneOf(800, 1600, 3200))
    """Control steps per gradient step."""
    discount: float = number(0.97, least=0, below=1, search=OneOf(0.95, 0.97, 0.99))
    """Discount γ per control step, within an episode."""


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
class RmaConfig(PPOFields):
    """RMA: a teacher that knows its task, and a student that acts as the teacher would by what it has experienced."""

    train_defaults: ClassVar[Mapping[str, int | bool]] = {"num_worlds": 64, "staggered": True}
    """Defaults of this learner for a run's options, as RL²'s.

    With worlds in step the student is taught of the same few tasks again and again, a trial long, and knows them better
    than others.
    """
    cuda_defaults: ClassVar[Mapping[str, int | bool]] = {
        "num_worlds": 4096,
        "total_steps": 20_000_000,
        "staggered": True,
        "segment_steps": 50,
        "batch_size": 25_600,
        "mirror": False,
    }
    """Defaults where the worlds are on a GPU: many of them, and short segments with eight minibatches each."""
    before: ClassVar[Mapping[str, bool]] = {"mirror": False}
    """What options are in runs on disk from before there were any."""

    student_share: float = number(0.3, above=0, below=1)
    """Share of --total-steps, the last, in which the student acts and learns; the teacher does before."""
    latent_size: int = number(8, least=1, most=1024, search=OneOf(4, 8, 16))
    """Numbers z in which the teacher's policy is told of its task, and which the student estimates."""
    feedback: Literal["full", "action"] = "full"
    """What the student is fed of a step beside observations: action and reward, or, as on a robot, the action alone."""
    student_size: int = number(128, least=1, most=8192, memory=weights_memory)
    """Units of the student's memory."""
    mirror: bool = True
    """Learn from each trial's mirror image too, where the family declares a symmetry of left and right."""
    student_learning_rate: float = number(1e-3, above=0, most=1, search=Log(2e-4, 3e-3))
    """Adam's step size for the student at the start; it falls to --final-learning-rate as well."""
    hidden_size: int = number(128, least=1, most=8192, memory=weights_memory)
    """Units of each of the two hidden layers, of the policy, of the value, and of the teacher's encoder."""
    batch_size: int = number(1600, least=1, most=10**7, search=OneOf(800, 1600, 3200))
    """Control steps per gradient step, of teacher and student; with mirror images, as many of these besides."""
    chunk_steps: int = number(50, least=1, most=1_000_000)
    """How many control steps the student's gradients flow back. At most: it becomes a divisor of the trial's."""
    segment_steps: int = number(100, least=0, most=1_000_000)
    """Control steps between updates, the memory carried from one to the next; 0 for whole trials.

    At most: it becomes a divisor of the trial's.
    """

    @property
    def minibatch_chunks(self) -> int:
        """What PPO calls `batch_size`: the teacher's chunks are one step."""
        return self.batch_size


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
