"""Modules of version 0.1 and where what was in them is now: an old import fails with the new name in its message."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

RENAMED = {
    "config": "core.config",
    "distributions": "core.distributions",
    "errors": "core.errors",
    "registry": "core.registry",
    "search": "core.parameters",
    "seeding": "core.seeding",
    "tasks": "core.tasks",
    "types": "core.types",
    "sim.cpu": "sim.mujoco.cpu",
    "sim.declared": "sim.declarations",
    "sim.episodes": "sim.env (Trials is now TrialEnv)",
    "sim.gym": "sim.adapters.gymnasium",
    "sim.mjcf": "sim.mujoco.mjcf",
    "sim.menagerie": "sim.mujoco.menagerie",
    "sim.physics": "sim.mujoco.physics",
    "sim.pool": "sim.external.pool",
    "sim.rendering": "sim.mujoco.rendering",
    "sim.sandbox": "sim.mujoco.mjcf",
    "sim.sb3": "sim.adapters.stable_baselines3",
    "sim.trials": "sim.mujoco.mujoco_env (TrialEnv is now MujocoEnv; metarl.make makes one)",
    "sim.visible": "sim.task_code",
    "sim.worker": "sim.external.worker",
    "sim.worlds": "sim.make (make_trials is now make_env)",
    "report": "reports (what was read there is metarl.run.run.Run and metarl.run.records.EvaluationRecord)",
    "video.file": "video.encoder",
    "video.record": "video.recorder",
    "video.text": "video.lettering",
    "verbs": "cli",
}
"""Old to new, both without the leading `metarl.`."""


NAMES = {
    "sim.family": {"TaskFamily": "metarl.sim.family.Family (and Family of MuJoCo robots is now MujocoFamily)"},
    "sim.env": {"Trials": "metarl.sim.env.TrialEnv"},
    "sim.external": {name: "metarl.sim.external.external_env" for name in ("ExternalFamily", "ExternalTrials")},
    "run.folder": {name: "metarl.run.run.Run" for name in ("RunFolder", "Trained", "restore", "family_of")},
    "run.evaluate": {"Evaluation": "metarl.run.records.EvaluationRecord"},
    "run.subject": {"untrained": "metarl.run.subject.subject_of"},
    "core.types": {"Rollout": "metarl.core.types.Segment"},
    "rl.learner": {"Signalling": "metarl.rl.policy.ReadOut"},
}
"""Names that modules had in version 0.1, and what took their place."""


def old_names(module: str) -> Callable[[str], Any]:
    """Make the `__getattr__` of a module: it answers for names of version 0.1 with the new ones."""

    def answer(name: str) -> Any:
        new = NAMES[module.removeprefix("metarl.")].get(name)
        if new is not None:
            raise ImportError(f"{module}.{name} is now {new}; CHANGELOG.md has all new names")
        raise AttributeError(f"module '{module}' has no attribute '{name}'")

    return answer


class _OldImports:
    """A finder that is asked last, for modules that nobody else has found."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raise for a module of version 0.1; leave every other one to fail as it would."""
        new = RENAMED.get(name.removeprefix("metarl."))
        if name.startswith("metarl.") and new is not None:
            raise ModuleNotFoundError(f"{name} is now metarl.{new}; CHANGELOG.md has all new names", name=name)
        return None


def explain_old_imports() -> None:
    """Answer imports of old modules from now on; once is enough."""
    if not any(isinstance(finder, _OldImports) for finder in sys.meta_path):
        sys.meta_path.append(_OldImports())
