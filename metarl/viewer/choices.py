"""The policies that can act in a family's worlds: of runs, of those that come with metarl, and of no training."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from metarl.core.errors import UserError
from metarl.core.registry import family_names, make_family
from metarl.rl.policy import Policy
from metarl.rl.scripted import UNTRAINED
from metarl.run.checkpoint import BEST, existing, find
from metarl.run.pretrained import PREFIX, pretrained_names
from metarl.run.run import Run
from metarl.run.statistics import Interval
from metarl.sim.family import Family, MujocoFamily

NEWEST = "newest"
"""The checkpoint that follows a run in training."""


class Seen(NamedTuple):
    """Whose worlds are shown."""

    family: MujocoFamily
    name: str
    """The family's."""
    choices: tuple[Choice, ...]
    """Policies; the first one acts at first."""
    episodes: int
    """On each task."""
    episode_steps: int
    """Time limit of an episode [control steps]; 0 for the family's own."""


@dataclass(frozen=True)
class Choice:
    """A policy, loaded when it is asked for."""

    name: str
    run: Run | None = None
    """None for one that never trained."""

    @property
    def checkpoints(self) -> list[str]:
        """What there is to choose from."""
        if self.run is None or self.run.pretrained:
            return [NEWEST]
        return [NEWEST, BEST, *(path.name for path in reversed(existing(self.run.checkpoints)))]

    def policy(self, info: Any, checkpoint: str = NEWEST) -> Policy[Any]:
        """The policy; `info` describes the robot to one that never trained."""
        if self.run is None:
            return UNTRAINED[self.name](info)
        return self.run.policy(None if checkpoint == NEWEST else checkpoint)

    def newest(self) -> str:
        """Name of the newest checkpoint of a run; it changes while the run trains."""
        if self.run is None or self.run.pretrained:
            return ""
        return find(self.run.checkpoints).name

    def expected(self) -> Sequence[Interval]:
        """Returns per episode of its evaluation on held-out tasks, the last one kept; empty where there is none."""
        if self.run is None:
            return ()
        try:
            records = [record for record in self.run.evaluations if record.split == "test"]
        except UserError:
            return ()
        return max(records, key=lambda one: (one.iteration, len(one.tasks))).summary.adaptation_curve if records else ()


def seen(source: Run | str | Path, others: Sequence[Run | str | Path] = (), trust_code: bool = False) -> Seen:
    """What is shown of a run, `pretrained:NAME` or a family, and who may act there.

    Beside it those of `others`, pretrained policies and runs in the same folder, as far as they are of its family.
    Raises `UserError` where it is none of these, or not simulated by MuJoCo.
    """
    untrained = tuple(Choice(name) for name in UNTRAINED)
    if _names_family(source):
        name, made, own, episodes, steps = str(source), make_family(str(source)), [], 2, 0
    else:
        run = Run.open(source, trust_code)
        config, made = run.config(), run.family()
        name, episodes, steps = config.family, config.episodes_per_trial, config.episode_steps
        own = [run]
    asked = [Run.open(other, trust_code) for other in others]
    for other in asked:
        if other.config().family != name:
            raise UserError(f"{other} is of the family {other.config().family}, not of {name}: it cannot act here")
    found = [*own, *asked, *_beside(own), *(Run.open(PREFIX + each) for each in pretrained_names())]
    runs = {str(run): run for run in found if str(run.config_values["family"]) == name}
    trained = tuple(Choice(label, run) for label, run in runs.items())
    return Seen(_simulated(made, name), name, (*trained, *untrained), episodes, steps)


def _beside(runs: Sequence[Run]) -> list[Run]:
    """Other runs in the folder that a run is in, which have a policy already."""
    found = []
    for run in runs:
        if run.pretrained:
            continue
        for config in sorted(run.path.resolve().parent.glob("*/config.toml")):
            other = Run(config.parent)
            with suppress(UserError):  # whatever is wrong with it is not what was asked for
                if other.path != run.path.resolve() and other.is_trusted and existing(other.checkpoints):
                    found.append(other)
    return found


def _names_family(source: Run | str | Path) -> bool:
    return not isinstance(source, Run) and (".py:" in str(source) or str(source) in family_names())


def _simulated(made: Family, name: str) -> MujocoFamily:
    if not isinstance(made, MujocoFamily):
        raise UserError(
            f"{name} is not simulated by MuJoCo here, and cannot be looked at live: `metarl video` films it"
        )
    return made
