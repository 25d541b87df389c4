"""Families as Gymnasium environments: `metarl/HalfCheetahVel-v0` is `half-cheetah-vel`, and so on.

Importing this module registers them. Gymnasium loads no plug-ins since 1.0, but imports what stands before a colon:

    gymnasium.make("metarl.gym:metarl/HalfCheetahVel-v0")
    gymnasium.make_vec("metarl.gym:metarl/HalfCheetahVel-v0", num_envs=64)

A family of your own has the id of none: name its file, or give it one by `register`.

    gymnasium.make("metarl.gym:metarl/Family-v0", family="my_robot.py:MyRobot")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import gymnasium

from metarl.envs import FAMILIES

if TYPE_CHECKING:
    from metarl.sim.adapters.gymnasium import TaskEnv, TaskVectorEnv

_ADAPTERS = "metarl.sim.adapters.gymnasium"
_WIDTH, _HEIGHT = 480, 320


def environment_id(family: str) -> str:
    """The Gymnasium id of a family's name: `metarl/HalfCheetahVel-v0` of `half-cheetah-vel`."""
    return f"metarl/{''.join(word.capitalize() for word in family.split('-'))}-v0"


def register(families: Mapping[str, str]) -> None:
    """Give families an id; `families` maps names to `module:Class` or `path/to/file.py:Class`.

    They are imported when an environment is made.
    """
    for name, reference in families.items():
        in_file = ".py:" in reference
        gymnasium.register(
            environment_id(name),
            entry_point="metarl.gym:task_env" if in_file else f"{_ADAPTERS}:TaskEnv",
            vector_entry_point="metarl.gym:task_vector_env" if in_file else f"{_ADAPTERS}:TaskVectorEnv",
            kwargs={"family": reference},
        )


def task_env(
    family: str, split: str = "train", render_mode: str | None = None, width: int = _WIDTH, height: int = _HEIGHT
) -> TaskEnv:
    """One world of a family, named as on the command line."""
    from metarl.core.registry import make_family
    from metarl.sim.adapters.gymnasium import TaskEnv

    return TaskEnv(make_family(family), split=split, render_mode=render_mode, width=width, height=height)


def task_vector_env(
    family: str,
    num_envs: int,
    split: str = "train",
    render_mode: str | None = None,
    width: int = _WIDTH,
    height: int = _HEIGHT,
    autoreset_mode: Literal["SameStep", "NextStep"] = "SameStep",
) -> TaskVectorEnv:
    """Many of them, stepped together."""
    from metarl.core.registry import make_family
    from metarl.sim.adapters.gymnasium import TaskVectorEnv

    made, size = make_family(family), {"width": width, "height": height}
    return TaskVectorEnv(made, num_envs, split=split, render_mode=render_mode, autoreset_mode=autoreset_mode, **size)


register(FAMILIES)
gymnasium.register(
    "metarl/Family-v0", entry_point="metarl.gym:task_env", vector_entry_point="metarl.gym:task_vector_env"
)
