"""Record finished runs under experiments/results/ and redraw the tables and the figures from all that is recorded.

    python experiments/record.py runs/dir-s1 runs/dir-s2
    python experiments/record.py            # only redraw

Each run leaves its configuration, provenance, evaluations, a thinned learning curve (at most 200 points) and where
the time went: enough to repeat it and to check every number of the table.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import figures
import summary

from metarl.report.recorded import POINTS, total_times
from metarl.run.logs import write_json

RESULTS = Path(__file__).parent / "results"
CURVE = ("iteration", "total_steps", "time/elapsed", "rollout/return_first", "rollout/return_last")


def record(run: Path, results: Path = RESULTS) -> None:
    """Copy what matters of a run folder."""
    target = results / run.name
    (target / "eval").mkdir(parents=True, exist_ok=True)
    for evaluation in (run / "eval").glob("*.json"):
        write_json(target / "eval" / evaluation.name, portable(json.loads(evaluation.read_text())))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    size = -(-len(lines) // POINTS)
    blocks = [lines[i : i + size] for i in range(0, len(lines), size)]
    rows = [{key: sum(line[key] for line in block) / len(block) for key in CURVE} for block in blocks]
    csv = [",".join(CURVE), *(",".join(f"{row[key]:.6g}" for key in CURVE) for row in rows)]
    (target / "learning_curve.csv").write_text("\n".join(csv) + "\n")
    (target / "time.json").write_text(json.dumps(total_times(lines), indent=1) + "\n")
    shutil.copy(run / "config.toml", target / "config.toml")
    write_json(target / "run.json", portable(json.loads((run / "run.json").read_text())))  # last: recorded whole


def portable(provenance: dict[str, Any]) -> dict[str, Any]:
    """Without the folders of the machine it was made on: `runs/NAME` stands for them."""
    words = shlex.split(provenance["command"])
    command = shlex.join(f"runs/{Path(word).name}" if word.startswith("/") else word for word in words)
    resumed = {"resumed": [portable(entry) for entry in provenance["resumed"]]} if "resumed" in provenance else {}
    return provenance | {"command": command} | resumed


def table() -> str:
    """Every recorded evaluation as a Markdown table."""
    lines = [
        "| run | split | episode returns (95 % interval) | last − first | training | command |",
        "|---|---|---|---|---|---|",
    ]
    for folder in sorted(path.parent for path in RESULTS.glob("*/run.json")):
        command = json.loads((folder / "run.json").read_text())["command"]
        results = [json.loads(path.read_text()) for path in sorted((folder / "eval").glob("*.json"))]
        lines += [_row(folder.name, result, command) for result in results]
    return "\n".join(lines)


def _row(name: str, result: dict[str, Any], command: str) -> str:
    points = [_interval(point, ".0f") for point in result["adaptation_curve"]]
    training = f"{result['train_steps'] / 1e6:.1f} M steps, {result['train_seconds'] / 60:.0f} min"
    delta = _interval(result["adaptation_delta"], "+.0f")
    actions = "" if result["deterministic"] else ", sampled actions"
    tasks = f"{result['split']}, {len(result['tasks'])} tasks{actions}"
    name = f"{name} ({result['agent']}, {result['family']})"
    cells = (name, tasks, " → ".join(points), delta, training, f"`{command}`")
    return "| " + " | ".join(cells) + " |"


def _interval(point: dict[str, float], form: str) -> str:
    return f"{point['mean']:{form}} [{point['low']:{form}}, {point['high']:{form}}]"


def machines() -> str:
    """The machines the recorded runs were made on."""
    found = {json.dumps(json.loads(path.read_text())["machine"]) for path in RESULTS.glob("*/run.json")}
    return "\n".join(f"- {machine}" for machine in sorted(found))


def redraw() -> None:
    """Write the tables and the figures from all that is recorded."""
    summary.update()
    figures.learning_curves(RESULTS, RESULTS / "learning_curves.png")
    figures.comparison(RESULTS, RESULTS / "comparison.png")
    intro = (RESULTS / "NOTES.md").read_text() if (RESULTS / "NOTES.md").exists() else ""
    text = f"# Results\n\nWritten by `python experiments/record.py` from the recorded files beside it.\n\n{table()}\n"
    text += f"\n![learning curves](learning_curves.png)\n\nMachines:\n{machines()}\n\n{intro}"
    (RESULTS / "README.md").write_text(text)


def main() -> None:
    """Record the runs named on the command line, then redraw."""
    for name in sys.argv[1:]:
        record(Path(name))
    redraw()


if __name__ == "__main__":
    main()
