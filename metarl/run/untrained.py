"""Policies that never train, on a family named: what it looks like before any training."""

from __future__ import annotations

from typing import Any

from metarl.core.registry import absolute, make_family
from metarl.rl.policy import Policy
from metarl.rl.scripted import UNTRAINED
from metarl.run.records import Origin
from metarl.sim.family import Family
from metarl.sim.make import make_env

EPISODES = 2
"""Episodes per task where the user does not say."""


def untrained(agent: str, family: str) -> tuple[Policy[Any], Family, Origin]:
    """The policy of `UNTRAINED` for the family named, the family, and what records say of them."""
    made = make_family(family)
    with make_env(made, 1, threads=1) as env:
        policy = UNTRAINED[agent](env.info)
    return policy, made, Origin(agent=agent, family=absolute(family))
