"""Tasks as plain data: distributions, a family's task space with its splits, and batches of tasks.

Nothing here knows a simulator. A task is a row of named numbers; a family says what they mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metarl.core import seeding
from metarl.core.distributions import (
    Angle as Angle,
    Ball as Ball,
    Box as Box,
    Choice as Choice,
    Disc as Disc,
    Distribution as Distribution,
    Graded as Graded,
    LogUniform as LogUniform,
    Points as Points,
    Uniform as Uniform,
    Value as Value,
)
from metarl.core.errors import UserError, unknown_name
from metarl.core.files import read_json, write_json

Split = Literal["train", "test", "ood"]


@dataclass(frozen=True)
class Tasks:
    """N tasks as a struct of arrays: each parameter has shape (N,) or (N, d), float64 as it is drawn."""

    values: Mapping[str, Float[Tensor, "N *d"]]

    def __post_init__(self) -> None:
        sizes = {name: len(value) for name, value in self.values.items()}
        if not sizes or len(set(sizes.values())) != 1:
            raise ValueError(f"every task parameter needs one row per task, got {sizes}")

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def __getitem__(self, name: str) -> Float[Tensor, "N *d"]:
        return self.values[name]

    @property
    def ids(self) -> tuple[str, ...]:
        """A name of each task, eight hexadecimal digits: a hash of its parameters, rounded to float32.

        The same task has the same id in every list, record, picture and process. Worked out when asked for, so that
        sampling, selecting and stepping do not pay for it.
        """
        rows = {name: self.values[name].detach().cpu().float().numpy() + 0.0 for name in sorted(self.values)}
        heads = {name: f"{name}={value[0].size}:".encode() for name, value in rows.items()}
        return tuple(
            hashlib.blake2b(b"".join(heads[name] + rows[name][i].tobytes() for name in rows), digest_size=4).hexdigest()
            for i in range(len(self))
        )

    def to(self, device: torch.device, dtype: torch.dtype) -> Tasks:
        """The same tasks as tensors of another device and dtype."""
        return Tasks({name: value.to(device, dtype) for name, value in self.values.items()})

    def select(self, index: Int64[Tensor, "n"]) -> Tasks:
        """The tasks at `index`, in that order (repeats allowed)."""
        return Tasks({name: value[index] for name, value in self.values.items()})

    def rows(self) -> list[dict[str, Value]]:
        """One plain dictionary per task."""
        columns = {name: value.tolist() for name, value in self.values.items()}
        return [{name: column[i] for name, column in columns.items()} for i in range(len(self))]

    def __iter__(self) -> Iterator[dict[str, Value]]:
        return iter(self.rows())

    @staticmethod
    def from_rows(rows: Sequence[Mapping[str, Value]]) -> Tasks:
        """Inverse of `rows`."""
        if not rows or any(row.keys() != rows[0].keys() for row in rows):
            raise ValueError("a batch of tasks needs at least one task, and the same parameters in each")
        return Tasks({k: torch.tensor([row[k] for row in rows], dtype=torch.float64) for k in rows[0]})


@dataclass(frozen=True)
class Parameter:
    """One number (or point) that differs between the tasks of a family."""

    train: Distribution
    """Distribution of the `train` and `test` splits."""
    unit: str
    """Unit, as `m/s`; `1` for ratios."""
    ood: Distribution | None = None
    """Distribution of the `ood` split, outside the training range; None keeps the training one."""
    nominal: Value | None = None
    """The value of the unmodified robot, if there is one."""
    help: str = ""
    """What it is, in one phrase."""
    labels: tuple[str, ...] = ()
    """What the values 0, 1, ... of an index stand for; a negative one is none of them."""
    graded: bool = False
    """The lowest, first or nearest values are the easiest: a curriculum may widen the range from there."""

    def label(self, value: Value) -> str | None:
        """What an index stands for; None where the parameter is no index."""
        if not self.labels or isinstance(value, list):
            return None
        return self.labels[round(value)] if 0 <= round(value) < len(self.labels) else "none"


@dataclass(frozen=True)
class TaskSpace:
    """The tasks a family may pose: named parameters with their distribution in each split."""

    parameters: Mapping[str, Parameter]

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits this space has: `ood` only where some parameter leaves its training range."""
        has_ood = any(parameter.ood is not None for parameter in self.parameters.values())
        return ("train", "test", "ood") if has_ood else ("train", "test")

    @property
    def is_finite(self) -> bool:
        """All parameters are `Choice` or `Points`: `test` then holds the very tasks of `train`, and is not held out."""
        return all(isinstance(parameter.train, Choice | Points) for parameter in self.parameters.values())

    def distribution(self, name: str, split: Split) -> Distribution:
        """What parameter `name` is drawn from in `split`."""
        parameter = self.parameters[name]
        return parameter.ood if split == "ood" and parameter.ood is not None else parameter.train

    def sample(
        self, split: Split, n: int, rng: np.random.Generator, easiest: Mapping[str, float] | None = None
    ) -> Tasks:
        """`n` independent tasks of `split`; `easiest` keeps only that share of a parameter's range (a curriculum)."""
        self._require(split)
        supports = {name: self.distribution(name, split) for name in self.parameters}
        for name, share in (easiest or {}).items():
            supports[name] = self._graded(name, split).easiest(share)
        drawn = {name: support.sample(n, rng) for name, support in supports.items()}
        return Tasks({name: torch.from_numpy(np.asarray(value, np.float64)) for name, value in drawn.items()})

    def _graded(self, name: str, split: Split) -> Graded:
        if name not in self.parameters:
            raise unknown_name("task parameter", name, self.parameters)
        support = self.distribution(name, split)
        if not (self.parameters[name].graded and isinstance(support, Graded)):
            graded = [name for name, parameter in self.parameters.items() if parameter.graded]
            raise UserError(
                f"task parameter '{name}' is not graded from easy to hard; graded here: {', '.join(graded) or 'none'}"
            )
        return support

    def fixed(self, split: Split, n: int) -> Tasks:
        """The first `n` tasks of the split's fixed list, the same for every run: the held-out set.

        A finite space (see `is_finite`) is enumerated in turn, so that each task is equally represented.
        """
        self._require(split)
        if self.is_finite:
            grid = list(product(*(self.distribution(name, split).values for name in self.parameters)))  # type: ignore[attr-defined]
            columns = zip(*(grid[i % len(grid)] for i in range(n)), strict=True)
            named = zip(self.parameters, columns, strict=True)
            return Tasks({name: torch.tensor(column, dtype=torch.float64) for name, column in named})
        return Tasks.from_rows([self.sample(split, 1, seeding.rng(0, f"tasks/{split}", i)).rows()[0] for i in range(n)])

    def nominal(self, n: int = 1) -> Tasks:
        """The unmodified robot, `n` times; a parameter without a nominal value takes a first training draw."""
        draw = self.sample("train", 1, seeding.rng(0, "tasks/nominal")).rows()[0]
        row = {k: draw[k] if p.nominal is None else p.nominal for k, p in self.parameters.items()}
        return Tasks.from_rows([row] * n)

    def check(self, tasks: Tasks) -> None:
        """Raise `UserError` unless `tasks` has exactly this space's parameters, all finite and of the right length."""
        if set(tasks.values) != set(self.parameters):
            raise UserError(
                f"these tasks have parameters {sorted(tasks.values)}, the family has {sorted(self.parameters)}"
            )
        for name, like in self.nominal().values.items():
            if tasks[name].shape[1:] != like.shape[1:] or not bool(torch.isfinite(tasks[name]).all()):
                kind = "a finite number" if like.dim() == 1 else f"{like.shape[1]} finite numbers"
                raise UserError(f"task parameter '{name}' must be {kind} in every task")
            self._check_choice(name, tasks[name])

    def _check_choice(self, name: str, values: Tensor) -> None:
        """A `Choice` has no values between or beyond; other parameters may be asked for anything finite."""
        supports = [self.distribution(name, split) for split in self.splits]
        if all(isinstance(support, Choice) for support in supports):
            for value in set(values.tolist()):
                if value != self.parameters[name].nominal and not any(s.contains(value) for s in supports):
                    allowed = " or ".join(dict.fromkeys(support.describe() for support in supports))
                    raise UserError(f"task parameter '{name}' = {value:g} is out of range: it must be {allowed}")

    def _require(self, split: Split) -> None:
        if split not in self.splits:
            raise UserError(f"this family has no '{split}' split; available: {', '.join(self.splits)}")


FORMAT = 1
"""Format of the files of tasks; those without a number are read as format 1."""


def save_tasks(path: Path, family: str, tasks: Tasks, details: Mapping[str, object] | None = None) -> None:
    """Write a task list as JSON; its `ids` are there to be found again in results, and are not read back.

    Of what else is known in `details`, `intervals` are read back by `load_ranges`.
    """
    own = {"tasks_format": FORMAT, "family": family, "tasks": tasks.rows(), "ids": tasks.ids}
    write_json(path, own | dict(details or {}))


def family_of_tasks(path: Path) -> str:
    """Name of the family that a file of tasks is of; `UserError` where it is none."""
    return str(_task_file(path)["family"])


def load_tasks(path: Path, family: str, space: TaskSpace) -> Tasks:
    """Read a task list back; `UserError` where it is no task list or belongs to another family."""
    content = _task_file(path)
    try:
        owner, tasks = content["family"], Tasks.from_rows(content["tasks"])
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        raise _no_list(path) from None
    if owner != family and not family.endswith(f"/{owner}"):  # a user's own file: runs know it by its full path
        raise UserError(f"{path} holds tasks of '{owner}', not of '{family}'")
    space.check(tasks)
    return tasks


def load_ranges(path: Path, space: TaskSpace) -> tuple[str, ...]:
    """Ranges around the tasks of a file, as `payload=1.5:1.9`: what a training is to be narrowed to.

    Of a parameter with an interval (`metarl identify` writes them) that interval, and of others from the least to the
    largest value; either is widened on both sides by half of its width and by a twentieth of the parameter's own range,
    as no simulator is the robot. Parameters that are not in the file's `intervals`, where it has any, keep their range.
    """
    content = _task_file(path)
    tasks = load_tasks(path, content["family"], space)
    intervals, found = content.get("intervals"), []
    try:
        known = {} if intervals is None else {str(k): (float(a), float(b)) for k, (a, b) in intervals.items()}
    except (TypeError, ValueError, AttributeError):
        raise UserError(f'{path}: its intervals must be {{"payload": [low, high], ...}}') from None
    for name, values in tasks.values.items():
        columns = values.reshape(len(tasks), -1).T
        for index, column in enumerate(columns):
            label = f"{name}.{index}" if values.dim() > 1 else name
            support = space.distribution(name, "train")
            own = np.ravel(getattr(support, "low", np.nan)), np.ravel(getattr(support, "high", np.nan))
            if (intervals is not None and label not in known) or not (np.isfinite(own[0]).all()):
                continue
            low, high = known.get(label, (float(column.min()), float(column.max())))
            wider = 0.5 * (high - low) + 0.05 * float(own[1].max() - own[0].min())
            least = 0.0 if own[0].min() >= 0.0 else -np.inf
            found.append(f"{label}={max(low - wider, least):.6g}:{high + wider:.6g}")
    return tuple(found)


def _task_file(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except UserError as error:
        raise UserError(f"{path} is not a task list: {error}") from None
    if not (isinstance(content.get("family"), str) and isinstance(content.get("tasks"), list)):
        raise _no_list(path)
    written = content.get("tasks_format", FORMAT)
    if written != FORMAT:
        raise UserError(f"{path} is a task list of format {written!r}; this version reads format {FORMAT}")
    return content


def _no_list(path: Path) -> UserError:
    return UserError(f'{path} is not a task list: it needs {{"family": ..., "tasks": [{{...}}, ...]}}')
