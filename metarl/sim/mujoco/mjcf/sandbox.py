"""A child process that compiles MJCF files: limited in memory and processor time, without the right to open a file.

Memory is what the child uses, not the addresses it reserves: its parent watches it in /proc, so on Linux only. Windows
lacks the other limits too; the parent's clock ends a child that hangs on every system.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.random import default_rng  # NumPy imports it late, when the child may open no file

from metarl.core.errors import UserError

MEMORY_LIMIT = 2 << 30  # [bytes] that one model may use, libraries included
TIME_LIMIT = 20.0  # [s] of the processor for one model
SIMULATED = 1.0  # [s]
_HANGING = 600.0  # [s] of the clock, after which the child is given up
_CONTROL_STEP = 0.02  # [s]
_EXPLODED = 1e6  # [m, rad, m/s, rad/s]: beyond it the physics has diverged
_FINER = (2, 5, 10)  # divisors of a timestep under which the physics diverges
_NO_MEMORY = "no memory"
_NAMED = 5
_LONGEST = 400  # [characters] of a sentence that quotes a file
_BAD = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)


@dataclass(frozen=True)
class Mjcf:
    """The files of a model, read: its compilation needs no others."""

    shown: str
    """The MJCF file, as it was asked for."""
    name: str
    """Its absolute path, with the ending .xml, by which MuJoCo knows the format."""
    xmls: tuple[tuple[str, bytes], ...]
    """Absolute path and content of the file, of what it includes, and of the models it attaches."""
    assets: tuple[tuple[str, bytes], ...]
    """The same of meshes, textures, height fields and skins."""

    def spec(self) -> mujoco.MjSpec:
        """Parsed in this process: only for what a child has compiled. `ValueError` for what MuJoCo warns of, as NaN."""
        previous, said = mujoco.get_mju_user_warning(), list[str]()
        mujoco.set_mju_user_warning(said.append)  # else it writes MUJOCO_LOG.TXT where the user is
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # its notices about deprecated attributes
                spec = mujoco.MjSpec.from_file(self.name, include=dict(self.xmls), assets=dict(self.assets))
        finally:
            mujoco.set_mju_user_warning(previous)
        if said:
            raise ValueError(said[0])
        return spec


@dataclass(frozen=True)
class Report:
    """What the child found out about a model."""

    bodies: int
    """Number of bodies, without the world."""
    joints: int
    actuators: int
    mass: float
    """Mass of all bodies [kg]."""
    size: int
    """Memory that the compiled model and one world's state use [bytes]."""
    unlimited: list[str]
    """Actuators without a ctrlrange, the first few."""
    diverged: dict[str, float]
    """Time [s] at which the physics diverged under "zero" and "random" actions, where it did and was asked for."""
    remedy: dict[str, float]
    """The largest smaller timestep [s] that prevents it, 0 where none does; nothing where there was no time to try."""


def examine(mjcf: Mjcf, *, simulate: bool = False, seconds: float = TIME_LIMIT, memory: int = MEMORY_LIMIT) -> Report:
    """Compile a model in a child process, and run it for a second where `simulate`.

    `seconds` of processor time and `memory` in bytes are the child's limits. `UserError` says what fails, and where.
    """
    paths = os.pathsep.join(filter(None, (str(Path(__file__).parents[4]), os.environ.get("PYTHONPATH"))))
    variables = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MUJOCO_GL": "disabled", "PYTHONPATH": paths}
    command = [sys.executable, "-c", "from metarl.sim.mujoco.mjcf import sandbox; sandbox.serve()"]
    with tempfile.TemporaryDirectory(prefix="metarl-mjcf-") as folder, open(Path(folder, "log"), "w+b") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,  # MuJoCo logs into it
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        with process:
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                with contextlib.suppress(OSError), process.stdin as request:
                    pickle.dump((mjcf, simulate, seconds), request)
                ended = _watch(process, seconds, memory)
                answer = b"" if ended else process.stdout.read()  # JSON
            finally:
                process.kill()
        log.seek(0)
        said = log.read()[-2000:].decode(errors="replace").splitlines()
    if not ended and not answer:
        ended = f"the process that compiles it ended: {said[-1] if said else 'it says nothing'}"
    found = ended or json.loads(answer)
    if found == _NO_MEMORY:
        found = f"it needs more than {memory / 2**30:.3g} GiB of memory: --memory allows more"
    if isinstance(found, str):
        raise UserError(_sentence(mjcf, found))
    return Report(**found)


def _watch(process: subprocess.Popen[bytes], seconds: float, memory: int) -> str:
    """Wait for the child's end; why it got no answer, empty where it may have one."""
    begun = time.monotonic()
    while process.poll() is None:
        with contextlib.suppress(OSError):
            used = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
            if used and int(used[1]) << 10 > memory:
                return _NO_MEMORY
        if time.monotonic() - begun > seconds + _HANGING:
            return f"the process that compiles it still hangs after {seconds + _HANGING:g} s"
        time.sleep(0.01)
    if process.returncode >= 0:
        return ""
    name = signal.Signals(-process.returncode).name
    if name == "SIGXCPU":
        return f"it takes more than {seconds:g} s of processor time"
    return f"MuJoCo crashes on it ({name})"


def printable(text: str) -> str:
    """On one line of reasonable length, without what a terminal would obey."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _LONGEST]).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def _sentence(mjcf: Mjcf, problem: str) -> str:
    """MuJoCo's message after the file and the line, where it tells one: 0 stands for some line of an included file."""
    problem = re.sub(r"^((XML )?Error: )+", "", problem.strip())
    lines = re.findall(r"[Ll]ine(?: number)?[ =](\d+)", problem)
    where = printable(mjcf.shown)
    if lines:
        where += f", line {lines[-1]}" if int(lines[-1]) else ", in a file it includes"
        problem = re.sub(r",? line \d+\s*$", "", problem)
    return f"{where}: {printable(problem)}"


# --------------------------------------------------------------------------------------------------------- the child


def serve() -> None:
    """The child: answers the request from stdin on stdout, with what `Report` tells or a string, the problem."""
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever MuJoCo prints is no answer
    warnings.simplefilter("ignore")
    mjcf, simulate, seconds = pickle.load(sys.stdin.buffer)
    _limit(seconds)
    os.write(answers, json.dumps(_answer(mjcf, seconds if simulate else 0.0)).encode())
    os._exit(0)  # without the destructors of a model that may be odd


def _answer(mjcf: Mjcf, seconds: float) -> dict[str, Any] | str:
    try:
        return _examine(mjcf, seconds)
    except MemoryError:
        return _NO_MEMORY
    except Exception as error:  # MuJoCo's are of several classes
        text = str(error)[: 10 * _LONGEST] or type(error).__name__
        too_large = "allocate" in text or "unknown exception" in text  # the latter where an array's size overflows
        return _NO_MEMORY if too_large else text


def _limit(seconds: float) -> None:
    """Limit this process for good, and make it the first to go where the machine runs out of memory."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with contextlib.suppress(ImportError):
        import resource

        until = math.ceil(time.process_time() + seconds)
        for name, limits in (
            (resource.RLIMIT_CORE, (0, 0)),
            (resource.RLIMIT_CPU, (until, until + 1)),
            (resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),  # of the log
            (resource.RLIMIT_NOFILE, (0, 0)),
        ):
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(name, limits)


def _examine(mjcf: Mjcf, seconds: float) -> dict[str, Any]:
    """What `Report` tells; simulated where there are `seconds` for it."""
    model = mjcf.spec().compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    free = np.flatnonzero(~(model.actuator_ctrlrange[:, 0] < model.actuator_ctrlrange[:, 1]))
    names = [printable(model.actuator(i).name)[:60] or f"number {i}" for i in free[:_NAMED]]
    diverged, remedy = dict[str, float](), dict[str, float]()
    for actions, scale in (("zero", 0.0), ("random", 1.0)) if seconds else ():
        when = _divergence(model, data, scale)
        if when is not None:
            diverged[actions] = when
            with contextlib.suppress(TimeoutError):
                remedy[actions] = _remedy(model, data, scale, 0.7 * seconds)
    return {
        "bodies": model.nbody - 1,
        "joints": model.njnt,
        "actuators": model.nu,
        "mass": float(model.body_mass.sum()),
        "size": mujoco.mj_sizeModel(model) + data.nbuffer + int(data.maxuse_arena),
        "unlimited": names + (["..."] if len(free) > _NAMED else []),
        "diverged": diverged,
        "remedy": remedy,
    }


def _divergence(model: mujoco.MjModel, data: mujoco.MjData, scale: float, budget: float = math.inf) -> float | None:
    """When the physics diverges [s] under random actions in [-scale, scale], over the controls' ranges.

    Raises `TimeoutError` once the process has used `budget` seconds of the processor.
    """
    rng = default_rng(0)
    low, high = model.actuator_ctrlrange.T
    limited = low < high
    low, high = np.where(limited, low, -1.0), np.where(limited, high, 1.0)
    mujoco.mj_resetData(model, data)
    following = 0.0
    while data.time < SIMULATED:
        now = float(data.time)
        if now >= following:
            data.ctrl[:] = low + (high - low) * (1 + scale * rng.uniform(-1, 1, model.nu)) / 2
            following += _CONTROL_STEP
        mujoco.mj_step(model, data)
        warned = any(data.warning[kind].number for kind in _BAD)
        if warned or not all(np.abs(part).max(initial=0.0) <= _EXPLODED for part in (data.qpos, data.qvel)):
            return now
        if time.process_time() > budget:
            raise TimeoutError
    return None


def _remedy(model: mujoco.MjModel, data: mujoco.MjData, scale: float, budget: float) -> float:
    """The largest of a few smaller timesteps [s] under which the physics does not diverge; 0 where none is found."""
    timestep = model.opt.timestep
    try:
        for divisor in _FINER:
            model.opt.timestep = timestep / divisor
            if _divergence(model, data, scale, budget) is None:
                return float(model.opt.timestep)
        return 0.0
    finally:
        model.opt.timestep = timestep
