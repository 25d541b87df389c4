"""Evaluations as people read them: tables for a terminal and for a notebook."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from metarl.run.statistics import AdaptationTime, Interval

if TYPE_CHECKING:
    from metarl.run.records import EvaluationRecord


def record_table(record: EvaluationRecord, run: str = "") -> Group:
    """The adaptation curve as a table, and how long adaptation took; `run` stands ahead of the title."""
    summary, (num_tasks, num_episodes) = record.summary, record.returns.shape
    digits = _digits(summary.adaptation_curve)
    note = ", the same as in training" if record.split == "test" and not record.held_out and record.iteration else ""
    title = record.title(f"{num_tasks} {record.split} tasks{note}")
    table = _table(f"{run}: {title}" if run else title, ("mean [95 % interval]", "IQM [95 % interval]", "worst decile"))
    episodes = zip(summary.adaptation_curve, summary.iqm, summary.worst_decile, strict=True)
    for number, (mean, iqm, worst) in enumerate(episodes, start=1):
        table.add_row(str(number), _cell(mean, digits), _cell(iqm, digits), f"{worst:z.{digits}f}")
    lines = ["IQM: mean of the middle half of the tasks; worst decile: of their lowest tenth"]
    if num_episodes > 1:
        table.add_section()
        table.add_row("last − first", _cell(summary.adaptation_delta, digits, "+"))
        lines.append(_adaptation(record.time_to_adapt))
    if record.num_diverged:
        lines.append(f"{record.num_diverged} steps diverged; each ended its episode")
    return Group(table, *lines)


def comparison_table(record: EvaluationRecord, other: EvaluationRecord, run: str) -> Group:
    """Mean returns of two runs side by side, and how likely the first, at `run`, does better on a task."""
    against = record.against
    assert against is not None
    ours, theirs = (each.summary.adaptation_curve for each in (record, other))
    digits = _digits([*ours, *theirs])
    names = (name.rsplit("/", 1)[-1].removeprefix("pretrained:") for name in (run, against.run))
    table = _table(f"both on the same {len(record.tasks)} tasks", (*map(escape, names), "P [95 % interval]"))
    for number, (x, y, chance) in enumerate(zip(ours, theirs, against.chances, strict=True), start=1):
        table.add_row(str(number), f"{x.value:z.{digits}f}", f"{y.value:z.{digits}f}", _cell(chance, 2))
    return Group(table, escape(f"P: how likely {run} does better than {against.run} on a task"))


def html(record: EvaluationRecord) -> str:
    """The table for a notebook."""
    console = Console(file=io.StringIO(), record=True, width=100)
    console.print(record)
    return console.export_html(inline_styles=True, code_format='<pre style="line-height:1.2">{code}</pre>')


def _adaptation(time: AdaptationTime | None) -> str:
    if time is None:
        return "time to adapt: none, as the last episode is not surely better than the first"
    return (
        f"time to adapt: {time.seconds:.2f} s ({time.steps} steps, {time.episodes:.2f} episodes) "
        "for 90 % of last − first"
    )


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=escape(title), title_justify="left")
    for name in ("episode", *columns):
        table.add_column(name, justify="right")
    return table


def _digits(curve: Sequence[Interval]) -> int:
    """Decimals that give the largest value three significant figures, at most three."""
    largest = max(abs(point.value) for point in curve)
    return int(np.clip(2 - np.floor(np.log10(largest)), 0, 3)) if largest else 0


def _cell(interval: Interval, digits: int, sign: str = "") -> str:
    """Estimate and interval; rich takes a bare bracket for markup."""
    value, low, high = (f"{number:{sign}z.{digits}f}" for number in interval)
    return f"{value} \\[{low}, {high}]"
