"""`metarl video`: film the robot adapting to held-out tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metarl.config import require
from metarl.verbs.parsing import parse
from metarl.verbs.subject import require_untrained, subject_of


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
        require_untrained(self.agent, {"--checkpoint": self.checkpoint})
        require(self, "grid", 1 <= self.grid <= 64, "in [1, 64]")
        require(self, "episodes", 0 <= self.episodes <= 1000, "in [0, 1000]")
        require(self, "seed", 0 <= self.seed < 2**32, "in [0, 2^32)")


def run(words: list[str]) -> int:
    """Film the subject's trials."""
    options = parse(VideoOptions, "video", words)
    from metarl.rl.parallel import single_threaded_math
    from metarl.run.video import VideoConfig, record

    single_threaded_math()
    subject = subject_of(options)
    tasks = subject.family.space.fixed(options.split, options.grid)
    recording = record(
        subject.policy,
        subject.family,
        tasks,
        options.episodes or subject.episodes,
        options.output or Path("videos/look.mp4" if options.agent else "videos/adaptation.mp4"),
        VideoConfig((options.width, options.height), options.seed, subject.title(f"{options.split} tasks")),
    )
    print(f"wrote {recording.path}: {recording.seconds:.0f} s, {len(tasks)} tasks")
    return 0
