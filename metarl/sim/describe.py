"""What a policy has to know of the worlds it is in, from what their family declares."""

from __future__ import annotations

from collections.abc import Sequence

from metarl.core.info import ParameterRange, Part, PolicyInfo
from metarl.core.tasks import Value
from metarl.sim.family import Family
from metarl.sim.mirror import mirror_of
from metarl.sim.task_code import code_parts


def described(
    family: Family,
    sensed_size: int,
    actions: Sequence[str],
    hidden: tuple[Part, ...],
    *,
    task_visible: bool,
    episode_steps: int,
    episodes_per_trial: int,
) -> PolicyInfo:
    """The description of worlds in which `sensed_size` numbers are observed; `hidden` parts change in an episode."""
    parts = tuple(family.observation) or (Part("observation", sensed_size, "1"),)
    privileged = (*code_parts(family.space), *hidden)
    if task_visible:
        size = sum(part.size for part in privileged)
        parts += (Part("task", size, "1", help="the task, and what else is hidden, as `privileged`"),)
    ranges = tuple(
        ParameterRange(name, own.unit, own.train.describe(), _hashable(own.nominal))
        for name, own in family.space.parameters.items()
    )
    own = (parts, tuple(actions), family.control_step, episode_steps, episodes_per_trial, ranges)
    return PolicyInfo(*own, privileged=privileged, mirror=mirror_of(family, privileged, task_visible))


def _hashable(value: Value | None) -> float | tuple[float, ...] | None:
    return tuple(value) if isinstance(value, list) else value
