"""The worlds of any family: one function for everything that trains, evaluates and films."""

from __future__ import annotations

import torch

from metarl.core.errors import UserError
from metarl.core.types import Trial
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
    trial: Trial | None = None,
    physics: str | None = None,
    device: str = "cpu",
    threads: int = 0,
    pictures: bool = False,
) -> TrialEnv:
    """Worlds of a family: in a back end of MuJoCo's physics, or in processes that run an environment of the user's.

    Args:
        family: The robot and its tasks.
        num_worlds: How many are stepped together.
        episodes_per_trial: Episodes K on one task.
        episode_steps: Time limit of an episode [control steps]; the family's own unless told.
        task_visible: The task's numbers stand behind the observation: what an oracle sees.
        trial: What a fall forfeits: hardly anything (`steps`), the rest of its episode (`episodes`) or all that follows
            (`falls`); as the family says unless told. It changes what learners make of a trial, not how one is played.
        physics: Name of the back end that moves a MuJoCo family, `mujoco` or `warp`; unless told, that of the device.
        device: `cpu` or `cuda`. Worlds of the physics `mujoco`, and external ones, are on the CPU even so: ask
            `env.device`.
        threads: Threads or processes, one per CPU where 0; results do not depend on it.
        pictures: External environments draw only if made for it.

    Returns:
        An environment to be closed, or used in a `with`.

    Raises:
        UserError: The family or the back end is of no known kind, or its environment cannot be made.
    """
    if isinstance(family, MujocoFamily):
        return MujocoEnv(
            family,
            num_worlds,
            episodes_per_trial=episodes_per_trial,
            episode_steps=episode_steps,
            task_visible=task_visible,
            trial=trial,
            physics=physics or ("mujoco" if torch.device(device).type == "cpu" else "warp"),
            device=device,
            threads=threads,
        )
    if isinstance(family, ExternalFamily):
        return ExternalEnv(
            family,
            num_worlds,
            episodes_per_trial=episodes_per_trial,
            episode_steps=episode_steps,
            task_visible=task_visible,
            trial=trial,
            processes=threads,
            pictures=pictures,
        )
    raise UserError(f"{type(family).__name__} is neither a MujocoFamily nor an ExternalFamily")
