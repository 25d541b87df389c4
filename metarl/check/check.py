"""Does a family do what every family has to? One table of checks for newcomers, and for all of ours in the tests."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from metarl.check import effects, leaks, playing, posing
from metarl.check.symmetry import symmetric
from metarl.check.tested import Tested
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


Check = Callable[[Tested], str | None]
"""Takes what is tested; raises where what its docstring says does not hold, and may return a note."""


def _named(*checks: Check) -> dict[str, Check]:
    """Each by what has to hold: the first line of its docstring."""
    heads = [(check.__doc__ or "").split("\n")[0].rstrip(".") for check in checks]
    return {head[0].lower() + head[1:]: check for head, check in zip(heads, checks, strict=True)}


FOUNDATIONS = _named(
    *(playing.model, playing.names, playing.control_step, playing.episode_length, playing.spaces, playing.finite)
)
"""What the other checks need: after one that fails, nothing more is checked."""
CHECKS = FOUNDATIONS | _named(
    *(playing.diverges, playing.ends, playing.constants, playing.reward_sum, playing.memory, playing.pure),
    *(playing.deterministic, playing.starts, posing.disjoint, posing.outside, posing.playable, posing.matters),
    *(leaks.hidden, leaks.placed, leaks.passed_on, leaks.first_observation, posing.variations, effects.ratios),
    *(posing.restores, posing.slots, symmetric, playing.renders, playing.speed),
)

EXTERNAL_FOUNDATIONS = _named(playing.made, playing.posed, playing.finite)
"""What the other checks of an external environment need."""
EXTERNAL_CHECKS = EXTERNAL_FOUNDATIONS | _named(
    *(playing.ends, playing.constants, playing.reward_sum, playing.memory, playing.deterministic, playing.starts),
    *(posing.disjoint, posing.outside, posing.playable, posing.matters, leaks.told, playing.renders, playing.speed),
)
"""What can be seen from outside; the other checks look into MuJoCo's models."""


def check_family(family: Family) -> list[Finding]:
    """Run every check that the family's kind allows, in order."""
    if isinstance(family, MujocoFamily):
        return _findings(Tested(family), CHECKS, FOUNDATIONS)
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
