"""What one does with metarl, as functions. A command of the command line parses its words and calls one of these."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarl.core.config import TrainConfig, build, load_config, train_defaults
from metarl.core.errors import UserError, unknown_name
from metarl.core.registry import absolute, family_names, learner_config_class, learner_names, make_family

if TYPE_CHECKING:
    from metarl.core.types import Metrics
    from metarl.sim.env import TrialEnv
    from metarl.sim.family import Family

Callback = Callable[["Metrics"], bool | None]
"""Called with the metrics of each iteration once they are logged; returning False stops the training, saved."""


def families() -> list[str]:
    """Names of the families of tasks: metarl's own first, then those of installed plug-ins."""
    return family_names()


def agents() -> list[str]:
    """Names of the learners: metarl's own first, then those of installed plug-ins."""
    return learner_names()


def make(
    family: str | Family | type[Family],
    num_worlds: int = 1,
    *,
    episodes_per_trial: int = 2,
    episode_steps: int | None = None,
    task_visible: bool = False,
    threads: int = 0,
) -> TrialEnv:
    """Return `num_worlds` robots of a family, stepped together.

    Args:
        family: A name of `families()`, `path/to/file.py:ClassName`, a `Family` or its class.
        num_worlds: Robots in the batch, each on a task of its own.
        episodes_per_trial: Episodes on one task.
        episode_steps: Time limit of an episode [control steps]; the family's own by default.
        task_visible: Observations end with the task in numbers, as an oracle sees it.
        threads: Threads of the physics, or processes of an external environment; 0 for one per CPU. The results do
            not depend on it.

    Raises:
        UserError: The family is unknown, or what it declares is wrong.
    """
    from metarl.sim.make import make_env

    found = make_family(_reference(family)) if isinstance(family, str | type) else family
    return make_env(
        found,
        num_worlds,
        episodes_per_trial=episodes_per_trial,
        episode_steps=episode_steps,
        task_visible=task_visible,
        threads=threads,
    )


def configure(
    agent: str, family: str | type[Family], *, config: str | Path | None = None, **fields: Any
) -> TrainConfig[Any]:
    """Return a training's configuration: the learner's defaults, or those of a TOML file, with some fields changed.

    Args:
        agent: A name of `agents()`, or `path/to/file.py:ClassName`.
        family: A name of `families()`, `path/to/file.py:ClassName`, or a class from a file.
        config: A TOML file, as of `metarl train --config`, to start from.
        fields: Any field of `TrainConfig` or of the learner's own configuration, by its name.

    Raises:
        UserError: A field is unknown or out of its range; the message names the nearest one or the range.
    """
    config_class = learner_config_class(agent)
    base: Mapping[str, Any] = dict(train_defaults(config_class))
    learner: Any = config_class()
    if config is not None:
        loaded = load_config(Path(config))
        base = {f.name: getattr(loaded, f.name) for f in dataclasses.fields(loaded) if f.name != "learner"}
        learner = loaded.learner if isinstance(loaded.learner, config_class) else learner
    of_run = {f.name for f in dataclasses.fields(TrainConfig)} - {"agent", "family", "learner"}
    of_learner = {f.name for f in dataclasses.fields(config_class)}
    for name in fields:
        if name not in of_run | of_learner:
            raise unknown_name("option", name, of_run | of_learner)
    own = {f.name: getattr(learner, f.name) for f in dataclasses.fields(learner)}
    own |= {name: value for name, value in fields.items() if name in of_learner}
    values = dict(base) | {name: value for name, value in fields.items() if name in of_run}
    values |= {"agent": absolute(agent), "family": absolute(_reference(family))}
    return build(TrainConfig, values | {"learner": build(config_class, own, agent)}, "train")


def _reference(family: str | type[Family] | Family) -> str:
    """A family's name, or `path/to/file.py:ClassName` of a class: what a run's configuration can hold."""
    if isinstance(family, str):
        return family
    cls = family if isinstance(family, type) else type(family)
    try:
        return f"{Path(inspect.getfile(cls)).resolve()}:{cls.__qualname__}"
    except (OSError, TypeError):
        raise UserError(
            f"{cls.__qualname__} is not defined in a file: save it in one, and name it 'path/to/file.py:{cls.__name__}'"
        ) from None
