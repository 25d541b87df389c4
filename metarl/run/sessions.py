"""Trainings from Python and from the command line: begun, gone on with, and trained further than was meant at first."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from metarl.core.config import TrainConfig
from metarl.core.errors import UserError
from metarl.core.registry import make_family
from metarl.core.tasks import family_of_tasks, load_ranges
from metarl.run import folder
from metarl.run.books import Callback
from metarl.run.ranks import digest, joined, of_leader, rank, require_alike, restarted
from metarl.run.run import CONFIG, Run
from metarl.run.train import Outcome, Training


def settled(config: TrainConfig[Any]) -> TrainConfig[Any]:
    """The configuration with what was left to the family written out, as a later metarl may choose otherwise."""
    family = make_family(config.family, config.disturbances, config.task_ranges)
    return replace(config, trial=config.trial or family.trial)


@contextmanager
def started(output: Path | None, config: TrainConfig[Any], argv: Sequence[str]) -> Iterator[Training]:
    """A new run in a folder that this process holds; one that ends before its first iteration leaves no folder.

    Of several processes the leading one holds it. Those that torchrun starts anew go on with the run of before.
    """
    if restarted() and output is not None and (output / CONFIG).is_file():
        with resumed(output, argv) as training:
            yield training
        return
    with joined(config) as shares:
        config = replace(config, shards=shares.pieces) if shares.size > 1 else config
        training = Training(Run(Path()), config, shares)
        with training.fleet:
            if not shares.leads:
                training.run = Run(Path(of_leader(shares, "")))
                yield training
                return
            training.config = config = settled(config)
            training.run = run = folder.create(output, config, argv)
            with folder.locked(run.path):
                try:
                    of_leader(shares, str(run.path))
                    yield training
                except (UserError, KeyboardInterrupt, SystemExit):
                    if training.iteration == 0:  # nothing is lost, and the corrected command can use the same folder
                        folder.discard(run)
                    raise


def around(tasks: Path, family: str) -> tuple[str, tuple[str, ...]]:
    """The family of a file of tasks, `family` or that with more parameters, and ranges around the tasks."""
    owner = family_of_tasks(tasks)
    if owner != family and not owner.startswith(f"{family}+") and not family.endswith(f"/{owner}"):
        raise UserError(f"{tasks} holds tasks of '{owner}', not of '{family}'")
    name = owner if owner.startswith(f"{family}+") else family
    return name, load_ranges(tasks, make_family(name).space)


@contextmanager
def resumed(
    source: str | Path | Run, argv: Sequence[str], *, which: str | None = None, total_steps: int | None = None,
    on: tuple[str, str] = ("", ""), trust_code: bool = False,
) -> Iterator[Training]:  # fmt: skip
    """A run at its newest checkpoint, or the one named `which`, in a folder that this process holds.

    With `total_steps` it is trained up to that length, also where it was finished. The new length is written to
    `config.toml`, and what depends on the share of the training that is done, as learning rates and a curriculum,
    goes on from the share of the new length: a learning rate that had reached 0 rises again to where it is then.
    It goes on where it ran, or `on` a device with a physics of those names, each empty where it is the usual one.
    """
    run = Run.open(source, trust_code)
    run.require_training()
    with folder.locked(run.path) if rank() == 0 else nullcontext():
        run.family()  # may it run?
        config = run.config()
        # What a fall forfeits was left to the family in runs of before `settled`, when nearly all of them said `steps`.
        changes: dict[str, Any] = {
            "total_steps": total_steps or config.total_steps,
            "trial": config.trial or "steps",
        }
        device, physics = on
        if (device or config.device) != config.device or physics:
            changes |= {"device": device or config.device, "physics": physics}
        with joined(replace(config, **changes)) as shares:
            if shares.size > 1:
                changes["shards"] = shares.pieces
            training = Training(run, replace(config, **changes), shares)
            with training.fleet:
                training.restore(which, argv)
                require_alike(shares, digest(training.learner.state_dict()), "the checkpoint they found")
                if total_steps and total_steps < training.total_steps:
                    raise UserError(
                        f"total_steps = {total_steps:,}: {run} has trained for {training.total_steps:,} already"
                    )
                yield training


def train(
    config: TrainConfig[Any],
    output: Path | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    console: Console | None = None,
    argv: Sequence[str] = ("train",),
    track: str = "",
) -> Run:
    """Train from the beginning into a new folder, `runs/FAMILY-AGENT-sSEED-TIME` by default; `track`: see `Tracker`.

    A signal that stops it is answered once all is saved: SIGINT by `KeyboardInterrupt`, others by `SystemExit`.
    """
    with started(output, config, argv) as training:
        outcome = training.execute(console or Console(quiet=True), config.max_minutes, callbacks, track)
    _answer(outcome)
    return training.run


def resume(
    source: str | Path | Run,
    *,
    total_steps: int | None = None,
    max_minutes: float = 0.0,
    which: str | None = None,
    on: tuple[str, str] = ("", ""),
    trust_code: bool = False,
    callbacks: Sequence[Callback] = (),
    console: Console | None = None,
    argv: Sequence[str] = ("resume",),
    track: str = "",
) -> Run:
    """Train on, exactly as if it had never stopped, or further than was meant at first: see `resumed`."""
    with resumed(source, argv, which=which, total_steps=total_steps, on=on, trust_code=trust_code) as training:
        outcome = training.execute(console or Console(quiet=True), max_minutes, callbacks, track)
    _answer(outcome)
    return Run(training.run.path)


def _answer(outcome: Outcome) -> None:
    if outcome.signal is not None and not outcome.finished:
        raise KeyboardInterrupt if outcome.signal == signal.SIGINT else SystemExit(128 + outcome.signal)
