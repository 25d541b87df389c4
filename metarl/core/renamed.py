"""Modules of version 0.1 and where what was in them is now: an old import fails with the new name in its message."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

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
