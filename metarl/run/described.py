"""What a family is, as plain data in a run's folder: a report reads it where the family's code is not to be run."""

from __future__ import annotations

import dataclasses
import inspect
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarl.core import distributions
from metarl.core.errors import UserError
from metarl.core.files import read_json
from metarl.core.tasks import Distribution, Parameter

if TYPE_CHECKING:  # a policy is loaded without a simulator
    from metarl.sim.family import Family

_LONGEST = 4096
"""No parameter is a longer vector, and no choice has more values."""
_LARGEST = 2**22
"""The file is not larger [bytes]."""


@dataclass(frozen=True)
class Described:
    """A family in words and numbers."""

    summary: str
    """First line of its docstring."""
    control_step: float
    """Length of a control step [s]."""
    episode_steps: int
    """Time limit of an episode [control steps]."""
    parameters: Mapping[str, Parameter]
    """Its task parameters; those that are drawn from a distribution of the user's own are not among them."""

    @staticmethod
    def of(family: Family) -> Described:
        """What a family says of itself."""
        summary = (inspect.getdoc(type(family)) or "").split("\n")[0]
        return Described(summary, family.control_step, family.episode_steps, family.space.parameters)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        rows = {name: row for name, own in self.parameters.items() if (row := _row(own)) is not None}
        return {**vars(self), "parameters": rows}

    @staticmethod
    def read(path: Path) -> Described:
        """What a file of `to_json` holds; `UserError` where it is something else."""
        content = read_json(path, _LARGEST)
        try:
            step, steps = content["control_step"], content["episode_steps"]
            if not (type(step) in (int, float) and 0 < step < math.inf and type(steps) is int and 0 < steps < 10**9):
                raise ValueError("control_step and episode_steps must be numbers above 0")
            parameters = {str(name): _parameter(row) for name, row in content["parameters"].items()}
            return Described(str(content["summary"]), float(step), steps, parameters)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def _row(own: Parameter) -> dict[str, Any] | None:
    train, ood = (None if each is None else _support(each) for each in (own.train, own.ood))
    if train is None or (own.ood is not None and ood is None):
        return None
    return {"train": train, "ood": ood, "unit": own.unit, "help": own.help, "labels": list(own.labels)}


def _support(own: Distribution) -> dict[str, Any] | None:
    """A distribution of metarl's as plain data; None for others."""
    if type(own).__module__ != distributions.__name__:
        return None
    return {"kind": type(own).__name__, **vars(own)}


def _parameter(row: Mapping[str, Any]) -> Parameter:
    train, ood = _distribution(row["train"]), None if row["ood"] is None else _distribution(row["ood"])
    labels = tuple(str(label) for label in row["labels"])
    return Parameter(train, str(row["unit"]), ood, help=str(row["help"]), labels=labels)


def _distribution(row: Mapping[str, Any]) -> Distribution:
    """Inverse of `_support`, for numbers of a sensible size only."""
    kind = getattr(distributions, str(row["kind"]), None)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == distributions.__name__):
        raise ValueError(f"{row['kind']} is no distribution")
    nested = kind is distributions.Points
    values = {name: _tuple(value, nested) for name, value in row.items() if name != "kind"}
    for name, value in values.items():
        outer = value if isinstance(value, tuple) else () if value is None else (value,)
        numbers = [one for each in outer for one in each] if nested else outer
        most = _LONGEST if name == "size" else 1e12
        if len(outer) > _LONGEST or not all(type(one) in (int, float) and abs(one) <= most for one in numbers):
            raise ValueError(f"{name} = {reprlib.repr(value)}")
    made = kind(**values)
    if not isinstance(made, Distribution):
        raise ValueError(f"{row['kind']} is no distribution")
    return made


def _tuple(value: Any, nested: bool) -> Any:
    """A list of a JSON file as a tuple, with its own lists where there may be some; anything else as it is."""
    if not isinstance(value, list):
        return value
    return tuple(_tuple(one, False) for one in value) if nested else tuple(value)
