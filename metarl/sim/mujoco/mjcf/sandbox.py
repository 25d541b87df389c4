"""A child process that compiles MJCF files: limited in memory and time, without the right to open a file.

The child imports MuJoCo once and forks for each model, so that a crash costs nothing. Where a system lacks a limit
(macOS that on memory, Windows all of them and the fork) it is left out; the parent's clock always ends the child.
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
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.random import default_rng  # NumPy imports it late, when the child may open no file

from metarl.core.errors import UserError

MEMORY_LIMIT = 2 << 30  # [bytes] of the child's address space, libraries included
TIME_LIMIT = 20.0  # [s] for one model, of the clock and of the processor
SIMULATED = 1.0  # [s]
_STARTING = 60.0  # [s] until the child must answer, beyond the time limit
_CONTROL_STEP = 0.02  # [s]
_EXPLODED = 1e6  # [m, rad, m/s, rad/s]: beyond it the physics has diverged
_NAMED = 5
_LONGEST = 400  # [characters] of a sentence that quotes a file


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
    """Number of joints."""
    actuators: int
    """Number of actuators."""
    mass: float
    """Of all bodies [kg]."""
    size: int
    """The compiled model and one world's state [bytes]."""
    unlimited: list[str]
    """Actuators without a ctrlrange, the first few."""
    diverged: dict[str, float]
    """Time [s] at which the physics diverged under "zero" and "random" actions, where it did and was asked for."""


class Sandbox:
    """The child process, started when first needed. Use it as a context: it ends with it."""

    def __init__(self, seconds: float = TIME_LIMIT) -> None:
        """`seconds` is the time limit of one examination."""
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="metarl-mjcf-")  # MuJoCo logs into its working directory
        self._log = Path(self._folder.name) / "stderr"

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._folder.cleanup()

    def examine(self, mjcf: Mjcf, *, simulate: bool = False) -> Report:
        """Compile a model, and run it for a second where `simulate`; `UserError` says why that fails, and where."""
        answer = self._ask((mjcf, simulate, self._seconds))
        if "report" in answer:
            return Report(**answer["report"])
        raise UserError(_sentence(mjcf, str(answer["problem"])))

    def _ask(self, request: object) -> dict[str, Any]:
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(self._seconds + _STARTING, self._kill, [process])
        timer.start()
        try:
            pickle.dump(request, process.stdin)  # from us to our own child; what comes back is JSON only
            process.stdin.flush()
            return dict(json.loads(process.stdout.readline()))
        except (OSError, ValueError):
            self._end()
            return {"problem": f"the process that compiles it ended: {self._last_words()}"}
        except BaseException:  # the next answer would be this request's
            self._end()
            raise
        finally:
            timer.cancel()

    def _start(self) -> subprocess.Popen[bytes]:
        paths = os.pathsep.join(filter(None, (str(Path(__file__).parents[4]), os.environ.get("PYTHONPATH"))))
        single = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}  # address space
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from metarl.sim.mujoco.mjcf import sandbox; sandbox.serve()"],
                cwd=self._folder.name,
                env=os.environ | single | {"PYTHONPATH": paths, "MUJOCO_GL": "disabled"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        return self._process

    def _last_words(self) -> str:
        lines = self._log.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it says nothing"

    @staticmethod
    def _kill(process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)  # its forks too
            else:
                process.kill()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._kill(process)
            with contextlib.suppress(OSError):
                process.communicate()


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


def serve() -> None:
    """The child: answers requests from stdin on stdout, until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever MuJoCo prints is no answer
    warnings.simplefilter("ignore")
    with contextlib.suppress(EOFError):
        while True:
            answers.write(_forked(*pickle.load(sys.stdin.buffer)) + b"\n")
            answers.flush()


def _forked(mjcf: Mjcf, simulate: bool, seconds: float) -> bytes:
    """The answer of a process of its own, or the signal that ended it."""
    if not hasattr(os, "fork"):
        return _answer(mjcf, simulate)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _limit(seconds)
            os.write(writer, _answer(mjcf, simulate))  # short enough to go at once
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and answer:
        return answer
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number in (signal.SIGALRM, signal.SIGXCPU):
        return _problem(f"{'simulating' if simulate else 'compiling'} it takes longer than {seconds:g} s")
    name = signal.Signals(number).name if number else "no answer"
    return _problem(f"MuJoCo crashes on it, or needs more than {MEMORY_LIMIT >> 30} GiB of memory ({name})")


def _limit(seconds: float) -> None:
    """Of this process, for good."""
    import resource

    signal.setitimer(signal.ITIMER_REAL, seconds)  # unhandled: it ends the process in whatever it does
    whole = math.ceil(seconds)
    limits = {
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_CPU: (whole, whole + 1),
        resource.RLIMIT_AS: (MEMORY_LIMIT, MEMORY_LIMIT),
        resource.RLIMIT_FSIZE: (1 << 20, 1 << 20),  # of stderr
        resource.RLIMIT_NOFILE: (0, 0),
    }
    for name, values in limits.items():
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(name, values)


def _problem(text: str) -> bytes:
    return json.dumps({"problem": text[: 10 * _LONGEST]}).encode()


def _answer(mjcf: Mjcf, simulate: bool) -> bytes:
    try:
        return json.dumps({"report": _examine(mjcf, simulate)}).encode()
    except MemoryError:
        return _problem(f"it needs more than {MEMORY_LIMIT >> 30} GiB of memory")
    except Exception as error:  # MuJoCo's are of several classes
        text = str(error)
        if "allocate" in text or "unknown exception" in text:  # the latter where an array's size overflows
            text = f"it needs more than {MEMORY_LIMIT >> 30} GiB of memory: {text}"
        return _problem(text or type(error).__name__)


def _examine(mjcf: Mjcf, simulate: bool) -> dict[str, Any]:
    """What `Report` tells."""
    model = mjcf.spec().compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    free = np.flatnonzero(~(model.actuator_ctrlrange[:, 0] < model.actuator_ctrlrange[:, 1]))
    names = [printable(model.actuator(i).name)[:60] or f"number {i}" for i in free[:_NAMED]]
    runs = {actions: time for actions, time in _runs(model, data) if time is not None} if simulate else {}
    return {
        "bodies": model.nbody - 1,
        "joints": model.njnt,
        "actuators": model.nu,
        "mass": float(model.body_mass.sum()),
        "size": mujoco.mj_sizeModel(model) + data.nbuffer + data.narena,
        "unlimited": names + (["..."] if len(free) > _NAMED else []),
        "diverged": runs,
    }


def _runs(model: mujoco.MjModel, data: mujoco.MjData) -> Iterator[tuple[str, float | None]]:
    """When the physics diverges [s] under actions that are zero and random in [-1, 1], over the controls' ranges."""
    rng = default_rng(0)
    low, high = model.actuator_ctrlrange.T
    limited = low < high
    low, high = np.where(limited, low, -1.0), np.where(limited, high, 1.0)
    for actions, scale in (("zero", 0.0), ("random", 1.0)):
        mujoco.mj_resetData(model, data)
        following, diverged = 0.0, None
        while data.time < SIMULATED and diverged is None:
            now = float(data.time)
            if now >= following:
                data.ctrl[:] = low + (high - low) * (1 + scale * rng.uniform(-1, 1, model.nu)) / 2
                following += _CONTROL_STEP
            mujoco.mj_step(model, data)
            warned = any(data.warning[kind].number for kind in _BAD)
            if warned or not all(np.abs(part).max(initial=0.0) <= _EXPLODED for part in (data.qpos, data.qvel)):
                diverged = now
        yield actions, diverged


_BAD = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)
