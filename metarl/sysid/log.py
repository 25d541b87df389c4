"""Logs of robots, as CSV, NPZ or MCAP files with one number per name and row; `metarl deploy` writes such a CSV.

| column | what | unit |
|---|---|---|
| `time` | of the row; its rows are evenly spaced | s |
| `PART.ELEMENT` | what the family observes, as `joint_position.FL_hip`: see `metarl list FAMILY` | the part's |
| `acc.x` `acc.y` `acc.z` | accelerometer at a free base's origin, in its own axes | m/s² |
| `target.MOTOR` | command from this row to the next: the angle of a servo, the torque of a motor | the actuator's |
| `action.MOTOR` | the same in [-1, 1], where there is no `target` | 1 |
| `qpos.JOINT`, `qvel.JOINT` | with `--base logged`; `qpos.JOINT.0` to `.6` of a free joint | m, rad |
| `start` | anything but blank: the robot was put back before this row | |

Other columns are left alone. An observation that is missing or blank is no observation; blank commands cut the log.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from metarl.core.errors import UserError, did_you_mean
from metarl.core.files import MAX_TEXT, read_bytes, write_atomic

_JITTER = 0.3
"""Rows that are further off their time than this share of the period cut the log."""


@dataclass(frozen=True, eq=False)
class Log:
    """Columns of a log by their names, each as long as `time`."""

    columns: Mapping[str, Float64[np.ndarray, "R"]]
    """Numbers, NaN where nothing was written; `time` is among them."""
    where: str = "the log"
    """What a message calls it."""

    def __post_init__(self) -> None:
        time = self.columns.get("time")
        if time is None:
            raise UserError(f"{self.where} has no column 'time' [s]; it has {_listed(self.columns)}")
        if len(time) < 3:
            raise UserError(f"{self.where} has {len(time)} rows, which tell nothing")
        if not np.isfinite(time).all():
            raise UserError(f"{self.where}: time is no number in row {int(np.flatnonzero(~np.isfinite(time))[0]) + 1}")
        back = np.flatnonzero(np.diff(time) <= 0.0)
        if len(back):
            at = int(back[0])
            raise UserError(
                f"{self.where}: time goes from {time[at]:g} s to {time[at + 1]:g} s in row {at + 2}: it must increase"
            )

    @property
    def period(self) -> float:
        """Time between two rows [s], the median."""
        return float(np.median(np.diff(self.columns["time"])))

    def matrix(self, names: Sequence[str]) -> Float64[np.ndarray, "R C"]:
        """Columns side by side; NaN where one is missing."""
        missing = np.full(len(self.columns["time"]), math.nan)
        return np.stack([self.columns.get(name, missing) for name in names], axis=1)

    def pieces(self, period: float, commands: Float64[np.ndarray, "R U"]) -> list[range]:
        """Rows that follow one another: without a gap in time, a missing command, or a robot that was put back."""
        time = self.columns["time"]
        broken = np.abs(np.diff(time) / period - 1.0) > _JITTER
        if "start" in self.columns:
            broken |= ~np.isnan(self.columns["start"][1:])
        broken |= ~np.isfinite(commands[:-1]).all(axis=1)
        ends = [0, *(np.flatnonzero(broken) + 1).tolist(), len(time)]
        return [range(a, b) for a, b in pairwise(ends) if b - a > 1]

    def write(self, path: Path) -> None:
        """As CSV, or NPZ by the name's ending."""
        if path.suffix == ".npz":
            buffer = io.BytesIO()
            np.savez(buffer, **self.columns)  # type: ignore[arg-type]
            write_atomic(path, buffer.getvalue())
            return
        rows = zip(*self.columns.values(), strict=True)
        lines = [",".join(self.columns), *(",".join("" if math.isnan(x) else f"{x:.9g}" for x in row) for row in rows)]
        write_atomic(path, "\n".join(lines) + "\n")


def read_log(path: Path) -> Log:
    """The log in a file; `UserError` where it cannot be read as one. Nothing in it is executed or unpickled."""
    readers: dict[str, Callable[[Path], Mapping[str, np.ndarray]]] = {".csv": _csv, ".npz": _npz, ".mcap": _mcap}
    if path.suffix not in readers:
        raise UserError(f"{path} is no log: its name must end in {', '.join(readers)}")
    return Log(readers[path.suffix](path), str(path))


def _csv(path: Path) -> Mapping[str, np.ndarray]:
    text = read_bytes(path, MAX_TEXT).decode(errors="replace")
    rows = list(csv.reader(io.StringIO(text)))
    names = [name.strip() for name in rows[0]] if rows else []
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path} has two columns '{twice}'")
    for number, row in enumerate(rows[1:], 2):
        if row and len(row) != len(names):
            raise UserError(f"{path}, line {number}: {len(row)} values for {len(names)} columns")
    body = [row for row in rows[1:] if row]
    return {name: np.array([_number(row[i]) for row in body]) for i, name in enumerate(names)}


def _number(text: str) -> float:
    """NaN for a blank, and 1 for words: columns of words are flags."""
    if not text.strip():
        return math.nan
    try:
        return float(text)
    except ValueError:
        return 1.0


def _npz(path: Path) -> Mapping[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(read_bytes(path, MAX_TEXT)), allow_pickle=False) as file:
            found = {name: np.asarray(file[name], np.float64) for name in file.files}
    except (ValueError, OSError, KeyError, EOFError) as error:
        raise UserError(f"{path} is no NPZ file of numbers: {str(error).splitlines()[0]}") from None
    sizes = {name: value.shape for name, value in found.items()}
    if any(len(shape) != 1 for shape in sizes.values()) or len(set(sizes.values())) > 1:
        odd = ", ".join(f"{name} {shape}" for name, shape in list(sizes.items())[:4])
        raise UserError(f"{path}: each column must be an array of one dimension, and as long as the others: {odd}")
    return found


def _mcap(path: Path) -> Mapping[str, np.ndarray]:
    """JSON messages, each an object of numbers by their column; time is the message's own where none is in it."""
    try:
        from mcap.reader import make_reader
    except ModuleNotFoundError:
        raise UserError(f"{path}: MCAP files need the package mcap: pip install mcap, or write a CSV file") from None
    rows: dict[int, dict[str, float]] = {}
    content = read_bytes(path, MAX_TEXT)
    try:
        for _, channel, message in make_reader(io.BytesIO(content)).iter_messages():
            if channel.message_encoding != "json":
                continue
            row = rows.setdefault(message.log_time, {"time": message.log_time * 1e-9})
            values = json.loads(message.data)
            row |= {key: float(x) for key, x in values.items() if isinstance(x, int | float)}
    except Exception as error:  # whatever a damaged file makes of its reader
        raise UserError(f"{path} is no MCAP file of JSON messages: {type(error).__name__}: {error}") from None
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    return {name: np.array([row.get(name, math.nan) for _, row in sorted(rows.items())]) for name in names}


def require_fits(log: Log, names: Sequence[str], targets: Sequence[str], family: str) -> None:
    """`UserError` where a log is not that of the family's robot: both sides are named."""
    commanded = [kind for kind in ("target", "action") if any(f"{kind}.{name}" in log.columns for name in targets)]
    if not commanded:
        raise UserError(
            f"{log.where} has no commands, which the actuators of {family} need: target.{targets[0]}, and so on; it "
            f"has {_listed(log.columns)}"
        )
    missing = [f"{commanded[0]}.{name}" for name in targets if f"{commanded[0]}.{name}" not in log.columns]
    if missing:
        raise UserError(
            f"{log.where} lacks the commands {_listed(missing)} of the {len(targets)} actuators of {family}"
        )
    if not any(name in log.columns for name in names):
        raise UserError(
            f"{log.where} has nothing that {family} observes: {_listed(names)}; it has {_listed(log.columns)}"
        )
    known, parts = set(names), {name.split(".")[0] for name in names}
    for column in log.columns:
        head = column.split(".")[0]
        if head in parts and column not in known:
            near = did_you_mean(column, known)
            raise UserError(f"{log.where} has a column '{column}', which {family} does not observe{near}")


def _listed(names: Sequence[str] | Mapping[str, object]) -> str:
    words = list(names)
    return ", ".join(words[:6]) + (f" and {len(words) - 6} more" if len(words) > 6 else "")
