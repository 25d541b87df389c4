"""What is wrong with words of the command line, each mistake in one sentence, where tyro would draw a box."""

from __future__ import annotations

import dataclasses
import reprlib
import types
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import tyro

from metarl.core.config import TrainConfig
from metarl.core.errors import UserError, did_you_mean
from metarl.core.registry import agents_with

NAMED_FIRST = ("agent", "family")
"""Of a training: given ahead of the options, so not among them."""
_FEW = 3
"""So many choices are told without saying which is nearest."""


class _Option(NamedTuple):
    kind: Any
    default: Any

    @property
    def switch(self) -> bool:
        return self.kind is bool

    def flag(self, name: str) -> str:
        """As it is written: of a switch the form that changes it."""
        return f"--no-{name}" if self.switch and self.default is True else f"--{name}"


def require_known(options: Any, default: Any, verb: str, words: list[str]) -> None:
    """`UserError` for an option that the verb does not have."""
    known = _known(options, default)
    for word in words:
        name = word.removeprefix("--").partition("=")[0].replace("_", "-")
        if not word.startswith("--") or name in ("", "help") or name in known:
            continue
        if name.startswith("no-") and name[3:] in known and known[name[3:]].switch:
            continue
        owners = agents_with(name.replace("-", "_")) if verb == "train" else []
        if owners:
            raise UserError(f"this agent has no option --{name}; {', '.join(owners)} have it")
        near = did_you_mean(f"--{name}", [option.flag(other) for other, option in known.items()])
        raise UserError(f"metarl {verb} has no option --{name}{near}: `metarl {verb} --help` lists them")


def require_possible(options: Any, default: Any, words: list[str]) -> None:
    """`UserError` for the first value that its option cannot have, of words that tyro has refused."""
    known = _known(options, default)
    for place, word in enumerate(words):
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("_", "-")
        option = known.get(name)
        if not word.startswith("--") or option is None or option.switch:
            continue
        rest = (i for i, later in enumerate(words) if i > place and later.startswith("--"))
        _require_values(name, option.kind, [value] if equals else words[place + 1 : next(rest, len(words))])


def left_over(options: Any, default: Any, verb: str, word: str) -> UserError:
    """A word that tyro had no use for."""
    name, equals, value = word.removeprefix("--").partition("=")
    name = name.replace("_", "-").removeprefix("no-")
    option = _known(options, default).get(name)
    if word.startswith("--") and option is not None and option.switch:
        if equals:
            return UserError(f"{option.flag(name)} is a switch and takes no value, such as {reprlib.repr(value)}")
        return UserError(f"{name} is {'on' if option.default else 'off'} already; {option.flag(name)} changes that")
    return UserError(f"metarl {verb} has no use for {reprlib.repr(word)}: `metarl {verb} --help` says what it takes")


def whole_number(word: str) -> int:
    """The number, which may be written 100000, 100_000 or 1e5; `ValueError` where it is none."""
    with suppress(ValueError):
        return int(word)
    with suppress(ValueError):
        if float(word).is_integer():
            return int(float(word))
    raise ValueError(f"{reprlib.repr(word)} is not a whole number")


def _known(options: Any, default: Any) -> dict[str, _Option]:
    """The options by their names, with hyphens; what has no default, or is marked so, stands without a name."""
    found: dict[str, _Option] = {}
    plain, marked = get_type_hints(options), get_type_hints(options, include_extras=True)
    for field in dataclasses.fields(options):
        name = field.name
        value = getattr(default, name, field.default)
        positional = value is dataclasses.MISSING or tyro.conf.Positional in getattr(marked[name], "__metadata__", ())
        if dataclasses.is_dataclass(value):
            found |= _known(type(value), value)
        elif not positional and not (isinstance(default, TrainConfig) and name in NAMED_FIRST):
            found[name.replace("_", "-")] = _Option(plain[name], value)
    return found


def _require_values(name: str, kind: Any, values: list[str]) -> None:
    """`UserError` where an option of that type cannot be the values, of which it may take the first alone."""
    several = get_origin(kind) is tuple
    if not values and not several:
        raise UserError(f"--{name} needs a value")
    for value in values if several else values[:1]:
        _require_value(name, get_args(kind)[0] if several else kind, value)


def _require_value(name: str, kind: Any, value: str) -> None:
    """`UserError` where no type of a union can be the value; of types that are not known here, any may be."""
    parts = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    choices: list[str] = []
    allowed: list[str] = []
    for part in parts:
        if part is types.NoneType:
            continue
        if get_origin(part) is Literal:
            choices += [str(choice) for choice in get_args(part)]
        elif part in _NUMBERS:
            if _reads(part, value):
                return
            allowed.append(_NUMBERS[part])
        else:
            return
    if value not in choices:
        near = did_you_mean(value, choices) if len(choices) > _FEW else ""
        allowed += [choice or "'' (none)" for choice in choices]
        raise UserError(f"--{name} is {reprlib.repr(value)}{near}: it must be {_one_of(allowed)}")


_NUMBERS: Mapping[Any, str] = {int: "a whole number", float: "a number"}


def _reads(kind: Any, value: str) -> bool:
    try:
        whole_number(value) if kind is int else float(value)
    except (ValueError, OverflowError):
        return False
    return True


def _one_of(allowed: list[str]) -> str:
    """`a number`, or `a, b or c`."""
    return " or ".join(part for part in (", ".join(allowed[:-1]), allowed[-1]) if part)
