"""`metarl train`: meta-train a learner on a family."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Generic, TypeVar

from metarl.cli.parsing import parse
from metarl.cli.resume import execute
from metarl.core.config import TrainConfig
from metarl.core.errors import UserError

L = TypeVar("L")


@dataclass(frozen=True)
class TrainOptions(Generic[L]):
    """Meta-train a learner on a family: metarl train AGENT FAMILY, or metarl train --config FILE."""

    training: TrainConfig[L]
    """The run's configuration."""
    config: Path | None = None
    """Start from this TOML file; options on the command line override it."""
    output: Path | None = None
    """Run folder; runs/FAMILY-AGENT-sSEED-TIME by default."""


def run(words: list[str]) -> int:
    """Meta-train; a run that fails before its first iteration leaves no folder behind."""
    options = parse(*_train_parser(words, TrainOptions))
    from metarl.core.registry import absolute, make_family
    from metarl.run.sessions import started

    config = options.training
    make_family(config.family)
    config = dataclasses.replace(config, agent=absolute(config.agent), family=absolute(config.family))
    with started(options.output, config, ["train", *words]) as training:
        print(f"training {config.agent} on {config.family}, seed {config.seed}, in {training.run}", flush=True)
        return execute(training, config.max_minutes)


def _train_parser(words: list[str], options: Any) -> tuple[Any, str, list[str], Any]:
    """What to parse `train`'s words with: the agent decides which options there are, a file what their defaults are."""
    from metarl.core.config import load_config, train_defaults
    from metarl.core.registry import family_names, learner_config_class, learner_names

    named = list(takewhile(lambda word: not word.startswith("-"), words[:2]))
    rest = words[len(named) :]
    changes: dict[str, Any] = dict(zip(("agent", "family"), named, strict=False))
    changes |= {key: value for key in ("agent", "family") if (value := _value_of(rest, f"--{key}"))}
    file = _value_of(rest, "--config")
    if file:
        base = load_config(Path(file))
    elif len(changes) < 2 and not {"-h", "--help"} & set(rest):
        raise UserError(
            "train needs AGENT FAMILY ahead of its options, or --config FILE; "
            f"agents: {', '.join(learner_names())}; families: {', '.join(family_names())}"
        )
    else:
        base = TrainConfig(agent="rl2", family="half-cheetah-vel", learner=None)
    config_class = learner_config_class(changes.get("agent", base.agent))
    if not isinstance(base.learner, config_class):
        changes["learner"] = config_class()
    if not file:
        changes |= train_defaults(config_class)
    base = dataclasses.replace(base, **changes)
    return options[config_class], "train", rest, options(training=base)


def _value_of(words: list[str], flag: str) -> str | None:
    """Value of `--flag VALUE` or `--flag=VALUE`, if it is there."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.split("=", 1)[1]
    return None
