"""A trained policy as a folder to be given away: what acting needs, what was measured, and a page about it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from metarl.core.errors import UserError
from metarl.core.files import write_atomic, write_json
from metarl.export.bundle import export
from metarl.hub.card import CURVE, FILM, card, draw_curve
from metarl.rl.state import policy_alone
from metarl.run import checkpoint
from metarl.run.evaluate import evaluate_subject
from metarl.run.records import EvaluationRecord
from metarl.run.run import CONFIG, FAMILY, INFO, PROVENANCE, Run
from metarl.run.subject import trained

BUNDLE = "bundle"
"""The exported policy, in a folder of its own."""
_FILM_SECONDS, _FILM_SIZE = 4.0, (320, 240)


def write_policy(run: Run, target: Path, which: str | None = None) -> None:
    """Write a run of the policy alone: configuration, provenance, what it observes, and one checkpoint.

    The folders of this machine do not leave it: a file's name stands for its path.
    """
    state, manifest = checkpoint.load(checkpoint.find(run.checkpoints, which))
    write_atomic(target / CONFIG, without_folders(run.toml()))
    write_json(target / PROVENANCE, portable(run.provenance()))
    write_json(target / INFO, run.info.to_json())
    if run.described is not None:
        write_json(target / FAMILY, run.described.to_json())
    checkpoint.save(
        Run(target).checkpoints,
        policy_alone(state),
        iteration=manifest.iteration,
        total_steps=manifest.total_steps,
        elapsed=manifest.elapsed,
    )


def write_package(
    run: Run, target: Path, title: str, *, checkpoint: str | None = None, film: bool = True, num_tasks: int = 100
) -> list[str]:
    """Write the policy, its bundle, its evaluation on test tasks, adaptation curve, film and model card.

    Returns what could not be made, a sentence each: a policy that no program can express has no bundle, and a machine
    that cannot draw makes no film.
    """
    write_policy(run, target, checkpoint)
    left = []
    measured = _measured(run, checkpoint, num_tasks)
    write_json(target / "eval" / "test.json", measured.to_json())
    draw_curve(measured, target / CURVE)
    try:
        made = export(run, target / BUNDLE, checkpoint=checkpoint)
        left += [f"of the bundle: {remark}" for remark in made.remarks]
    except UserError as error:
        left.append(f"there is no bundle: {error}")
    if film:
        try:
            from metarl.video.film import record

            record(run, target / FILM, num_tasks=1, seconds=_FILM_SECONDS, size=_FILM_SIZE, checkpoint=checkpoint)
        except (UserError, ModuleNotFoundError) as error:
            left.append(f"there is no film: {error}")
    write_atomic(target / "README.md", card(Run(target), measured, title))
    return left


def _measured(run: Run, which: str | None, num_tasks: int) -> EvaluationRecord:
    """The largest evaluation of this checkpoint on test tasks, or a new one; the family without its folder."""
    iteration = run.manifest(which).iteration
    fitting = [one for one in run.evaluations if one.split == "test" and one.iteration == iteration]
    record = max(fitting, key=lambda one: len(one.tasks), default=None)
    if record is None or len(record.tasks) < num_tasks:
        subject = trained(run, which)
        tasks = subject.family.space.fixed("test", num_tasks)
        record = evaluate_subject(subject, tasks, "test", ["eval", str(run), "--num-tasks", str(num_tasks)])
    found = replace(record, family=without_folders(record.family))
    return found.having(provenance=portable(record.provenance))


def without_folders(text: str) -> str:
    """Paths of Python files by their names alone."""
    return re.sub(r"(?:~|\.{0,2})/[^\"'\n]*/([^/\"'\n]+\.py:)", r"\1", text)


def portable(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """How a run was made, without the folders of the machine it was made on: `runs/NAME` stands for them."""
    words = [without_folders(word) for word in shlex.split(provenance.get("command", ""))]
    command = shlex.join(f"runs/{Path(word).name}" if word.startswith("/") else word for word in words)
    resumed = {"resumed": [portable(entry) for entry in provenance["resumed"]]} if "resumed" in provenance else {}
    return {**provenance, "command": command, **resumed}
