"""Meta-learners and baselines, one file each. `LEARNERS` maps the name a user types to class and configuration."""

from typing import NamedTuple


class LearnerEntry(NamedTuple):
    """Where a learner lives, as `module:Class`. Configurations import no torch, so that `--help` is instant."""

    learner: str
    config: str
    samples_first: bool = False
    """Whether its policy samples before it adapts even where the mean action is asked for."""


LEARNERS: dict[str, LearnerEntry] = {
    "rl2": LearnerEntry("metarl.agents.rl2:RL2", "metarl.agents.configs:RL2Config"),
    "maml-trpo": LearnerEntry("metarl.agents.maml_trpo:MamlTrpo", "metarl.agents.configs:MamlTrpoConfig", True),
    "pearl": LearnerEntry("metarl.agents.pearl:Pearl", "metarl.agents.configs:PearlConfig"),
    "ppo": LearnerEntry("metarl.agents.ppo_baseline:PPO", "metarl.agents.baseline_configs:PPOConfig"),
    "ppo-oracle": LearnerEntry("metarl.agents.ppo_baseline:PPO", "metarl.agents.baseline_configs:PPOOracleConfig"),
    "recurrent-ppo": LearnerEntry(
        "metarl.agents.recurrent_ppo:RecurrentPPO", "metarl.agents.baseline_configs:RecurrentPPOConfig"
    ),
    "sac": LearnerEntry("metarl.agents.sac_baseline:SAC", "metarl.agents.baseline_configs:SACConfig"),
}
