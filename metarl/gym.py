"""Families as Gymnasium environments: `metarl/HalfCheetahVel-v0` is `half-cheetah-vel`, and so on.

Importing this module registers them. Gymnasium loads no plug-ins since 1.0, but imports what stands before a colon:

    gymnasium.make("metarl.gym:metarl/HalfCheetahVel-v0")
    gymnasium.make_vec("metarl.gym:metarl/HalfCheetahVel-v0", num_envs=64)
"""

from __future__ import annotations

from collections.abc import Mapping

import gymnasium

from metarl.envs import FAMILIES


def environment_id(family: str) -> str:
    """The Gymnasium id of a family's name: `metarl/HalfCheetahVel-v0` of `half-cheetah-vel`."""
    return f"metarl/{''.join(word.capitalize() for word in family.split('-'))}-v0"


def register(families: Mapping[str, str]) -> None:
    """Give families an id; `families` maps names to `module:Class`, which is imported when an environment is made."""
    for name, reference in families.items():
        gymnasium.register(
            environment_id(name),
            entry_point="metarl.sim.adapters.gymnasium:TaskEnv",
            vector_entry_point="metarl.sim.adapters.gymnasium:TaskVectorEnv",
            kwargs={"family": reference},
        )


register(FAMILIES)
