"""Export the policies that come with metarl, and record how far each runtime strays from torch.

    python experiments/exports.py                       # all of them
    python experiments/exports.py quadruped-signs-rl2   # those that were packaged anew
    python experiments/record.py                        # redraws the table of docs/export.md

C and onnxruntime are compared where this machine has them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from comparison import RESULTS

import metarl
from metarl.core.files import read_json, write_json
from metarl.export.parity import AS_TRAINED
from metarl.run.logs import provenance
from metarl.run.pretrained import pretrained_names

EXPORTS = RESULTS / "exports"
_RUNTIMES = {"numpy": "NumPy", "c": "C", "onnxruntime": "onnxruntime", AS_TRAINED: "as trained, in float32"}
_PLAYED = ("steps", "tasks", "episodes", "falls")


def record(name: str) -> None:
    """Export a packaged policy, and write down what its contract says of parity."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = metarl.export(f"pretrained:{name}", Path(folder) / "bundle").path
        parity = json.loads((bundle / "contract.json").read_text())["parity"]
    made = {"command": f"python experiments/exports.py {name}", "parity": parity}
    write_json(EXPORTS / f"{name}.json", provenance([]) | made)


def table(folder: Path = EXPORTS) -> str:
    """A row per recorded export: what was played, and the largest differences of each runtime."""
    heads = ("policy", ", ".join(_PLAYED), *_RUNTIMES.values())
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for path in sorted(folder.glob("*.json")):
        parity = read_json(path)["parity"]
        played = ", ".join(str(parity[name]) for name in _PLAYED)
        rows.append(f"| {path.stem} | {played} | {' | '.join(_strayed(parity, name) for name in _RUNTIMES)} |")
    return "\n".join(rows)


def _strayed(parity: dict[str, Any], runtime: str) -> str:
    if runtime not in parity:
        return "the same" if runtime == AS_TRAINED else "not compared"
    both = (parity[runtime][what] for what in ("action", "state"))
    return " / ".join(f"{strayed:.0e}".replace("e-0", "e-").replace("0e+00", "0") for strayed in both)


if __name__ == "__main__":
    for policy in sys.argv[1:] or pretrained_names():
        record(policy)
        print(policy)
