"""Policies that come with metarl, by name: `pretrained:NAME` stands where a run's folder may.

Each is a folder in `metarl.pretrained`: configuration, provenance, a checkpoint of the policy alone and the evaluations
it was recorded with. Nothing is ever written there. `experiments/pretrain.py` makes them.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from metarl.run.records import EvaluationRecord

PREFIX = "pretrained:"
MAX_BYTES = 2**20
"""No checkpoint is larger: they travel in the wheel."""


def pretrained_root() -> Path:
    """The folder that they lie in."""
    return Path(str(files("metarl.pretrained")))


def pretrained_names() -> list[str]:
    """What there is."""
    return sorted(path.parent.name for path in pretrained_root().glob("*/config.toml"))


def recorded_evaluation(name: str, evaluation: str = "test") -> EvaluationRecord:
    """What the policy was measured to do.

    `test` is on 100 tasks; `repeat` on a few, a measurement of its own that the tests repeat: what a policy draws may
    depend on how many tasks there are.
    """
    return EvaluationRecord.read(pretrained_root() / name / "eval" / f"{evaluation}.json")


def describe_pretrained() -> list[dict[str, Any]]:
    """Name, agent, family, training and adaptation of each, as plain data."""
    recorded = {name: recorded_evaluation(name) for name in pretrained_names()}
    return [
        {
            "name": name,
            "agent": record.agent,
            "family": record.family,
            "train_steps": record.train_steps,
            "adaptation_curve": [point.to_json("mean") for point in record.summary.adaptation_curve],
        }
        for name, record in recorded.items()
    ]
