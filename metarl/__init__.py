"""metarl: meta-reinforcement learning for robots that adapt within a second or a few episodes.

    run = metarl.train("rl2", "half-cheetah-dir", seed=1, total_steps=3_000_000, output="runs/dir")
    record = metarl.evaluate(run, split="test")
    policy = metarl.load("runs/dir")

Every name is imported when it is first used, so that `import metarl` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from metarl.core import renamed as _renamed

if TYPE_CHECKING:
    from metarl.api import (
        evaluate as evaluate,
        families as families,
        learners as learners,
        load as load,
        make as make,
        report as report,
        resume as resume,
        train as train,
    )
    from metarl.core.config import TrainConfig as TrainConfig
    from metarl.core.errors import UserError as UserError
    from metarl.core.info import Part as Part, PolicyInfo as PolicyInfo
    from metarl.core.tasks import Parameter as Parameter, Tasks as Tasks, TaskSpace as TaskSpace
    from metarl.export.bundle import export as export
    from metarl.export.deploy import deploy as deploy
    from metarl.hub.share import pull as pull, push as push
    from metarl.reports.gap import gap as gap
    from metarl.rl.learner import Learner as Learner
    from metarl.rl.policy import Policy as Policy
    from metarl.rl.session import Session as Session
    from metarl.run.records import EvaluationRecord as EvaluationRecord
    from metarl.run.run import Run as Run
    from metarl.run.yardsticks import headroom as headroom
    from metarl.sim.env import TrialEnv as TrialEnv
    from metarl.sim.external.external_env import ExternalFamily as ExternalFamily
    from metarl.sim.family import Family as Family, MujocoFamily as MujocoFamily
    from metarl.sketch.sketch import new as new
    from metarl.sweeps.record import GapRecord as GapRecord
    from metarl.sysid.api import identify as identify
    from metarl.video.film import record as record
    from metarl.viewer import view as view

__version__ = "0.2.0.dev0"

_HOME = {
    "metarl.api": "train resume evaluate load make report families learners",
    "metarl.core.config": "TrainConfig",
    "metarl.core.errors": "UserError",
    "metarl.core.info": "Part PolicyInfo",
    "metarl.core.tasks": "Parameter Tasks TaskSpace",
    "metarl.export.bundle": "export",
    "metarl.export.deploy": "deploy",
    "metarl.hub.share": "pull push",
    "metarl.reports.gap": "gap",
    "metarl.rl.learner": "Learner",
    "metarl.rl.policy": "Policy",
    "metarl.rl.session": "Session",
    "metarl.run.records": "EvaluationRecord",
    "metarl.run.run": "Run",
    "metarl.run.yardsticks": "headroom",
    "metarl.sim.env": "TrialEnv",
    "metarl.sim.external.external_env": "ExternalFamily",
    "metarl.sim.family": "Family MujocoFamily",
    "metarl.sysid.api": "identify",
    "metarl.sketch.sketch": "new",
    "metarl.sweeps.record": "GapRecord",
    "metarl.video.film": "record",
    "metarl.viewer": "view",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = sorted(_MODULE_OF)

_renamed.explain_old_imports()


def __getattr__(name: str) -> Any:
    """Import a public name from the module it lives in."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'metarl' has no attribute '{name}'; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
