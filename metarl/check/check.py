"""Does a family fulfil the contract, and a bare MJCF file make a robot? For newcomers, and for all of ours in tests."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from metarl.check import contract, contract_external, contract_tasks
from metarl.check.probe import RANDOM_STEPS, Played, Probe
from metarl.core.errors import UserError
from metarl.sim.family import Family, MujocoFamily
from metarl.sim.mujoco.mjcf.sandbox import MEMORY_LIMIT, SIMULATED, Report, examine, printable
from metarl.sim.mujoco.mjcf.scan import read
from metarl.sim.mujoco.rendering import gl_backend

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


P = TypeVar("P", bound=Played)

Check = Callable[[P], str | None]
"""Raises where the family breaks the contract, and may return a note."""

FOUNDATIONS: dict[str, Check[Probe]] = {
    "the model compiles and its actuators have ranges": contract.model,
    "the camera and the parameters of the variations exist": contract.names,
    "the control step is a whole multiple of the timestep": contract.control_step,
    "an episode has a length": contract.episode_length,
    "observation, reward terms and termination have one row per world": contract.spaces,
    f"observation and reward stay finite in {RANDOM_STEPS:,} random steps": contract.finite,
}
"""What the other checks need: after one that fails, nothing more is checked."""

CHECKS: dict[str, Check[Probe]] = FOUNDATIONS | {
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


EXTERNAL_FOUNDATIONS: dict[str, Check[Played]] = {
    "the environment can be made, and its spaces fit": contract_external.made,
    "a task can be posed, and a step taken": contract_external.posed,
    f"observation and reward stay finite in {RANDOM_STEPS:,} random steps": contract_external.finite,
}
"""What the other checks of an external environment need."""

EXTERNAL_CHECKS: dict[str, Check[Played]] = EXTERNAL_FOUNDATIONS | {
    "episodes end": contract_external.ends,
    "no element of the observation is constant": contract_external.constants,
    "the reward is the sum of its terms": contract.reward_sum,
    "consecutive observations share no memory": contract.memory,
    "the same seed gives the same trajectory": contract.deterministic,
    "how episodes start": contract_external.starts,
    "the train and test tasks are disjoint": contract_tasks.disjoint,
    "the ood split lies outside the training range": contract_tasks.outside,
    "every split can be played": contract_tasks.playable,
    "every task parameter matters": contract_external.matters,
    "what an element of the first observation tells of the task": contract_external.told,
    "a picture can be drawn": contract_external.renders,
    "speed": contract_external.speed,
}
"""What can be seen from outside; the other checks look into MuJoCo's models."""


def check_family(family: Family) -> list[Finding]:
    """Run every check that the family's kind allows, in order."""
    if isinstance(family, MujocoFamily):
        return _findings(Probe(family), CHECKS, FOUNDATIONS)
    inside = Finding("the model, its variations and its physics", None, f"{NOT_CHECKED}: the simulator is its own")
    return [*_findings(Played(family), EXTERNAL_CHECKS, EXTERNAL_FOUNDATIONS), inside]


def _findings(probe: P, checks: Mapping[str, Check[P]], foundations: Container[str]) -> list[Finding]:
    findings, missing = [], ""
    for name, check in checks.items():
        findings.append(Finding(name, None, f"{NOT_CHECKED}: {missing}") if missing else _finding(name, check, probe))
        if name in foundations and findings[-1].problem is not None:
            missing = f"it needs that {name}"
    probe.close()
    return findings


def _finding(name: str, check: Check[P], probe: P) -> Finding:
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


MJCF_CHECKS = (
    "it is safe to read",
    "it compiles within the limits of time and memory",
    "its actuators have ranges",
    f"it stands {SIMULATED:g} s of physics without actions",
    f"it stands {SIMULATED:g} s of physics under random actions",
    "a picture can be drawn",
)
"""What a bare MJCF file is tested for."""

_PICTURE_SECONDS = 600.0  # against hanging
_PICTURE = """
import sys
from metarl.sim.mujoco.rendering import Camera
from metarl.sim.mujoco.mjcf.scan import load
path, folder, memory, backend = sys.argv[1:]
camera = Camera(load(path, folder, int(memory)).compile(), None, (96, 64), backend)
picture = camera.draw().reshape(-1, 3)
seen = bool((picture != picture[0]).any())
camera.close()
sys.exit(None if seen else f"it is of one colour, {tuple(picture[0].tolist())}: the camera sees nothing")
"""


def check_mjcf(path: Path, folder: Path | None = None, memory: int = MEMORY_LIMIT) -> list[Finding]:
    """Test a MJCF file that may be broken or hostile: whatever it does, it does to child processes.

    Files it refers to are read in `folder` only, by default its own. The model may use `memory` bytes. Raises
    `UserError` where there is no such file.
    """
    if not path.exists():
        raise UserError(f"there is no file {path}")
    findings: list[Finding] = []
    try:
        mjcf = read(path, folder)
        files = mjcf.xmls + mjcf.assets
        findings.append(_ok(findings, f"{len(files)} files" if len(files) > 1 else "1 file"))
        report = examine(mjcf, memory=memory)
        findings.append(_ok(findings, _description(report)))
        findings.append(Finding(MJCF_CHECKS[2], _missing_ranges(report)))
        report = examine(mjcf, simulate=True, memory=memory)
        findings += [
            Finding(check, _divergence(report, actions))
            for check, actions in zip(MJCF_CHECKS[3:5], ("zero", "random"), strict=True)
        ]
    except UserError as error:
        findings.append(Finding(MJCF_CHECKS[len(findings)], str(error)))
    if len(findings) < len(MJCF_CHECKS) - 1:  # of both motions, the simulation tells at once
        needed = f"{NOT_CHECKED}: it needs that {findings[-1].check}"
        return findings + [Finding(check, None, needed) for check in MJCF_CHECKS[len(findings) :]]
    return [*findings, _picture(path, folder, memory)]


def _ok(findings: list[Finding], note: str) -> Finding:
    return Finding(MJCF_CHECKS[len(findings)], None, note)


def _description(report: Report) -> str:
    counts = f"{report.bodies} bodies, {report.joints} joints, {report.actuators} actuators"
    return f"{counts}, {report.mass:.3g} kg, {report.size / 1e6:.1f} MB in memory"


def _missing_ranges(report: Report) -> str | None:
    if report.actuators == 0:
        return "the model has no actuators: a policy needs at least one to act on"
    if report.unlimited:
        return f"no ctrlrange, so that actions in [-1, 1] have no range to map onto: {', '.join(report.unlimited)}"
    return None


def _divergence(report: Report, actions: str) -> str | None:
    """When the physics diverged, and whether a smaller timestep helps, as was tried."""
    if actions not in report.diverged:
        return None
    words = f"the physics diverged after {report.diverged[actions]:.3g} s"
    if actions not in report.remedy:
        return words
    if report.remedy[actions]:
        return f"{words}; with a timestep of {report.remedy[actions]:.3g} s it does not"
    return f"{words}, also with a tenth of the timestep: look for gears, gains or masses out of proportion"


def _picture(path: Path, folder: Path | None, memory: int) -> Finding:
    """Drawn in a process of its own, which may fail as it likes."""
    check = MJCF_CHECKS[-1]
    try:
        backend = gl_backend()
    except UserError as error:
        return Finding(check, None, f"{NOT_CHECKED}: {error}")
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"MUJOCO_GL": "disabled", "PYTHONPATH": paths}
    words = (str(path.absolute()), str((folder or path.parent).absolute()), str(memory), backend)
    try:
        with tempfile.TemporaryDirectory() as here:  # for MuJoCo's log
            command = [sys.executable, "-c", _PICTURE, *words]
            done = subprocess.run(command, cwd=here, env=environment, capture_output=True, timeout=_PICTURE_SECONDS)
    except subprocess.TimeoutExpired:
        return Finding(check, f"it takes longer than {_PICTURE_SECONDS:g} s")
    if done.returncode == 0:
        return Finding(check, None, "by a camera that follows the robot")
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return Finding(check, printable(lines[-1]) if lines else f"drawing ends with exit code {done.returncode}")


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
