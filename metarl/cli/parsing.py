"""Words of the command line into a verb's options, by tyro; help and ranges come from `core.parameters`."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, get_origin, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from metarl.cli.words import NAMED_FIRST, left_over, require_known, require_possible, whole_number
from metarl.core import trust
from metarl.core.config import TrainConfig, device_defaults, load_config, train_defaults
from metarl.core.errors import UserError, unknown_name
from metarl.core.parameters import declarations, describe, require
from metarl.core.registry import family_names, learner_config_class, learner_names

_UNTRAINED = ("zero", "random")
"""Policies that never train, as in `metarl.rl.scripted`, which imports torch."""


@dataclass(frozen=True)
class TrainOptions:
    """Meta-train a learner on a family: AGENT and FAMILY are needed, or --config FILE, which names them.

    The options depend on AGENT: those of rl2 are shown where none is named.
    """

    training: TrainConfig[Any]
    """The run's configuration."""
    config: Path | None = None
    """Start from this TOML file; options on the command line override it."""
    output: Path | None = None
    """Run folder; runs/FAMILY-AGENT-sSEED-TIME by default."""
    processes: int = 1
    """Processes on this machine that share the simulation and the gradients; starts them by torchrun."""
    tasks: Path | None = None
    """Train around these tasks (a file of `metarl identify`): sets --task-ranges to its intervals, widened."""
    track: Literal["", "wandb", "trackio"] = ""
    """Tell the numbers to this tracker too, whose package must be installed; nothing is sent anywhere otherwise."""
    trust_code: bool = False
    """Run files of code that FILE names, also such as you have not trained with, or that were changed since."""

    def __post_init__(self) -> None:
        require(self, "processes", self.processes >= 1, "at least 1")


def parse(options: Any, verb: str, words: list[str], default: Any = None, positional: str = "") -> Any:
    """Parse a verb's words into its options; `UserError` for a mistake, and exit with 2 where a word is missing.

    `positional` is what the usage line shows where the words ahead of the options are parsed elsewhere.
    """
    require_known(options, default, verb, words)
    markers = (
        tyro.conf.PositionalRequiredArgs,
        tyro.conf.PositionalMetavarFromFieldName,
        tyro.conf.OmitArgPrefixes,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.DisallowNone,
    )
    registry = ConstructorRegistry()
    registry.primitive_rule(_whole_number)
    registry.struct_rule(_options)
    given = {} if default is None else {"default": default}
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            parsed, left = tyro.cli(
                options,
                prog=f"metarl {verb}{positional}",
                args=words,
                return_unknown_args=True,
                config=markers,
                registry=registry,
                **given,
            )
    except SystemExit as stop:
        if stop.code:
            require_possible(options, default, words)
        print(said.getvalue(), end="", file=sys.stderr)
        raise
    print(said.getvalue(), end="", file=sys.stderr)
    if left:
        raise left_over(options, default, verb, left[0])
    return parsed


def parse_training(words: list[str]) -> TrainOptions:
    """Parse `train`'s words: the agent decides which options there are, a file what their defaults are."""
    named = list(takewhile(lambda word: not word.startswith("-"), words[:2]))
    rest = words[len(named) :]
    changes: dict[str, Any] = dict(zip(NAMED_FIRST, named, strict=False))
    changes |= {name: value for name in NAMED_FIRST if (value := _value_of(rest, f"--{name}"))}
    file, device, physics = (_value_of(rest, flag) for flag in ("--config", "--device", "--physics"))
    if file:
        trust_code = "--trust-code" in rest
        trust.named(*changes.values())
        base = load_config(Path(file), trust_code, device=device, physics=physics)
        if "family" not in changes:
            trust.require(base.family, file, trust_code)
    elif len(changes) < 2 and not {"-h", "--help"} & set(rest):
        raise UserError(
            "train needs AGENT FAMILY ahead of its options, or --config FILE; "
            f"agents: {', '.join(learner_names())}; families: {', '.join(family_names())}"
        )
    else:
        base = TrainConfig(agent="rl2", family="FAMILY", learner=None)
    config_class = learner_config_class(changes.get("agent", base.agent))
    if not isinstance(base.learner, config_class):
        changes["learner"] = config_class()
    if not file:
        changes |= train_defaults(config_class)
        on = device_defaults(config_class, device, physics)
        of_run = {field.name for field in dataclasses.fields(TrainConfig)}
        changes |= {name: value for name, value in on.items() if name in of_run}
        changes["learner"] = config_class(**{name: value for name, value in on.items() if name not in of_run})
    base = dataclasses.replace(base, **changes)
    parsed: TrainOptions = parse(TrainOptions, "train", rest, TrainOptions(base), " AGENT FAMILY")
    return parsed


def _value_of(words: list[str], flag: str) -> str:
    """Value of `--flag VALUE` or `--flag=VALUE`, empty if it is not there; `--agent` and `--family` are taken out."""
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == flag:
            end = place + (1 if equals else 2)
            value = value if equals else "".join(words[place + 1 : end])
            if flag in ("--agent", "--family"):
                del words[place:end]
            return value
    return ""


def _options(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Tyro's view of a dataclass: the help is the docstring and the allowed range, which tyro does not know."""
    kind = get_origin(info.type) or info.type
    if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
        return None
    made = dataclasses.is_dataclass(info.default)
    fields = []
    hints = get_type_hints(kind, include_extras=True)  # with tyro's own markers
    for row, (name, _, declared) in zip(describe(kind), declarations(kind), strict=True):
        if kind is TrainConfig and name in NAMED_FIRST:
            continue
        default = getattr(info.default, name) if made else row.default
        shown = tyro.MISSING if default is dataclasses.MISSING else default
        limits = declared.allowed()
        text = f"{row.help} {limits[0].upper()}{limits[1:]}." if limits else row.help
        of_type = type(default) if dataclasses.is_dataclass(default) else hints[name]
        fields.append(StructFieldSpec(name, of_type, shown, text))

    def make(**values: Any) -> Any:
        return dataclasses.replace(info.default, **values) if made else kind(**values)

    make.__doc__ = kind.__doc__
    return StructConstructorSpec(make, tuple(fields))


def _whole_number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
    """Whole numbers may be written 100000, 100_000 or 1e5."""
    if info.type is not int:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda words: whole_number(words[0]),
        is_instance=lambda value: isinstance(value, int) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


def require_untrained(agent: str | None, given: Mapping[str, object]) -> None:
    """`UserError` where `--agent` is none of those that never train, or stands beside an option of those that did."""
    if agent is None:
        return
    if agent not in _UNTRAINED:
        raise unknown_name("agent without training", agent, _UNTRAINED)
    for option, value in given.items():
        if value:
            raise UserError(f"--agent {agent} never trained and takes no {option}: leave one of the two out")
