"""Configurations: frozen dataclasses, checked on construction, read from and written to TOML.

Imports no torch: the command line builds its help from these.
"""

from __future__ import annotations

import dataclasses
import json
import reprlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_origin

from metarl.core import trust
from metarl.core.errors import UserError, unknown_name
from metarl.core.files import read_text
from metarl.core.parameters import Checked, ConfigError, declarations, fault, memory_text, number, require
from metarl.core.registry import absolute, agents_with, learner_config_class

C = TypeVar("C")
L = TypeVar("L")
"""Configuration of a learner."""

_KEPT_STEPS = 2**32
"""Control steps that an iteration may keep, at most."""
STEP_BYTES = 64
"""What one of them takes at the least: observations before and after, action, reward, flags [bytes]."""
_FILE_BYTES = 2**20
"""Size of a TOML file, at most."""


@dataclass(frozen=True)
class TrainConfig(Checked, Generic[L]):
    """One training run: which learner on which family, for how long, on how many worlds."""

    agent: str
    """Learner: a name from `metarl list`, or path/to/file.py:ClassName."""
    family: str
    """Family of tasks: a name from `metarl list`, or path/to/file.py:ClassName."""
    learner: L
    """The learner's own configuration."""
    seed: int = number(0, least=0, below=2**32)
    """Seed of every random stream of the run."""
    total_steps: int = number(5_000_000, least=1, most=10**15)
    """Length of the training [control steps over all worlds]; rounded up to whole iterations."""
    max_minutes: float = number(0.0, least=0)
    """Stop, save and report after this long even if steps are left [min]; 0 for no limit."""
    num_worlds: int = number(32, least=1, most=65536)
    """Robots simulated at once, each on a task of its own."""
    episodes_per_trial: int = number(2, least=1, most=1_000_000)
    """Episodes K on one task before all that was learned of it is forgotten."""
    episode_steps: int = number(0, least=0, most=1_000_000)
    """Time limit of an episode [control steps]; 0 for the family's own."""
    trial: Literal["", "steps", "episodes", "falls"] = ""
    """What a fall forfeits, for learners that discount over whole trials: little more than its step (steps), the rest
    of its episode (episodes), all that follows (falls); the family's own choice if empty."""
    train_tasks: int = number(0, least=0, most=1_000_000)
    """Train on a fixed list of this many tasks, as PEARL does (100 for half-cheetah-vel); 0 draws ever new ones."""
    task_ranges: tuple[str, ...] = ()
    """Narrower ranges of task parameters, each as payload=1.5:1.9, in training and on the test split."""
    curriculum: str = ""
    """Task parameter, as difficulty, that training widens from its easiest tenth to its whole range; none if empty."""
    curriculum_share: float = number(0.5, above=0, most=1)
    """Share of the training after which the curriculum's range is whole."""
    staggered: bool = False
    """Worlds begin at different places of their first trials, so that each segment holds all of them, where a learner
    updates by segments."""
    task_visible: bool = False
    """Train an oracle: the task's numbers stand behind the observation, in training and ever after."""
    threads: int = number(0, least=0, most=1024)
    """Threads of the physics, or processes of external environments; 0 for one per CPU. Results are the same."""
    shards: int = number(0, least=0, most=65536)
    """Parts that the worlds are cut into, which --processes share among themselves. Results depend on it, in rounding,
    and not on the number of processes; 0 for one part in one process, and 4 in several."""
    all_reduce: bool = False
    """Several processes add their gradients up in any order: less is sent, but results depend on their number."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where policy, data and updates are, and the worlds, unless --physics says otherwise. On cuda a learner may have
    other defaults: rl2 takes 4096 worlds, updates every 50 steps, without mirror images."""
    physics: Literal["", "mujoco", "warp"] = ""
    """What moves the worlds: mujoco (on the CPU's cores) or warp (mujoco_warp, on the device); by default mujoco on
    the cpu and warp on cuda."""
    disturbances: str = ""
    """A TOML file of what a real robot adds, as latency, noise, pushes and faults, upon what the family declares; the
    run keeps its text. See docs/disturbances.md."""
    checkpoint_minutes: float = number(2.0, least=0)
    """Time between checkpoints [min]."""
    validation_tasks: int = number(16, least=0, most=65536)
    """Training tasks on which each checkpoint is evaluated, so that the best is kept too; 0 keeps the newest only."""
    evaluate_every: float = number(0.0, least=0)
    """Time between evaluations beside the training, on the same tasks (8 where --validation-tasks is 0) [min]: the
    adaptation curve and pictures for TensorBoard and the progress line. What is learned is the same; 0 for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "disturbances", disturbances_text(self.disturbances))
        require(self, "train_tasks", not (self.train_tasks and self.curriculum), "0 with a curriculum")
        require(self, "shards", self.shards <= self.num_worlds, f"at most num_worlds = {self.num_worlds}")
        kept = self.num_worlds * self.episodes_per_trial * max(1, self.episode_steps)
        size = memory_text(kept * STEP_BYTES)
        allowed = f"smaller: a trial of all worlds has {kept:,} control steps, which would take {size} of memory"
        require(self, "num_worlds", kept <= _KEPT_STEPS, allowed)


def configure(
    agent: str, family: str, fields: Mapping[str, Any], file: Path | None = None, trust_code: bool = False
) -> TrainConfig[Any]:
    """Return a training's configuration: the learner's defaults, or those of a TOML file, with some fields changed.

    Args:
        agent: A name of `learners()`, or `path/to/file.py:ClassName`.
        family: A name of `families()`, or `path/to/file.py:ClassName`.
        fields: Any fields of `TrainConfig` or of the learner's own configuration, by their names.
        file: A TOML file, as of `metarl train --config`, to start from.
        trust_code: Whether code in a file may run that the TOML file names.

    Raises:
        UserError: A field is unknown or out of its range; the message names the nearest one or the range.
    """
    trust.named(agent)
    config_class = learner_config_class(agent)
    base: Mapping[str, Any] = dict(train_defaults(config_class))
    learner: Any = config_class()
    if file is not None:
        loaded = load_config(file, trust_code, device=fields.get("device", ""), physics=fields.get("physics", ""))
        base = {f.name: getattr(loaded, f.name) for f in dataclasses.fields(loaded) if f.name != "learner"}
        learner = loaded.learner if isinstance(loaded.learner, config_class) else learner
    if file is None:
        fields = device_defaults(config_class, fields.get("device", ""), fields.get("physics", "")) | dict(fields)
    of_run = {f.name for f in dataclasses.fields(TrainConfig)} - {"agent", "family", "learner"}
    of_learner = {f.name for f in dataclasses.fields(config_class)}
    for name in fields:
        if name not in of_run | of_learner:
            raise unknown_name("option", name, of_run | of_learner)
    own = {f.name: getattr(learner, f.name) for f in dataclasses.fields(learner)}
    own |= {name: value for name, value in fields.items() if name in of_learner}
    values = dict(base) | {name: value for name, value in fields.items() if name in of_run}
    values |= {"agent": absolute(agent), "family": absolute(family)}
    return build(TrainConfig, values | {"learner": build(config_class, own, agent)}, "train")


def to_toml(config: TrainConfig[Any]) -> str:
    """The whole configuration, the learner's as a `[learner]` table."""
    values = dataclasses.asdict(config)
    learner = values.pop("learner")
    lines = [f"{key} = {_literal(key, value)}" for key, value in values.items()]
    lines += ["", "[learner]", *(f"{k} = {_literal(k, value)}" for k, value in learner.items() if value is not None)]
    return "\n".join(lines) + "\n"


def load_config(
    path: Path, trust_code: bool = False, of_run: bool = False, device: str = "", physics: str = ""
) -> TrainConfig[Any]:
    """A training configuration from TOML, the learner's part typed by its agent.

    One `of_run` was written whole: an option that it lacks is younger, and was as the learner's `before` says. What
    another lacks is as by default on its device, or on the one given, which is to replace it.

    An agent in a file is imported for that, if it may be: see `trust.require`, which is to be asked for the family too
    before that is made.
    """
    values = read_toml(path)
    if not isinstance(values.get("agent"), str) or not isinstance(values.get("family"), str):
        raise UserError(f"{path}: agent and family must both be given, as strings")
    learner = values.pop("learner", {})
    if not isinstance(learner, dict):
        raise UserError(f"{path}: learner must be a table, [learner]")
    trust.require(values["agent"], path, trust_code)
    config_class = learner_config_class(values["agent"])
    run_options, of_learner = _names(TrainConfig), _names(config_class)
    if "device" not in of_learner and (updates := learner.pop("device", "cpu")) != "cpu":
        values = {"device": updates, "physics": "mujoco"} | values  # once of the learner's gradient steps alone
    for key in values.keys() - run_options:
        if key in of_learner:
            raise UserError(f"{path}: {key} belongs into the table [learner], below the options of the run")
    for key in learner.keys() - of_learner:
        if key in run_options:
            raise UserError(f"{path}: {key} is an option of the run and belongs above the table [learner]")
        if owners := agents_with(key):
            raise UserError(f"{path}, [learner]: {values['agent']} has no option {key}; {', '.join(owners)} have it")
    missing: dict[str, Any] = {}
    was: dict[str, Any] = {}
    if of_run:
        was = dict(getattr(config_class, "before", {}))
    else:
        on = device or values.get("device", ""), physics or values.get("physics", "")
        missing = {**train_defaults(config_class), **device_defaults(config_class, *on)}
        was = {name: missing.pop(name) for name in of_learner & missing.keys()}
    values["learner"] = build(config_class, {**was, **learner}, f"{path}, [learner]")
    return build(TrainConfig, {**missing, **values}, str(path))


def train_defaults(config_class: type[Any]) -> Mapping[str, int | bool]:
    """Options of the run, as `num_worlds`, for which the learner has a default of its own."""
    defaults: Mapping[str, int | bool] = getattr(config_class, "train_defaults", {})
    return defaults


def device_defaults(config_class: type[Any], device: str, physics: str) -> dict[str, Any]:
    """Options of the run and of the learner that have other defaults where the worlds are on a GPU."""
    on_device = device == "cuda" and physics != "mujoco"
    return dict(getattr(config_class, "cuda_defaults", {})) if on_device else {}


def task_visible(config: TrainConfig[Any]) -> bool:
    """Whether the learner is an oracle: shown the task beside the observation, in training and ever after."""
    return config.task_visible or bool(getattr(config.learner, "task_visible", False))


def read_toml(path: Path) -> dict[str, Any]:
    """The file's content; `UserError` where it cannot be read or is no TOML."""
    try:
        return tomllib.loads(read_text(path, _FILE_BYTES))
    except RecursionError:
        raise UserError(f"{path} is not valid TOML: it is nested too deeply") from None
    except ValueError as error:  # of TOML, or of a number with thousands of digits
        raise UserError(f"{path} is not valid TOML: {error}") from None


def disturbances_text(given: str | Path) -> str:
    """The text of a TOML file; what is such a text already is returned as it is."""
    if not str(given).endswith(".toml"):
        return str(given)
    read_toml(Path(given))
    return read_text(Path(given), _FILE_BYTES).rstrip() + "\n"


def build(cls: type[C], values: dict[str, Any], where: str) -> C:
    """Construct a configuration from plain values, with the field, its value and the nearest name in every error."""
    known = {name: (kind, declared) for name, kind, declared in declarations(cls)}
    made = {}
    for key, value in values.items():
        if key not in known:
            raise UserError(f"{where}: {unknown_name('option', key, known)}")
        kind, declared = known[key]
        made[key] = _cast(kind, value)
        if problem := fault(kind, made[key], declared):
            raise ConfigError(f"{where}: {key} = {reprlib.repr(value)} {problem}")
    fields = [f for f in dataclasses.fields(cls) if f.name not in values]  # type: ignore[arg-type]
    missing = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    if missing:
        raise UserError(f"{where}: {', '.join(missing)} missing")
    try:
        return cls(**made)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _names(config_class: type[Any]) -> set[str]:
    return {name for name, _, _ in declarations(config_class)}


def _cast(kind: Any, value: object) -> object:
    """What a file's value stands for: a list for a tuple, 3 for 3.0, and 1e5 for 100000."""
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1000:
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _literal(key: str, value: object) -> str:
    """A TOML literal; `ConfigError` for what TOML cannot hold."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # the one escape TOML adds to JSON's
    if isinstance(value, int | float):
        return int.__repr__(value) if isinstance(value, int) else float.__repr__(value)  # not np.float64(0.1)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(key, item) for item in value) + "]"
    raise ConfigError(f"{key} = {value!r} cannot be written to a TOML file: it must be numbers, texts or lists of them")
