"""Configurations: frozen dataclasses, checked on construction, read from and written to TOML.

Imports no torch: the command line builds its help from these.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

from metarl.core.errors import UserError, unknown_name
from metarl.core.files import read_text
from metarl.core.registry import learner_config_class

C = TypeVar("C")
L = TypeVar("L")
"""Configuration of a learner."""
_LARGEST = 2**20
"""No configuration is larger [bytes]."""


class ConfigError(UserError):
    """A configuration value is out of its range; the message names field, value and range."""


def require(config: object, field_name: str, holds: bool, allowed: str) -> None:
    """Raise `ConfigError` unless the field's value is allowed."""
    if not holds:
        raise ConfigError(f"{field_name} = {getattr(config, field_name)!r} is out of range: it must be {allowed}")


@dataclass(frozen=True)
class TrainConfig(Generic[L]):
    """One training run: which learner on which family, for how long, on how many worlds."""

    agent: str
    """Learner: a name from `metarl list`, or path/to/file.py:ClassName."""
    family: str
    """Family of tasks: a name from `metarl list`, or path/to/file.py:ClassName."""
    learner: L
    """The learner's own configuration."""
    seed: int = 0
    """Seed of every random stream of the run."""
    total_steps: int = 5_000_000
    """Length of the training [control steps over all worlds]; rounded up to whole iterations."""
    max_minutes: float = 0.0
    """Stop, save and report after this long even if steps are left [min]; 0 for no limit."""
    num_worlds: int = 32
    """Robots simulated at once, each on a task of its own."""
    episodes_per_trial: int = 2
    """Episodes K on one task before all that was learned of it is forgotten."""
    episode_steps: int = 0
    """Time limit of an episode [control steps]; 0 for the family's own."""
    train_tasks: int = 0
    """Train on a fixed list of this many tasks, as PEARL does (100 for half-cheetah-vel); 0 draws ever new ones."""
    curriculum: str = ""
    """Task parameter, as difficulty, that training widens from its easiest tenth to its whole range; none if empty."""
    curriculum_share: float = 0.5
    """Share of the training after which the curriculum's range is whole."""
    threads: int = 0
    """Threads of the physics, or processes of external environments; 0 for one per CPU. Results are the same."""
    checkpoint_minutes: float = 2.0
    """Time between checkpoints [min]."""
    validation_tasks: int = 16
    """Training tasks on which each checkpoint is evaluated, so that the best is kept too; 0 keeps the newest only."""

    def __post_init__(self) -> None:
        require(self, "seed", 0 <= self.seed < 2**32, "in [0, 2^32)")
        for name in ("total_steps", "num_worlds", "episodes_per_trial"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "num_worlds", self.num_worlds <= 65536, "at most 65536")
        require(self, "episode_steps", 0 <= self.episode_steps <= 1_000_000, "in [0, 1000000]")
        require(self, "train_tasks", 0 <= self.train_tasks <= 1_000_000, "in [0, 1000000]")
        require(self, "train_tasks", not (self.train_tasks and self.curriculum), "0 with a curriculum")
        require(self, "curriculum_share", 0 < self.curriculum_share <= 1, "in (0, 1]")
        require(self, "validation_tasks", 0 <= self.validation_tasks <= 65536, "in [0, 65536]")
        require(self, "threads", 0 <= self.threads <= 1024, "in [0, 1024]")
        for name in ("max_minutes", "checkpoint_minutes"):
            require(self, name, 0 <= getattr(self, name) < float("inf"), "at least 0")


def to_toml(config: TrainConfig[Any]) -> str:
    """The whole configuration, the learner's as a `[learner]` table."""
    values = dataclasses.asdict(config)
    learner = values.pop("learner")
    lines = [f"{key} = {_literal(key, value)}" for key, value in values.items()]
    lines += ["", "[learner]", *(f"{k} = {_literal(k, value)}" for k, value in learner.items() if value is not None)]
    return "\n".join(lines) + "\n"


def load_config(path: Path) -> TrainConfig[Any]:
    """A training configuration from TOML, the learner's part typed by its agent."""
    values = read_toml(path)
    if not isinstance(values.get("agent"), str) or not isinstance(values.get("family"), str):
        raise UserError(f"{path}: agent and family must both be given, as strings")
    learner = values.pop("learner", {})
    if not isinstance(learner, dict):
        raise UserError(f"{path}: learner must be a table, [learner]")
    config_class = learner_config_class(values["agent"])
    values["learner"] = build(config_class, learner, f"{path}, [learner]")
    return build(TrainConfig, {**train_defaults(config_class), **values}, str(path))


def train_defaults(config_class: type[Any]) -> Mapping[str, int]:
    """Options of the run, as `num_worlds`, for which the learner has a default of its own."""
    defaults: Mapping[str, int] = getattr(config_class, "train_defaults", {})
    return defaults


def task_visible(config_class: type[Any]) -> bool:
    """Whether the learner is an oracle: shown the task beside the observation, in training and ever after."""
    return bool(getattr(config_class, "task_visible", False))


def read_toml(path: Path) -> dict[str, Any]:
    """The file's content; `UserError` where it cannot be read or is no TOML."""
    try:
        return tomllib.loads(read_text(path, _LARGEST))
    except RecursionError:
        raise UserError(f"{path} is not valid TOML: it is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None


def build(cls: type[C], values: dict[str, Any], where: str) -> C:
    """Construct a configuration from plain values, with the field, its value and the nearest name in every error."""
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    for key, value in values.items():
        if key not in known:
            raise UserError(f"{where}: {unknown_name('option', key, known)}")
        kind = hints[key]
        if get_origin(kind) is tuple and isinstance(value, list):
            values = values | {key: tuple(value)}
        elif kind is float and isinstance(value, int) and not isinstance(value, bool):
            values = values | {key: float(value)}
        elif kind is bool and not isinstance(value, bool):
            raise UserError(f"{where}: {key} = {value!r} must be true or false")
        elif kind in (int, float, str) and (not isinstance(value, kind) or isinstance(value, bool)):
            raise UserError(f"{where}: {key} = {value!r} must be of type {kind.__name__}")
        elif get_origin(kind) is Literal and value not in get_args(kind):
            raise UserError(f"{where}: {key} = {value!r} must be one of {', '.join(get_args(kind))}")
    missing = [
        name
        for name, f in known.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and name not in values
    ]
    if missing:
        raise UserError(f"{where}: {', '.join(missing)} missing")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _literal(key: str, value: object) -> str:
    """A TOML literal; `ConfigError` for what TOML cannot hold."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # the one escape TOML adds to JSON's
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(key, item) for item in value) + "]"
    raise ConfigError(f"{key} = {value!r} cannot be written to a TOML file: it must be numbers, texts or lists of them")
