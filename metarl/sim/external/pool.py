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

from metarl.core.errors import UserError
from metarl.sim.external import worker
from metarl.sim.mujoco.rendering import gl_backend

_SCRIPT = str(Path(worker.__file__))
_WORLD = 4  # bytes at the start of a worker's notes: the number of the world being stepped; a fault's traceback follows


@dataclass(frozen=True)
class Setting:
    """The environment that the workers run, and the Python that runs it."""

    environment: str
    """A Gymnasium id, `module:function` or `/path/to/file.py:function`."""
    python: str
    """The interpreter."""
    folder: str
    """The folder that the workers import from first."""
    episode_steps: int
    """Time limit of an environment made of an id [control steps]."""
    time_limit: float
    """Longest wait for an answer, or for an environment to be made [s]."""
    pictures: bool
    """Environments are made to draw."""


@dataclass
class _Running:
    """Task, seed and step of a world, for messages."""

    task: Mapping[str, Any] | None = None
    seed: int = 0
    episode: int = 0
    step: int = 0

    def describe(self, world: int) -> str:
        if self.task is None:
            return f"when world {world} was made"
        when = f"step {self.step} of episode" if self.step else "at the start of episode"
        return f"world {world}, task {self.task}, seed {self.seed}, {when} {self.episode}"


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
                self._processes[-1].wait_for(count * setting.time_limit)
                self._processes[-1].send({"arguments": made})
            answers = [self._receive(process)[0] for process in self._processes]
            for process in self._processes:
                process.wait_for(setting.time_limit)
        self.description: Mapping[str, Any] = answers[0]
        """Sizes of observation and action, and versions of Python and Gymnasium."""

    def reset(self, worlds: Sequence[int], seeds: Sequence[int], tasks: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Begin an episode in each of `worlds`, in ascending order; their first observations (n, O)."""
        for world, seed, task in zip(worlds, seeds, tasks, strict=True):
            before = self._running[world]
            episode = before.episode + 1 if before.task is task else 1
            self._running[world] = _Running(task, seed, episode)
        with self._failing_together():
            asked = []
            for process, share in zip(self._processes, self._shares, strict=True):
                rows = [row for row, world in enumerate(worlds) if share.start <= world < share.stop]
                if rows:
                    local = [worlds[row] - share.start for row in rows]
                    process.send(_request("reset", local, [seeds[row] for row in rows], [tasks[row] for row in rows]))
                    asked.append(process)
            return np.concatenate([self._receive(process)[1][0] for process in asked])

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray], np.ndarray | None]:
        """One step under `actions` (N, A): observations (N, O), terminated, truncated, terms of the reward (N,).

        Last whether each succeeded, None where the environments say nothing of success.
        """
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
        obs, terminated, truncated, won = (np.concatenate([arrays[k] for _, arrays in answers]) for k in range(4))
        terms = np.concatenate([arrays[4] for _, arrays in answers], axis=1)
        told = won if any(message["tells"] for message, _ in answers) else None
        return obs, terminated, truncated, dict(zip(names, terms, strict=True)), told

    def render(self, worlds: Sequence[int]) -> list[np.ndarray]:
        """Pictures (H, W, 3) of `worlds`, in ascending order."""
        with self._failing_together():
            for process, share in zip(self._processes, self._shares, strict=True):
                local = [world - share.start for world in worlds if share.start <= world < share.stop]
                process.send(_request("render", local))
            return [picture for process in self._processes for picture in self._receive(process)[1]]

    def close(self) -> None:
        """End all processes."""
        self._finalizer()

    @contextmanager
    def _failing_together(self) -> Iterator[None]:
        """End all workers where one fails, or where the wait for an answer is broken off."""
        if not self._finalizer.alive:
            raise WorkerError(f"{self._setting.environment} has failed before, or was closed: its processes have ended")
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
            raise self._error(process, f"did not answer within {process.patience:g} s") from None
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
            raise UserError(
                f"the interpreter {setting.python} cannot be run: {error.strerror}; it is to be the family's `python`"
            ) from None
        finally:
            theirs.close()
        self._connection = ours
        self.patience = setting.time_limit
        """How long an answer may take [s]."""

    def wait_for(self, seconds: float) -> None:
        """Change how long an answer may take."""
        self.patience = seconds
        self._connection.settimeout(seconds)

    def send(self, message: worker.Message, *arrays: np.ndarray) -> None:
        with suppress(OSError):  # it has died, or hangs: `receive` tells
            worker.send(self._connection, message, *arrays)

    def receive(self) -> tuple[worker.Message, list[np.ndarray]]:
        return worker.receive(self._connection)

    def world(self) -> int:
        """Number of the world that is stepped, or was stepped last; -1 where there was none."""
        (number,) = struct.unpack("<i", os.pread(self._notes.fileno(), _WORLD, 0))
        return int(number)

    def fault(self) -> str:
        """What Python's fault handler wrote where the process crashed: its innermost frames."""
        text = os.pread(self._notes.fileno(), 4000, _WORLD).decode(errors="replace")
        return text.split("\nExtension modules")[0].strip()

    def death(self) -> str:
        """How the process ended."""
        try:
            code = self._process.wait(worker.GRACE)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        if code >= 0:
            needed = "" if self.world() >= 0 else ": NumPy and Gymnasium must be installed there"
            return f"ended its process with exit code {code}{needed}"
        return f"lost its process to {signal.Signals(-code).name}"

    def leave(self) -> None:
        """Ask the process to end."""
        self._connection.close()

    def end(self) -> None:
        """End the process, and what it has started, by force where it does not end of itself."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(worker.GRACE)
        with suppress(ProcessLookupError):  # the group is gone with its last process
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._notes.close()


def _end(processes: list[_Process]) -> None:
    for process in processes:
        process.leave()
    while processes:
        processes.pop().end()


def _environment(setting: Setting) -> dict[str, str]:
    """One thread of maths per process, of which there is one per CPU; pictures are drawn without a screen."""
    variables = {"OMP_NUM_THREADS": "1", **os.environ}
    if setting.pictures:
        with suppress(UserError):  # an environment may draw without OpenGL
            variables["MUJOCO_GL"] = gl_backend()
    return variables
