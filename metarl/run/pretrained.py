"""Policies that come with metarl, by name: `pretrained:NAME` stands where a run's folder may.

Each is a folder in `metarl.pretrained`: configuration, provenance, a checkpoint of the policy alone and the evaluation
it was recorded with. Nothing is ever written there. `experiments/pretrain.py` makes them.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from metarl.core.errors import UserError, unknown_name
from metarl.run.run import RunFolder

PREFIX = "pretrained:"
MAX_BYTES = 2**20
"""No checkpoint is larger: they travel in the wheel."""


def pretrained_names() -> list[str]:
    """What there is."""
    return sorted(path.parent.name for path in _root().glob("*/config.toml"))


def is_pretrained(subject: Path) -> bool:
    """Whether a command line's words name a policy that comes with metarl."""
    return str(subject).startswith(PREFIX)


def pretrained(name: str) -> RunFolder:
    """The folder of the policy called `name`, with or without the prefix; `UserError` names the nearest known one."""
    name = name.removeprefix(PREFIX)
    names = pretrained_names()
    if name not in names:
        raise unknown_name("pretrained policy", name, names)
    return RunFolder(_root() / name)


def require_run(subject: Path, verb: str) -> None:
    """`UserError` where a verb that needs a training's own folder is given a policy that comes with metarl."""
    if is_pretrained(subject):
        raise UserError(
            f"{subject} is a policy alone, without the log of its training or what one goes on from: `metarl {verb}` "
            "needs a run folder of your own; `metarl eval` and `metarl video` take it"
        )


def recorded_evaluation(run: RunFolder, name: str = "test") -> dict[str, Any]:
    """What the policy was measured to do, as `metarl eval --json` writes it.

    `test` is on 100 tasks; `repeat` on a few, a measurement of its own that the tests repeat: what a policy draws may
    depend on how many tasks there are.
    """
    content: dict[str, Any] = json.loads((run.evaluations / f"{name}.json").read_text(encoding="utf-8"))
    return content


def describe_pretrained() -> list[dict[str, Any]]:
    """Name, agent, family, training and adaptation of each, as plain data."""
    keys = ("agent", "family", "train_steps", "adaptation_curve")
    recorded = {name: recorded_evaluation(pretrained(name)) for name in pretrained_names()}
    return [{"name": name} | {key: content[key] for key in keys} for name, content in recorded.items()]


def _root() -> Path:
    return Path(str(files("metarl.pretrained")))
