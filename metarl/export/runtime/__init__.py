"""Runs an exported policy with numpy and the standard library alone.

This folder may be copied to a robot, by any name: beside this file, which needs none of the others, `runner.py` drives
a robot, `guard.py` stands between it and the policy, and `transports.py` reaches others and recordings.

A bundle is a folder that is read as data; nothing of it is executed. `contract.json`, schema 1, holds:

| key | value |
|---|---|
| `schema`, `files` | 1; SHA-256 of every other file by its name, `policy.safetensors` among them |
| `control_step`, `episode_steps`, `episodes_per_trial` | [s], [control steps], and K |
| `observation` | parts: `name`, `size`, `unit`, `elements`, and optional lists `low`, `high`, `mean`, `std` |
| `action` | `names`, `kind` (`position`, `torque`, `normalised`), `unit`, `scale`, `offset`: offset + scale · a is |
| | commanded. Optional lists: `default` (pose), `kp`, `kd`, `torque_limit`, `velocity_limit`, `position_low`, |
| | `position_high`, `rate_limit` (of the command, per second). Optional `joint_position` and `joint_velocity`: the |
| | parts that measure the joints in the order of `names`, the position from `default` |
| `gravity` | optional: the part that is the direction of gravity in the robot's frame, by which tilt is known |
| `state` | tensors `name`, `shape`, `dtype`, `initial` (name of a tensor in the file) |
| `noise` | `size`, and `deterministic`: the indices that are needed where the mean action is asked for |
| `reward` | `needed`: whether the policy adapts by the reward, which a robot must then tell |
| `programs` | step functions as data: `act`, `observe`, `end_episode`; optional `read_out` |

A program is `inputs` (`name`, `shape`, `dtype`), `operations` and `outputs` (`name`, `value`); an operation is an `op`
of the table `OPERATIONS`, the names `in` that it takes, the name `out` it makes, and its attributes. `const.x` is the
tensor of that very name in policy.safetensors; `state.x` as input and output is the state tensor x, and one that is no
output stays as it is. Inputs are `obs`, `noise` of `act`; `obs`, `action`, `reward`, `final_obs`, `terminated` of
`observe`, all with one row.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SCHEMA = 1
DTYPES: dict[str, type] = {"float32": np.float32, "float64": np.float64, "int64": np.int64, "bool": np.bool_}
_STORED = {"F32": "float32", "F64": "float64", "I64": "int64", "BOOL": "bool"}
_MOST_BYTES, _MOST_ELEMENTS, _MOST_OPERATIONS = 2**29, 2**24, 100_000


class BundleError(ValueError):
    """A bundle, a log or a robot that is not what it has to be; one sentence says what and where."""


# ------------------------------------------------------------------------------------------ the table of operations


def _index(index: np.ndarray, size: int) -> np.ndarray:
    if index.size and (index.min() < 0 or index.max() >= size):
        raise BundleError(f"an index of a program is outside [0, {size})")
    return index


def _clamp(x: np.ndarray, *, min: float | None = None, max: float | None = None) -> np.ndarray:
    x = x if min is None else np.maximum(x, x.dtype.type(min))
    return x if max is None else np.minimum(x, x.dtype.type(max))


def _gather(x: np.ndarray, index: np.ndarray, *, dim: int) -> np.ndarray:
    cut = tuple(slice(None) if i == dim % x.ndim else slice(n) for i, n in enumerate(index.shape))
    return np.take_along_axis(x[cut], _index(index, x.shape[dim]), dim)


def _scatter(x: np.ndarray, index: np.ndarray, source: np.ndarray, *, dim: int) -> np.ndarray:
    out = x.copy()
    cut = tuple(slice(None) if i == dim % x.ndim else slice(n) for i, n in enumerate(index.shape))
    np.put_along_axis(out[cut], _index(index, x.shape[dim]), source, dim)
    return out


def _slice(x: np.ndarray, *, dim: int, start: int, end: int, step: int = 1) -> np.ndarray:
    return x[(slice(None),) * (dim % x.ndim) + (slice(start, end, step),)]


def _reduced(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    return lambda x, *, dim, keepdim=False: function(x, axis=tuple(dim), keepdims=keepdim)


def _taken(x: np.ndarray, index: np.ndarray, *, dim: int) -> np.ndarray:
    return np.take(x, _index(index, x.shape[dim]), axis=dim)


_erf = np.vectorize(math.erf, otypes=[np.float64])


class Operation(NamedTuple):
    """What a program may do: as torch does it, on arrays of one of the `DTYPES`."""

    run: Callable[..., Any]
    """Of the operands, and the attributes by name."""
    operands: int = 1
    """Their number; 0 for any above 0."""
    required: tuple[str, ...] = ()
    """Attributes."""
    optional: tuple[str, ...] = ()


_ONE = np.float32(1.0)
_OF_ONE: dict[str, Callable[..., Any]] = {
    **{"neg": np.negative, "abs": np.abs, "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "sin": np.sin},
    **{"cos": np.cos, "tanh": np.tanh, "logical_not": np.logical_not, "floor": np.floor},
    "erf": lambda x: _erf(x).astype(x.dtype),
    "rsqrt": lambda x: _ONE / np.sqrt(x),
    "reciprocal": lambda x: _ONE / x,
    "sigmoid": lambda x: np.float32(0.5) * (np.tanh(np.float32(0.5) * x) + _ONE),
    "relu": lambda x: np.maximum(x, x.dtype.type(0)),
    "softplus": lambda x: np.logaddexp(x, np.float32(0.0)),
}
_OF_TWO: dict[str, Callable[..., Any]] = {
    **{"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "matmul": np.matmul},
    **{"maximum": np.maximum, "minimum": np.minimum, "eq": np.equal, "ne": np.not_equal, "lt": np.less},
    **{"le": np.less_equal, "gt": np.greater, "ge": np.greater_equal},
    **{"logical_and": np.logical_and, "logical_or": np.logical_or},
}
OPERATIONS: dict[str, Operation] = {
    **{name: Operation(function) for name, function in _OF_ONE.items()},
    **{name: Operation(function, 2) for name, function in _OF_TWO.items()},
    "clamp": Operation(_clamp, 1, (), ("min", "max")),
    "where": Operation(np.where, 3),
    "transpose": Operation(lambda x, *, perm: np.transpose(x, perm), 1, ("perm",)),
    "reshape": Operation(lambda x, *, shape: np.reshape(x, shape), 1, ("shape",)),
    "expand": Operation(lambda x, *, shape: np.broadcast_to(x, shape), 1, ("shape",)),
    "cat": Operation(lambda *x, dim: np.concatenate(x, axis=dim), 0, ("dim",)),
    "slice": Operation(_slice, 1, ("dim", "start", "end"), ("step",)),
    "gather": Operation(_gather, 2, ("dim",)),
    "index_select": Operation(_taken, 2, ("dim",)),
    "scatter": Operation(_scatter, 3, ("dim",)),
    "sum": Operation(_reduced(np.sum), 1, ("dim",), ("keepdim",)),
    "mean": Operation(_reduced(np.mean), 1, ("dim",), ("keepdim",)),
    "amax": Operation(_reduced(np.max), 1, ("dim",), ("keepdim",)),
    "amin": Operation(_reduced(np.min), 1, ("dim",), ("keepdim",)),
    "cumsum": Operation(lambda x, *, dim: np.cumsum(x, axis=dim, dtype=x.dtype), 1, ("dim",)),
    "cast": Operation(lambda x, *, dtype: x.astype(dtype), 1, ("dtype",)),
    "full": Operation(lambda *, shape, value, dtype: np.full(shape, value, dtype), -1, ("shape", "value", "dtype")),
}
"""The definition of all that a program may do. `full` has no operand; `sum`, `mean`, `amax`, `amin` take `dim` as a
list and `cat`, `slice`, `gather`, `index_select`, `scatter`, `cumsum` as a number; `reshape` and `expand`
name the whole `shape`; `scatter` writes its third operand, of the index's shape, into a copy of the first; an index
beyond the operand is an error. All operands have one dtype, but for the condition of `where` (bool) and an index."""


def _attribute(name: str, value: Any, where: str) -> Any:
    if name in ("shape", "perm") or (name == "dim" and isinstance(value, list)):
        if isinstance(value, list) and all(type(n) is int and (n >= 0 or name == "dim") for n in value):
            return tuple(value)
    elif name == "dtype":
        if value in DTYPES:
            return DTYPES[value]
    elif name == "keepdim":
        if isinstance(value, bool):
            return value
    elif name in ("min", "max", "value"):
        if isinstance(value, int | float) or (value is None and name != "value"):
            return value
    elif type(value) is int:
        return value
    raise BundleError(f"{where}: attribute '{name}' = {value!r} is not one")


def _elements(op: str, shapes: Sequence[tuple[int, ...]], attributes: Mapping[str, Any]) -> int:
    """An upper limit to the elements of what an operation makes, known before any memory is taken."""
    if op in ("full", "expand", "reshape"):
        return math.prod(attributes["shape"])
    if op == "matmul":
        (*a, n, k), (*b, m, p) = shapes
        return math.prod(np.broadcast_shapes(tuple(a), tuple(b))) * n * p if k == m else 0
    if op == "cat":
        return sum(math.prod(shape) for shape in shapes)
    if op == "index_select":
        along: int = max(shapes[0][attributes["dim"]], 1)
        return math.prod(shapes[0]) // along * math.prod(shapes[1])
    if op in ("gather", "scatter"):
        return max(math.prod(shape) for shape in shapes)
    return math.prod(np.broadcast_shapes(*shapes))


# ------------------------------------------------------------------------------------------------------- a program


@dataclass(frozen=True)
class Tensor:
    """An input of a program, or a tensor of the state."""

    name: str
    """`obs`, `noise`, `state.memory`, ..."""
    shape: tuple[int, ...]
    """One world stands in front."""
    dtype: str
    """One of `DTYPES`."""

    @staticmethod
    def of(row: Any, where: str) -> Tensor:
        """From plain data."""
        shape = tuple(_numbers(row, "shape", where, whole=True))
        made = Tensor(_text(row, "name", where), shape, str(row.get("dtype")))
        if made.dtype not in DTYPES:
            raise BundleError(f"{where}: '{made.name}' has dtype {made.dtype!r}; there are {', '.join(DTYPES)}")
        if min(made.shape, default=0) < 0 or math.prod(made.shape) > _MOST_ELEMENTS:
            raise BundleError(f"{where}: '{made.name}' has the impossible shape {list(made.shape)}")
        return made

    def read(self, value: Any) -> np.ndarray:
        """The value as an array of its own of this shape and dtype; `BundleError` where it is none."""
        array: np.ndarray = np.array(value, DTYPES[self.dtype])
        if array.shape != self.shape:
            raise BundleError(f"'{self.name}' has shape {list(array.shape)}: it must be {list(self.shape)}")
        return array


class Program:
    """A step function of a policy, as a list of operations on named arrays.

    Making one checks it: each operation by the table, and shapes and dtypes by a run on zeros.
    """

    def __init__(self, name: str, plain: Any, constants: Mapping[str, np.ndarray]) -> None:
        where = f"program '{name}'"
        self.name = name
        self.inputs = [Tensor.of(row, where) for row in _rows(plain, "inputs", where)]
        slots = {tensor.name: i for i, tensor in enumerate(self.inputs)}
        if len(slots) != len(self.inputs):
            raise BundleError(f"{where}: two inputs have one name")
        used: list[np.ndarray] = []
        rows = _rows(plain, "operations", where)
        if len(rows) > _MOST_OPERATIONS:
            raise BundleError(f"{where} has {len(rows)} operations: {_MOST_OPERATIONS} is the most")

        def slot(value: Any) -> int:
            if not isinstance(value, str) or value not in slots:
                if not isinstance(value, str) or value not in constants:
                    raise BundleError(f"{where}: no value is named {value!r} where it is used")
                slots[value] = len(slots)
                used.append(constants[value])
                pending.append(slots[value])
            return slots[value]

        pending: list[int] = []
        self._steps: list[tuple[Callable[..., Any], list[int], int]] = []
        self._sizes: list[tuple[str, dict[str, Any]]] = []
        for row in rows:
            op, attributes = _operation(row, where)
            operands = [slot(value) for value in row["in"]]
            out = _text(row, "out", where)
            if out in slots or out in constants:
                raise BundleError(f"{where}: the value '{out}' is made twice")
            slots[out] = len(slots)
            self._steps.append((partial(OPERATIONS[op].run, **attributes), operands, slots[out]))
            self._sizes.append((op, attributes))
        self.outputs = {_text(row, "name", where): slot(row.get("value")) for row in _rows(plain, "outputs", where)}
        self._constants = list(zip(pending, used, strict=True))
        self._length = len(slots)
        found = self._execute([np.zeros(t.shape, DTYPES[t.dtype]) for t in self.inputs], checked=True)
        self.made = {output: Tensor(output, value.shape, value.dtype.name) for output, value in found.items()}
        """What it returns."""

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The outputs by name. `inputs` holds at least those of the program, of its shapes; they are copied."""
        missing = [tensor.name for tensor in self.inputs if tensor.name not in inputs]
        if missing:
            raise BundleError(f"program '{self.name}' needs {', '.join(missing)}")
        return self._execute([tensor.read(inputs[tensor.name]) for tensor in self.inputs])

    def _execute(self, inputs: list[np.ndarray], checked: bool = False) -> dict[str, np.ndarray]:
        values: list[Any] = [*inputs, *[None] * (self._length - len(inputs))]
        for place, constant in self._constants:
            values[place] = constant
        with np.errstate(all="ignore"):  # as torch: what is not finite is seen by whoever reads the outputs
            if checked:
                self._checked(values)
            else:
                for function, operands, out in self._steps:
                    values[out] = function(*[values[i] for i in operands])
        return {name: np.asarray(values[place]) for name, place in self.outputs.items()}

    def _checked(self, values: list[Any]) -> None:
        for (function, operands, out), (op, attributes) in zip(self._steps, self._sizes, strict=True):
            taken = [np.asarray(values[i]) for i in operands]
            where = f"program '{self.name}', operation '{op}' of shapes {[list(x.shape) for x in taken]}"
            chooser = {"where": 0, "gather": 1, "index_select": 1, "scatter": 1}.get(op)
            alike = [x.dtype for i, x in enumerate(taken) if i != chooser]
            kind = np.bool_ if op == "where" else np.int64
            if len(set(alike)) > 1 or (chooser is not None and taken[chooser].dtype != kind):
                raise BundleError(f"{where}: its operands have dtypes {', '.join(x.dtype.name for x in taken)}")
            try:
                if _elements(op, [x.shape for x in taken], attributes) > _MOST_ELEMENTS:
                    raise BundleError(f"{where} makes more than {_MOST_ELEMENTS} numbers")
                values[out] = made = np.asarray(function(*taken))
            except (ValueError, TypeError, IndexError) as error:
                raise BundleError(f"{where}: {error}") from None
            if made.dtype.name not in DTYPES:
                raise BundleError(f"{where} makes {made.dtype.name}: there are {', '.join(DTYPES)}")


def _operation(row: Any, where: str) -> tuple[str, dict[str, Any]]:
    """Name and attributes of an operation, checked by the table."""
    op = _text(row, "op", where)
    if op not in OPERATIONS:
        raise BundleError(f"{where}: there is no operation '{op}' in schema {SCHEMA}")
    entry, names = OPERATIONS[op], set(row) - {"op", "in", "out"}
    operands = row.get("in")
    if not isinstance(operands, list) or not (
        len(operands) == max(entry.operands, 0) or (entry.operands == 0 and operands)
    ):
        raise BundleError(f"{where}: operation '{op}' takes {entry.operands} operands (0: any), not {operands!r}")
    if not set(entry.required) <= names <= {*entry.required, *entry.optional}:
        raise BundleError(f"{where}: operation '{op}' has the attributes {sorted(names)}")
    attributes = {name: _attribute(name, row[name], f"{where}, operation '{op}'") for name in sorted(names)}
    if isinstance(attributes.get("dim"), tuple) != (op in ("sum", "mean", "amax", "amin")) and "dim" in attributes:
        raise BundleError(f"{where}: operation '{op}' has 'dim' = {row['dim']!r}")
    return op, attributes


# ------------------------------------------------------------------------------------------------------ the bundle


def _text(row: Any, key: str, where: str) -> str:
    if not isinstance(row, dict) or not isinstance(row.get(key), str):
        raise BundleError(f"{where}: '{key}' is missing or no text")
    return str(row[key])


def _rows(row: Any, key: str, where: str) -> list[Any]:
    if not isinstance(row, dict) or not isinstance(row.get(key), list):
        raise BundleError(f"{where}: '{key}' is missing or no list")
    return list(row[key])


def _numbers(row: Any, key: str, where: str, *, size: int | None = None, whole: bool = False) -> list[Any]:
    found, kind = _rows(row, key, where), int if whole else (int, float)
    if not all(isinstance(x, kind) and not isinstance(x, bool) and math.isfinite(x) for x in found):
        raise BundleError(f"{where}: '{key}' must hold finite numbers only")
    if size is not None and len(found) != size:
        raise BundleError(f"{where}: '{key}' has {len(found)} numbers, not {size}")
    return found


def _number(row: Mapping[str, Any], key: str, least: float) -> float:
    (value,) = _numbers({key: [row.get(key)]}, key, "contract.json")
    if value < least:
        raise BundleError(f"contract.json: '{key}' = {value} is out of range: it must be at least {least}")
    return float(value)


@dataclass(frozen=True)
class Part:
    """A named part of the observation."""

    name: str
    size: int
    unit: str
    elements: tuple[str, ...]
    low: np.ndarray
    """Lowest value that a sound sensor gives; -inf where the contract names none."""
    high: np.ndarray
    mean: np.ndarray | None = None
    """Mean in training, with `std`; None where it is not told."""
    std: np.ndarray | None = None

    def labels(self) -> list[str]:
        """The name of every number, as `gyro.x`."""
        return [self.name] if self.size == 1 else [f"{self.name}.{e}" for e in self.elements or range(self.size)]

    @staticmethod
    def of(row: Any) -> Part:
        """From plain data."""
        where = "contract.json, observation"
        name, unit = _text(row, "name", where), _text(row, "unit", where)
        size, elements = row.get("size"), row.get("elements") or []
        if not isinstance(size, int) or not 1 <= size <= 100_000 or len(elements) not in (0, size):
            raise BundleError(f"{where}: part '{name}' has size {size!r} and {len(elements)} names of elements")

        def numbers(key: str, otherwise: float | None) -> Any:
            if row.get(key) is None:
                return None if otherwise is None else np.full(size, otherwise)
            return np.array(_numbers(row, key, where, size=size), float)

        limits = numbers("low", -np.inf), numbers("high", np.inf)
        return Part(name, size, unit, tuple(map(str, elements)), *limits, numbers("mean", None), numbers("std", None))


@dataclass(frozen=True)
class Action:
    """What an action in [-1, 1] commands; arrays have one number per actuator, None where the contract names none."""

    names: tuple[str, ...]
    kind: str
    """`position` (a servo's target), `torque`, or `normalised` (the action itself)."""
    unit: str
    scale: np.ndarray
    offset: np.ndarray
    default: np.ndarray | None
    """The pose that it starts from and falls back to."""
    kp: np.ndarray | None
    kd: np.ndarray | None
    torque_limit: np.ndarray | None
    velocity_limit: np.ndarray | None
    position_low: np.ndarray | None
    position_high: np.ndarray | None
    rate_limit: np.ndarray | None
    """Of the command, per second."""
    joint_position: str | None
    """The part that measures the joints, from `default`."""
    joint_velocity: str | None

    @staticmethod
    def of(row: Any) -> Action:
        """From plain data."""
        where = "contract.json, action"
        names, kind = tuple(map(str, _rows(row, "names", where))), _text(row, "kind", where)
        if kind not in ("position", "torque", "normalised"):
            raise BundleError(f"{where}: kind '{kind}' is not position, torque or normalised")

        def numbers(key: str) -> Any:
            return None if row.get(key) is None else np.array(_numbers(row, key, where, size=len(names)), float)

        for key in ("scale", "offset"):
            _rows(row, key, where)
        optional = ("default", "kp", "kd", "torque_limit", "velocity_limit", "position_low", "position_high")
        lists = {key: numbers(key) for key in ("scale", "offset", *optional, "rate_limit")}
        parts = {key: row.get(key) for key in ("joint_position", "joint_velocity")}
        return Action(names=names, kind=kind, unit=_text(row, "unit", where), **lists, **parts)


@dataclass(frozen=True)
class Bundle:
    """An exported policy with its contract, read and checked."""

    path: Path
    contract: Mapping[str, Any]
    """All that contract.json says."""
    digest: str
    """SHA-256 of contract.json, which holds those of the other files."""
    control_step: float
    observation: tuple[Part, ...]
    action: Action
    state: tuple[Tensor, ...]
    initial: Mapping[str, np.ndarray]
    """The state where nothing is known of the task."""
    noise_size: int
    noise_kept: np.ndarray
    """1 for the noise that is needed also where the mean action is asked for, else 0."""
    reward_needed: bool
    programs: Mapping[str, Program]

    @property
    def observation_size(self) -> int:
        """Length of the observation's vector."""
        return sum(part.size for part in self.observation)

    def places(self, name: str | None) -> slice | None:
        """Where a part stands in the vector; None of a part that is not there."""
        first = 0
        for part in self.observation:
            if part.name == name:
                return slice(first, first + part.size)
            first += part.size
        return None

    @staticmethod
    def read(path: str | Path) -> Bundle:
        """Read a folder; `BundleError` says what of it is damaged or unknown."""
        folder = Path(path)
        text = _bytes(folder / "contract.json")
        contract = _json(text, "contract.json")
        if contract.get("schema") != SCHEMA:
            raise BundleError(f"{folder} is a bundle of schema {contract.get('schema')!r}; this reads schema {SCHEMA}")
        files = contract.get("files")
        if not isinstance(files, dict) or "policy.safetensors" not in files:
            raise BundleError("contract.json: 'files' must name policy.safetensors")
        for name, expected in files.items():
            if Path(name).name != name:
                raise BundleError(f"contract.json: '{name}' is no name of a file in the bundle")
            if hashlib.sha256(content := _bytes(folder / name)).hexdigest() != expected:
                raise BundleError(f"{folder / name} is damaged: its SHA-256 is not the one in contract.json")
            if name == "policy.safetensors":
                tensors = parse_safetensors(content, name)
        return _bundle(folder, contract, hashlib.sha256(text).hexdigest(), tensors)


def _bundle(folder: Path, contract: dict[str, Any], digest: str, tensors: dict[str, np.ndarray]) -> Bundle:
    where = "contract.json"
    state, initial = [], {}
    for row in _rows(contract, "state", where):
        tensor, name = Tensor.of(row, f"{where}, state"), _text(row, "initial", f"{where}, state")
        if name not in tensors or tensors[name].dtype != DTYPES[tensor.dtype]:
            raise BundleError(f"{where}: the initial value '{name}' of state '{tensor.name}' is not in the bundle")
        state.append(tensor)
        initial[tensor.name] = tensor.read(tensors[name])
    noise = contract.get("noise") or {"size": 0, "deterministic": []}
    size, kept = int(_number(noise, "size", 0.0)), np.zeros(int(_number(noise, "size", 0.0)), np.float32)
    kept[_index(np.array(_numbers(noise, "deterministic", f"{where}, noise", whole=True), int), size)] = 1.0
    programs = contract.get("programs")
    if not isinstance(programs, dict) or not {"act", "observe", "end_episode"} <= set(programs):
        raise BundleError(f"{where}: 'programs' must have act, observe and end_episode")
    bundle = Bundle(
        path=folder,
        contract=contract,
        digest=digest,
        control_step=_number(contract, "control_step", 1e-5),
        observation=tuple(map(Part.of, _rows(contract, "observation", where))),
        action=Action.of(contract.get("action")),
        state=tuple(state),
        initial=initial,
        noise_size=size,
        noise_kept=kept,
        reward_needed=bool((contract.get("reward") or {}).get("needed", True)),
        programs={str(name): Program(name, plain, tensors) for name, plain in programs.items()},
    )
    for part in (bundle.action.joint_position, bundle.action.joint_velocity, contract.get("gravity")):
        if part is not None and bundle.places(part) is None:
            raise BundleError(f"{where}: there is no part '{part}' in the observation")
    _require_sound(bundle)
    return bundle


def _require_sound(bundle: Bundle) -> None:
    """Inputs and outputs of the programs are those of the contract, or `BundleError`."""
    observed, actions = bundle.observation_size, len(bundle.action.names)
    given: dict[str, tuple[int, ...]] = {
        "obs": (1, observed),
        "final_obs": (1, observed),
        "action": (1, actions),
        "noise": (1, bundle.noise_size),
    }
    given["reward"] = (1,)
    kinds = {name: Tensor(name, shape, "float32") for name, shape in given.items()}
    kinds |= {name: Tensor(name, (1,), "bool") for name in ("terminated", "worlds")}
    kinds |= {f"state.{t.name}": Tensor(f"state.{t.name}", t.shape, t.dtype) for t in bundle.state}
    for name, program in bundle.programs.items():
        outputs = {} if name == "read_out" else program.made
        for tensor in [*program.inputs, *outputs.values()]:
            if kinds.get(tensor.name) != tensor:
                known = kinds.get(tensor.name)
                told = f"{list(known.shape)} {known.dtype}" if known else "unknown"
                raise BundleError(
                    f"program '{name}': '{tensor.name}' is {list(tensor.shape)} {tensor.dtype}; by the contract {told}"
                )
    if "action" not in bundle.programs["act"].made:
        raise BundleError("program 'act' returns no action")


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BundleError(f"{path} has more than {_MOST_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None


def _json(text: bytes, where: str) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no number")

    try:
        content = json.loads(text.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise BundleError(f"{where} is no table of names and values")
    return content


def parse_safetensors(content: bytes, where: str) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file; `BundleError` unless they fill it, side by side, with finite numbers."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise BundleError(f"{where} is cut off")
    header, data = _json(content[8 : 8 + length], f"{where}'s header"), content[8 + length :]
    header.pop("__metadata__", None)
    found, ends = {}, []
    for name, row in header.items():
        place = f"{where}, tensor '{name}'"
        if not isinstance(row, dict) or row.get("dtype") not in _STORED:
            raise BundleError(f"{place} has no dtype of {', '.join(_STORED)}")
        tensor = Tensor.of({"name": name, "shape": row.get("shape"), "dtype": _STORED[row["dtype"]]}, place)
        first, last = _numbers(row, "data_offsets", place, size=2, whole=True)
        dtype = np.dtype(DTYPES[tensor.dtype]).newbyteorder("<")
        if not 0 <= first <= last <= len(data) or last - first != math.prod(tensor.shape) * dtype.itemsize:
            raise BundleError(f"{place} does not fit its place in the file")
        ends.append((first, last))
        array: np.ndarray = np.frombuffer(data[first:last], dtype).reshape(tensor.shape).astype(DTYPES[tensor.dtype])
        if not np.isfinite(array).all():
            raise BundleError(f"{place} holds NaN or infinite numbers")
        found[name] = array
    filled = 0
    for first, last in sorted(ends):
        if first != filled:
            raise BundleError(f"{where} has tensors that overlap, or bytes of no tensor")
        filled = last
    if filled != len(data):
        raise BundleError(f"{where} has bytes of no tensor")
    return found


# ------------------------------------------------------------------------------------------------------ the policy


class BundlePolicy:
    """A policy with its state kept, for one robot.

    `act`, then `observe` what it led to, step by step; `end_episode` when the robot is put back to a start, which keeps
    what was learnt; `new_task` forgets all.
    """

    def __init__(self, bundle: Bundle, seed: int = 0, deterministic: bool = True) -> None:
        """`deterministic` asks for mean actions; `seed` is that of whatever the policy draws."""
        self.bundle, self.deterministic = bundle, deterministic
        self._random = np.random.Generator(np.random.Philox(seed))
        self.new_task()

    def new_task(self) -> None:
        """Forget what was learnt of the task."""
        self.state = {name: value.copy() for name, value in self.bundle.initial.items()}
        self._taken: tuple[np.ndarray, np.ndarray] | None = None

    def act(self, obs: Any, noise: Any = None) -> np.ndarray:
        """The action (A,) for an observation (O,), to be clipped to [-1, 1]; `noise` (Z,) is drawn unless given."""
        if noise is None:
            drawn = self._random.standard_normal(self.bundle.noise_size, np.float32)
            noise = drawn * self.bundle.noise_kept if self.deterministic else drawn
        made = self._step("act", {"obs": np.reshape(obs, (1, -1)), "noise": np.reshape(noise, (1, -1))})
        self._taken = (np.array(obs, np.float32).reshape(1, -1), made["action"])
        action: np.ndarray = made["action"][0].copy()
        return action

    def observe(self, reward: float, obs: Any, terminated: bool = False, action: Any = None) -> None:
        """What the last action led to; `action` is the one that was applied, where a guard has changed it."""
        if self._taken is None:
            raise BundleError("observe tells what an action led to: call act first")
        seen, own = self._taken
        applied = own if action is None else np.reshape(action, (1, -1))
        told = {"obs": seen, "action": applied, "reward": [reward], "terminated": [bool(terminated)]}
        self._step("observe", {**told, "final_obs": np.reshape(obs, (1, -1))})
        self._taken = None

    def end_episode(self) -> None:
        """The robot is back at a start, on the same task: what was learnt of it stays."""
        self._step("end_episode", {"worlds": [True]})

    def read_out(self) -> dict[str, np.ndarray]:
        """What is worth watching of the state, by name; empty where the bundle has no such program."""
        program = self.bundle.programs.get("read_out")
        return {} if program is None else program.run(self._named_state())

    def _named_state(self) -> dict[str, Any]:
        return {f"state.{name}": value for name, value in self.state.items()}

    def _step(self, name: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        made = self.bundle.programs[name].run({**self._named_state(), **inputs})
        self.state |= {key[6:]: value for key, value in made.items() if key.startswith("state.")}
        return made


def listed(names: Iterable[str]) -> str:
    """Names as a user reads them."""
    return ", ".join(names) or "none"
