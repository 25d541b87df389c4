"""Hyperparameters of the learners, declared with their ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from metarl.core.parameters import (
    Between,
    Checked,
    Log,
    OneOf,
    Search,
    memory_text,
    number,
    require,
    transitions_memory,
    weights_memory,
)


@dataclass(frozen=True)
class PPOFields(Checked):
    """What learners that train by PPO have in common."""

    search: ClassVar[Mapping[str, Search]] = {"num_worlds": OneOf(16, 32, 64)}
    """Options of the run that `metarl tune` searches, with their ranges."""

    learning_rate: float = number(1e-3, above=0, most=1, search=Log(2e-4, 3e-3))
    """Adam's step size at the start."""
    final_learning_rate: float = number(1e-4, least=0, most=1)
    """Adam's step size at the end; it falls linearly over --total-steps."""
    num_epochs: int = number(4, least=1, most=10_000, search=Between(2, 8))
    """Passes over each iteration's data."""
    discount: float = number(0.97, least=0, below=1, search=OneOf(0.95, 0.97, 0.99))
    """Discount γ per control step, within a trial also across episode ends."""
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
class RL2Config(PPOFields):
    """RL²: a recurrent policy trained by PPO over whole trials."""

    train_defaults: ClassVar[Mapping[str, int | bool]] = {"num_worlds": 64, "staggered": True}
    """Defaults of this learner for a run's options.

    Of fewer worlds a segment is too small to learn every task from, and of worlds in step it is of one time of a trial.
    """
    cuda_defaults: ClassVar[Mapping[str, int | bool]] = {
        "num_worlds": 4096,
        "total_steps": 20_000_000,
        "staggered": True,
        "segment_steps": 50,
        "minibatch_chunks": 512,
        "mirror": False,
    }
    """Defaults where the worlds are on a GPU: many of them, and short segments with eight minibatches each.

    What mirror images are worth there has not been measured.
    """
    before: ClassVar[Mapping[str, float]] = {
        "privileged_critic": False,
        "task_weight": 0.0,
        "estimator_size": 0,
        "segment_steps": 0,
        "mirror": False,
    }
    """What options are in runs on disk from before there were any."""

    cell: Literal["gru", "lstm", "lru", "transformer", "memory"] = "lstm"
    """Memory: recurrent, linear recurrent (LRU), attention over --window steps, or an LSTM with a table to write to.

    On a CPU the LSTM is fastest: acting and updating take a GRU 1.5 times as long, lru 2, memory 5, and a transformer
    that looks back over 500 steps 8. With lru, longer chunks pay; a transformer is trained on whole segments.
    """
    window: int = number(128, least=0, most=65_536)
    """Control steps that a transformer looks back, over all episodes of a trial; 0 for all of it."""
    memory_steps: int = number(0, least=0, most=1_000_000)
    """Empty the memory every so many control steps, in training and acting; 0 for never, 1 for no memory.

    What it adapts to must then be found out in less time. At most: it becomes a divisor of the trial's (and the
    segment's) length.
    """
    feedback: Literal["full", "action", "none"] = "full"
    """What the memory is fed of the step before: action and reward, the action alone, as on a robot, or nothing."""
    policy_head: Literal["mlp", "belief", "hyper"] = "mlp"
    """Action from memory and observation: a network of both, of both and of what the memory believes of the task (where
    --task-weight has it predict that), or of the observation alone, with weights that come of the memory."""
    privileged_critic: bool = True
    """Show the value head the task, in training; acting does not change."""
    task_weight: float = number(0.1, least=0, most=1e6)
    """Weight of predicting the task from the memory; above 0 the policy says what it believes of its task."""
    estimator_size: int = number(128, least=0, most=8192, memory=weights_memory)
    """Units of a memory that learns nothing but to say what the task is, where --task-weight has the policy say so.

    0: the policy's own memory says it, and knows less. How the policy acts and learns to act is the same with it.
    """
    mirror: bool = True
    """Learn from each trial's mirror image too, where the family declares a symmetry of left and right."""
    hidden_size: int = number(128, least=1, most=8192, memory=weights_memory)
    """Units of the memory, and of the hidden layer of each head."""
    minibatch_chunks: int = number(32, least=1, most=1_000_000, search=OneOf(16, 32, 64))
    """Chunks per gradient step."""
    chunk_steps: int = number(50, least=1, most=1_000_000)
    """Control steps per chunk: how far gradients flow back in time. At most: it becomes a divisor of the trial's."""
    segment_steps: int = number(100, least=0, most=1_000_000, search=OneOf(50, 100, 200))
    """Control steps between updates, the memory carried from one to the next; 0 for whole trials.

    At most: it becomes a divisor of the trial's.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.cell != "transformer" or self.hidden_size % 8 == 0
        require(self, "hidden_size", fits, "a multiple of 8 for a transformer")
        whole = self.cell != "transformer" or not self.memory_steps
        require(self, "memory_steps", whole, "0 for a transformer, which looks back over its window")

    def state_memory(self, trial_steps: int) -> float:
        """What a world's state takes at the least, in trials of so many control steps [bytes]."""
        looked_at = (self.window or trial_steps) * (self.cell == "transformer")
        return 4.0 * 4 * self.hidden_size * looked_at  # keys and values of two layers


@dataclass(frozen=True)
class VariBadConfig(PPOFields):
    """VariBAD: a policy by PPO that is told a posterior over tasks, which predicts rewards and states of the trial."""

    train_defaults: ClassVar[Mapping[str, int]] = {"num_worlds": 64}
    """Defaults of this learner for a run's options, as RL²'s."""
    before: ClassVar[Mapping[str, float]] = {"segment_steps": 0}
    """What options are in runs on disk from before there were any."""

    latent_size: int = number(5, least=1, most=1024, search=OneOf(3, 5, 10))
    """Dimensions of the posterior."""
    encoder_size: int = number(128, least=1, most=8192, memory=weights_memory)
    """Units of the encoder's memory."""
    decoder_size: int = number(64, least=1, most=8192, memory=weights_memory)
    """Units of each of the two hidden layers of the decoders."""
    mirror: bool = False
    """Learn from each trial's mirror image too, where the family declares a symmetry of left and right."""
    kl_weight: float = number(1.0, least=0, most=1e6, search=Log(0.1, 10.0))
    """Weight of the divergence from the posterior a step before; 1 is the evidence lower bound itself."""
    reward_weight: float = number(1.0, least=0, most=1e6)
    """Weight of the errors of predicted rewards."""
    state_weight: float = number(1.0, least=0, most=1e6)
    """Weight of the errors of predicted states; 0 where tasks differ in their rewards alone."""
    encoder_steps: int = number(32, least=1, most=10_000)
    """Gradient steps on encoder and decoders at a trial's end."""
    encoder_trials: int = number(16, least=1, most=65_536)
    """Trials of each of them."""
    elbo_beliefs: int = number(16, least=2, most=1_000_000)
    """Beliefs, of different steps of a trial, that each of them looks at."""
    elbo_steps: int = number(64, least=1, most=1_000_000)
    """Steps of the trial, past and future, that each of these beliefs has to predict."""
    encoder_learning_rate: float = number(1e-3, above=0, most=1, search=Log(2e-4, 3e-3))
    """Adam's step size for encoder and decoders, at first: it falls as the policy's does."""
    hidden_size: int = number(128, least=1, most=8192, memory=weights_memory)
    """Units of the hidden layer of the policy's head, and of the value's."""
    batch_size: int = number(1600, least=1, most=1_000_000, search=OneOf(800, 1600, 3200))
    """Control steps per gradient step of the policy; with mirror images, as many of these besides."""
    segment_steps: int = number(100, least=0, most=1_000_000, search=OneOf(50, 100, 200))
    """Control steps between updates of the policy; 0 for whole trials. At most: it becomes a divisor of the trial's."""

    @property
    def minibatch_chunks(self) -> int:
        """What PPO calls `batch_size`: a chunk is one step."""
        return self.batch_size


@dataclass(frozen=True)
class MamlTrpoConfig(Checked):
    """MAML-TRPO: a policy whose parameters are a few gradient steps away from each task's own."""

    train_defaults: ClassVar[Mapping[str, int]] = {"num_worlds": 40, "episodes_per_trial": 10}
    """Defaults of this learner for a run's options: `shots` · (`inner_steps` + 1) episodes."""
    search: ClassVar[Mapping[str, Search]] = {"num_worlds": OneOf(20, 40, 80)}
    """Options of the run that `metarl tune` searches, with their ranges."""
    before: ClassVar[Mapping[str, str]] = {"shots_in": "episodes"}
    """What options are in runs on disk from before there were any."""

    shots: int = number(5, least=1, most=10_000)
    """Episodes from which a gradient step is taken."""
    shots_in: Literal["episodes", "steps"] = "steps"
    """Where robots fall, `steps` adapts from as many steps as these episodes last without a fall (the last episode that
    surely fits ends them), and `episodes` from the episodes, however short. Elsewhere they are the same."""
    inner_steps: int = number(1, least=1, most=1000)
    """Gradient steps of adaptation; the episodes that remain in the trial are played adapted."""
    inner_step_size: float | Literal["learned"] = number(1.0, above=0, most=100, search=Log(0.1, 10.0))
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
    exploration_weight: float = number(0.0, least=0, most=1e6)
    """Weight of E-MAML's term, by trust regions only: what was adapted from earns what came after it, scaled to a
    deviation of 1 over the worlds."""
    hidden_size: int = number(64, least=1, most=8192, memory=weights_memory, search=OneOf(32, 64, 128))
    """Units of each of the two hidden layers."""
    action_scale: float = number(10.0, above=0, most=1000)
    """The network's output is divided by this to be an action in [-1, 1]; α and the initial σ refer to that output."""
    initial_std: float = number(3.0, least=0.01, most=7, search=Log(1.0, 6.0))
    """Standard deviation σ of the untrained policy, in units of the network's output."""
    discount: float = number(0.99, least=0, below=1, search=OneOf(0.95, 0.97, 0.99))
    """Discount γ per control step, within an episode."""
    gae_lambda: float = number(1.0, least=0, most=1, search=Between(0.9, 1.0))
    """λ of the generalised advantage estimate."""
    max_kl: float = number(0.02, above=0, most=1000, search=Log(0.005, 0.05))
    """Trust region δ: mean KL divergence of the adapted policies [nats]."""
    cg_iterations: int = number(10, least=1, most=1000)
    """Iterations of the conjugate gradient."""
    fisher_stride: int = number(4, least=1, most=1_000_000)
    """Stride of the steps from which the Fisher matrix is computed; gradient and line search use all steps."""
    cg_damping: float = number(1e-5, least=0, most=1e6)
    """Added to the Fisher matrix's diagonal."""
    ppo_epochs: int = number(5, least=1, most=10_000)
    """Gradient steps of a PPO meta-update, each on all the data."""
    ppo_learning_rate: float = number(1e-3, above=0, most=1)
    """Adam's step size in PPO meta-updates."""
    ppo_clip: float = number(0.3, above=0, below=1)
    """PPO's ratio clip ε."""
    ppo_inner_kl: float = number(5e-4, least=0, most=1e6)
    """Weight of the divergence of the policy before adaptation in PPO meta-updates (ProMP's η)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        both = self.learned_optimizer and self.inner_step_size == "learned"
        require(self, "learned_optimizer", not both, "off: the step is learned")
        alone = not self.exploration_weight or self.outer == "trpo"
        require(self, "exploration_weight", alone, "0 with outer = ppo")


@dataclass(frozen=True)
class PearlConfig(Checked):
    """PEARL: soft actor-critic conditioned on z, what is known of the task."""

    train_defaults: ClassVar[Mapping[str, int]] = {
        "num_worlds": 10,
        "episodes_per_trial": 5,
        "train_tasks": 100,
        "total_steps": 300_000,
    }
    """Defaults of this learner for a run's options: with 200-step episodes, 400 + 600 steps a trial."""

    belief: Literal["posterior", "prototype"] = "posterior"
    """What is known of a task: a Gaussian posterior over z, or the nearest of the training tasks' prototypes."""
    prior_episodes: int = number(2, least=1, most=10_000)
    """Episodes of a trial played with z from the prior: they make up the context. Later ones are of the posterior."""
    latent_size: int = number(5, least=1, most=4096, search=Between(2, 10))
    """Dimensions of z."""
    use_next_obs_in_context: bool = False
    """The encoder sees the next observation too: for tasks that differ in their dynamics."""
    hidden_size: int = number(128, least=1, most=8192, memory=weights_memory, search=OneOf(64, 128, 256))
    """Units of each hidden layer of actor and critics."""
    hidden_layers: int = number(2, least=1, most=64)
    """Hidden layers of actor and critics."""
    encoder_size: int = number(64, least=1, most=8192, memory=weights_memory)
    """Units of each hidden layer of the encoder."""
    encoder_layers: int = number(2, least=1, most=64)
    """Hidden layers of the encoder."""
    initial_steps: int = number(20_000, least=0, most=10**9)
    """Control steps that only fill the buffers, played by the untrained policy; at least one trial of all worlds."""
    num_updates: int = number(4000, least=1, most=10**7, search=Log(1000, 8000))
    """Gradient steps per iteration."""
    meta_batch: int = number(16, least=1, most=65536)
    """Tasks per gradient step."""
    batch_size: int = number(16, least=1, most=10**7, search=OneOf(16, 32, 64))
    """Transitions per task and gradient step."""
    context_size: int = number(16, least=1, most=10**6)
    """Transitions of recent context per task and gradient step."""
    learning_rate: float = number(1e-3, above=0, most=1, search=Log(2e-4, 3e-3))
    """Adam's step size, of all networks."""
    discount: float = number(0.97, least=0, below=1, search=OneOf(0.95, 0.97, 0.99))
    """Discount γ per control step."""
    target_rate: float = number(0.005, above=0, most=1)
    """Share of the way the target critics move per gradient step."""
    kl_weight: float = number(0.1, least=0, most=1e6, search=Log(0.01, 3.0))
    """Weight of KL(q(z|c) ‖ N(0, 1)), mean over tasks; the published 0.1 is of the sum over 16 tasks: 1.6 here."""
    contrastive_temperature: float = number(0.1, least=0.01, most=100)
    """Temperature that divides the cosines of embeddings in the contrastive loss; used with prototypes only."""
    prototype_rate: float = number(0.05, above=0, most=1)
    """Share of the way to a task's embedding that its prototype moves per gradient step; used with prototypes only."""
    temperature: float = number(0.0, least=0, most=1e6)
    """Entropy temperature α; 0 adjusts it to an entropy of −1 nat per action dimension. Published: 1."""
    reward_scale: float = number(1.0, above=0, most=1e6, search=Log(0.3, 10.0))
    """Rewards are multiplied by this in the critics' targets. Published, with temperature 1: 5."""
    policy_l2: float = number(1e-3, least=0, most=1e6)
    """Weight of the mean squares of the actor's mean and log standard deviation."""
    num_slots: int = number(100, least=1, most=10**6)
    """Tasks that have buffers; with more tasks than that, or ever new ones, the newest take the place of the oldest."""
    replay_size: int = number(10_000, least=1, most=2**30, memory=transitions_memory)
    """Transitions kept per task. Published: a million."""
    save_buffers: bool = True
    """Checkpoints hold the buffers. Without them they are small, but a resumed run fills its buffers anew first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        kept = self.num_slots * self.replay_size
        size = memory_text(transitions_memory(kept))
        require(self, "replay_size", kept <= 2**32, f"smaller: {self.num_slots} such buffers would take {size}")
