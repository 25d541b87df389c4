"""Evaluations beside a training: of its policy as it then is, on tasks that no training draws.

Each runs in a process of its own, of the lowest priority, from a copy of the policy. The training neither waits for it
nor shares a random number with it, so that what is learned is the same, bit for bit, with and without.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from metarl.core import seeding
from metarl.core.config import TrainConfig, task_visible
from metarl.core.errors import UserError
from metarl.core.tasks import Tasks
from metarl.rl.learner import Learner
from metarl.rl.parallel import single_threaded_math
from metarl.rl.policy import Policy
from metarl.rl.state import policy_alone
from metarl.run import checkpoint
from metarl.run.collect import trial_steps
from metarl.run.evaluate import evaluate
from metarl.run.logs import Evaluated
from metarl.run.records import EvaluationRecord, Origin
from metarl.run.run import CONFIG, INFO, Run
from metarl.sim.family import Family
from metarl.sim.make import make_env

_FEW = 8
"""Tasks where a configuration names no number."""
_COLUMNS, _SIZE = 6, (256, 144)
"""Pictures of an episode, and of how many pixels each."""
_RETURNS, _PICTURE = "returns.json", "picture.png"


class Beside:
    """At most one evaluation at a time, begun whenever its time has come."""

    def __init__(self, run: Run, minutes: float) -> None:
        """Every so many `minutes`; never where 0."""
        self._run, self._every, self._begun = run, 60.0 * minutes, time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path()
        self._steps = 0

    def begin_if_due(self, learner: Learner, total_steps: int) -> None:
        """Begin an evaluation of a learner's policy, if it is time and none is under way."""
        if not self._every or self._process or time.monotonic() - self._begun < self._every:
            return
        self._begun, self._steps = time.monotonic(), total_steps
        self._folder = Path(tempfile.mkdtemp(prefix="metarl-"))
        copy = Run(self._folder)
        for name in (CONFIG, INFO):
            shutil.copy(self._run.path / name, copy.path / name)
        state = learner.state_dict()
        acting = policy_alone(state) if isinstance(learner.policy, nn.Module) else state  # as `Run.policy` loads it
        checkpoint.save(copy.checkpoints, acting, iteration=0, total_steps=total_steps, elapsed=0.0)
        gl = os.environ.get("METARL_GL", os.environ.get("MUJOCO_GL", ""))
        root = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        with (self._folder / "errors").open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(self._folder)],
                env=os.environ | {"PYTHONPATH": paths, "MUJOCO_GL": "disabled", "METARL_GL": gl},
                stdout=errors,
                stderr=errors,
                start_new_session=True,  # a Ctrl-C is for the training, which ends this
            )

    def found(self, wait: bool = False) -> Evaluated | None:
        """What the evaluation under way found, once it has; None before, and of one that failed."""
        if self._process is None or (self._process.poll() is None and not wait):
            return None
        code = self._process.wait()
        try:
            if code:
                lines = (self._folder / "errors").read_text(errors="replace").strip().splitlines()
                warnings.warn(f"an evaluation beside the training failed: {lines[-1:] or code}", stacklevel=2)
                return None
            picture, returns = self._folder / _PICTURE, json.loads((self._folder / _RETURNS).read_text())
            return Evaluated(self._steps, tuple(returns), picture.read_bytes() if picture.exists() else b"")
        finally:
            self.close()

    def close(self) -> None:
        """End what is under way."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            shutil.rmtree(self._folder, ignore_errors=True)


def validation_tasks(family: Family, config: TrainConfig[Any], number: int) -> Tasks:
    """Tasks drawn as in training, which no training draws: the same whenever and wherever a run is validated."""
    return family.space.sample("train", number, seeding.rng(config.seed, "validation"))


def validated(policy: Policy[Any], family: Family, config: TrainConfig[Any], tasks: Tasks) -> EvaluationRecord:
    """The policy's returns on `tasks` by mean actions, in as many episodes as it is trained in."""
    origin = Origin(episode_steps=config.episode_steps, task_visible=task_visible(config))
    options: dict[str, Any] = {"seed": config.seed, "threads": config.threads, "origin": origin}
    return evaluate(policy, family, tasks, config.episodes_per_trial, **options)


def filmstrip(
    policy: Policy[Any], family: Family, config: TrainConfig[Any], tasks: Tasks
) -> UInt8[np.ndarray, "H W 3"]:
    """A trial on the first of `tasks`: some pictures of its first episode, and of its last one below."""
    episodes = config.episodes_per_trial
    options: dict[str, Any] = {"episode_steps": config.episode_steps or None, "task_visible": task_visible(config)}
    with make_env(family, 1, episodes_per_trial=episodes, threads=1, pictures=True, **options) as env:
        length = env.episode_steps
        due = [e * length + (2 * i + 1) * length // (2 * _COLUMNS) for e in {0, episodes - 1} for i in range(_COLUMNS)]
        first, key = tasks.select(torch.tensor([0])), seeding.key(config.seed, "evaluate")
        cameras, drawn = None, []
        try:
            for t, _ in enumerate(trial_steps(env, policy, first, key, True)):
                if t in due:
                    cameras = cameras or env.cameras([0], _SIZE)
                    drawn.append(cameras.draw()[0].copy())
        finally:
            if cameras is not None:
                cameras.close()
    return np.vstack([np.hstack(drawn[first : first + _COLUMNS]) for first in range(0, len(drawn), _COLUMNS)])


def _evaluate(folder: Path) -> None:
    """Evaluate the policy in a folder as `begin_if_due` makes them, and leave there what was found."""
    os.nice(19)
    single_threaded_math()
    run = Run(folder, trust_code=True)
    config, policy, family = run.config(), run.policy(), run.family()
    tasks = validation_tasks(family, config, config.validation_tasks or _FEW)
    returns = validated(policy, family, config, tasks).returns.mean(axis=0).tolist()
    if not all(map(math.isfinite, returns)):
        sys.exit("the physics of every task diverged")
    with suppress(UserError):  # nothing here can draw
        import imageio.v3 as iio

        iio.imwrite(folder / _PICTURE, filmstrip(policy, family, config, tasks))
    (folder / _RETURNS).write_text(json.dumps(returns))


if __name__ == "__main__":
    _evaluate(Path(sys.argv[1]))
