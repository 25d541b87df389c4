"""Reads a run's folder for a report, as `metarl train` writes it or as recorded results keep it.

Recorded results have no checkpoints, and a thinned `learning_curve.csv` in place of `metrics.jsonl`.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from metarl.core import registry
from metarl.core.config import TrainConfig, load_config, read_toml
from metarl.core.errors import UserError

POINTS = 200
"""A learning curve is kept as the means of at most this many blocks of iterations."""
CURVE = {
    "steps": "total_steps",
    "seconds": "time/elapsed",
    "first": "rollout/return_first",
    "last": "rollout/return_last",
}
"""Names of a learning curve's columns, and their names in the logs."""


@dataclass(frozen=True)
class Evaluated:
    """One evaluation of a run: returns on a list of tasks."""

    file: str
    split: str
    held_out: bool
    """Whether the tasks differ from those of training."""
    deterministic: bool
    """Whether the policy took its mean action; else its actions were drawn."""
    seed: int
    train_steps: int
    """Control steps that the policy had trained for."""
    train_seconds: float
    """Time that the policy had trained for [s]."""
    tasks: list[dict[str, Any]]
    returns: Float64[np.ndarray, "N K"]
    """Returns of each task's episodes 1 to K."""
    time_to_adapt: dict[str, float] | None
    """In episodes, control steps and seconds; None where the last episode is not surely better than the first."""
    timed: bool
    """Whether the evaluation measured that time; those of the first versions did not."""
    command: str

    @property
    def actions(self) -> str:
        """Which actions the policy took: `mean` or `sampled`."""
        return "mean" if self.deterministic else "sampled"


@dataclass(frozen=True)
class Run:
    """Everything that a report shows of one run."""

    path: Path
    config: dict[str, Any]
    """Options by name; options that the run did not know yet have their defaults."""
    toml: str
    """The configuration as it was written."""
    provenance: dict[str, Any]
    """Command, versions and machine of the training."""
    curve: dict[str, Float64[np.ndarray, "_P"]]
    """Learning curve, by the names of `CURVE`; empty where none was logged."""
    times: dict[str, float]
    """Seconds of the training by what they were spent on, as far as that was timed."""
    evaluations: tuple[Evaluated, ...]
    videos: tuple[Path, ...]

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    @property
    def train_steps(self) -> int:
        """Control steps of the training."""
        ends = [int(self.curve["steps"][-1])] if self.curve else []
        return max([*ends, *(evaluation.train_steps for evaluation in self.evaluations)], default=0)

    @property
    def train_seconds(self) -> float:
        """Length of the training [s]."""
        ends = [float(self.curve["seconds"][-1])] if self.curve else []
        return max([*ends, *(evaluation.train_seconds for evaluation in self.evaluations)], default=0.0)


def short(name: str) -> str:
    """A family's or an agent's name without the path of a user's own file."""
    return name.rsplit("/", 1)[-1]


def samples_first(record: Mapping[str, Any]) -> bool:
    """Whether the policy samples before it adapts even where its mean action is asked for.

    The gain of such a policy shows only in evaluations with sampled actions. `record` is an evaluation or a
    configuration; where it has no entry `samples_first`, the table of learners says it of the record's agent.
    """
    return bool(record.get("samples_first", registry.samples_first(str(record["agent"]))))


def read_run(path: Path) -> Run:
    """Read a run's folder; raises `UserError` if it is none, or if its content cannot be read."""
    if not (path / "config.toml").is_file():
        why = "it has no config.toml" if path.is_dir() else "there is no such folder"
        raise UserError(f"{path} is not a run folder: {why}")
    try:
        config = dataclasses.asdict(load_config(path / "config.toml"))
    except UserError:  # the agent is unknown here
        defaults = {f.name: f.default for f in dataclasses.fields(TrainConfig) if f.default is not dataclasses.MISSING}
        config = {"agent": "", "family": ""} | defaults | read_toml(path / "config.toml")
    lines, times = _log(path)
    return Run(
        path=path,
        config=config,
        toml=(path / "config.toml").read_text(encoding="utf-8"),
        provenance=_json(path / "run.json"),
        curve=_curve(lines),
        times=times,
        evaluations=tuple(_evaluated(file) for file in sorted((path / "eval").glob("*.json"))),
        videos=tuple(sorted((path / "videos").glob("*.mp4"))),
    )


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if there is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it must be a JSON object")
    return content


def _log(path: Path) -> tuple[list[Mapping[str, int | float]], dict[str, float]]:
    """Iterations and times of `metrics.jsonl` without a torn last line, or of recorded results."""
    metrics, recorded = path / "metrics.jsonl", path / "learning_curve.csv"
    file = metrics if metrics.is_file() else recorded
    if not file.is_file():
        return [], {}
    text = file.read_text(encoding="utf-8").splitlines(keepends=True)
    try:
        if file == metrics:
            lines = [json.loads(line) for line in text if line.endswith("\n")]
            return lines, total_times(lines)
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(text)], _json(
            path / "time.json"
        )
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{file} is damaged: every line must hold an iteration's numbers") from None


def _curve(lines: Sequence[Mapping[str, int | float]]) -> dict[str, np.ndarray]:
    lines = [line for line in lines if all(name in line for name in CURVE.values())]
    if not lines:
        return {}
    starts = np.arange(0, len(lines), -(-len(lines) // POINTS))
    curve = {}
    for key, name in CURVE.items():
        values = np.array([line[name] for line in lines], np.float64)
        curve[key] = np.add.reduceat(values, starts) / np.diff([*starts, len(lines)])
        if key in ("steps", "seconds"):
            curve[key][-1] = values[-1]  # the training's end, not its last block's middle
    return curve


def total_times(lines: Sequence[Mapping[str, int | float]]) -> dict[str, float]:
    """Seconds by what they were spent on, as `collect`, summed over the lines of `metrics.jsonl`."""
    sums: dict[str, float] = {}
    for line in lines:
        for name, value in line.items():
            if name.startswith("time/") and name not in ("time/elapsed", "time/steps_per_second"):
                key = name.removeprefix("time/")
                sums[key] = sums.get(key, 0.0) + value
    return sums


def _evaluated(path: Path) -> Evaluated:
    content = _json(path)
    try:
        returns = np.array(content["returns"], np.float64)
        if returns.ndim != 2 or len(content["tasks"]) != len(returns):
            raise ValueError
        return Evaluated(
            file=path.name,
            split=str(content["split"]),
            held_out=bool(content["held_out"]),
            deterministic=bool(content["deterministic"]),
            seed=int(content.get("seed", 0)),
            train_steps=int(content["train_steps"]),
            train_seconds=float(content.get("train_seconds", 0.0)),
            tasks=[dict(row) for row in content["tasks"]],
            returns=returns,
            time_to_adapt=dict(content["time_to_adapt"]) if content.get("time_to_adapt") else None,
            timed="time_to_adapt" in content,
            command=str(content.get("command", "")),
        )
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is no evaluation: make a new one with `metarl eval {path.parent.parent}`") from None
