"""Every family fulfils the contract, the package's own and plug-ins alike: the checks of `metarl check`."""

import pytest
from families import ALL_FAMILIES

from metarl.check import playing, tested
from metarl.check.check import check_family
from metarl.core.registry import make_family

UNDECIDED = {(name, "every task parameter matters") for name in ("point-goal-sparse", "half-cheetah-dir-sparse")}
"""Random play cannot tell: it never reaches what is rewarded."""

LONG = {"humanoid-dir"}
VARIANTS = {
    "half-cheetah-dir-sparse",
    "ant-dir-2d",
    "ant-goal-sparse",
    "point-goal-sparse",
    "quadruped-command-wide",
    "quadruped-vel",
}
"""They differ from another family in the reward or the range of a parameter alone."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in VARIANTS)) for name in ALL_FAMILIES]
)
def test_the_contract_holds(name, monkeypatch):
    """In a third of the steps that `metarl check` plays, but for a robot whose every body must touch something."""
    family = make_family(name)
    monkeypatch.setattr(playing, "_SPEED_SECONDS", 0.0)
    for module in (playing, tested):
        monkeypatch.setattr(module, "RANDOM_STEPS", 1000 if name in LONG else 320)
    findings = check_family(family)
    wrong = [f"{one.check}: {one.problem}" for one in findings if one.problem is not None]
    unchecked = [
        f"{one.check}: {one.note}" for one in findings if not one.checked and (name, one.check) not in UNDECIDED
    ]
    assert wrong + unchecked == []
