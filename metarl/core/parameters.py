"""Parameters of a configuration, declared once, at the field, with a docstring below it as help.

    @dataclass(frozen=True)
    class OwnConfig(Checked):
        learning_rate: float = number(1e-3, above=0, most=1, search=Log(2e-4, 3e-3))

`Checked` refuses other values on construction, the command line's help shows the range below the docstring, `metarl
tune` searches where `search` says, and `describe` returns all of it as rows. A plain dataclass is a configuration too:
its values are then only held against their types. Imports neither torch nor Optuna.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import math
import reprlib
import textwrap
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from metarl.core.errors import UserError

N = TypeVar("N")
Value: TypeAlias = bool | int | float | str
Real: TypeAlias = int | float

_KEY = "metarl"
"""Of a declaration in the metadata of its field."""


class ConfigError(UserError):
    """A configuration value is out of its range; the message names field, value and range."""


def require(config: object, field_name: str, holds: bool, allowed: str) -> None:
    """Raise `ConfigError` unless the field's value is allowed: for rules between fields."""
    if not holds:
        raise ConfigError(f"{field_name} = {getattr(config, field_name)!r} is out of range: it must be {allowed}")


@dataclass(frozen=True)
class Between:
    """Search numbers from `low` to `high`, both included; whole ones where the field is of type int."""

    low: Real
    high: Real

    def __post_init__(self) -> None:
        if not (_finite(self.low) and _finite(self.high) and self.low < self.high):
            raise UserError(f"{self!r}: low must be below high")

    def contains(self, value: object) -> bool:
        """Whether `value` is a number in the range."""
        return _fits(float, value) and self.low <= cast(Real, value) <= self.high

    def ends(self) -> tuple[Value, ...]:
        """The outermost values."""
        return self.low, self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Log(Between):
    """Search numbers uniform in their logarithm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low <= 0:
            raise UserError(f"{self!r}: low must be above 0")

    def __str__(self) -> str:
        return f"{super().__str__()}, log"


class OneOf:
    """Search a few values without an order."""

    def __init__(self, *values: Value) -> None:
        self.values = values
        if len(set(values)) < 2:
            raise UserError(f"OneOf{values!r} must be given at least two different values")

    def contains(self, value: object) -> bool:
        """Whether `value` is one of them, and of their type: True is not 1."""
        return any(value == own and isinstance(value, bool) == isinstance(own, bool) for own in self.values)

    def ends(self) -> tuple[Value, ...]:
        """All of them."""
        return self.values

    def __str__(self) -> str:
        return " | ".join(str(value) for value in self.values)


Search: TypeAlias = Between | OneOf


@dataclass(frozen=True)
class Declared:
    """What is declared of a number beside its default."""

    above: Real | None = None
    least: Real | None = None
    below: Real | None = None
    most: Real | None = None
    search: Search | None = None
    """Where `metarl tune` searches."""
    memory: Callable[[Any], float] | None = None
    """Memory that a value takes at the least [bytes], told where a value is too large."""

    def fault(self, value: Real) -> str:
        """What is wrong with a number; empty for an allowed one."""
        low = self.above is None or value > self.above, self.least is None or value >= self.least
        high = self.below is None or value < self.below, self.most is None or value <= self.most
        if _finite(value) and all(low) and all(high):
            return ""
        tell = self.memory and not all(high) and value < 10**15
        size = f"; it would take {memory_text(self.memory(value))}" if self.memory and tell else ""
        finite = "" if _finite(value) else "a finite number "
        return f"is out of range: it must be {finite}{self.allowed()}{size}".rstrip()

    def allowed(self) -> str:
        """The range in words; empty for all finite numbers."""
        low, high = self.above if self.least is None else self.least, self.below if self.most is None else self.most
        if high is None:
            return "" if low is None else f"{'above' if self.least is None else 'at least'} {_text(low)}"
        if low is None:
            return f"{'below' if self.most is None else 'at most'} {_text(high)}"
        ends = "(" if self.least is None else "[", ")" if self.most is None else "]"
        return f"in {ends[0]}{_text(low)}, {_text(high)}{ends[1]}"


def number(
    default: N,
    *,
    above: Real | None = None,
    least: Real | None = None,
    below: Real | None = None,
    most: Real | None = None,
    search: Search | None = None,
    memory: Callable[[Any], float] | None = None,
) -> N:
    """A field of a configuration with its default and what is declared of it: see `Declared`."""
    declared = Declared(above, least, below, most, search, memory)
    return dataclasses.field(default=default, metadata={_KEY: declared})


class Checked:
    """Base of a configuration that refuses, on construction, values of a wrong type or outside their range.

    A class with rules between fields extends `__post_init__`, and states them there by `require`.
    """

    def __post_init__(self) -> None:
        for name, kind, declared in declarations(type(self)):
            value = getattr(self, name)
            if problem := fault(kind, value, declared):
                raise ConfigError(f"{name} = {reprlib.repr(value)} {problem}")


def fault(kind: Any, value: object, declared: Declared) -> str:
    """What is wrong with a value of a field of type `kind`; empty where nothing is."""
    if not _fits(kind, value):
        return f"must be {_allowed(kind, declared)}"
    return declared.fault(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def declarations(config_class: type[Any]) -> tuple[tuple[str, Any, Declared], ...]:
    """Name, type and declaration of each field."""
    hints = get_type_hints(config_class)
    return tuple((f.name, hints[f.name], f.metadata.get(_KEY, Declared())) for f in dataclasses.fields(config_class))


class Row(NamedTuple):
    """A field of a configuration, as a table or a help text shows it."""

    name: str
    default: Any
    """`dataclasses.MISSING` for a field without a default."""
    allowed: str
    """Allowed values in words."""
    search: str
    """Where `metarl tune` searches; empty where it does not."""
    help: str


def describe(config_class: type[Any]) -> list[Row]:
    """What is declared of each field of a configuration."""
    helps, defaults = _docstrings(config_class), {f.name: f.default for f in dataclasses.fields(config_class)}
    rows = []
    for name, kind, declared in declarations(config_class):
        search = searches(config_class).get(name, "")
        rows.append(Row(name, defaults[name], _allowed(kind, declared), str(search), helps.get(name, "")))
    return rows


def searches(config_class: type[Any]) -> dict[str, Search]:
    """Where `metarl tune` searches: at the fields, and in the class variable `search`.

    The latter is for options of the run, as `num_worlds`, and for plain dataclasses: `{"rate": Log(1e-4, 1e-2)}`.
    """
    declared_here = declarations(config_class)
    of_fields = {name: declared.search for name, _, declared in declared_here if declared.search}
    beside = {} if "search" in [name for name, _, _ in declared_here] else getattr(config_class, "search", {})
    if not isinstance(beside, Mapping):
        raise UserError(f"`search` of {config_class.__name__} must map names of fields to Between, Log or OneOf")
    for name, support in beside.items():
        if not isinstance(support, Search):
            raise UserError(
                f"`search` of {config_class.__name__}: {name} = {support!r} must be a Between, Log or OneOf"
            )
    return {**of_fields, **beside}


def memory_text(size: Real) -> str:
    """A size in bytes, as 3.2 TiB."""
    power = min(max(0, int(math.log2(max(size, 1)) // 10)), 6)
    return f"{size / 1024**power:.3g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB')[power]}"


def weights_memory(units: Real) -> float:
    """What the weights between two layers of so many units take [bytes]."""
    return 4.0 * units**2


def transitions_memory(transitions: Real) -> float:
    """What so many transitions of a very small robot take: observations, action, reward [bytes]."""
    return 64.0 * transitions


def _docstrings(config_class: type[Any]) -> dict[str, str]:
    """The docstring under each field, those of base classes included; empty where there is no source."""
    found: dict[str, str] = {}
    for owner in reversed(config_class.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        try:
            (node,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        except (OSError, SyntaxError):  # a class made at a prompt
            continue
        body = cast(ast.ClassDef, node).body
        for field, text in itertools.pairwise(body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(doc))):
                    found[name] = " ".join(doc.split())
    return found


def _fits(kind: Any, value: object) -> bool:
    """Whether a value is of a type; a bool is no number."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin in (Union, types.UnionType):
        return any(_fits(part, value) for part in parts)
    if origin is tuple and isinstance(value, tuple):
        each = parts[:1] * len(value) if parts[1:] == (...,) else parts
        return len(each) == len(value) and all(map(_fits, each, value))
    if kind in (int, float):
        return isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
    known = origin or kind
    return not isinstance(known, type) or isinstance(value, known)


def _allowed(kind: Any, declared: Declared) -> str:
    """Type and range in words."""
    limits = declared.allowed()
    return " or ".join(f"{word} {limits}" if limits and word.endswith("number") else word for word in _kinds(kind))


def _kinds(kind: Any) -> list[str]:
    """Words for a type, one for each alternative."""
    if get_origin(kind) is Literal:
        return [f"one of {', '.join(map(str, get_args(kind)))}" if len(get_args(kind)) > 1 else repr(get_args(kind)[0])]
    if get_origin(kind) in (Union, types.UnionType):
        return [word for part in get_args(kind) for word in _kinds(part)]
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "left out"}
    return [words.get(kind, f"a {getattr(get_origin(kind) or kind, '__name__', kind)}")]


def _finite(value: Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond all floats
        return False


def _text(value: Real) -> str:
    """A bound, as 2^32 or 0.01."""
    for base in (2, 10):
        power = round(math.log(value, base)) if value >= 10**6 else 0
        if power and value == base**power:
            return f"{base}^{power}"
    return f"{value:.10g}"


def __getattr__(name: str) -> Any:
    """Says what became of the names of metarl 0.1."""
    if name in ("FloatRange", "IntRange", "Range", "Options"):
        raise ImportError(f"{name} of metarl 0.1 is now Between or Log (numbers), or OneOf (a few values)")
    raise AttributeError(f"module {__name__} has no attribute {name}")
