"""What is evaluated and filmed: the policy of a run, or one that never trained on a family named in its place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from metarl.core.config import disturbances_text
from metarl.core.errors import UserError, unknown_name
from metarl.core.registry import absolute, make_family, names_family
from metarl.core.renamed import old_names
from metarl.core.tasks import Tasks, family_of_tasks, load_tasks
from metarl.rl.policy import Policy
from metarl.rl.scripted import UNTRAINED
from metarl.run.records import Origin
from metarl.run.run import Run
from metarl.sim.disturbance_files import disturbed
from metarl.sim.family import Family
from metarl.sim.make import make_env

_EPISODES = 2  # per task, of a policy that never trained, where the user does not say


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


def subject_of(
    source: Subject | Run | str | Path,
    agent: str | None = None,
    which: str | None = None,
    trust_code: bool = False,
    device: str = "cpu",
    disturbances: str = "",
) -> Subject:
    """A run's policy at a checkpoint, or with `agent` one that never trained, on the family in the run's place.

    The policy is on `device`, wherever it was trained. `disturbances`, the text of a file or its name, come upon those
    that it was trained with.
    """
    if isinstance(source, Subject):
        return source
    text = disturbances_text(disturbances)
    if agent is None:
        found = trained(source, which, trust_code, device)
        return found._replace(family=disturbed(found.family, text))
    path = Path(str(source))
    family = str(path)
    if _is_run(path) and not names_family(family):
        raise UserError(
            f"{family} is a run folder, which has an agent of its own: leave out --agent {agent}, or name a family "
            "instead of the folder"
        )
    if agent not in UNTRAINED:
        raise unknown_name("agent without training", agent, UNTRAINED)
    made = make_family(family, text)
    with make_env(made, 1, threads=1) as env:
        policy = UNTRAINED[agent](env.info)
    return Subject(policy, made, Origin(agent=agent, family=absolute(family), adapts=False), _EPISODES)


def trained(
    source: Run | str | Path, which: str | None = None, trust_code: bool = False, device: str = "cpu"
) -> Subject:
    """A run's policy at its newest checkpoint, or at the one named; `UserError` where `source` is no run folder."""
    path = Path(str(source))
    if not _is_run(path) and names_family(str(path)):
        raise UserError(
            f"{path} is a family, not a run folder: add --agent zero or --agent random for a look at it before any "
            "training"
        )
    run = Run.open(source, trust_code)
    episodes = run.config().episodes_per_trial
    return Subject(run.policy(which, device), run.family(), run.origin(which), episodes, run)


def on_tasks(subject: Subject, path: Path, disturbances: str = "") -> tuple[Subject, Tasks]:
    """The tasks of a file, and the policy on the family that they are of: its own, or that with more parameters.

    An oracle is shown no more parameters than it was trained with.
    """
    owner, ours = family_of_tasks(path), subject.origin.family
    if owner.startswith(f"{ours}+") and not subject.origin.task_visible:
        own = "" if subject.run is None else subject.run.config().disturbances
        family = disturbed(make_family(owner, own), disturbances_text(disturbances))
        return subject._replace(family=family), load_tasks(path, owner, family.space)
    return subject, load_tasks(path, ours, subject.family.space)


def _is_run(path: Path) -> bool:
    return os.path.isfile(path / "config.toml")  # unlike Path's, False too for a name that cannot be


__getattr__ = old_names(__name__)
