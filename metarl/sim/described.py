"""What a policy has to know of the worlds of a family."""

from __future__ import annotations

from collections.abc import Sequence

from metarl.core.info import ParameterRange, Part, PolicyInfo
from metarl.core.tasks import Value
from metarl.sim.family import Family
from metarl.sim.mirror import mirror_of
from metarl.sim.task_code import code_parts


def policy_info(
    family: Family,
    actions: Sequence[str],
    observation_size: int,
    hidden: tuple[Part, ...],
    task_visible: bool,
    episode_steps: int,
    episodes_per_trial: int,
) -> PolicyInfo:
    """Parts of the observation, actuators, times and ranges; `hidden` are parts that change within an episode."""
    parts = tuple(family.observation) or (Part("observation", observation_size, "1"),)
    privileged = (*code_parts(family.space), *hidden)
    if task_visible:
        size = sum(part.size for part in privileged)
        parts += (Part("task", size, "1", help="the task, and what else is hidden, as `privileged`"),)
    ranges = tuple(
        ParameterRange(name, own.unit, own.train.describe(), _hashable(own.nominal))
        for name, own in family.space.parameters.items()
    )
    mirror = mirror_of(family, privileged, task_visible)
    own = (parts, tuple(actions), family.control_step, episode_steps, episodes_per_trial, ranges)
    return PolicyInfo(*own, privileged=privileged, mirror=mirror)


def _hashable(value: Value | None) -> float | tuple[float, ...] | None:
    return tuple(value) if isinstance(value, list) else value
