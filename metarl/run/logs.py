"""Where a run's numbers go: `metrics.jsonl` always, TensorBoard, and a progress line a person can follow."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from metarl.core.errors import UserError
from metarl.core.types import Metrics

_PACKAGES = ("metarl-robotics", "torch", "mujoco", "gymnasium", "stable-baselines3", "numpy")


class MetricsFile:
    """One JSON object per iteration, appended; TensorBoard events beside it."""

    def __init__(self, folder: Path, iteration: int = 0, total_steps: int = 0) -> None:
        """Continue after `iteration`, reached at `total_steps`: later lines of an interrupted run are dropped.

        Raises `UserError` where the file cannot be written or holds something else.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._path = folder / "metrics.jsonl"
        with self._explained():
            if self._path.exists():
                self._keep(iteration)
            self._file = self._path.open("a", encoding="utf-8")
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=total_steps + 1)

    def write(self, iteration: int, total_steps: int, metrics: Metrics) -> None:
        """Append one iteration; `UserError` where the disk is full."""
        with self._explained():
            self._file.write(json.dumps({"iteration": iteration, "total_steps": total_steps} | metrics) + "\n")
            self._file.flush()
            for name, value in metrics.items():
                self._board.add_scalar(name, value, total_steps)

    def close(self) -> None:
        """Flush what can be flushed; a full disk has been reported by `write`."""
        for stream in (self._file, self._board):
            with suppress(OSError):
                stream.close()

    def _keep(self, iteration: int) -> None:
        """Drop the lines after `iteration` and a torn last one; the file is replaced in one step."""
        try:
            text = self._path.read_text(encoding="utf-8")
            lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
            kept = [line for line in lines if json.loads(line)["iteration"] <= iteration]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{self._path} is damaged: every line must be a JSON object with an iteration") from None
        partial = self._path.with_suffix(".partial")
        partial.write_text("".join(kept), encoding="utf-8")
        os.replace(partial, self._path)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}; the last checkpoint is intact") from None


@runtime_checkable
class ProgressView(Protocol):
    """Shows a person how the training goes."""

    def update(self, iteration: int, rate: float, first: float, last: float, remaining: float) -> None:
        """Rate in steps/s, returns of the first and last episode, remaining time in s."""
        ...

    def __enter__(self) -> ProgressView: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def progress_view(num_iterations: int, console: Console) -> ProgressView:
    """A live bar on a terminal, plain lines when piped, nothing on a quiet console."""
    lively = console.is_terminal or console.quiet
    return LiveBar(num_iterations, console) if lively else PlainLines(num_iterations)


class LiveBar:
    """One live line: bar, iteration, steps/s, returns, ETA."""

    def __init__(self, num_iterations: int, console: Console) -> None:
        self._bar = Progress(
            BarColumn(bar_width=24),
            TextColumn("iteration {task.completed}/{task.total} · {task.description}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task: TaskID = self._bar.add_task("starting", total=num_iterations)

    def update(self, iteration: int, rate: float, first: float, last: float, remaining: float) -> None:
        """See `ProgressView`."""
        self._bar.update(self._task, completed=iteration, description=_summary(rate, first, last, remaining))

    def __enter__(self) -> LiveBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


class PlainLines:
    """A line every few seconds."""

    def __init__(self, num_iterations: int, interval: float = 10.0) -> None:
        """`interval` [s]."""
        self._num_iterations, self._interval, self._last = num_iterations, interval, 0.0

    def update(self, iteration: int, rate: float, first: float, last: float, remaining: float) -> None:
        """See `ProgressView`."""
        now = time.monotonic()
        if now - self._last >= self._interval or iteration == self._num_iterations:
            self._last = now
            print(
                f"iteration {iteration}/{self._num_iterations} · {_summary(rate, first, last, remaining)}",
                flush=True,
            )

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def _summary(rate: float, first: float, last: float, remaining: float) -> str:
    minutes, seconds = divmod(round(remaining), 60)
    return f"{rate:,.0f} steps/s · return {first:.1f} → {last:.1f} · {minutes}:{seconds:02d} left"


def provenance(argv: list[str]) -> dict[str, Any]:
    """Command, versions, git commit and machine of this process."""
    return {
        "command": shlex.join(["metarl", *argv]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "git_commit": _git_commit(),
        "machine": {"system": platform.platform(), "cpu": _cpu_name(), "num_cpus": os.cpu_count()},
    }


def write_json(path: Path, content: object) -> None:
    """Indented JSON with a final newline; `UserError` where the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def console() -> Console:
    """The console all tables go to."""
    return Console(file=sys.stdout, highlight=False)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _git_commit() -> str | None:
    """Commit of the source this runs from, with `+` if it was changed; None outside a checkout of it."""
    folder = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # installed inside some other project's checkout?
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
