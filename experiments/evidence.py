"""The table of docs/results.md: whether the best learner of each family adapts, by every measure that there is."""

from __future__ import annotations

from collections.abc import Mapping

import interference
from believing import believed
from comparison import Compared, by_headroom, kinds
from formatting import as_number, as_percent

from metarl.run.recovery import pooled

_HEADS = ("family", "policy", "recovered", "wiped", "swapped", "lead", "nominal", "to recover", "belief", "seeds")
"""Narrow ones, without intervals, so that all of them are on a page."""


def table(families: Mapping[str, Compared]) -> str:
    """A row per family in which adapting pays, the largest headroom first."""
    rows = []
    for place, family in by_headroom(families).items():
        best = family.best
        if not family.pays or best is None or family.placing is None:
            continue
        runs = family.agents[best]
        share = family.placing.recovered[best].value
        costs = interference.costs(family, best)
        values = costs.values if costs else [None] * len(interference.HEADS)
        belief = believed(runs, 1.0)
        cells = (
            place,
            best,
            as_percent(share.value) if share else "",
            *("" if value is None else as_number(value.value, abs(value.value), "+") for value in values),
            _seconds(family, best),
            f"{belief[1]}, {belief[2]}" if belief else "",
            str(len(runs)),
        )
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(("| " + " | ".join(_HEADS) + " |", "|---" * len(_HEADS) + "|", *rows))


def _seconds(family: Compared, agent: str) -> str:
    """Each seed's time from a fault in mid-episode until 90 % of what the oracle reaches after it, once if alike."""
    if family.placing is None:
        return ""
    tests = {name: [kinds(run)["test", True] for run in family.agents[name]] for name in (agent, family.placing.oracle)}
    ours, theirs = ([test.recovery for test in each if test.recovery is not None] for each in tests.values())
    oracle = pooled(theirs)
    if oracle is None:
        return ""
    times = [one.seconds(oracle) for one in ours]
    words = ["not reached" if time is None else f"{time:.2f} s" if time else "never below" for time in times]
    return ", ".join(words if len(set(words)) > 1 else words[:1])
