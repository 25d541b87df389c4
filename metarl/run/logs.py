"""Where a run's numbers go: `metrics.jsonl` always, TensorBoard, and a progress line a person can follow."""

from __future__ import annotations

import csv
import json
import os
import platform
import shlex
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from metarl.core.errors import UserError
from metarl.core.files import parse_json, read_text, write_atomic
from metarl.core.machine import num_cpus
from metarl.core.types import Metrics
from metarl.run import checkpoint

Show = Callable[[int, float, float, float, float, str], None]
"""Shows a person an iteration: its number, steps/s, returns of the first and last episode, remaining time [s], and
what else there is to say."""
Row = Mapping[str, int | float]
"""Numbers of one iteration, or means of some."""
POINTS = 200
"""A learning curve is kept as the means of at most this many blocks of iterations."""
CURVE = {
    "steps": "total_steps",
    "seconds": "time/elapsed",
    "first": "rollout/return_first",
    "last": "rollout/return_last",
}
"""Columns of a learning curve, and what the logs call them."""
MAX_LOG = 2**32
"""No log is larger [bytes]."""

_PACKAGES = ("metarl-robotics", "torch", "mujoco", "gymnasium", "stable-baselines3", "numpy")


class Evaluated(NamedTuple):
    """What an evaluation beside a training found."""

    total_steps: int
    """Control steps that the policy was trained for."""
    returns: tuple[float, ...]
    """Mean return of each episode of a trial."""
    picture: bytes
    """PNG of the first task, a row each for the first and last episode; empty where nothing can draw."""

    @property
    def curve(self) -> Metrics:
        """The adaptation curve, as it is logged."""
        return {f"evaluation/return_{number}": value for number, value in enumerate(self.returns, start=1)}


class MetricsFile:
    """One JSON object per iteration, appended; TensorBoard events beside it."""

    def __init__(self, folder: Path, iteration: int = 0, total_steps: int = 0) -> None:
        """Continue after `iteration`, reached at `total_steps`: later lines and a torn last one are dropped.

        Raises `UserError` where the file cannot be written or holds something else.
        """
        self._path, self._purge_step = folder / "metrics.jsonl", total_steps + 1
        self._board: EventFile | None = None
        self._has_boards = find_spec("tensorboard") is not None  # an extra
        if self._path.exists():
            text = read_text(self._path, MAX_LOG)
            kept = "".join(line for line, row in _lines(self._path, text) if row["iteration"] <= iteration)
            if kept != text:
                write_atomic(self._path, kept, parents=False)
        with self._explained(self._path):
            self._file = self._path.open("a", encoding="utf-8")

    def write(self, iteration: int, total_steps: int, metrics: Metrics, evaluated: Evaluated | None = None) -> None:
        """Append one iteration, and what an evaluation found of an earlier one; `UserError` where the disk is full."""
        known = {"evaluation/total_steps": evaluated.total_steps} | evaluated.curve if evaluated else {}
        with self._explained(self._path):
            self._file.write(json.dumps({"iteration": iteration, "total_steps": total_steps} | metrics | known) + "\n")
            self._file.flush()
        if not self._has_boards:
            return
        with self._explained(board := self._path.parent / "tensorboard"):
            if self._board is None:
                self._board = EventFile(board, self._purge_step)
            self._board.write(total_steps, metrics)
            if evaluated:
                self._board.write(evaluated.total_steps, evaluated.curve, evaluated.picture)

    def close(self) -> None:
        """Flush what can be flushed; a full disk has been reported by `write`."""
        for stream in (self._file, self._board):
            with suppress(OSError):
                if stream is not None:
                    stream.close()

    @contextmanager
    def _explained(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            left = checkpoint.what_there_is(self._path.parent / "checkpoints")
            raise UserError(f"cannot write {path}: {error.strerror}{left}") from None


class EventFile:
    """TensorBoard's file of events, written at once: its own writer does so in a thread, whose errors nobody gets."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        """Curves of files before this one end ahead of `purge_step`."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{platform.node()}.{os.getpid()}.{time.monotonic_ns()}"
        self._file = (folder / name).open("ab")
        self._records = RecordWriter(self._file)
        self._add(Event(file_version="brain.Event:2"))
        self._add(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, metrics: Metrics, picture: bytes = b"") -> None:
        """One point of every curve, and a PNG where there is one."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        if picture:
            width, height = struct.unpack(">II", picture[16:24])  # as a PNG's header has them
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=picture)
            values.append(Summary.Value(tag="evaluation/pictures", image=image))
        self._add(Event(step=step, summary=Summary(value=values)))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, event: Any) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())


def read_metrics(folder: Path) -> list[Row]:
    """The iterations of `metrics.jsonl`, or of recorded results' `learning_curve.csv`; a torn last line is left out.

    Empty where nothing was logged; `UserError` where a line holds something else.
    """
    metrics, recorded = folder / "metrics.jsonl", folder / "learning_curve.csv"
    if metrics.is_file():
        return [row for _, row in _lines(metrics, read_text(metrics, MAX_LOG))]
    if not recorded.is_file():
        return []
    try:
        return [
            {key: float(value) for key, value in row.items()} for row in csv.DictReader(read_text(recorded).split())
        ]
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{recorded} is damaged: every line must hold an iteration's numbers") from None


def learning_curve(rows: Sequence[Row]) -> dict[str, Float64[np.ndarray, "_P"]]:
    """Means of at most `POINTS` blocks of iterations, by the names of `CURVE`; empty where nothing was logged."""
    rows = [row for row in rows if all(name in row for name in CURVE.values())]
    if not rows:
        return {}
    starts = np.arange(0, len(rows), -(-len(rows) // POINTS))
    curve = {}
    for key, name in CURVE.items():
        values = np.array([row[name] for row in rows], np.float64)
        curve[key] = np.add.reduceat(values, starts) / np.diff([*starts, len(rows)])
        if key in ("steps", "seconds"):
            curve[key][-1] = values[-1]  # the training's end, not its last block's middle
    return curve


def total_times(rows: Sequence[Row]) -> dict[str, float]:
    """Seconds by what they went to, as `collect`."""
    sums: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith("time/") and name not in ("time/elapsed", "time/steps_per_second"):
                key = name.removeprefix("time/")
                sums[key] = sums.get(key, 0.0) + value
    return sums


def _lines(path: Path, text: str) -> Iterator[tuple[str, Row]]:
    """The whole lines of a log with what they hold."""
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            row = None
            with suppress(UserError):
                row = parse_json(line, str(path))
            numbers = isinstance(row, dict) and all(type(value) in (int, float) for value in row.values())
            if not isinstance(row, dict) or not numbers or "iteration" not in row:
                raise UserError(f"{path} is damaged: every line must be a JSON object with an iteration's numbers")
            yield line, row


@contextmanager
def progress_view(num_iterations: int, console: Console, interval: float = 10.0) -> Iterator[Show]:
    """A live bar on a terminal, a line every `interval` [s] when piped, nothing on a quiet console."""
    last = -interval

    def show_line(
        iteration: int, rate: float, first: float, last_return: float, remaining: float, more: str = ""
    ) -> None:
        nonlocal last
        if time.monotonic() - last >= interval or iteration == num_iterations:
            last = time.monotonic()
            told = words(rate, first, last_return, remaining, more)
            print(f"iteration {iteration}/{num_iterations} · {told}", flush=True)

    def words(rate: float, first: float, last_return: float, remaining: float, more: str = "") -> str:
        minutes, seconds = divmod(round(remaining), 60)
        told = [f"return {first:.1f} → {last_return:.1f}", f"{minutes}:{seconds:02d} left", more]
        return " · ".join([f"{rate:,.0f} steps/s", *filter(None, told)])

    def bar_words(rate: float, first: float, last_return: float, remaining: float, more: str = "") -> str:
        """Shorter where a terminal has its usual 80 columns: the training's own return gives way to another one."""
        if console.width >= 100:
            return words(rate, first, last_return, remaining, more)
        own = words(rate, first, last_return, remaining).replace("return ", "").replace(" steps/s", "/s")
        rate_alone, _, left = own.split(" · ")
        return f"{rate_alone} · {more} · {left}" if more else own

    if not (console.is_terminal or console.quiet):
        yield show_line
        return
    with _bar(console, "{task.completed}/{task.total} · {task.description}") as bar:
        task = bar.add_task("starting", total=num_iterations)
        yield lambda iteration, *told: bar.update(task, completed=iteration, description=bar_words(*told))


@contextmanager
def share_view(doing: str, console: Console, interval: float = 10.0) -> Iterator[Callable[[float], None]]:
    """Like `progress_view`, of work of which only the share in [0, 1] that is done is told."""
    last = time.monotonic()

    def show_line(share: float) -> None:
        nonlocal last
        if time.monotonic() - last >= interval:
            last = time.monotonic()
            print(f"{doing}: {share:.0%}", flush=True)

    if not (console.is_terminal or console.quiet):
        yield show_line
        return
    with _bar(console, "{task.percentage:.0f} % · {task.description}") as bar:
        task = bar.add_task(doing, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _bar(console: Console, words: str) -> Progress:
    """A line that no terminal breaks into two."""
    text = TextColumn(words, markup=False, table_column=Column(no_wrap=True))
    return Progress(
        BarColumn(bar_width=min(24, max(6, console.width - 70))), text, TimeElapsedColumn(), console=console
    )


def provenance(argv: Sequence[str]) -> dict[str, Any]:
    """Command, versions, git commit and machine of this process."""
    return {
        "command": shlex.join(["metarl", *argv]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": versions(),
        "git_commit": _git_commit(),
        "machine": {"system": platform.platform(), "cpu": _cpu_name(), "num_cpus": num_cpus()},
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that results depend on."""
    return {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES}


def words_of(fields: Mapping[str, Any]) -> list[str]:
    """Fields as words of the command line, for a run's record of how it was made."""
    words = []
    for name, value in fields.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words += [flag] if value else []
        else:
            words += [flag, *map(str, value if isinstance(value, list | tuple) else [value])]
    return words


def console(show: bool = True) -> Console:
    """The console all tables go to; a quiet one unless `show`. Names are printed as they are, `x[red]y` too."""
    return Console(file=sys.stdout, quiet=not show, highlight=False, markup=False, emoji=False)


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
