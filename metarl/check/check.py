"""Does a family do what every family has to? One table of checks for newcomers, and for all of ours in the tests."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl.check import playing, posing
from metarl.check.tested import RANDOM_STEPS, Tested, TestedRobot
from metarl.core.errors import UserError
from metarl.sim.family import Family, MujocoFamily

NOT_CHECKED = "not checked"
"""How a note begins where a check had no verdict."""


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    check: str
    """What must hold."""
    problem: str | None
    """What is wrong, in one sentence; None where it holds."""
    note: str | None = None
    """What was measured, or "not checked: " and why."""

    @property
    def checked(self) -> bool:
        """There is a verdict."""
        return self.note is None or not self.note.startswith(NOT_CHECKED)


Check = Callable[[Any], str | None]
"""Takes a `Tested` or a `TestedRobot`; raises where the check does not hold, and may return a note."""

_FINITE = f"observation and reward stay finite in {RANDOM_STEPS:,} random steps"

FOUNDATIONS: dict[str, Check] = {
    "the model compiles and its actuators have ranges": playing.model,
    "the camera and the parameters of the variations exist": playing.names,
    "the control step is a whole multiple of the timestep": playing.control_step,
    "an episode has a length": playing.episode_length,
    "observation, reward terms and termination are as declared, with one row per world": playing.spaces,
    _FINITE: playing.finite,
}
"""What the other checks need: after one that fails, nothing more is checked."""

CHECKS: dict[str, Check] = FOUNDATIONS | {
    f"the physics never diverges in {RANDOM_STEPS:,} random steps": playing.diverges,
    "episodes end, and can end by the family's own rules": playing.ends,
    "no element of the observation is constant": playing.constants,
    "the reward is the sum of its terms": playing.reward_sum,
    "consecutive observations share no memory": playing.memory,
    "observing and rewarding only read": playing.pure,
    "the same seed gives the same trajectory": playing.deterministic,
    "worlds and trials start in different states": playing.starts,
    "the train and test tasks are disjoint": posing.disjoint,
    "the ood split lies outside the training range": posing.outside,
    "every split can be played": posing.playable,
    "every task parameter matters": posing.matters,
    "the task is not in the observation": posing.hidden,
    "the first observation does not depend on a goal": posing.first_observation,
    "each variation changes the model, where it says": posing.variations,
    "the same task gives the same model after 100 others": posing.restores,
    "the same task gives the same dynamics in every world": posing.slots,
    "a picture can be drawn": playing.renders,
    "speed": playing.speed,
}

EXTERNAL_FOUNDATIONS: dict[str, Check] = {
    "the environment can be made, and its spaces fit": playing.made,
    "a task can be posed, and a step taken": playing.posed,
    _FINITE: playing.finite,
}
"""What the other checks of an external environment need."""

EXTERNAL_CHECKS: dict[str, Check] = EXTERNAL_FOUNDATIONS | {
    "episodes end": playing.ends,
    "no element of the observation is constant": playing.constants,
    "the reward is the sum of its terms": playing.reward_sum,
    "consecutive observations share no memory": playing.memory,
    "the same seed gives the same trajectory": playing.deterministic,
    "how episodes start": playing.starts,
    "the train and test tasks are disjoint": posing.disjoint,
    "the ood split lies outside the training range": posing.outside,
    "every split can be played": posing.playable,
    "every task parameter matters": posing.matters,
    "what an element of the first observation tells of the task": posing.told,
    "a picture can be drawn": playing.renders,
    "speed": playing.speed,
}
"""What can be seen from outside; the other checks look into MuJoCo's models."""


def check_family(family: Family) -> list[Finding]:
    """Run every check that the family's kind allows, in order."""
    if isinstance(family, MujocoFamily):
        return _findings(TestedRobot(family), CHECKS, FOUNDATIONS)
    inside = Finding("the model, its variations and its physics", None, f"{NOT_CHECKED}: the simulator is its own")
    return [*_findings(Tested(family), EXTERNAL_CHECKS, EXTERNAL_FOUNDATIONS), inside]


def _findings(tested: Tested, checks: Mapping[str, Check], foundations: Container[str]) -> list[Finding]:
    findings, missing = [], ""
    for name, check in checks.items():
        findings.append(Finding(name, None, f"{NOT_CHECKED}: {missing}") if missing else _finding(name, check, tested))
        if name in foundations and findings[-1].problem is not None:
            missing = f"it needs that {name}"
    if "env" in vars(tested):
        tested.env.close()
    return findings


def _finding(name: str, check: Check, tested: Tested) -> Finding:
    try:
        return Finding(name, None, check(tested))
    except UserError as error:
        return Finding(name, str(error))
    except Exception as error:  # whatever a user's family raises is a finding, with the place in their file
        frame = _place(error, tested.family)
        where = f"{Path(frame.filename).name}:{frame.lineno}, in {frame.name}"
        return Finding(name, f"{type(error).__name__}: {' '.join(str(error).split())} ({where})")


def _place(error: Exception, family: Family) -> traceback.FrameSummary:
    """The last frame in the file of the family itself, else in no library, else in ours, else any."""
    frames = list(traceback.extract_tb(error.__traceback__))
    own = getattr(sys.modules.get(type(family).__module__), "__file__", None)
    libraries = (*(sysconfig.get_path(key) for key in ("stdlib", "purelib", "platlib")), "<")
    ours = (*libraries, str(Path(__file__).parents[1]))
    for chosen in (
        [frame for frame in frames if frame.filename == own],
        [frame for frame in frames if not frame.filename.startswith(ours)],
        [frame for frame in frames if not frame.filename.startswith(libraries)],
    ):
        if chosen:
            return chosen[-1]
    return frames[-1]


def verdict(family: str, findings: list[Finding]) -> Iterator[str]:
    """One line per finding and one of all, to print."""
    for finding in findings:
        if finding.problem is not None:
            yield f"FAILED  {finding.check}: {finding.problem}"
        else:
            note = "" if finding.note is None else f" ({finding.note})"
            yield f"{'ok' if finding.checked else '--':6}  {finding.check}{note}"
    failed = sum(finding.problem is not None for finding in findings)
    unchecked = sum(not finding.checked for finding in findings)
    summary = f"{family}: {len(findings) - failed - unchecked} of {len(findings)} checks passed"
    yield summary + (f", {failed} failed" if failed else "") + (f", {unchecked} not checked" if unchecked else "")
