"""Every family fulfils the contract, the package's own and plug-ins alike: the checks of `metarl check`."""

import jaxtyping
import pytest
import torch
from families import ALL_FAMILIES

from metarl.check import playing
from metarl.check.check import check_family
from metarl.core import seeding
from metarl.core.registry import make_family
from metarl.sim.make import make_env

UNDECIDED = {(name, "every task parameter matters") for name in ("point-goal-sparse", "half-cheetah-dir-sparse")}
"""Random play cannot tell: it never reaches what is rewarded."""


@pytest.mark.parametrize("name", ALL_FAMILIES)
def test_the_contract_holds(name, monkeypatch):
    family = make_family(name)
    play_briefly(family)
    # The thousands of steps that follow would spend three quarters of their time on types and shapes.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.setattr(playing, "_SPEED_SECONDS", 0.0)
    findings = check_family(family)
    wrong = [f"{one.check}: {one.problem}" for one in findings if one.problem is not None]
    unchecked = [
        f"{one.check}: {one.note}" for one in findings if not one.checked and (name, one.check) not in UNDECIDED
    ]
    assert wrong + unchecked == []


def play_briefly(family):
    """A few steps of every split, with types and shapes checked."""
    with make_env(family, 3, threads=1) as env:
        for split in family.space.splits:
            env.begin(family.space.sample(split, 3, seeding.rng(0, "brief")), key=0)
            for action in torch.zeros(3, 3, env.action_size):
                env.step(action)
