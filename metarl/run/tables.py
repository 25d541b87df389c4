"""Evaluations as people read them: tables for a terminal and for a notebook."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from metarl.run.headroom import Headroom
from metarl.run.statistics import AdaptationTime, Interval, Summary, mean_interval, summarize

if TYPE_CHECKING:
    from metarl.run.records import EvaluationRecord, Standing


def record_table(record: EvaluationRecord, run: str = "") -> Group:
    """The adaptation curve as a table, and how long adaptation took; `run` stands ahead of the title."""
    summary, (num_tasks, num_episodes) = record.summary, record.returns.shape
    digits = _digits(summary.adaptation_curve)
    note = ", the same as in training" if record.split == "test" and not record.held_out and record.iteration else ""
    title = record.title(f"{num_tasks} {record.split} tasks{note}")
    table = _table(f"{run}: {title}" if run else title, ("mean [95 % interval]", "IQM [95 % interval]", "worst decile"))
    mixed = record.paired is not record.returns
    for number, played in enumerate(record.played, start=1):
        _add_row(table, f"{number} {played}" if mixed else str(number), summary, number - 1, digits)
    if mixed and record.sampled is not None and record.played[-1] != "sampled":
        _add_row(table, f"{num_episodes} sampled", summarize(record.sampled, None), -1, digits)
    lines = ["IQM: mean of the middle half of the tasks; worst decile: of their lowest tenth"]
    if num_episodes > 1 and summary.adaptation_delta is None:
        lines.append("last − first: not known, as its first episodes were sampled and its last by the mean action")
    elif num_episodes > 1 and summary.adaptation_delta is not None:
        table.add_section()
        table.add_row("last − first", _cell(summary.adaptation_delta, digits, "+"))
        if mixed:
            lines.append("it samples before it adapts: last − first is of episodes that are both sampled")
        lines.append(_adaptation(record.time_to_adapt))
    return Group(table, *map(Text, (*lines, *_divergence(record), *_recovery(record), *_success(record))))


def _add_row(table: Table, label: str, summary: Summary, episode: int, digits: int) -> None:
    mean, iqm, worst = summary.adaptation_curve[episode], summary.iqm[episode], summary.worst_decile[episode]
    table.add_row(label, _cell(mean, digits), _cell(iqm, digits), f"{worst:z.{digits}f}")


def _divergence(record: EvaluationRecord) -> Iterator[str]:
    failed, num_tasks = int(record.failed.sum()), len(record.returns)
    if failed:
        yield f"{failed} of {num_tasks} tasks failed, as their physics diverged: each counts as the worst of the others"
    elif record.num_diverged:
        yield f"the physics diverged in {record.num_diverged} steps, of which tasks was not recorded"


def _recovery(record: EvaluationRecord) -> Iterator[str]:
    if (found := record.recovery) is not None:
        seconds = found.seconds()
        after = f"{seconds:.2f} s after" if seconds is not None else "not within what was measured after"
        yield f"time to recover: 90 % of the reward before a fault {after} its onset ({found.num_onsets} onsets)"
        if record.standing is not None:
            seconds = record.standing.seconds_to_recover
            when = "not reached" if seconds is None else f"{seconds:.2f} s after its onset"
            yield f"time to recover: 90 % of what the oracle reaches after it, {when}"


def _success(record: EvaluationRecord) -> Iterator[str]:
    if record.success is not None:
        shares = ", ".join(f"{share:.0%}" for share in record.success.mean(axis=0))
        yield f"success at any step, by episode: {shares} of the tasks"


def control_table(record: EvaluationRecord, memoryless: Sequence[EvaluationRecord] = ()) -> Group:
    """Last episodes of the controls beside the plain one, and what each costs."""
    plain = record.paired
    assert plain is not None
    rows: list[tuple[str, Float64[np.ndarray, "N"], Interval | None]] = [("plain", plain[:, -1], None)]
    for one in record.controls:
        last = one.returns[:, -1]
        # The nominal task is another one: its returns are no pairs of the plain ones.
        rows.append((one.label, last, None if one.kind == "nominal" else mean_interval(plain[:, -1] - last)))
    means = [mean_interval(last) for _, last, _ in rows]
    digits, table = _digits(means), Table(title="controls, last episode", title_justify="left")
    for name in ("control", "return [95 % interval]", "what it costs"):
        table.add_column(name, justify="right")
    for (label, _, cost), shown in zip(rows, means, strict=True):
        table.add_row(label, _cell(shown, digits), "" if cost is None else _cell(cost, digits, "+"))
    pairs = any(cost is not None for _, _, cost in rows)
    lines = ["an adaptation to the task costs return where its state is wiped or swapped"] * pairs
    for where, ahead in leads(record, memoryless):
        lines.append(f"ahead of the memoryless policy {where}: {_cell(mean_interval(ahead), digits, '+')}")
    return Group(table, *map(Text, lines))


def comparison_table(record: EvaluationRecord, other: EvaluationRecord, run: str) -> Group:
    """Mean returns of two runs side by side, and how likely the first, at `run`, does better on a task."""
    against = record.against
    assert against is not None
    ours, theirs = (each.summary.adaptation_curve for each in (record, other))
    digits = _digits([*ours, *theirs])
    names = (name.rsplit("/", 1)[-1].removeprefix("pretrained:") for name in (run, against.run))
    table = _table(f"both on the same {len(record.tasks)} tasks", (*names, "P [95 % interval]"))
    for number, (x, y, chance) in enumerate(zip(ours, theirs, against.chances, strict=True), start=1):
        table.add_row(str(number), f"{x.value:z.{digits}f}", f"{y.value:z.{digits}f}", _cell(chance, 2))
    return Group(table, Text(f"P: how likely {run} does better than {against.run} on a task"))


LEADS = ("on these tasks", "on the nominal task")
"""Where a policy's lead over a memoryless one is looked at."""


def leads(
    record: EvaluationRecord, memoryless: Sequence[EvaluationRecord]
) -> Iterator[tuple[str, Float64[np.ndarray, "N"]]]:
    """How far ahead of the memoryless policies it is, task by task: on the tasks, and on the nominal one."""
    theirs = [other.returns[:, -1] for other in memoryless]
    if theirs and record.paired is not None:
        yield LEADS[0], record.paired[:, -1] - np.mean(theirs, axis=0)
    ours = _nominal((record,))
    if ours and (others := _nominal(memoryless)):
        yield LEADS[1], ours[0] - np.mean(others, axis=0)


def _nominal(records: Sequence[EvaluationRecord]) -> list[Float64[np.ndarray, "N"]]:
    """The last episode on the nominal task, of those that have played it."""
    return [one.returns[:, -1] for record in records for one in record.controls if one.kind == "nominal"]


def standing_lines(standing: Standing) -> list[str]:
    """Headroom and what is recovered of it, every seed shown."""
    room, found = standing.headroom, standing.recovered
    digits = _digits([*(Interval(value, value, value) for value in (*room.memoryless, *room.oracle))])
    seeds = {"memoryless": room.memoryless, "oracle": room.oracle, "ours": found.ours}
    shown = ", ".join(f"{name} {_listed(values, digits)}" for name, values in seeds.items())
    lines = [headroom_line(room), f"by seed: {shown}"]
    if found.value is None:
        return ["recovered: no headroom measured", *lines]
    first = standing.recovered_first.value
    early = f"; in the first episode {_percent(first)}" if first is not None else ""
    return [f"recovered: {_percent(found.value)} of the headroom in the last episode{early}", *lines]


def headroom_line(room: Headroom) -> str:
    """`headroom (oracle − memoryless): 132 [110, 150], 20 % [17 %, 23 %] of the oracle's return`."""
    digits = _digits([Interval(value, value, value) for value in (*room.memoryless, *room.oracle)])
    text = f"headroom (oracle − memoryless): {_cell(room.value, digits, '+')}"
    if not room.measured:
        return f"{text}, whose interval holds 0: no headroom measured"
    return f"{text}, {_percent(room.share)} of the oracle's return"


def headroom_lines(room: Headroom) -> list[str]:
    """The headroom, and every seed of both."""
    digits = _digits([Interval(value, value, value) for value in (*room.memoryless, *room.oracle)])
    return [
        headroom_line(room),
        f"by seed: memoryless {_listed(room.memoryless, digits)}, oracle {_listed(room.oracle, digits)}",
    ]


def _percent(interval: Interval) -> str:
    value, low, high = (f"{100 * number:.0f} %" for number in interval)
    return f"{value} [{low}, {high}]"


def _listed(values: Sequence[float], digits: int) -> str:
    return " / ".join(f"{value:z.{digits}f}" for value in values)


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
    table = Table(title=Text(title, "table.title"), title_justify="left")  # names are no markup
    for name in ("episode", *columns):
        table.add_column(Text(name), justify="right")
    return table


def _digits(curve: Sequence[Interval]) -> int:
    """Decimals that give the largest value three significant figures, at most three."""
    largest = max(abs(point.value) for point in curve)
    return int(np.clip(2 - np.floor(np.log10(largest)), 0, 3)) if largest else 0


def _cell(interval: Interval, digits: int, sign: str = "") -> str:
    """Estimate and interval."""
    value, low, high = (f"{number:{sign}z.{digits}f}" for number in interval)
    return f"{value} [{low}, {high}]"
