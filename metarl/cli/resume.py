"""`metarl resume`: continue a training exactly where it stopped."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from metarl.cli.parsing import parse
from metarl.core.config import TrainConfig
from metarl.core.parameters import require

if TYPE_CHECKING:
    from metarl.run.train import Training


@dataclass(frozen=True)
class ResumeOptions:
    """Continue a training exactly where it stopped, or further than was meant at first."""

    run: Path
    """Run folder."""
    checkpoint: str | None = None
    """Checkpoint to continue from, as iteration-000120, or best; the newest by default."""
    total_steps: int = 0
    """Train up to this length, also a run that is finished [control steps over all worlds]; 0 for the run's own.
    Learning rates and a curriculum go on from the share of the new length that is done."""
    max_minutes: float = 0.0
    """Stop, save and report after this long [min]; 0 for no limit."""
    device: Literal["", "cpu", "cuda"] = ""
    """Where to go on; by default where the run was."""
    physics: Literal["", "mujoco", "warp"] = ""
    """What is to move the worlds there; by default what did, or what is usual on another device."""
    processes: int = 1
    """Processes on this machine that share the work, whatever it was before; starts them by torchrun."""
    track: Literal["", "wandb", "trackio"] = ""
    """Tell the numbers to this tracker too, whose package must be installed; nothing is sent anywhere otherwise."""
    trust_code: bool = False
    """Run files of code that the run names, also such as you have not trained with, or that were changed since."""

    def __post_init__(self) -> None:
        require(self, "total_steps", self.total_steps >= 0, "at least 0")
        require(self, "processes", self.processes >= 1, "at least 1")
        require(self, "max_minutes", 0 <= self.max_minutes < float("inf"), "at least 0")


def run(words: list[str]) -> int:
    """Continue a run."""
    options = parse(ResumeOptions, "resume", words)
    if options.processes > 1:
        return launched(["resume", *words], options.processes)
    from metarl.run.launch import as_one

    return as_one(lambda: _resume(options, words))


def launched(words: list[str], processes: int, config: TrainConfig[Any] | None = None) -> int:
    """The command in so many processes; `UserError` where the training of `config` cannot be cut into as many."""
    from metarl.run.launch import launch
    from metarl.run.ranks import num_shards

    if config is not None:
        num_shards(config, processes)
    place = next(i for i, word in enumerate(words) if word.split("=")[0] == "--processes")
    return launch(words[:place] + words[place + (1 if "=" in words[place] else 2) :], processes)


def _resume(options: ResumeOptions, words: list[str]) -> int:
    from metarl.run.sessions import resumed

    more = options.total_steps or None
    session = resumed(
        options.run,
        ["resume", *words],
        which=options.checkpoint,
        total_steps=more,
        on=(options.device, options.physics),
        trust_code=options.trust_code,
    )
    with session as training:
        where = f"after iteration {training.iteration} of {training.num_iterations}"
        print(f"resuming {training.run} {where}", flush=True)
        return execute(training, options.max_minutes, options.track)


def execute(training: Training, max_minutes: float, track: str = "") -> int:
    """Train, then say how it ended and what to do next."""
    from metarl.rl.learner import Remarking
    from metarl.run.logs import console

    if isinstance(training.learner, Remarking):
        print(*training.learner.remarks(training.config.total_steps), sep="\n", flush=True)
    path = shlex.quote(str(training.run.path))
    try:
        outcome = training.execute(console(), max_minutes, track=track)
    except (KeyboardInterrupt, SystemExit):
        words = f"saved up to iteration {training.saved}; continue with: metarl resume {path}"
        if not (training.iteration or training.resumed):
            words = f"{path} is removed, as no iteration was complete; the same command begins anew"
        print(f"\n{words}", file=sys.stderr)
        raise
    print(f"{outcome.total_steps:,} steps in {outcome.elapsed / 60:.1f} min, saved in {path}")
    if outcome.finished:
        print(f"next: metarl eval {path}, or: metarl video {path}")
        return 0
    if outcome.out_of_time:
        print(
            f"stopped by --max-minutes {outcome.out_of_time:g} at iteration {outcome.iteration} of "
            f"{outcome.num_iterations}: results will be below those of the whole training"
        )
    print(f"{outcome.num_iterations - outcome.iteration} iterations left; continue with: metarl resume {path}")
    return 0 if outcome.signal is None else 128 + outcome.signal
