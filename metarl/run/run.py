"""A run's folder on disk: what is in it, and how to rebuild the learner from it."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from metarl.core import seeding
from metarl.core.config import TrainConfig, load_config, task_visible, to_toml
from metarl.core.errors import UserError
from metarl.core.info import PolicyInfo
from metarl.core.registry import learner_class, make_family
from metarl.rl.learner import Learner
from metarl.rl.state import load_policy, policy_alone
from metarl.run import checkpoint
from metarl.run.logs import provenance, write_json
from metarl.sim.family import Family
from metarl.sim.make import make_env


@dataclass(frozen=True)
class RunFolder:
    """`config.toml`, `run.json`, `metrics.jsonl`, `checkpoints/`, `eval/`, `tensorboard/`."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def evaluations(self) -> Path:
        """Folder of the evaluations."""
        return self.path / "eval"

    def read_config(self) -> TrainConfig:
        """The run's resolved configuration; `UserError` where this is no run folder."""
        if not (self.path / "config.toml").is_file():
            raise UserError(f"{self.path} is not a run folder: it has no config.toml")
        return load_config(self.path / "config.toml")


def default_path(config: TrainConfig) -> Path:
    """`runs/<family>-<agent>-s<seed>-<time>`."""
    family, agent = (name.rsplit(":", 1)[-1] for name in (config.family, config.agent))
    return Path("runs") / f"{family}-{agent}-s{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"


def create(path: Path, config: TrainConfig, argv: list[str]) -> RunFolder:
    """Make a new run folder; `UserError` rather than touch one that is in use."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists and is not empty: choose another --output, or `metarl resume {path}`")
    text = to_toml(config)
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.toml").write_text(text, encoding="utf-8")
        write_json(path / "run.json", provenance(argv))
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}") from None
    return RunFolder(path)


@contextmanager
def locked(run: RunFolder) -> Iterator[None]:
    """Hold the run for this process: two trainings in one folder would destroy each other's files."""
    with (run.path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{run.path} is in use: another process trains in it") from None
        yield


def note_resumption(run: RunFolder, argv: list[str], iteration: int) -> None:
    """Append to `run.json` with what, where and from which iteration the run goes on."""
    path = run.path / "run.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        resumed = [*content.get("resumed", []), provenance(argv) | {"after_iteration": iteration}]
    except (OSError, ValueError, AttributeError):
        raise UserError(f"{path} is missing or damaged: it must be a JSON object") from None
    write_json(path, content | {"resumed": resumed})


def family_of(config: TrainConfig) -> Family:
    """The family a run trains on: with the run's own time limit where it has one, its task shown to an oracle."""
    family = make_family(config.family)
    if task_visible(type(config.learner)):
        object.__setattr__(family, "task_visible", True)  # until callers hand it to make_env
    if config.episode_steps:
        object.__setattr__(family, "episode_steps", config.episode_steps)
    return family


def make_learner(config: TrainConfig, info: PolicyInfo, device: torch.device | str = "cpu") -> Learner:
    """A fresh learner for the robot."""
    generator = seeding.generator(config.seed, "init")
    return learner_class(config.agent)(config.learner, info, generator, device)


@dataclass(frozen=True)
class Trained:
    """A learner restored from a run, with what it was trained on."""

    config: TrainConfig
    family: Family
    learner: Learner
    manifest: checkpoint.Manifest

    def summary(self) -> dict[str, object]:
        """What was trained, on what, for how long, as plain data."""
        return {
            "agent": self.config.agent,
            "family": self.config.family,
            "train_seed": self.config.seed,
            "train_steps": self.manifest.total_steps,
            "train_seconds": self.manifest.elapsed,
        }


def load_learner(run: RunFolder, learner: Learner, which: str | None = None) -> checkpoint.Manifest:
    """Bring a learner to the run's newest checkpoint, or to the one named `which`, to train on from there."""
    return _load(run, learner.load_state_dict, which)


def restore(run: RunFolder, which: str | None = None) -> Trained:
    """The run's learner at its newest checkpoint, or at the one named `which`.

    Of a checkpoint that holds a policy alone, the learner's policy: enough to act, not to train on.
    """
    config = run.read_config()
    family = family_of(config)
    with make_env(family, 1, threads=1) as env:
        learner = make_learner(config, env.info)

    def load(state: Mapping[str, Tensor]) -> None:
        if len(policy_alone(state)) == len(state):
            load_policy(learner.policy, state)
        else:
            learner.load_state_dict(state)

    return Trained(config, family, learner, _load(run, load, which))


def _load(run: RunFolder, load: Callable[[dict[str, Tensor]], None], which: str | None) -> checkpoint.Manifest:
    """Hand a checkpoint's state to `load`; `CheckpointError` where it does not fit."""
    path = checkpoint.find(run.checkpoints, which)
    state, manifest = checkpoint.load(path)
    try:
        load(state)
    except ValueError as error:
        raise checkpoint.CheckpointError(f"{path} does not fit this run's configuration: {error}") from None
    return manifest
