"""Options of the verbs, parsed by tyro: one dataclass per verb, a docstring with unit and meaning under each field."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import tyro

from metarl.config import TrainConfig, require
from metarl.errors import UserError, unknown_name

L = TypeVar("L")

_UNTRAINED = ("zero", "random")


@dataclass(frozen=True)
class TrainOptions(Generic[L]):
    """Meta-train a learner on a family: metarl train AGENT FAMILY, or metarl train --config FILE."""

    training: TrainConfig[L]
    """The run's configuration."""
    config: Path | None = None
    """Start from this TOML file; options on the command line override it."""
    output: Path | None = None
    """Run folder; runs/FAMILY-AGENT-sSEED-TIME by default."""


@dataclass(frozen=True)
class ResumeOptions:
    """Continue a training exactly where it stopped."""

    run: Path
    """Run folder."""
    checkpoint: str | None = None
    """Checkpoint to continue from, as iteration-000120; the newest by default."""
    max_minutes: float = 0.0
    """Stop, save and report after this long [min]; 0 for no limit."""

    def __post_init__(self) -> None:
        require(self, "max_minutes", 0 <= self.max_minutes < float("inf"), "at least 0")


@dataclass(frozen=True)
class EvalOptions:
    """Returns per episode on a fixed list of tasks, with 95 % bootstrap intervals over tasks."""

    run: Path
    """Run folder; with --agent a family: a name from `metarl list`, or path/to/file.py:ClassName."""
    agent: str | None = None
    """Look at a family before any training: `zero` (actions all zero) or `random` (each drawn anew)."""
    split: Literal["train", "test", "ood"] = "test"
    """Tasks: test (a fixed list, drawn as in training), ood (outside the training range) or train."""
    num_tasks: int = 100
    """Tasks, each in a world of its own."""
    episodes: int = 0
    """Episodes per task; 0 for as many as in training, or 2 with --agent."""
    stochastic: bool = False
    """Sample actions instead of taking the policy's mean."""
    seed: int = 0
    """Seed of the initial states and actions."""
    tasks: Path | None = None
    """Task list (JSON) to evaluate on instead of a split; the JSON of an evaluation is one."""
    checkpoint: str | None = None
    """Checkpoint, as iteration-000120; the newest by default."""
    json: Path | None = None
    """Also write the result to this file; that of a run is always kept in RUN/eval/."""

    def __post_init__(self) -> None:
        _require_untrained(self.agent, {"--checkpoint": self.checkpoint, "--stochastic": self.stochastic})
        require(self, "num_tasks", 1 <= self.num_tasks <= 65536, "in [1, 65536]")
        require(self, "episodes", 0 <= self.episodes <= 1000, "in [0, 1000]")
        require(self, "seed", 0 <= self.seed < 2**32, "in [0, 2^32)")


@dataclass(frozen=True)
class VideoOptions:
    """Film the robot adapting: the episodes of one trial in sequence, or several tasks side by side."""

    run: Path
    """Run folder; with --agent a family: a name from `metarl list`, or path/to/file.py:ClassName."""
    agent: str | None = None
    """Look at a family before any training: `zero` (actions all zero) or `random` (each drawn anew)."""
    output: Path | None = None
    """The video to write (mp4, h264); videos/adaptation.mp4 by default, videos/look.mp4 with --agent."""
    grid: int = 4
    """Tasks side by side; 1 for a single robot."""
    episodes: int = 0
    """Episodes in sequence; 0 for as many as in training, or 2 with --agent."""
    width: int = 480
    """Width of one robot's picture [pixels], a multiple of 16."""
    height: int = 320
    """Height of one robot's picture [pixels], a multiple of 16."""
    split: Literal["train", "test", "ood"] = "test"
    """Tasks: test (a fixed list, drawn as in training), ood (outside the training range) or train."""
    seed: int = 0
    """Seed of the initial states and of random actions."""
    checkpoint: str | None = None
    """Checkpoint, as iteration-000120; the newest by default."""

    def __post_init__(self) -> None:
        _require_untrained(self.agent, {"--checkpoint": self.checkpoint})
        require(self, "grid", 1 <= self.grid <= 64, "in [1, 64]")
        require(self, "episodes", 0 <= self.episodes <= 1000, "in [0, 1000]")
        require(self, "seed", 0 <= self.seed < 2**32, "in [0, 2^32)")


@dataclass(frozen=True)
class ListOptions:
    """Families with their task parameters, and agents."""

    family: tyro.conf.Positional[str] = ""
    """Show this family only."""
    json: Path | None = None
    """Also write the list to this file."""


@dataclass(frozen=True)
class CheckOptions:
    """Test a family against the contract every family fulfils, or whether a MJCF file is safe and stands physics."""

    family: str
    """A name from `metarl list`, path/to/file.py:ClassName, or a MJCF file (.xml or .mjcf)."""
    folder: Path | None = None
    """Of a MJCF file: where the files it refers to may lie, if not in its own folder."""
    json: Path | None = None
    """Also write the findings to this file."""


@dataclass(frozen=True)
class BenchOptions:
    """Speed of environments and training, as ratios to bare physics measured in the same run."""

    families: tuple[str, ...] = (
        "half-cheetah-body",
        "ant-body",
        "humanoid-dir",
        "quadruped-body",
        "quadruped-terrain",
    )
    """Families to step; collection and training are measured on half-cheetah-body."""
    worlds: tuple[int, ...] = (64, 256)
    """Batch sizes; the families are stepped with the largest."""
    seconds: float = 3.0
    """Time per measurement [s]; each is repeated in turns and the median taken."""
    threads: int = 0
    """Threads of the physics; 0 for one per CPU."""
    json: Path | None = None
    """Also write the figures to this file."""

    def __post_init__(self) -> None:
        require(
            self,
            "worlds",
            len(self.worlds) > 0 and min(self.worlds, default=0) >= 1,
            "one or more counts, each at least 1",
        )
        require(self, "seconds", 0 < self.seconds <= 3600, "in (0, 3600]")
        require(self, "threads", 0 <= self.threads <= 1024, "in [0, 1024]")


def _require_untrained(agent: str | None, given: dict[str, object]) -> None:
    """`UserError` where `--agent` is none of those that never train, or stands beside an option of those that did."""
    if agent is None:
        return
    if agent not in _UNTRAINED:
        raise unknown_name("agent without training", agent, _UNTRAINED)
    for option, value in given.items():
        if value:
            raise UserError(f"--agent {agent} never trained and takes no {option}: leave one of the two out")


def parse(options: Any, verb: str, words: list[str], default: Any = None) -> Any:
    """Parse a verb's words into its options; a mistake prints what is allowed and exits with 2."""
    markers = (
        tyro.conf.PositionalRequiredArgs,
        tyro.conf.PositionalMetavarFromFieldName,
        tyro.conf.OmitArgPrefixes,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.DisallowNone,
    )
    arguments: dict[str, Any] = {"prog": f"metarl {verb}", "args": words, "config": markers}
    if default is not None:
        arguments["default"] = default
    return tyro.cli(options, **arguments)
