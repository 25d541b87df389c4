"""The page of a sweep: return and falls of each policy against what its physics was changed by."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from metarl.core.errors import UserError
from metarl.core.files import write_atomic, write_json
from metarl.reports.captions import Content, number
from metarl.reports.charts import Palette, swept_figure
from metarl.reports.page import document, figure, grid, legend, table
from metarl.run.statistics import mean_interval
from metarl.sweeps.axes import Axis
from metarl.sweeps.record import GapRecord, Point, Swept

_WORDS = (
    "Return of the last episode and number of falls of a task's trial, means over tasks with 95 % intervals. Every "
    "value is tried on the same tasks with the same draws."
)
_NOTES = ("shaded: what they were trained in", "dotted: as it is")


def write_gap(record: GapRecord, output: Path) -> None:
    """Write the page, and its numbers beside it as JSON; `UserError` where that fails."""
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"the page of a sweep is an HTML file: '{output}' does not end in .html")
    write_json(output.with_suffix(".json"), record.to_json())
    write_atomic(output, _page(record))


def _page(record: GapRecord) -> str:
    names = [policy.name for policy in record.policies]
    palette = Palette([names])
    shown = [axis for axis in record.axes if any(axis.name in policy.points for policy in record.policies)]
    kinds, figures = ("return", "falls per task"), []
    lines = {
        (axis.name, of): [_line(p, axis, of) for p in record.policies if axis.name in p.points]
        for axis in shown
        for of in kinds
    }
    spans = {of: _span([line for (_, kind), found in lines.items() if kind == of for line in found]) for of in kinds}
    for axis in shown:
        for of in kinds:
            drawn = swept_figure({**_described(axis), "span": spans[of]}, of, lines[axis.name, of], palette)
            figures.append(figure(axis.name.replace("_", " "), drawn, axis.help))
    skipped = "".join(f"<li>{escape(name)} is not swept: {escape(why)}</li>" for name, why in record.skipped.items())
    key = legend(names, palette, *_NOTES)
    sections = {
        "Sweeps": f"<p>{_WORDS}</p>{key}{grid(figures)}",
        "Numbers": _numbers(record, shown),
        "Not swept": f"<ul>{skipped}</ul>" if skipped else "",
    }
    seconds = record.episode_steps * record.control_step
    facts = (
        f"{record.num_tasks} {record.split} tasks, {record.episodes} episodes of {seconds:g} s, seed {record.seed}; "
    )
    facts += record.provenance["command"]
    return document(f"{record.family} in other physics", facts, dict(record.provenance), sections)


def _described(axis: Axis) -> Content:
    known = [axis.in_training(place) for place in range(len(axis.values))]
    own = {name: getattr(axis, name) for name in ("name", "unit", "values", "labels", "trained")}
    return {**own, "known": known}


def _line(policy: Swept, axis: Axis, of: str) -> Content:
    def measured(point: Point) -> Sequence[float]:
        values = point.returns[:, -1] if of == "return" else point.falls.astype(np.float64)
        return mean_interval(values) if np.isfinite(values).all() else (np.nan,) * 3

    value, low, high = zip(*map(measured, policy.points[axis.name]), strict=True)
    nominal = measured(policy.nominal)[0]
    return {"label": policy.name, "value": value, "low": low, "high": high, "nominal": nominal}


def _span(lines: Sequence[Content]) -> tuple[float, float]:
    """One range for all figures of a kind, so that what matters stands out."""
    ends = np.concatenate([[*line["low"], *line["high"]] for line in lines])
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def _numbers(record: GapRecord, axes: list[Axis]) -> str:
    heads = "".join(f"<th>{escape(policy.name)}<small>of nominal, falls</small></th>" for policy in record.policies)
    rows = f"<tr><td class=text>as it is</td>{''.join(_cell(one, one.nominal) for one in record.policies)}</tr>"
    for axis in axes:
        rows += f'</tbody><tbody><tr><th colspan="{len(record.policies) + 1}">{escape(axis.name)}</th></tr>'
        for place in range(len(axis.values)):
            cells = "".join(
                _cell(one, one.points[axis.name][place]) if axis.name in one.points else "<td>–</td>"
                for one in record.policies
            )
            known = " <small>in training</small>" if axis.in_training(place) else ""
            rows += f"<tr><td class=text>{escape(axis.label(place))}{known}</td>{cells}</tr>"
    return table(f'<th class="text">swept</th>{heads}', f"<tbody>{rows}</tbody>")


def _cell(policy: Swept, point: Point) -> str:
    if not np.isfinite(point.returns).all():
        return "<td>diverged</td>"
    share = f"{policy.share(point):.2f}, {point.falls.mean():.2f}"
    return f"<td>{number(point.last.value)}<small>{share}</small></td>"
