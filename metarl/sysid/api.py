"""`metarl.identify`, by which the command line works too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from metarl.core.errors import UserError
from metarl.core.registry import make_family
from metarl.core.tasks import save_tasks
from metarl.sim.family import MujocoFamily
from metarl.sysid.cutting import Options
from metarl.sysid.identify import Identified, identify as find
from metarl.sysid.log import Log, read_log
from metarl.sysid.plant import Base


def identify(
    family: str,
    log: Log | str | Path,
    *,
    output: str | Path | None = None,
    parameters: Sequence[str] = (),
    base: Base = "standing",
    shot: float = 0.6,
    max_shots: int = 24,
    starts: int = 2,
    threads: int = 0,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> Identified:
    """Find the task parameters of a family that explain a robot's log, with 95 % intervals.

    Args:
        family: A name of `families()`, or `path/to/file.py:ClassName`; `NAME+joint_friction` adds a ready parameter.
        log: A CSV, NPZ or MCAP file, or a `metarl.sysid.log.Log`.
        output: Task list to write (JSON), which `train`, `evaluate` and `record` take.
        parameters: Task parameters to find, the others nominal; all that have a range and change the model if empty.
        base: Whether a free base is `standing` on its feet, `hung` in the air, or `logged` from outside.
        shot: Length of the pieces of the log that are compared [s].
        max_shots: At most so many pieces, spread over the log.
        starts: First guesses, the best of which counts.
        threads: Threads of the physics; 0 for one per CPU.
        seed: Seed of the first guesses.
        say: Told what goes on.

    Raises:
        UserError: The log is damaged, too short, or not of this family's robot in its units and order.
    """
    made = make_family(family)
    if not isinstance(made, MujocoFamily):
        raise UserError(f"'{family}' is an environment of others: only a MuJoCo family's parameters can be identified")
    options = Options(tuple(parameters), base, shot, max_shots=max_shots, starts=starts, threads=threads, seed=seed)
    taken = log if isinstance(log, Log) else read_log(Path(log))
    found = find(made, family, taken, options, say or (lambda what: None))
    if output is not None:
        save_tasks(Path(output), family, found.tasks, found.details() | {"log": taken.where})
    return found
