"""Hyperparameters of the learners: frozen, with a docstring per field and ranges checked on construction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from metarl.core.config import require
from metarl.core.parameters import FloatRange, IntRange, Options, Range


@dataclass(frozen=True)
class RL2Config:
    """RL²: a recurrent policy trained by PPO over whole trials."""

    search: ClassVar[Mapping[str, Range]] = {
        "learning_rate": FloatRange(2e-4, 3e-3, log=True),
        "num_epochs": IntRange(2, 8),
        "minibatch_chunks": Options((16, 32, 64)),
        "discount": Options((0.95, 0.97, 0.99)),
        "gae_lambda": FloatRange(0.8, 0.98),
        "clip": FloatRange(0.1, 0.3),
        "entropy_weight": Options((0.0, 1e-3, 1e-2)),
        "initial_std": FloatRange(0.2, 1.0, log=True),
        "num_worlds": Options((16, 32, 64)),
    }
    """Where `metarl tune` searches."""

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
    segment_steps: int = 0
    """Control steps between updates, the memory carried from one to the next; 0 for whole trials."""
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
        require(self, "segment_steps", self.segment_steps >= 0, "at least 0")
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
class MamlTrpoConfig:
    """MAML-TRPO: a policy whose parameters are a few gradient steps away from each task's own."""

    train_defaults: ClassVar[Mapping[str, int]] = {"num_worlds": 40, "episodes_per_trial": 10}
    """What a run of this learner takes where the user does not say: `shots` · (`inner_steps` + 1) episodes."""
    search: ClassVar[Mapping[str, Range]] = {
        "inner_step_size": FloatRange(0.1, 10.0, log=True),
        "initial_std": FloatRange(1.0, 6.0, log=True),
        "hidden_size": Options((32, 64, 128)),
        "discount": Options((0.95, 0.97, 0.99)),
        "gae_lambda": FloatRange(0.9, 1.0),
        "max_kl": FloatRange(0.005, 0.05, log=True),
        "num_worlds": Options((20, 40, 80)),
    }
    """Where `metarl tune` searches."""

    shots: int = 5
    """Episodes from which a gradient step is taken."""
    inner_steps: int = 1
    """Gradient steps of adaptation; the episodes that remain in the trial are played adapted."""
    inner_step_size: float | str = 1.0
    """Step size α of adaptation, or `learned`: one per parameter, from 1 on (Meta-SGD)."""
    inner_objective: Literal["reinforce", "lvc"] = "reinforce"
    """What adaptation descends: log-likelihood, or the likelihood ratio with its low-variance curvature (ProMP)."""
    adapted_layers: Literal["all", "last"] = "all"
    """Parameters that adapt: all, or those of the last layer (ANIL)."""
    learned_optimizer: bool = False
    """Adapt by a small recurrent update rule, meta-trained with the policy and shared by all its parameters."""
    first_order: bool = False
    """Leave out the second derivatives (FOMAML)."""
    outer: Literal["trpo", "ppo"] = "trpo"
    """Meta-update: a trust-region step, or PPO; with --inner-objective lvc the latter is ProMP."""
    hidden_size: int = 64
    """Units of each of the two hidden layers."""
    action_scale: float = 10.0
    """The network's output is divided by this to be an action in [-1, 1]; α and the initial σ refer to that output."""
    initial_std: float = 3.0
    """Standard deviation σ of the untrained policy, in units of the network's output."""
    discount: float = 0.99
    """Discount γ per control step, within an episode."""
    gae_lambda: float = 1.0
    """λ of the generalised advantage estimate."""
    max_kl: float = 0.02
    """Trust region δ: mean KL divergence of the adapted policies [nats]."""
    cg_iterations: int = 10
    """Iterations of the conjugate gradient."""
    fisher_stride: int = 4
    """The Fisher matrix is computed from every so manieth step of the data; gradient and line search use all."""
    cg_damping: float = 1e-5
    """Added to the Fisher matrix's diagonal."""
    ppo_epochs: int = 5
    """Gradient steps of a PPO meta-update, each on all the data."""
    ppo_learning_rate: float = 1e-3
    """Adam's step size in PPO meta-updates."""
    ppo_clip: float = 0.3
    """PPO's ratio clip ε."""
    ppo_inner_kl: float = 5e-4
    """Weight of the divergence of the policy before adaptation in PPO meta-updates (ProMP's η)."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where meta-updates are computed; worlds are always on the CPU."""

    def __post_init__(self) -> None:
        for field in ("shots", "inner_steps", "hidden_size", "cg_iterations", "fisher_stride", "ppo_epochs"):
            require(self, field, getattr(self, field) >= 1, "at least 1")
        rate = self.inner_step_size
        is_number = isinstance(rate, float | int) and not isinstance(rate, bool)
        allowed = "in (0, 100], or 'learned'"
        require(self, "inner_step_size", rate == "learned" or (is_number and 0 < float(rate) <= 100), allowed)
        require(
            self, "learned_optimizer", not (self.learned_optimizer and rate == "learned"), "off: the step is learned"
        )
        require(self, "discount", 0 <= self.discount < 1, "in [0, 1)")
        require(self, "gae_lambda", 0 <= self.gae_lambda <= 1, "in [0, 1]")
        require(self, "initial_std", 0.01 <= self.initial_std <= 7, "in [0.01, 7]")
        require(self, "ppo_clip", 0 < self.ppo_clip < 1, "in (0, 1)")
        require(self, "ppo_learning_rate", 0 < self.ppo_learning_rate <= 1, "in (0, 1]")
        for field in ("action_scale", "max_kl"):
            require(self, field, 0 < getattr(self, field) <= 1000, "in (0, 1000]")
        for field in ("cg_damping", "ppo_inner_kl"):
            require(self, field, getattr(self, field) >= 0, "at least 0")


@dataclass(frozen=True)
class PearlConfig:
    """PEARL: soft actor-critic conditioned on z, what is known of the task."""

    train_defaults: ClassVar[Mapping[str, int]] = {
        "num_worlds": 10,
        "episodes_per_trial": 5,
        "train_tasks": 100,
        "total_steps": 300_000,
    }
    """What a run of this learner takes where the user does not say: with 200-step episodes, 400 + 600 steps a trial."""
    search: ClassVar[Mapping[str, Range]] = {
        "latent_size": IntRange(2, 10),
        "hidden_size": Options((64, 128, 256)),
        "num_updates": IntRange(1000, 8000, log=True),
        "batch_size": Options((16, 32, 64)),
        "learning_rate": FloatRange(2e-4, 3e-3, log=True),
        "discount": Options((0.95, 0.97, 0.99)),
        "kl_weight": FloatRange(0.01, 3.0, log=True),
        "reward_scale": FloatRange(0.3, 10.0, log=True),
    }
    """Where `metarl tune` searches."""

    belief: Literal["posterior", "prototype"] = "posterior"
    """What is known of a task: a Gaussian posterior over z, or the nearest of the training tasks' prototypes."""
    prior_episodes: int = 2
    """Episodes of a trial played with z from the prior: they make up the context. Later ones are of the posterior."""
    latent_size: int = 5
    """Dimensions of z."""
    use_next_obs_in_context: bool = False
    """The encoder sees the next observation too: for tasks that differ in their dynamics."""
    hidden_size: int = 128
    """Units of each hidden layer of actor and critics."""
    hidden_layers: int = 2
    """Hidden layers of actor and critics."""
    encoder_size: int = 64
    """Units of each hidden layer of the encoder."""
    encoder_layers: int = 2
    """Hidden layers of the encoder."""
    initial_steps: int = 20_000
    """Control steps that only fill the buffers, played by the untrained policy; at least one trial of all worlds."""
    num_updates: int = 4000
    """Gradient steps per iteration."""
    meta_batch: int = 16
    """Tasks per gradient step."""
    batch_size: int = 16
    """Transitions per task and gradient step."""
    context_size: int = 16
    """Transitions of recent context per task and gradient step."""
    learning_rate: float = 1e-3
    """Adam's step size, of all networks."""
    discount: float = 0.97
    """Discount γ per control step."""
    target_rate: float = 0.005
    """Share of the way the target critics move per gradient step."""
    kl_weight: float = 0.1
    """Weight of KL(q(z|c) ‖ N(0, 1)), mean over tasks; the published 0.1 is of the sum over 16 tasks: 1.6 here."""
    contrastive_temperature: float = 0.1
    """With prototypes: what the cosines of embeddings are divided by in the contrastive loss."""
    prototype_rate: float = 0.05
    """With prototypes: share of the way a task's prototype moves to its embedding per gradient step on the task."""
    temperature: float = 0.0
    """Entropy temperature α; 0 adjusts it to an entropy of −1 nat per action dimension. Published: 1."""
    reward_scale: float = 1.0
    """Rewards are multiplied by this in the critics' targets. Published, with temperature 1: 5."""
    policy_l2: float = 1e-3
    """Weight of the mean squares of the actor's mean and log standard deviation."""
    num_slots: int = 100
    """Tasks that have buffers; with more tasks than that, or ever new ones, the newest take the place of the oldest."""
    replay_size: int = 10_000
    """Transitions kept per task. Published: a million."""
    save_buffers: bool = True
    """Checkpoints hold the buffers. Without them they are small, but a resumed run fills its buffers anew first."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where buffers and gradient steps are; worlds and the acting policy are always on the CPU."""

    def __post_init__(self) -> None:
        counts = (
            "prior_episodes latent_size hidden_size hidden_layers encoder_size encoder_layers num_updates meta_batch "
            "batch_size context_size num_slots replay_size"
        )
        for field in counts.split():
            require(self, field, getattr(self, field) >= 1, "at least 1")
        require(self, "initial_steps", self.initial_steps >= 0, "at least 0")
        require(self, "learning_rate", 0 < self.learning_rate <= 1, "in (0, 1]")
        require(self, "discount", 0 <= self.discount < 1, "in [0, 1)")
        require(self, "target_rate", 0 < self.target_rate <= 1, "in (0, 1]")
        require(self, "prototype_rate", 0 < self.prototype_rate <= 1, "in (0, 1]")
        require(self, "contrastive_temperature", 0.01 <= self.contrastive_temperature <= 100, "in [0.01, 100]")
        require(self, "reward_scale", self.reward_scale > 0, "above 0")
        for field in ("kl_weight", "temperature", "policy_l2"):
            require(self, field, getattr(self, field) >= 0, "at least 0")
