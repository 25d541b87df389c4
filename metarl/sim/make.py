"""The worlds of any family: one function for everything that trains, evaluates and films."""

from __future__ import annotations

import copy

from metarl.core.errors import UserError
from metarl.sim.env import TrialEnv
from metarl.sim.external.external_env import ExternalEnv, ExternalFamily
from metarl.sim.family import Family, MujocoFamily
from metarl.sim.mujoco.mujoco_env import MujocoEnv


def make_env(
    family: Family,
    num_worlds: int,
    *,
    episodes_per_trial: int = 2,
    episode_steps: int | None = None,
    task_visible: bool = False,
    threads: int = 0,
    pictures: bool = False,
) -> TrialEnv:
    """Worlds of a family: in MuJoCo's threads, or in processes that run an environment of the user's.

    `episode_steps`, the time limit of an episode, is the family's own where None. `threads`, of either kind, is one per
    CPU where 0; results do not depend on it. External environments draw only if made for `pictures`. Close what is
    returned, or use it in a `with`.
    """
    if episode_steps or task_visible:
        family = copy.copy(family)
        family.episode_steps, family.task_visible = episode_steps or family.episode_steps, task_visible
    if isinstance(family, MujocoFamily):
        return MujocoEnv(family, num_worlds, episodes_per_trial=episodes_per_trial, threads=threads)
    if isinstance(family, ExternalFamily):
        return ExternalEnv(
            family, num_worlds, episodes_per_trial=episodes_per_trial, processes=threads, pictures=pictures
        )
    raise UserError(f"{type(family).__name__} is neither a MujocoFamily nor an ExternalFamily")
