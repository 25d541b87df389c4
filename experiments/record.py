"""Record finished runs under experiments/results/ and redraw the tables and the figures from all that is recorded.

    python experiments/record.py runs/dir-s1 runs/dir-s2
    python experiments/record.py            # only redraw

Each run leaves its configuration, provenance, evaluations, a thinned learning curve (at most 200 points) and where
the time went: enough to repeat it and to check every number of the table.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import comparison
import figures
import summary
from comparison import RESULTS

from metarl.core.files import read_json, write_atomic, write_json
from metarl.hub.package import portable
from metarl.reports.moments import BELIEFS
from metarl.run.logs import POINTS
from metarl.run.records import EvaluationRecord
from metarl.run.run import Run
from metarl.run.statistics import Interval

CURVE = ("iteration", "total_steps", "time/elapsed", "rollout/return_first", "rollout/return_last")


def record(run: Run, results: Path = RESULTS) -> None:
    """Copy what matters of a run folder."""
    target = results / run.name
    for evaluation in run.evaluations:
        moved = evaluation.having(provenance=portable(evaluation.provenance))
        write_json(target / "eval" / evaluation.file, moved.to_json())
    size = -(-len(run.metrics) // POINTS)
    blocks = [run.metrics[i : i + size] for i in range(0, len(run.metrics), size)]
    rows = [{key: sum(line[key] for line in block) / len(block) for key in CURVE} for block in blocks]
    csv = [",".join(CURVE), *(",".join(f"{row[key]:.6g}" for key in CURVE) for row in rows)]
    write_atomic(target / "learning_curve.csv", "\n".join(csv) + "\n")
    write_json(target / "time.json", run.times())
    if (run.path / BELIEFS).is_file():
        write_json(target / BELIEFS, read_json(run.path / BELIEFS))
    write_atomic(target / "config.toml", run.toml())
    write_json(target / "run.json", portable(run.provenance()))  # last: recorded whole


def table() -> str:
    """Every recorded evaluation as a Markdown table."""
    lines = [
        "| run | split | episode returns (95 % interval) | last − first | training | command |",
        "|---|---|---|---|---|---|",
    ]
    for run in comparison.recorded(RESULTS):
        command = run.provenance()["command"]
        lines += [_row(run.name, evaluation, command) for evaluation in run.evaluations]
    return "\n".join(lines)


def _row(name: str, evaluation: EvaluationRecord, command: str) -> str:
    points = [_interval(point, ".0f") for point in evaluation.summary.adaptation_curve]
    training = f"{evaluation.train_steps / 1e6:.1f} M steps, {evaluation.train_seconds / 60:.0f} min"
    gain = evaluation.summary.adaptation_delta
    delta = "" if gain is None else _interval(gain, "+.0f")
    actions = "" if evaluation.deterministic else ", sampled actions"
    tasks = f"{evaluation.split}, {len(evaluation.tasks)} tasks{actions}"
    name = f"{name} ({evaluation.agent}, {evaluation.family})"
    cells = (name, tasks, " → ".join(points), delta, training, f"`{command}`")
    return "| " + " | ".join(cells) + " |"


def _interval(point: Interval, form: str) -> str:
    return f"{point.value:{form}} [{point.low:{form}}, {point.high:{form}}]"


def machines() -> str:
    """The machines the recorded runs were made on."""
    found = {json.dumps(run.provenance()["machine"]) for run in comparison.recorded(RESULTS)}
    return "\n".join(f"- {machine}" for machine in sorted(found))


def redraw() -> None:
    """Write the tables and the figures from all that is recorded."""
    summary.update()
    figures.learning_curves(RESULTS, RESULTS / "learning_curves.png")
    figures.comparison(comparison.places(), RESULTS / "comparison.png")
    intro = (RESULTS / "NOTES.md").read_text() if (RESULTS / "NOTES.md").exists() else ""
    text = f"# Results\n\nWritten by `python experiments/record.py` from the recorded files beside it.\n\n{table()}\n"
    text += f"\n![learning curves](learning_curves.png)\n\nMachines:\n{machines()}\n\n{intro}"
    write_atomic(RESULTS / "README.md", text)


def main() -> None:
    """Record the runs named on the command line, then redraw."""
    for name in sys.argv[1:]:
        record(Run.open(name))
    redraw()


if __name__ == "__main__":
    main()
