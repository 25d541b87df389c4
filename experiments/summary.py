"""Tables of README.md, docs/families.md, results.md, tables.md and export.md, from what experiments/results holds.

    python experiments/record.py    # or `make results`: redraws everything, this too

Runs of the comparison stand together, a row per family and agent over its seeds; longer ones have rows of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import evidence
import exports
import result_tables
from comparison import Compared, by_steps, compared, kinds, places
from formatting import as_mean, as_percent, as_share

from metarl.core.files import write_atomic
from metarl.envs import FAMILIES
from metarl.run.headroom import still_rising
from metarl.run.yardsticks import RISE

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- written by `make results` -->", "<!-- end of what `make results` writes -->"


def overview(families: Mapping[str, Compared], on_gpu: Mapping[str, Compared]) -> str:
    """A row per family in which adapting pays, the largest headroom first, on a GPU by itself; then others' names."""
    rows, others = [], []
    for place, family in {**families, **by_steps(on_gpu)}.items():
        found = family.placing
        if found is None:
            continue
        room = found.headroom
        if not family.pays:
            share = as_percent(room.share.value) if room.measured and family.tells else "none"
            others.append((-room.share.value * family.tells, f"{place} ({share})"))
            continue
        ours = found.recovered.get(family.best or "")
        cells = (
            place,
            as_mean(room.memoryless),
            "" if ours is None else f"{as_mean(ours.ours)} ({family.best})",
            as_mean(room.oracle),
            as_share(room.share),
            as_share(ours.value) if ours is not None and ours.value else "",
            f"{family.steps_of(found.oracle) / 1e6:.2g} M",
            str(min(len(room.memoryless), len(room.oracle), *([] if ours is None else [len(ours.ours)]))),
        )
        rows.append((-room.share.value, "| " + " | ".join(cells) + " |"))
    heads = ("family", "memoryless", "best learner", "oracle", "headroom", "recovered", "steps", "seeds")
    table = ("| " + " | ".join(heads) + " |", "|---" * len(heads) + "|", *(row for _, row in sorted(rows)))
    names = ", ".join(name for _, name in sorted(others))
    return "\n".join((*table, *(("", f"A smaller share, or none, was measured on {names}.") if names else ())))


def worth_adapting(families: Mapping[str, Compared]) -> str:
    """A row per family of the suite: what knowing its task is worth, or that nobody has measured it."""
    rows = []
    for name in FAMILIES:
        found = families[name].placing if name in families else None
        if found is None:
            cells = ("not measured", "", "", "")
        else:
            room = found.headroom
            share = as_share(room.share) if room.measured and families[name].tells else "none measured"
            steps = {kinds(run)["test", True].train_steps for run in families[name].agents[found.oracle]}
            budget = f"{max(steps) / 1e6:.2g} M steps, {len(room.oracle)} seed{'s' * (len(room.oracle) > 1)}"
            runs = [run for agent in (found.memoryless, found.oracle) for run in families[name].agents[agent]]
            rising = (still_rising(run.curve["last"], abs(room.value.value)) for run in runs if run.metrics)
            budget += ", rising still" * any(share > RISE for share in rising)
            cells = (share, as_mean(room.memoryless), as_mean(room.oracle), budget)
        rows.append("| " + " | ".join((name, *cells)) + " |")
    return "\n".join(("| family | headroom | memoryless | oracle | each |", "|---" * 5 + "|", *rows))


def pages() -> dict[str, str]:
    """What belongs between the two marks of each page, by its path."""
    families, on_gpu = places(), places("gpu")
    options = {folder: compared(folder=folder) for folder in result_tables.OPTIONS}
    return {
        "README.md": overview(families, on_gpu),
        "docs/families.md": worth_adapting(on_gpu | families),
        "docs/results.md": evidence.table(families),
        "docs/tables.md": "\n\n".join(result_tables.tables(families, on_gpu, options)),
        "docs/export.md": exports.table(),
    }


def update(root: Path = ROOT) -> None:
    """Write the tables between the two marks of each page."""
    for name, content in pages().items():
        path = root / name
        before, rest = path.read_text().split(BEGIN)
        _, after = rest.split(END)
        write_atomic(path, before + BEGIN + "\n\n" + content + "\n\n" + END + after)
