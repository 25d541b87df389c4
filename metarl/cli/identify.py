"""`metarl identify`: which task parameters explain a robot's log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metarl.cli.parsing import parse
from metarl.core.parameters import require


@dataclass(frozen=True)
class IdentifyOptions:
    """Find the task parameters of a family that explain a log, with 95 % intervals, and write them as a task list.

    `train`, `eval`, `headroom`, `gap` and `video` take it as --tasks. What a log holds: docs/identify.md.
    """

    family: str
    """A name of `metarl list`, or path/to/file.py:ClassName; NAME+joint_friction adds a ready parameter."""
    log: Path
    """CSV, NPZ or MCAP: time, PART.ELEMENT as observed, target.MOTOR or action.MOTOR, as `metarl deploy` logs."""
    output: Path | None = None
    """Task list to write (JSON); LOG-tasks.json by default."""
    parameters: tuple[str, ...] = ()
    """Task parameters to find, the others nominal; by default all that have a range and change the model."""
    base: Literal["standing", "hung", "logged"] = "standing"
    """A free base stands on its feet, is held in the air, or is in the log as qpos.JOINT.0 and on."""
    shot: float = 0.6
    """Length of the pieces of the log that are compared [s]; each needs 0.8 s of run-up."""
    max_shots: int = 24
    """Use at most so many pieces, spread over the log."""
    starts: int = 2
    """First guesses, the best of which counts."""
    threads: int = 0
    """Threads of the physics; 0 for one per CPU. Results are the same."""
    seed: int = 0
    """Seed of the first guesses."""

    def __post_init__(self) -> None:
        require(self, "shot", 0.05 <= self.shot <= 1.0, "in [0.05, 1]")
        require(self, "max_shots", 4 <= self.max_shots <= 1000, "in [4, 1000]")
        require(self, "starts", 1 <= self.starts <= 13, "in [1, 13]")
        require(self, "seed", 0 <= self.seed < 2**32, "in [0, 2^32)")


def run(words: list[str]) -> int:
    """Identify, show what was found and write it."""
    given = parse(IdentifyOptions, "identify", words)
    from metarl.run.logs import console
    from metarl.sysid.api import identify

    say = console().print
    output = given.output or given.log.with_name(f"{given.log.stem}-tasks.json")
    found = identify(
        given.family,
        given.log,
        output=output,
        parameters=given.parameters,
        base=given.base,
        shot=given.shot,
        max_shots=given.max_shots,
        starts=given.starts,
        threads=given.threads,
        seed=given.seed,
        say=say,
    )
    say(found.table())
    ours, nominal = found.held_out
    say(f"held-out residuals: {ours:.2f} times the noise, of the unmodified robot {nominal:.2f}")
    for note in found.notes:
        say(f"note: {note}")
    say(f"wrote {output}")
    return 0
