"""A training on disk: what its folder holds, and how to rebuild policy and learner from it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from metarl.core import seeding, trust
from metarl.core.config import TrainConfig, load_config, read_toml, task_visible
from metarl.core.errors import UserError, unknown_name
from metarl.core.files import SEAL, read_json, read_text, write_json
from metarl.core.info import PolicyInfo
from metarl.core.registry import known_adapting, learner_class, learner_names, make_family, samples_first
from metarl.rl.learner import Learner, require_device
from metarl.rl.policy import Policy
from metarl.rl.state import load_policy, policy_alone, require_like
from metarl.run import checkpoint
from metarl.run.checkpoint import CheckpointError, Manifest
from metarl.run.described import Described
from metarl.run.logs import Row, learning_curve, read_metrics, total_times
from metarl.run.pretrained import PREFIX, pretrained_names, pretrained_root
from metarl.run.records import EvaluationRecord, Origin

if TYPE_CHECKING:  # a policy is loaded without a simulator
    from metarl.sim.family import Family

CONFIG, PROVENANCE, INFO, FAMILY = "config.toml", "run.json", "policy.json", "family.json"
_LARGEST_SIZE = 10**6
"""No observation or action is longer."""


class Run:
    """A run's folder: `config.toml`, `run.json`, `policy.json`, `family.json`, `metrics.jsonl`, `checkpoints/`, ...

    Recorded results have no checkpoints, and a thinned `learning_curve.csv` in place of `metrics.jsonl`. Reading is
    reading data: of the code that a configuration names, only `config`, `family`, `policy` and `load_learner` run any,
    and that only if it may: see `core.trust`.
    """

    def __init__(self, path: Path, pretrained: str = "", trust_code: bool = False) -> None:
        """`pretrained`: name of the policy if it is one that comes with metarl, in whose folder nothing is written."""
        self.path, self.pretrained, self.trust_code = path, pretrained, trust_code

    def __str__(self) -> str:
        return PREFIX + self.pretrained if self.pretrained else str(self.path)

    def __repr__(self) -> str:
        return f"Run('{self}')"

    @staticmethod
    def open(source: str | Path | Run, trust_code: bool = False) -> Run:
        """The run in a folder, or the policy `pretrained:NAME` that comes with metarl; `UserError` where it is none.

        With `trust_code` the files of code that it names are run, also where this user never trained with them.
        """
        if isinstance(source, Run):
            return Run(source.path, source.pretrained, True) if trust_code and not source.trust_code else source
        if str(source).startswith(PREFIX):
            name, names = str(source).removeprefix(PREFIX), pretrained_names()
            if name not in names:
                raise unknown_name("pretrained policy", name, names)
            return Run(pretrained_root() / name, name)
        run = Run(Path(source), trust_code=trust_code)
        run.toml()
        return run

    def require_training(self) -> None:
        """Raise `UserError` for a policy that comes with metarl: it has no log, and nothing that training resumes."""
        if self.pretrained:
            raise UserError(
                f"{self} is a policy alone, without the log of its training or what one goes on from: name a run "
                "folder of your own; `metarl eval` and `metarl video` take it"
            )

    @property
    def name(self) -> str:
        """Name of the folder, or of the policy that comes with metarl."""
        return self.pretrained or self.path.resolve().name

    # ------------------------------------------------------------------------------------------------ what was run

    def toml(self) -> str:
        """The configuration as it was written; `UserError` where this is no run folder."""
        if not os.path.isdir(self.path):  # unlike Path's, False too for a name that cannot be
            raise UserError(f"{self.path} is not a run folder: there is no such folder")
        if not os.path.lexists(self.path / CONFIG):
            raise UserError(f"{self.path} is not a run folder: it has no {CONFIG}")
        return read_text(self.path / CONFIG)

    def config(self) -> TrainConfig[Any]:
        """The resolved configuration, typed by its learner."""
        self.toml()
        return load_config(self.path / CONFIG, self.trust_code, of_run=True)

    @property
    def is_trusted(self) -> bool:
        """Whether the code that it names may run without a question: it is installed, or this user trained with it."""
        return all(trust.is_trusted(str(self.config_values[key])) for key in ("agent", "family"))

    @cached_property
    def config_values(self) -> dict[str, Any]:
        """The configuration as plain data, with the defaults of options younger than the run where they are known."""
        self.toml()
        values = read_toml(self.path / CONFIG)
        if values.get("agent") in learner_names():
            with suppress(UserError):
                return dataclasses.asdict(self.config())
        known = {f.name: f.default for f in dataclasses.fields(TrainConfig) if f.default is not dataclasses.MISSING}
        found: dict[str, Any] = {"agent": "", "family": ""} | known | values
        for key, kind in (("agent", str), ("family", str), ("seed", int), ("episode_steps", int)):
            if type(found[key]) is not kind:
                raise UserError(f"{self.path / CONFIG}: {key} = {found[key]!r} must be of type {kind.__name__}")
        return found

    def provenance(self) -> dict[str, Any]:
        """Command, versions, git commit and machine of the training; empty where they are lost."""
        with suppress(UserError):
            content = read_json(self.path / PROVENANCE)
            return {key: value for key, value in content.items() if key != SEAL}
        return {}

    @property
    def panel(self) -> str:
        """The family, with the run's own time limit: returns over other horizons are no neighbours."""
        limit = self.config_values["episode_steps"]
        return short(str(self.config_values["family"])) + (f", {limit} steps" if limit else "")

    @cached_property
    def info(self) -> PolicyInfo:
        """What its policy observes and commands, from `policy.json`, or from the family in folders of metarl 0.1."""
        if not (self.path / INFO).exists():
            config = self.config()
            options = {"episodes_per_trial": config.episodes_per_trial, **env_options(config), **worlds_on("cpu", "")}
            from metarl.sim.make import make_env

            with make_env(self.family(), 1, threads=1, **options) as env:
                return env.info
        info = PolicyInfo.from_json(read_json(self.path / INFO))
        if not (0 < info.observation_size < _LARGEST_SIZE and 0 < info.action_size < _LARGEST_SIZE):
            raise UserError(f"{self.path / INFO} is damaged: it describes no policy")
        return info

    @property
    def described(self) -> Described | None:
        """The family as the run's folder describes it, without its code; None in older folders and recorded results."""
        return Described.read(self.path / FAMILY) if (self.path / FAMILY).is_file() else None

    @property
    def samples_first(self) -> bool:
        """Its policy samples before it adapts, also where the mean action is asked for."""
        known = (self.path / INFO).exists()
        return samples_first(str(self.config_values["agent"])) or (known and self.info.samples_first)

    @property
    def adapts(self) -> bool:
        """Its policy keeps what it learns of its task within a trial."""
        known = (self.path / INFO).exists()
        return known_adapting(str(self.config_values["agent"])) and not (known and not self.info.adapts)

    def origin(self, which: str | None = None) -> Origin:
        """What records say of the policy at a checkpoint."""
        config, manifest = self.config(), self.manifest(which)
        spent = [row.get("train/gradient_steps", 0) for row in self.metrics if row["iteration"] <= manifest.iteration]
        return Origin(
            agent=config.agent,
            family=config.family,
            train_seed=config.seed,
            train_steps=manifest.total_steps,
            train_seconds=manifest.elapsed,
            iteration=manifest.iteration,
            episode_steps=config.episode_steps,
            task_visible=task_visible(config),
            adapts=self.adapts,
            samples_first=self.samples_first,
            gradient_steps=int(sum(spent)),
        )

    # ---------------------------------------------------------------------------------------- what came of it: data

    @cached_property
    def metrics(self) -> list[Row]:
        """The iterations' metrics, as they were when first asked for; of recorded results those of their curve."""
        return read_metrics(self.path)

    @property
    def curve(self) -> dict[str, Any]:
        """Learning curve, see `logs.learning_curve`."""
        return learning_curve(self.metrics)

    def times(self) -> dict[str, float]:
        """Seconds of the training by what they went to; recorded results have them in a file."""
        file = self.path / "time.json"
        if not (self.path / "metrics.jsonl").is_file():
            return read_json(file) if file.is_file() else {}
        return total_times(self.metrics)

    @cached_property
    def evaluations(self) -> tuple[EvaluationRecord, ...]:
        """The records in `eval/`, by name."""
        return tuple(EvaluationRecord.read(path) for path in sorted((self.path / "eval").glob("[!.]*.json")))

    @property
    def videos(self) -> tuple[Path, ...]:
        """The films in `videos/`; a link that leads out of the folder is none: a report would show what it leads to."""
        home, found = self.path.resolve(), sorted((self.path / "videos").glob("[!.]*.mp4"))
        return tuple(path for path in found if path.is_file() and Path(os.path.realpath(path)).is_relative_to(home))

    @property
    def train_steps(self) -> int:
        """Control steps of the training, as far as is known."""
        ends = [int(self.curve["steps"][-1])] if self.curve else []
        return max([*ends, *(record.train_steps for record in self.evaluations)], default=0)

    @property
    def train_seconds(self) -> float:
        """Length of the training [s], as far as is known."""
        ends = [float(self.curve["seconds"][-1])] if self.curve else []
        return max([*ends, *(record.train_seconds for record in self.evaluations)], default=0.0)

    def write_evaluation(self, record: EvaluationRecord) -> Path | None:
        """Keep a record of the run's policy in `eval/`; None beside a pretrained policy, where nothing is written."""
        if self.pretrained:
            return None
        path = self.path / "eval" / record.name
        with suppress(OSError):  # what is written next says why; a folder that is gone is not made again
            path.parent.mkdir(exist_ok=True)
        write_json(path, record.to_json(), parents=False)
        vars(self).pop("evaluations", None)
        return path

    # ------------------------------------------------------------------------------------ policies and learners

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    def manifest(self, which: str | None = None) -> Manifest:
        """What the newest checkpoint says of itself, or the one named `which`."""
        return checkpoint.read_manifest(checkpoint.find(self.checkpoints, which))

    def family(self) -> Family:
        """Return the family that it trains on."""
        config = self.config()
        trust.require(config.family, self.path / CONFIG, self.trust_code)
        return make_family(config.family, config.disturbances, config.task_ranges)

    def policy(self, which: str | None = None, device: str = "cpu") -> Policy[Any]:
        """The policy at the newest checkpoint, or at the one named `which` (`best` is one); builds no simulator."""
        learner = make_learner(self.config(), self.info, device)

        def load(state: Mapping[str, Tensor]) -> None:
            if isinstance(learner.policy, nn.Module) and policy_alone(state):
                load_policy(learner.policy, state)
            else:
                learner.load_state_dict(checkpoint.parted(state)[0])

        self._load(load, which)
        return learner.policy

    def load_learner(
        self, learner: Learner, which: str | None = None, go_on: Callable[[Mapping[str, Tensor]], None] = lambda _: None
    ) -> Manifest:
        """Bring a learner to a checkpoint, to train on from there; `go_on` is handed the trials under way there."""

        def load(state: Mapping[str, Tensor]) -> None:
            own, underway = checkpoint.parted(state)
            require_like(own, learner.state_dict())
            learner.load_state_dict(own)
            go_on(underway)

        return self._load(load, which)

    def _load(self, load: Any, which: str | None) -> Manifest:
        """Hand a checkpoint's state to `load`; `CheckpointError` where it does not fit."""
        path = checkpoint.find(self.checkpoints, which)
        state, manifest = checkpoint.load(path)
        try:
            load(state)
        except (ValueError, RuntimeError, TypeError) as error:
            reason = str(error).split("\n")[0]
            raise CheckpointError(f"{path} does not fit this run's configuration: {reason}") from None
        return manifest


def short(name: str) -> str:
    """A family's or an agent's name without the path of a user's own file."""
    return name.rsplit("/", 1)[-1]


def env_options(config: TrainConfig[Any]) -> dict[str, Any]:
    """What a run asks of its worlds: its own time limit where it has one, the task shown to an oracle, and a device."""
    return {
        "episode_steps": config.episode_steps or None,
        "task_visible": task_visible(config),
        "trial": config.trial or None,
        **worlds_on(config.device, config.physics),
    }


def worlds_on(device: str, physics: str) -> dict[str, Any]:
    """What moves the worlds, and where: those of mujoco stay on the CPU, beside a learner on a GPU."""
    return {"physics": physics or None, "device": "cpu" if physics == "mujoco" else device}


def make_learner(config: TrainConfig[Any], info: PolicyInfo, device: torch.device | str = "cpu") -> Learner:
    """A fresh learner for a robot."""
    require_device(str(device))
    generator = seeding.generator(config.seed, "init")
    return learner_class(config.agent)(config.learner, info, generator, device)
