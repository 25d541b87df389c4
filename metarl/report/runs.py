"""What a report is made of: a run's folder, as `metarl train` leaves it or as recorded results keep it.

Recorded results have no checkpoints, and a thinned `learning_curve.csv` in place of `metrics.jsonl`.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

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
"""Columns of a learning curve, and what the logs call them."""


@dataclass(frozen=True)
class Evaluated:
    """One evaluation of a run: returns on a list of tasks."""

    file: str
    split: str
    held_out: bool
    """The tasks are not those of training."""
    deterministic: bool
    """The policy took its mean action; else its actions were drawn."""
    seed: int
    train_steps: int
    """Control steps that the policy had trained for."""
    train_seconds: float
    """And how long that took [s]."""
    tasks: list[dict[str, Any]]
    returns: Float64[np.ndarray, "N K"]
    """Of each task's episodes 1 to K."""
    time_to_adapt: dict[str, float] | None
    """In episodes, control steps and seconds; None where the last episode is not surely better than the first."""
    timed: bool
    """The evaluation measured that time: those recorded before metarl did are without."""
    command: str

    @property
    def actions(self) -> str:
        """What the policy did with its distribution."""
        return "mean" if self.deterministic else "sampled"


@dataclass(frozen=True)
class Run:
    """All that a report knows of one run."""

    path: Path
    name: str
    agent: str
    family: str
    seed: int
    episode_steps: int
    """The run's own time limit of an episode; 0 for the family's."""
    config: dict[str, Any]
    toml: str
    provenance: dict[str, Any]
    curve: dict[str, Float64[np.ndarray, "_P"]]
    """Learning curve, by the names of `CURVE`; empty where none was logged."""
    times: dict[str, float]
    """Seconds of the training by what they went to, of what was timed."""
    evaluations: tuple[Evaluated, ...]
    videos: tuple[Path, ...]

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

    @property
    def panel(self) -> str:
        """The family, with the run's own time limit: returns over other horizons are no neighbours."""
        return short(self.family) + (f", {self.episode_steps} steps" if self.episode_steps else "")


def short(name: str) -> str:
    """A family's or an agent's name without the path of a user's own file."""
    return name.rsplit("/", 1)[-1]


def read_run(path: Path) -> Run:
    """Read a run's folder; `UserError` where it is none, or what is in it cannot be read."""
    if not path.is_dir():
        raise UserError(f"{path} is not a run folder: there is no such folder")
    if not (path / "config.toml").is_file():
        raise UserError(f"{path} is not a run folder: it has no config.toml")
    config = _config(path / "config.toml")
    lines = _log(path)
    return Run(
        path=path,
        name=path.resolve().name,
        agent=str(config.get("agent", "")),
        family=str(config.get("family", "")),
        seed=int(config.get("seed", 0)),
        episode_steps=int(config.get("episode_steps", 0)),
        config=config,
        toml=(path / "config.toml").read_text(encoding="utf-8"),
        provenance=_json(path / "run.json") if (path / "run.json").is_file() else {},
        curve=_curve(lines),
        times=_times(path, lines),
        evaluations=tuple(_evaluated(file) for file in sorted((path / "eval").glob("*.json"))),
        videos=tuple(sorted((path / "videos").glob("*.mp4"))),
    )


def _config(path: Path) -> dict[str, Any]:
    """With the defaults of options younger than the run; as it stands where its agent is not to be had here."""
    try:
        return dataclasses.asdict(load_config(path))
    except UserError:
        defaults = {f.name: f.default for f in dataclasses.fields(TrainConfig) if f.default is not dataclasses.MISSING}
        return defaults | read_toml(path)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it must be a JSON object")
    return content


def _log(path: Path) -> list[Mapping[str, int | float]]:
    """The lines of `metrics.jsonl`, or of a recorded `learning_curve.csv`; a torn last line is left out."""
    metrics, recorded = path / "metrics.jsonl", path / "learning_curve.csv"
    try:
        if metrics.is_file():
            text = metrics.read_text(encoding="utf-8")
            return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        if recorded.is_file():
            rows = csv.DictReader(recorded.read_text(encoding="utf-8").splitlines())
            return [{key: float(value) for key, value in row.items()} for row in rows]
    except (ValueError, TypeError):
        found = metrics if metrics.is_file() else recorded
        raise UserError(f"{found} is damaged: every line must hold an iteration's numbers") from None
    return []


def _curve(lines: list[Mapping[str, int | float]]) -> dict[str, np.ndarray]:
    lines = [line for line in lines if all(name in line for name in CURVE.values())]
    if not lines:
        return {}
    size = -(-len(lines) // POINTS)
    starts = np.arange(0, len(lines), size)
    curve = {}
    for key, name in CURVE.items():
        values = np.array([line[name] for line in lines], np.float64)
        curve[key] = np.add.reduceat(values, starts) / np.diff([*starts, len(lines)])
        if key in ("steps", "seconds"):
            curve[key][-1] = values[-1]  # the training's end, not its last block's middle
    return curve


def _times(path: Path, lines: list[Mapping[str, int | float]]) -> dict[str, float]:
    """Sums over the log of what the training loop and the learner timed; recorded results have them in a file."""
    if not (path / "metrics.jsonl").is_file():
        return _json(path / "time.json") if (path / "time.json").is_file() else {}
    return total_times(lines)


def total_times(lines: list[Mapping[str, int | float]]) -> dict[str, float]:
    """Seconds by what they went to, as `collect`, of the lines of `metrics.jsonl`."""
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
            timed="time_to_adapt" in content,
            time_to_adapt=dict(content["time_to_adapt"]) if content.get("time_to_adapt") else None,
            command=str(content.get("command", "")),
        )
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is no evaluation: write it anew with `metarl eval {path.parent.parent}`") from None
