"""Policies in physics that they were not trained in, from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metarl.core.config import disturbances_text
from metarl.core.tasks import Split, Tasks
from metarl.reports.gap_page import write_gap
from metarl.run.logs import words_of
from metarl.run.run import Run
from metarl.run.subject import on_tasks, subject_of
from metarl.sweeps.bundles import bundle_subject, is_bundle
from metarl.sweeps.measure import Plan, swept
from metarl.sweeps.record import GapRecord


def gap(
    *runs: Run | str | Path,
    sweeps: Sequence[str] = (),
    quick: bool = False,
    split: Split = "test",
    tasks: Tasks | str | Path | None = None,
    num_tasks: int = 20,
    episodes: int = 0,
    seed: int = 0,
    disturbances: str | Path = "",
    output: str | Path | None = None,
    trust_code: bool = False,
    say: Callable[[str], None] | None = None,
) -> GapRecord:
    """Play policies in physics that they were not trained in: other delays, grounds, motors, time steps, back ends.

    Args:
        runs: Runs of one family, their folders, `pretrained:NAME`, or folders of `metarl export`.
        sweeps: What to sweep, as `latency`, or at which values, as `friction=0.3,0.6`; all that makes sense if empty.
        quick: The most telling of it, at few values.
        split: Tasks of this split's fixed list.
        tasks: Tasks of your own in place of a split, or a file of them, as `metarl identify` writes one.
        num_tasks: How many, each in a world of its own at each value.
        episodes: Episodes on each task; 0 for as many as in training (of several runs, the most).
        seed: Seed of the initial states and of what is drawn.
        disturbances: A TOML file of what a real robot adds throughout, or its text.
        output: An HTML file to write, with every number in a JSON file beside it.
        trust_code: Files of code that the runs name may run, also such as this user never trained with.
        say: Called with what is being played.

    Returns:
        A record whose `below(0.8)` lists where a policy loses more than a fifth of its return.

    Raises:
        UserError: There is no such run or sweep, or the runs are not of one MuJoCo family.
    """
    options: dict[str, Any] = {"trust_code": trust_code, "disturbances": disturbances_text(disturbances)}
    subjects = [
        bundle_subject(Path(str(run)), **options) if is_bundle(run) else subject_of(run, **options) for run in runs
    ]
    name: str = split if tasks is None else "list-python"
    if isinstance(tasks, str | Path):
        path, name = Path(tasks), f"list-{Path(tasks).stem}"
        found = [on_tasks(subject, path, str(disturbances)) for subject in subjects]
        subjects, tasks = [subject for subject, _ in found], found[0][1] if found else None
    given = {"num_tasks": num_tasks, "seed": seed, "quick": quick} | ({"sweep": sweeps} if sweeps else {})
    given |= {"disturbances": str(disturbances)} if disturbances else {}
    words = ["gap", *map(str, runs), *words_of(given)]
    names = [str(run) for run in runs]
    plan = Plan(tuple(sweeps), quick, name, tasks, num_tasks, episodes, seed)
    record = swept(dict(zip(names, subjects, strict=True)), plan, words, say or (lambda what: None))
    if output is not None:
        write_gap(record, Path(output))
    return record
