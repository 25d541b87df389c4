"""Make a pretrained policy of a finished run: `metarl video pretrained:NAME` then films it, on any machine.

    python experiments/pretrain.py runs/dir-s2 half-cheetah-dir-maml
    python experiments/pretrain.py            # only rewrite the list

Copies configuration and provenance, writes the policy alone as a checkpoint, evaluates it anew on the fixed test tasks
(what the tests reproduce) and lists all of them in experiments/pretrained/README.md.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from record import portable

from metarl.cli.main import main as metarl
from metarl.core.errors import UserError
from metarl.rl.state import policy_alone
from metarl.run import checkpoint
from metarl.run.logs import write_json
from metarl.run.pretrained import MAX_BYTES, describe_pretrained, pretrained, recorded_evaluation
from metarl.run.run import RunFolder

ROOT = Path(__file__).parent / "pretrained"
RECORDED = {"test.json": 100, "repeat.json": 16}
"""Evaluations and their tasks."""


def pretrain(run: RunFolder, name: str) -> None:
    """Write `pretrained/NAME`; one that is there already is replaced."""
    state, manifest = checkpoint.load(checkpoint.find(run.checkpoints))
    target = RunFolder(ROOT / name)
    shutil.rmtree(target.path, ignore_errors=True)
    target.checkpoints.mkdir(parents=True)
    shutil.copy(run.path / "config.toml", target.path / "config.toml")
    write_json(target.path / "run.json", portable(json.loads((run.path / "run.json").read_text())))
    path = checkpoint.save(
        target.checkpoints, policy_alone(state), manifest.iteration, manifest.total_steps, manifest.elapsed
    )
    size = sum(file.stat().st_size for file in path.iterdir())
    if size > MAX_BYTES:
        shutil.rmtree(target.path)
        raise UserError(f"the policy takes {size:,} bytes: those that come with metarl may take {MAX_BYTES:,}")
    target.evaluations.mkdir()
    for file, num_tasks in RECORDED.items():
        output = os.path.relpath(target.evaluations / file)
        if metarl(["eval", f"pretrained:{name}", "--split", "test", "--num-tasks", str(num_tasks), "--json", output]):
            raise SystemExit(2)


def listing() -> str:
    """All of them as a Markdown table."""
    lines = ["| name | agent, family | episode returns on 100 test tasks (95 % interval) | training | size | from |"]
    lines += ["|---|---|---|---|---|---|", *map(_row, describe_pretrained())]
    return "\n".join(lines)


def _row(entry: dict[str, Any]) -> str:
    run = pretrained(entry["name"])
    recorded = recorded_evaluation(run)
    curve = entry["adaptation_curve"]
    shown = {1: curve[0], len(curve): curve[-1]}
    points = [f"{k}: {p['mean']:.0f} [{p['low']:.0f}, {p['high']:.0f}]" for k, p in shown.items()]
    training = f"{entry['train_steps'] / 1e6:.1f} M steps, {recorded['train_seconds'] / 60:.0f} min"
    size = sum(file.stat().st_size for file in run.path.rglob("*.safetensors"))
    config = run.read_config()
    horizon = f", {config.episode_steps} steps" if config.episode_steps else ""
    cells = (
        f"`{entry['name']}`",
        f"{entry['agent']}, {entry['family']}{horizon}",
        " → ".join(points),
        training,
        f"{size / 1024:.0f} KiB",
        f"seed {config.seed}",
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Record the run named on the command line, if any, then rewrite the list."""
    if len(sys.argv) not in (1, 3):
        raise SystemExit(__doc__)
    if len(sys.argv) == 3:
        try:
            pretrain(RunFolder(Path(sys.argv[1])), sys.argv[2])
        except UserError as error:
            raise SystemExit(f"pretrain: {error}") from None
    text = (
        "# Pretrained policies\n\nWritten by `python experiments/pretrain.py`; `metarl video pretrained:NAME` films "
        "one, `metarl eval pretrained:NAME` measures it. `run.json` beside each has the command, versions and machine "
        f"of its training.\n\n{listing()}\n"
    )
    (ROOT / "README.md").write_text(text)


if __name__ == "__main__":
    main()
