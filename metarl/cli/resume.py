"""`metarl resume`: continue a training exactly where it stopped."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metarl.cli.parsing import parse
from metarl.core.parameters import require

if TYPE_CHECKING:
    from metarl.run.train import Outcome, Training


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


def run(words: list[str]) -> int:
    """Continue a run."""
    options = parse(ResumeOptions, "resume", words)
    from metarl.run.pretrained import require_run
    from metarl.run.run import RunFolder, note_resumption
    from metarl.run.train import Training

    require_run(options.run, "resume")
    run = RunFolder(options.run)
    training = Training(run, run.read_config())
    training.restore(options.checkpoint)
    note_resumption(run, ["resume", *words], training.iteration)
    print(f"resuming {run.path} after iteration {training.iteration} of {training.num_iterations}", flush=True)
    return execute(training, options.max_minutes)


def execute(training: Training, max_minutes: float) -> int:
    """Train, then say how it ended and what to do next."""
    from metarl.rl.learner import Remarking
    from metarl.run.logs import console
    from metarl.run.run import locked

    if isinstance(training.learner, Remarking):
        print(*training.learner.remarks(training.config.total_steps), sep="\n", flush=True)
    with locked(training.run):
        outcome: Outcome = training.execute(console(), max_minutes)
    path = shlex.quote(str(training.run.path))
    print(f"{outcome.total_steps:,} steps in {outcome.elapsed / 60:.1f} min, saved in {path}")
    if not outcome.finished:
        print(f"{training.num_iterations - outcome.iteration} iterations left; continue with: metarl resume {path}")
    else:
        print(f"next: metarl eval {path}, or: metarl video {path}")
    return 0 if outcome.signal is None or outcome.finished else 128 + outcome.signal
