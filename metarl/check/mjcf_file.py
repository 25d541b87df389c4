"""Does a bare MJCF file make a robot? It may be broken or hostile: what it does, it does to child processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from metarl.check.check import NOT_CHECKED, Finding
from metarl.core.errors import UserError
from metarl.sim.mujoco.mjcf.sandbox import MEMORY_LIMIT, SIMULATED, Report, examine, printable
from metarl.sim.mujoco.mjcf.scan import read
from metarl.sim.mujoco.rendering import gl_backend

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
    if not os.path.exists(path):  # unlike Path's, False too for a name that cannot be
        raise UserError(f"there is no file {path}")
    findings: list[Finding] = []

    def add(problem: str | None = None, note: str | None = None) -> None:
        findings.append(Finding(MJCF_CHECKS[len(findings)], problem, note))

    try:
        mjcf = read(path, folder)
        files = len(mjcf.xmls + mjcf.assets)
        add(note=f"{files} files" if files > 1 else "1 file")
        report = examine(mjcf, memory=memory)
        counts = f"{report.bodies} bodies, {report.joints} joints, {report.actuators} actuators"
        add(note=f"{counts}, {report.mass:.3g} kg, {report.size / 1e6:.1f} MB in memory")
        add(_missing_ranges(report))
        report = examine(mjcf, simulate=True, memory=memory)
        for actions in ("zero", "random"):
            add(_divergence(report, actions))
    except UserError as error:
        add(str(error))
    if len(findings) < len(MJCF_CHECKS) - 1:  # of both motions, the simulation tells at once
        needed = f"{NOT_CHECKED}: it needs that {findings[-1].check}"
        return findings + [Finding(check, None, needed) for check in MJCF_CHECKS[len(findings) :]]
    return [*findings, _picture(path, folder, memory)]


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
    """Draw the model in a process of its own, so that a crash there harms nothing here."""
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
