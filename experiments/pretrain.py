"""Make a pretrained policy of a finished run: `metarl video pretrained:NAME` then films it, on any machine.

    python experiments/pretrain.py runs/dir-s2 half-cheetah-dir-maml
    python experiments/pretrain.py            # only rewrite the list, and policy.json of each

Copies configuration, provenance and what the policy observes, writes the policy alone as a checkpoint, evaluates it
anew on the fixed test tasks (what the tests reproduce) and lists all of them in experiments/pretrained/README.md.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from metarl.api import evaluate
from metarl.core.errors import UserError
from metarl.core.files import write_atomic, write_json
from metarl.hub.package import write_policy
from metarl.run import checkpoint
from metarl.run.pretrained import MAX_BYTES, PREFIX, describe_pretrained, recorded_evaluation
from metarl.run.run import INFO, Run

ROOT = Path(__file__).parent / "pretrained"
RECORDED = {"test.json": 100, "repeat.json": 16}
"""Evaluations and their tasks."""


def pretrain(run: Run, name: str) -> None:
    """Write `pretrained/NAME`; one that is there already is replaced."""
    target = Run(ROOT / name)
    shutil.rmtree(target.path, ignore_errors=True)
    write_policy(run, target.path)
    path = checkpoint.find(target.checkpoints)
    size = sum(file.stat().st_size for file in path.iterdir())
    if size > MAX_BYTES:
        shutil.rmtree(target.path)
        raise UserError(f"the policy takes {size:,} bytes: those that come with metarl may take {MAX_BYTES:,}")
    for file, num_tasks in RECORDED.items():
        write_json(target.path / "eval" / file, evaluate(PREFIX + name, num_tasks=num_tasks).to_json())


def describe_robots() -> None:
    """Write what each policy observes and commands anew, from its family as it is now, and whether it adapts."""
    for path in sorted(ROOT.glob("*/config.toml")):
        (path.parent / INFO).unlink(missing_ok=True)
        write_json(path.parent / INFO, Run(path.parent).policy().info.to_json())


def listing() -> str:
    """All of them as a Markdown table."""
    lines = ["| name | agent, family | episode returns on 100 test tasks (95 % interval) | training | size | from |"]
    lines += ["|---|---|---|---|---|---|", *map(_row, describe_pretrained())]
    return "\n".join(lines)


def _row(entry: dict[str, Any]) -> str:
    run, recorded = Run.open(PREFIX + entry["name"]), recorded_evaluation(entry["name"])
    curve = entry["adaptation_curve"]
    shown = {1: curve[0], len(curve): curve[-1]}
    points = [f"{k}: {p['mean']:.0f} [{p['low']:.0f}, {p['high']:.0f}]" for k, p in shown.items()]
    training = f"{entry['train_steps'] / 1e6:.1f} M steps, {recorded.train_seconds / 60:.0f} min"
    size = sum(file.stat().st_size for file in run.path.rglob("*.safetensors"))
    config = run.config()
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
    """Record the run named on the command line, if any, then rewrite the list and what is known of the robots."""
    if len(sys.argv) not in (1, 3):
        raise SystemExit(__doc__)
    if len(sys.argv) == 3:
        try:
            pretrain(Run.open(sys.argv[1]), sys.argv[2])
        except UserError as error:
            raise SystemExit(f"pretrain: {error}") from None
    describe_robots()
    text = (
        "# Pretrained policies\n\nWritten by `python experiments/pretrain.py`; `metarl video pretrained:NAME` films "
        "one, `metarl eval pretrained:NAME` measures it. `run.json` beside each has the command, versions and machine "
        f"of its training.\n\n{listing()}\n"
    )
    write_atomic(ROOT / "README.md", text)


if __name__ == "__main__":
    main()
