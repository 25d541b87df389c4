"""Meta-learners and baselines, one file each. `LEARNERS` maps the name a user types to class and configuration."""

from typing import NamedTuple


class LearnerEntry(NamedTuple):
    """Where a learner lives, as `module:Class`. Configurations import no torch, so that `--help` is instant."""

    learner: str
    config: str
    samples_first: bool = False
    """Whether its policy samples before it adapts even where the mean action is asked for."""
    adapts: bool = True
    """Whether its policy keeps what it learns of a task. Files of before policies said so themselves ask here."""
    oracle: bool = False
    """Whether it is always shown the task."""


LEARNERS: dict[str, LearnerEntry] = {
    "rl2": LearnerEntry("metarl.agents.rl2:RL2", "metarl.agents.configs:RL2Config"),
    "varibad": LearnerEntry("metarl.agents.varibad:VariBad", "metarl.agents.configs:VariBadConfig"),
    "rma": LearnerEntry("metarl.agents.rma:Rma", "metarl.agents.baseline_configs:RmaConfig"),
    "maml-trpo": LearnerEntry("metarl.agents.maml_trpo:MamlTrpo", "metarl.agents.configs:MamlTrpoConfig", True),
    "pearl": LearnerEntry("metarl.agents.pearl:Pearl", "metarl.agents.configs:PearlConfig"),
    "ppo": LearnerEntry("metarl.agents.ppo_baseline:PPO", "metarl.agents.baseline_configs:PPOConfig", adapts=False),
    "ppo-oracle": LearnerEntry(
        "metarl.agents.ppo_baseline:PPO", "metarl.agents.baseline_configs:PPOOracleConfig", adapts=False, oracle=True
    ),
    "recurrent-ppo": LearnerEntry(
        "metarl.agents.recurrent_ppo:RecurrentPPO", "metarl.agents.baseline_configs:RecurrentPPOConfig"
    ),
    "sac": LearnerEntry("metarl.agents.sac_baseline:SAC", "metarl.agents.baseline_configs:SACConfig", adapts=False),
}
