"""Worker processes that run the environments of an `ExternalFamily`, and what is said when one fails.

Gymnasium's AsyncVectorEnv does not serve: multiprocessing hands a child the parent's `sys.path`, so that another
interpreter would import this one's packages, and of a process that was killed it shows an EOFError.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from metarl.errors import UserError
from metarl.sim import worker
from metarl.sim.rendering import gl_backend

_SCRIPT = str(Path(worker.__file__))
_WORLD = 4  # bytes at the start of a worker's notes: the number of the world at work; a fault's traceback follows
_GRACE = 1.0  # [s] a worker has to end by itself


@dataclass(frozen=True)
class Setting:
    """Which environment runs, and where."""

    environment: str
    """A Gymnasium id, `module:function` or `/path/to/file.py:function`."""
    python: str
    """The interpreter."""
    folder: str
    """Where the workers import from first."""
    episode_steps: int
    """Time limit of an environment made of an id [control steps]."""
    time_limit: float
    """Longest wait for an answer [s]."""
    pictures: bool
    """Environments are made to draw."""


@dataclass
class _Running:
    """What a world is at."""

    task: Mapping[str, Any] | None = None
    seed: int = 0
    episode: int = 0
    step: int = 0

    def describe(self, world: int) -> str:
        if self.task is None:
            return f"when world {world} was made"
        return f"in world {world}, task {self.task}, seed {self.seed}, episode {self.episode}, step {self.step}"


class WorkerError(UserError):
    """An environment failed or its process died: names environment, task, seed, step and, where known, the code."""


class Workers:
    """`num_worlds` environments in at most `num_processes` processes. After a failure all of them are ended."""

    def __init__(self, setting: Setting, num_worlds: int, num_processes: int) -> None:
        """Raises `UserError` where the environments cannot be made or are of a kind that cannot be used."""
        self._setting = setting
        self._running = [_Running() for _ in range(num_worlds)]
        shares = np.array_split(np.arange(num_worlds), min(num_worlds, num_processes))
        self._shares = [slice(int(share[0]), int(share[-1]) + 1) for share in shares]
        self._processes: list[_Process] = []
        self._finalizer = weakref.finalize(self, _end, self._processes)
        with self._failing_together():
            for share in self._shares:
                self._processes.append(_Process(setting))
                count = share.stop - share.start
                made = [setting.environment, share.start, count, setting.episode_steps, setting.pictures]
                self._processes[-1].send({"arguments": made})
            answers = [self._receive(process)[0] for process in self._processes]
        self.description: Mapping[str, Any] = answers[0]
        """Sizes of observation and action, and versions of Python and Gymnasium."""

    def reset(self, worlds: Sequence[int], seeds: Sequence[int], tasks: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Begin an episode in each of `worlds`; their first observations (n, O)."""
        for world, seed, task in zip(worlds, seeds, tasks, strict=True):
            before = self._running[world]
            episode = before.episode + 1 if before.task is task else 1
            self._running[world] = _Running(task, seed, episode)
        owners = [next(i for i, share in enumerate(self._shares) if world < share.stop) for world in worlds]
        asked = sorted(set(owners))
        with self._failing_together():
            for i in asked:
                rows = [row for row, owner in enumerate(owners) if owner == i]
                local = [worlds[row] - self._shares[i].start for row in rows]
                self._processes[i].send(_request("reset", local, [seeds[r] for r in rows], [tasks[r] for r in rows]))
            return np.concatenate([self._receive(self._processes[i])[1][0] for i in asked])

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """One step under `actions` (N, A): observations (N, O), terminated, truncated, terms of the reward (N,)."""
        for running in self._running:
            running.step += 1
        with self._failing_together():
            for process, share in zip(self._processes, self._shares, strict=True):
                process.send(_request("step"), actions[share])
            answers = [self._receive(process) for process in self._processes]
        names = answers[0][0]["terms"]
        for message, _ in answers:
            if message["terms"] != names:
                here, there = ", ".join(names), ", ".join(message["terms"])
                raise WorkerError(
                    f"{self._setting.environment} has the reward terms {here} in one world, {there} in another"
                )
        obs, terminated, truncated = (np.concatenate([arrays[k] for _, arrays in answers]) for k in range(3))
        terms = np.concatenate([arrays[3] for _, arrays in answers], axis=1)
        return obs, terminated, truncated, dict(zip(names, terms, strict=True))

    def render(self, world: int) -> np.ndarray:
        """Picture (H, W, 3) of a world."""
        owner = next(i for i, share in enumerate(self._shares) if world < share.stop)
        with self._failing_together():
            self._processes[owner].send(_request("render", world - self._shares[owner].start))
            return self._receive(self._processes[owner])[1][0]

    def close(self) -> None:
        """End all processes."""
        self._finalizer()

    @contextmanager
    def _failing_together(self) -> Iterator[None]:
        """End all workers where one fails, or where the wait for an answer is broken off."""
        if not self._finalizer.alive:
            raise RuntimeError("the workers have ended")
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _receive(self, process: _Process) -> tuple[worker.Message, list[np.ndarray]]:
        """A worker's answer; `WorkerError` in its place tells what happened to which world."""
        try:
            message, arrays = process.receive()
        except TimeoutError:
            raise self._error(process, f"did not answer within {self._setting.time_limit:g} s") from None
        except (EOFError, OSError):
            raise self._error(process, process.death(), process.fault()) from None
        if "error" in message:
            raise self._error(process, message["error"], message["trace"])
        return message, arrays

    def _error(self, process: _Process, what: str, trace: str = "") -> WorkerError:
        world = process.world()
        where = self._running[world].describe(world) if world >= 0 else f"before any world was made, in {process.name}"
        return WorkerError(f"{self._setting.environment} {what} ({where})" + (f"\n{trace}" if trace else ""))


def _request(do: str, *arguments: Any) -> worker.Message:
    return {"do": do, "arguments": arguments}


class _Process:
    """One worker, and the connection to it."""

    def __init__(self, setting: Setting) -> None:
        self.name = setting.python
        self._notes: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._notes.write(struct.pack("<i", -1))
        self._notes.flush()
        ours, theirs = socket.socketpair()
        command = [setting.python, _SCRIPT, setting.folder, str(theirs.fileno()), str(self._notes.fileno())]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # its end is the parent's, however that comes about
                pass_fds=(theirs.fileno(), self._notes.fileno()),
                env=_environment(setting),
                start_new_session=True,  # Ctrl-C is for the parent, which finishes what it is at
            )
        except OSError as error:
            ours.close()
            self._notes.close()
            raise UserError(f"the interpreter {setting.python} cannot be run: {error.strerror}") from None
        finally:
            theirs.close()
        ours.settimeout(setting.time_limit)
        self._connection = ours

    def send(self, message: worker.Message, *arrays: np.ndarray) -> None:
        try:
            worker.send(self._connection, message, *arrays)
        except TimeoutError:
            raise
        except OSError:
            pass  # it has died: `receive` tells how

    def receive(self) -> tuple[worker.Message, list[np.ndarray]]:
        return worker.receive(self._connection)

    def world(self) -> int:
        """Number of the world that is, or was last, at work; -1 where there was none."""
        (number,) = struct.unpack("<i", os.pread(self._notes.fileno(), _WORLD, 0))
        return int(number)

    def fault(self) -> str:
        """What Python's fault handler wrote where the process crashed: its innermost frames."""
        return os.pread(self._notes.fileno(), 2000, _WORLD).decode(errors="replace").strip()

    def death(self) -> str:
        """How the process ended."""
        try:
            code = self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        if code >= 0:
            needed = "" if self.world() >= 0 else ": NumPy and Gymnasium must be installed there"
            return f"ended its process with exit code {code}{needed}"
        return f"lost its process to {signal.Signals(-code).name}"

    def end(self) -> None:
        """End the process, at once if it does not of itself."""
        self._connection.close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._notes.close()


def _end(processes: list[_Process]) -> None:
    while processes:
        processes.pop().end()


def _environment(setting: Setting) -> dict[str, str]:
    """One thread of maths per process, of which there is one per CPU; pictures are drawn without a screen."""
    variables = {"OMP_NUM_THREADS": "1", **os.environ}
    if setting.pictures:
        with suppress(UserError):  # an environment may draw without OpenGL
            variables["MUJOCO_GL"] = gl_backend()
    return variables
