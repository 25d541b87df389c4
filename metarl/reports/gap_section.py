"""The section of a report on what its runs lose in other physics, where `metarl gap RUN` was there before."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from metarl.core.errors import UserError
from metarl.core.files import read_json
from metarl.reports.captions import Content, number
from metarl.reports.page import table
from metarl.run.run import Run

_LARGEST = 2**24  # [bytes]
_WORDS = (
    "What metarl gap found: of each quantity the value that costs most of the return, which is relative to that of the "
    "robot as it is, and the falls of a task's trial there."
)


def gaps_of(runs: Sequence[Run], output: Path) -> list[dict[str, Any]]:
    """Of each run that has a `gap.json` its worst value along each axis, the worst axis first, and a link to its page.

    A file that is no sweep is left out: a run's folder may be a stranger's.
    """
    found = []
    for run in runs:
        path = run.path / "gap.json"
        if not path.is_file():
            continue
        try:
            content = read_json(path, _LARGEST)
            rows = [_worst(axis, policy) for policy in content["policies"][:1] for axis in content["axes"]]
            facts = f"{int(content['num_tasks'])} {content['split']} tasks"
        except (UserError, KeyError, TypeError, ValueError, IndexError):
            continue
        page = path.with_suffix(".html")
        link = page.name if output.parent.resolve() == run.path.resolve() else page.resolve().as_uri()
        rows.sort(key=lambda row: -np.inf if row["of_nominal"] is None else row["of_nominal"])
        found.append({"run": run.name, "facts": facts, "page": link if page.is_file() else "", "axes": rows})
    return found


def _worst(axis: Content, policy: Content) -> dict[str, Any]:
    points = policy["points"][axis["name"]]
    shares = [point["of_nominal"] for point in points]
    at = int(np.argmin([-np.inf if share is None else share for share in shares]))
    names = {name: str(axis[name]) for name in ("name", "unit")}
    row = {"value": str(axis["labels"][at]), "in_training": bool(axis["in_training"][at]), "of_nominal": shares[at]}
    return {**names, **row, "falls": float(points[at]["falls"])}


def gap_section(gaps: Sequence[Content]) -> str:
    """What `gaps_of` found, as HTML; nothing where there is none."""
    return "".join(map(_of_run, gaps)) and f"<p>{_WORDS}</p>{''.join(map(_of_run, gaps))}"


def _of_run(gap: Content) -> str:
    rows = ""
    for axis in gap["axes"]:
        unit = "" if axis["unit"] in ("", "1", "index") else f" {axis['unit']}"
        known = " <small>in training</small>" if axis["in_training"] else ""
        share = "diverged" if axis["of_nominal"] is None else number(axis["of_nominal"], digits=2)
        name, value = escape(axis["name"].replace("_", " ")), escape(axis["value"] + unit)
        rows += (
            f"<tr><td class=text>{name}</td><td>{value}{known}</td><td>{share}</td><td>{axis['falls']:.2f}</td></tr>"
        )
    link = f'. <a href="{escape(gap["page"])}">All values</a>' if gap["page"] else ""
    head = '<th class="text">swept</th><th>worst at</th><th>of nominal</th><th>falls</th>'
    return f"<h3>{escape(gap['run'])}</h3><p>{escape(gap['facts'])}{link}</p>{table(head, f'<tbody>{rows}</tbody>')}"
