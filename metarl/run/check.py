"""Does a family fulfil the contract? For a newcomer's own robot, and over all of ours in the tests."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from metarl.errors import UserError
from metarl.run import contract, contract_tasks
from metarl.run.probe import RANDOM_STEPS, Probe
from metarl.sim.family import Family

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


Check = Callable[[Probe], str | None]
"""Raises where the family breaks the contract, and may return a note."""

FOUNDATIONS: dict[str, Check] = {
    "the model compiles and its actuators have ranges": contract.model,
    "the camera and the parameters of the variations exist": contract.names,
    "the control step is a whole multiple of the timestep": contract.control_step,
    "an episode has a length": contract.episode_length,
    "observation, reward terms and termination have one row per world": contract.spaces,
    f"observation and reward stay finite in {RANDOM_STEPS:,} random steps": contract.finite,
}
"""What the other checks need: after one that fails, nothing more is checked."""

CHECKS: dict[str, Check] = FOUNDATIONS | {
    f"the physics never diverges in {RANDOM_STEPS:,} random steps": contract.diverges,
    "episodes end, and can end by the family's own rules": contract.ends,
    "no element of the observation is constant": contract.constants,
    "the reward is the sum of its terms": contract.reward_sum,
    "consecutive observations share no memory": contract.memory,
    "observing and rewarding only read": contract.pure,
    "the same seed gives the same trajectory": contract.deterministic,
    "worlds and trials start in different states": contract.starts,
    "the train and test tasks are disjoint": contract_tasks.disjoint,
    "the ood split lies outside the training range": contract_tasks.outside,
    "every split can be played": contract_tasks.playable,
    "every task parameter matters": contract_tasks.matters,
    "the task is not in the observation": contract_tasks.hidden,
    "the first observation does not depend on a goal": contract_tasks.first_observation,
    "each variation changes the model, where it says": contract_tasks.variations,
    "the same task gives the same model after 100 others": contract_tasks.restores,
    "the same task gives the same dynamics in every world": contract_tasks.slots,
    "a picture can be drawn": contract.renders,
    "speed": contract.speed,
}


def check_family(family: Family) -> list[Finding]:
    """Run every check, in order."""
    probe, findings, missing = Probe(family), [], ""
    for name, check in CHECKS.items():
        findings.append(Finding(name, None, f"{NOT_CHECKED}: {missing}") if missing else _finding(name, check, probe))
        if name in FOUNDATIONS and findings[-1].problem is not None:
            missing = f"it needs that {name}"
    return findings


def _finding(name: str, check: Check, probe: Probe) -> Finding:
    try:
        return Finding(name, None, check(probe))
    except UserError as error:
        return Finding(name, str(error))
    except Exception as error:  # whatever a user's family raises is a finding, with the place in their file
        frame = _place(error, probe.family)
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
