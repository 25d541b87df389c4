"""What `eval` and `video` look at: the policy of a run, or one that never trained, on a family named in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl.core.errors import UserError
from metarl.core.registry import absolute, family_names, make_family
from metarl.rl.policy import Policy
from metarl.rl.scripted import UNTRAINED
from metarl.run.pretrained import is_pretrained, pretrained
from metarl.run.run import RunFolder, restore
from metarl.sim.family import Family
from metarl.sim.make import make_env

_LOOK_EPISODES = 2


@dataclass(frozen=True)
class Subject:
    """A policy on a family, and what titles and files say of them."""

    policy: Policy[Any]
    family: Family
    summary: Mapping[str, Any]
    """Agent and family by name, and how long it trained, as plain data."""
    episodes: int
    """Episodes per task where the user does not say."""
    run: RunFolder | None = None
    """Where evaluations are kept; None for a policy that never trained, or that comes with metarl."""
    iteration: int = 0
    """Training iterations behind the policy."""

    @property
    def family_name(self) -> str:
        """As runs and task lists know it: a user's own file by its full path."""
        return str(self.summary["family"])

    def title(self, tasks: str) -> str:
        """`rl2 on ant-dir: TASKS, after 320 steps`."""
        training = "untrained" if not self.iteration else f"after {self.summary['train_steps']:,} steps"
        return f"{self.summary['agent']} on {self.family_name}: {tasks}, {training}"


def trained(path: Path, checkpoint: str | None = None) -> Subject:
    """A run's policy at its newest checkpoint, or at the one named; `UserError` where `path` is no run folder.

    `pretrained:NAME` is the policy of that name that comes with metarl.
    """
    shipped = is_pretrained(path)
    run = pretrained(str(path)) if shipped else RunFolder(path)
    if not _is_run(path) and _names_family(str(path)):
        raise UserError(
            f"{path} is a family, not a run folder: add --agent zero or --agent random for a look at it before any "
            "training"
        )
    found = restore(run, checkpoint)
    episodes, iteration = found.config.episodes_per_trial, found.manifest.iteration
    return Subject(found.learner.policy, found.family, found.summary(), episodes, None if shipped else run, iteration)


def untrained(agent: str, family: str) -> Subject:
    """The agent of `UNTRAINED` on the family named; `UserError` where the name is a run folder's."""
    if _is_run(Path(family)) and not _names_family(family):
        raise UserError(
            f"{family} is a run folder, which has an agent of its own: leave out --agent {agent}, or name a family "
            "instead of the folder"
        )
    made = make_family(family)
    with make_env(made, 1, threads=1) as env:
        policy = UNTRAINED[agent](env.info)
    summary = {
        "agent": agent,
        "family": absolute(family),
        "train_seed": None,
        "train_steps": 0,
        "train_seconds": 0.0,
    }
    return Subject(policy, made, summary, _LOOK_EPISODES)


def _is_run(path: Path) -> bool:
    return (path / "config.toml").is_file()


def _names_family(name: str) -> bool:
    return ".py:" in name or name in family_names()
