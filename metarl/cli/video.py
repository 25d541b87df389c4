"""`metarl video`: film the robot adapting to held-out tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metarl.cli.parsing import parse, require_untrained
from metarl.core.parameters import require


@dataclass(frozen=True)
class VideoOptions:
    """Film the robot adapting: first and last episode side by side, all in sequence, or a wall of tasks.

    The task is drawn: a green arrow or place where it is to go, weak limbs red, loads as boxes, slippery ground blue.
    """

    run: Path
    """Run folder, or pretrained:NAME; with --agent a family: a name of `metarl list`, or path/to/file.py:ClassName."""
    agent: str | None = None
    """Look at a family before any training: `zero` (actions all zero) or `random` (each drawn anew)."""
    output: Path | None = None
    """The video to write (mp4, or gif or webp for a page); videos/adaptation.mp4 by default, videos/look.mp4 with
    --agent."""
    beside: tuple[Path, ...] = ()
    """Other runs of the same family to show beside it on the same tasks: without memory, say, or told the task.
    Side by side a pretrained policy without memory, where there is one."""
    alone: bool = False
    """Show no other beside it."""
    layout: Literal["side-by-side", "sequence", "wall"] = "side-by-side"
    """Episodes of a task beside each other from the same start, one after the other, or the last of many tasks."""
    grid: int = 0
    """Tasks at once; 0 for 4, or 1 side by side or beside others, or 9 on the wall."""
    episodes: int = 0
    """Episodes of the trial; 0 for as many as in training, or 2 with --agent."""
    show: tuple[int, ...] = ()
    """Episodes to show, as 1 2 10; by default all, or first and last side by side, or the last on the wall."""
    seconds: float = math.inf
    """Show no more than the first seconds of each episode [s]."""
    plot: bool = True
    """Draw under each picture the return and, where the policy offers it, what it believes of the task; not on a
    wall."""
    megabytes: float = 2.0
    """Largest size of a gif or webp [MB]: it gets smaller, and has fewer pictures, until it fits."""
    width: int = 0
    """Width of one robot's picture [pixels], a multiple of 16; 0 for 480, or 288 on the wall."""
    height: int = 0
    """Height of one robot's picture [pixels], a multiple of 16; 0 for 320, or 192 on the wall."""
    tasks: Path | None = None
    """Task list (JSON) to film instead of a split, as `metarl identify` writes."""
    split: Literal["train", "test", "ood"] = "test"
    """Tasks: test (a fixed list, drawn as in training), ood (outside the training range) or train."""
    seed: int = 0
    """Seed of the initial states and of random actions."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where policy and worlds are."""
    physics: Literal["", "mujoco", "warp"] = ""
    """What moves the worlds; by default mujoco on the cpu and warp on cuda."""
    disturbances: str = ""
    """A TOML file of what a real robot adds, upon what the policy was trained with: see docs/disturbances.md."""
    checkpoint: str | None = None
    """Checkpoint, as iteration-000120, or best; the newest by default."""
    trust_code: bool = False
    """Run files of code that the run names, also such as you have not trained with, or that were changed since."""

    def __post_init__(self) -> None:
        require_untrained(self.agent, {"--checkpoint": self.checkpoint})
        require(self, "grid", 0 <= self.grid <= 64, "in [0, 64]")
        require(self, "episodes", 0 <= self.episodes <= 1000, "in [0, 1000]")
        require(self, "seconds", self.seconds > 0, "above 0")
        require(self, "megabytes", self.megabytes > 0, "above 0")
        require(self, "seed", 0 <= self.seed < 2**32, "in [0, 2^32)")


def run(words: list[str]) -> int:
    """Film the robot."""
    options = parse(VideoOptions, "video", words)
    from metarl.video.film import record

    recording = record(
        options.run,
        options.output or Path("videos/look.mp4" if options.agent else "videos/adaptation.mp4"),
        beside=() if options.alone else options.beside or None,
        layout=options.layout,
        split=options.split,
        tasks=options.tasks,
        num_tasks=options.grid,
        episodes=options.episodes,
        show=options.show,
        seconds=options.seconds,
        plot=options.plot,
        megabytes=options.megabytes,
        size=(options.width, options.height),
        seed=options.seed,
        checkpoint=options.checkpoint,
        agent=options.agent,
        device=options.device,
        physics=options.physics,
        disturbances=options.disturbances,
        trust_code=options.trust_code,
        progress=True,
    )
    count = len(recording.returns)
    print(f"wrote {recording.path}: {recording.seconds:.0f} s, {count} {'task' if count == 1 else 'tasks'}")
    if recording.look_for:
        print(f"look for: {recording.look_for}")
    return 0
