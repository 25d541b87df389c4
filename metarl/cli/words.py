"""What is wrong with words of the command line, each mistake in one sentence, before tyro makes options of them."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, Union, get_args, get_origin

from metarl.core.config import TrainConfig
from metarl.core.errors import UserError, did_you_mean
from metarl.core.parameters import declarations
from metarl.core.registry import agents_with

NAMED_FIRST = ("agent", "family")
"""Of a training: given ahead of the options, so not among them."""


def require_sound(options: Any, default: Any, verb: str, words: list[str]) -> None:
    """`UserError` for an option that the verb does not have, and for a value that the option cannot have."""
    kinds = _kinds(options, default)
    for place, word in enumerate(words):
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("_", "-")
        if not word.startswith("--") or name in ("", "help"):
            continue
        if bool in (kinds.get(name), kinds.get(name.removeprefix("no-"))):
            if equals:
                raise UserError(f"--{name} is a switch and takes no value: '{value}' is one too many")
            continue
        if name not in kinds:
            raise _unknown(name, verb, kinds)
        if equals:
            values = [value]
        else:
            end = next((i for i in range(place + 1, len(words)) if words[i].startswith("--")), len(words))
            values = words[place + 1 : end]
        _require_values(name, kinds[name], values)


def whole_number(word: str) -> int:
    """The number, which may be written 100000, 100_000 or 1e5; `ValueError` where it is none."""
    with suppress(ValueError):
        return int(word)
    with suppress(ValueError, OverflowError):
        if float(word).is_integer():
            return int(float(word))
    raise ValueError(f"'{word}' is not a whole number")


def _kinds(options: Any, default: Any) -> dict[str, Any]:
    """Names of the options, with hyphens, and their types."""
    found: dict[str, Any] = {}
    for name, kind, _ in declarations(options):
        value = getattr(default, name, None)
        if dataclasses.is_dataclass(value):
            found |= _kinds(type(value), value)
        elif not (isinstance(default, TrainConfig) and name in NAMED_FIRST):
            found[name.replace("_", "-")] = kind
    return found


def _unknown(name: str, verb: str, known: Mapping[str, Any]) -> UserError:
    owners = agents_with(name.replace("-", "_")) if verb == "train" else []
    if owners:
        return UserError(f"this agent has no option --{name}; {', '.join(owners)} have it")
    near = did_you_mean(f"--{name}", [f"--{other}" for other in known])
    return UserError(f"metarl {verb} has no option --{name}{near}: `metarl {verb} --help` lists them")


def _require_values(name: str, kind: Any, values: list[str]) -> None:
    """`UserError` where an option of that type cannot be the values, of which it may take the first alone."""
    (kind, *_) = [part for part in _parts(kind) if part is not types.NoneType]
    several = get_origin(kind) is tuple
    if not values and not several:
        raise UserError(f"--{name} needs a value")
    for value in values if several else values[:1]:
        _require_value(name, get_args(kind)[0] if several else kind, value)


def _parts(kind: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _require_value(name: str, kind: Any, value: str) -> None:
    if get_origin(kind) is Literal:
        choices = [str(choice) for choice in get_args(kind)]
        if value not in choices:
            allowed = ", ".join(choice or "nothing ('')" for choice in choices)
            raise UserError(f"--{name} is '{value}'{did_you_mean(value, choices)}: it must be one of {allowed}")
    if kind in (int, float):
        try:
            whole_number(value) if kind is int else float(value)
        except ValueError:
            number = "a whole number" if kind is int else "a number"
            raise UserError(f"--{name} is '{value}', which is not {number}") from None
