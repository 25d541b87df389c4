"""How right policies are about their tasks, and about how sure they may be: a table of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from formatting import as_percent

from metarl.reports.moments import beliefs_of
from metarl.run.calibration import Calibration
from metarl.run.run import Run


def table(families: Mapping[str, Mapping[str, Sequence[Run]]]) -> str:
    """A row per policy that adapts and has beliefs, their errors and coverage after a second and at the last time."""
    rows = []
    for place, agents in families.items():
        for agent, runs in agents.items():
            soon, late = believed(runs, 1.0), believed(runs, np.inf)
            if soon and late and not runs[0].config_values.get("task_visible"):
                seeds = str(len(_measured(runs)))
                rows.append("| " + " | ".join((place, agent, *soon[1:], *late, seeds)) + " |")
    head = "| family | policy | error after 1 s | held | last time | error | held | seeds |"
    return "\n".join((head, "|---" * 8 + "|", *rows))


def believed(runs: Sequence[Run], moment: float) -> tuple[str, str, str] | None:
    """The last time not after `moment` [s], the error then, 1 for knowing nothing, and the share of truths held.

    None where nobody has measured what a policy believes, or it believes nothing.
    """
    found = _measured(runs)
    if not found:
        return None
    places = [int(np.flatnonzero(np.array(each.seconds) <= moment)[-1]) for each in found]
    error = np.mean([each.overall[i] for each, i in zip(found, places, strict=True)])
    held = np.mean([np.nanmean(each.coverage[i]) for each, i in zip(found, places, strict=True)])
    times = sorted({round(each.seconds[i], 1) for each, i in zip(found, places, strict=True)})
    return " to ".join(f"{time:g} s" for time in (times[0], *times[1:][-1:])), f"{error:.2f}", as_percent(float(held))


def _measured(runs: Sequence[Run]) -> list[Calibration]:
    """Of the runs whose beliefs were measured: of those with an estimator, if there are any."""
    found = [(_estimator(run), each) for run in runs if (each := beliefs_of(run)) is not None]
    most = max((size for size, _ in found), default=0)
    return [each for size, each in found if size == most]


def _estimator(run: Run) -> int:
    return int(run.config_values["learner"].get("estimator_size", 0))
