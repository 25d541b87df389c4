"""What `eval` and `video` are given to look at: a run, or with `--agent` a family that nobody trained on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from metarl.core.errors import UserError, unknown_name

if TYPE_CHECKING:
    from metarl.rl.policy import Policy
    from metarl.run.records import Origin
    from metarl.run.run import Run
    from metarl.sim.family import Family

_UNTRAINED = ("zero", "random")


class Subject(NamedTuple):
    """A policy and the family it acts on."""

    policy: Policy[Any]
    family: Family
    origin: Origin
    """What records and titles say of the policy."""
    episodes: int
    """Episodes per task where the user does not say."""
    run: Run | None = None
    """None for a policy that never trained."""


def subject_of(path: Path, agent: str | None, checkpoint: str | None) -> Subject:
    """A run's policy, or with `agent` one that never trained on the family in the run's place."""
    if agent is None:
        return trained(path, checkpoint)
    from metarl.run.untrained import EPISODES, untrained

    family = str(path)
    if _is_run(path) and not _names_family(family):
        raise UserError(
            f"{family} is a run folder, which has an agent of its own: leave out --agent {agent}, or name a family "
            "instead of the folder"
        )
    return Subject(*untrained(agent, family), EPISODES)


def trained(path: Path, checkpoint: str | None = None) -> Subject:
    """A run's policy at its newest checkpoint, or at the one named; `UserError` where `path` is no run folder."""
    from metarl.run.run import Run

    if not _is_run(path) and _names_family(str(path)):
        raise UserError(
            f"{path} is a family, not a run folder: add --agent zero or --agent random for a look at it before any "
            "training"
        )
    run = Run.open(path)
    episodes = run.config().episodes_per_trial
    return Subject(run.policy(checkpoint), run.family(), run.origin(checkpoint), episodes, run)


def _is_run(path: Path) -> bool:
    return os.path.isfile(path / "config.toml")  # unlike Path's, False too for a name that cannot be


def _names_family(name: str) -> bool:
    from metarl.core.registry import family_names

    return ".py:" in name or name in family_names()


def require_untrained(agent: str | None, given: Mapping[str, object]) -> None:
    """`UserError` where `--agent` is none of those that never train, or stands beside an option of those that did."""
    if agent is None:
        return
    if agent not in _UNTRAINED:
        raise unknown_name("agent without training", agent, _UNTRAINED)
    for option, value in given.items():
        if value:
            raise UserError(f"--agent {agent} never trained and takes no {option}: leave one of the two out")
