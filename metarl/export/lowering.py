"""From torch's operations to the program's: each of ATen's that a traced policy may hold, in words of the table.

What depends on constants alone is computed here, once: normalisers fold in, weights come out transposed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from metarl.export import runtime
from metarl.export.program import CONST, Operation

_SMALL = 16  # numbers of a constant that is not worth an operation `full`


class UnsupportedError(Exception):
    """A policy does something that a program has no operation for."""


@dataclass(frozen=True)
class Value:
    """A value of the program, with an example of what it may hold."""

    name: str
    example: Tensor


def dtype_name(dtype: torch.dtype) -> str:
    """As `float32`."""
    return str(dtype).removeprefix("torch.")


class Lowering:
    """Collects operations; `constants` is shared by the programs of one policy."""

    def __init__(self, constants: dict[str, Tensor]) -> None:
        self.constants, self.operations = constants, list[Operation]()
        self._names: dict[tuple[Any, ...], str] = {}
        self._made: dict[str, Operation] = {}
        self._values: dict[str, Value] = {}
        for name, value in constants.items():
            self._names[_content(value)] = name

    # ---------------------------------------------------------------------------------------------- values

    def named(self, value: Any, dtype: torch.dtype | None = None, shape: Sequence[int] | None = None) -> Value:
        """The value by a name: constants get one. In another dtype, or expanded to a shape, where that is told."""
        if isinstance(value, Value):
            if dtype is not None and value.example.dtype != dtype:
                value = self.emit("cast", [value], value.example.to(dtype))
            if shape is not None and tuple(value.example.shape) != tuple(shape):
                value = self.emit("expand", [value], value.example.expand(*shape))
            return cast(Value, value)
        tensor = torch.as_tensor(value) if dtype is None else torch.as_tensor(value, dtype=dtype)
        if shape is not None:
            tensor = tensor.expand(*shape)
        if tensor.dtype == torch.float64 and dtype is None and not isinstance(value, Tensor):
            tensor = tensor.float()
        if tensor.numel() > _SMALL and bool((tensor == tensor.reshape(-1)[0]).all()):
            return self.emit("full", [], tensor, value=tensor.reshape(-1)[0].item())
        tensor = tensor.detach().contiguous().clone()
        if tensor.is_floating_point():  # bundles hold finite numbers alone; these do as well, as in masks
            tensor = torch.nan_to_num(tensor, nan=math.nan)
        key = _content(tensor)
        if key not in self._names:
            self._names[key] = f"{CONST}{len(self.constants)}"
            self.constants[self._names[key]] = tensor
        return Value(self._names[key], tensor)

    def emit(self, op: str, inputs: Sequence[Value], example: Tensor, **attributes: Any) -> Value:
        """Add an operation; `example` is what it makes of the inputs' examples."""
        name = f"v{len(self.operations)}"
        made = tuple(example.shape), dtype_name(example.dtype)
        self.operations.append(Operation(op, tuple(x.name for x in inputs), name, *made, attributes))
        self._made[name] = self.operations[-1]
        for value in (*inputs, Value(name, example)):
            self._values[value.name] = value
        return self._values[name]

    def producer(self, value: Value) -> Operation | None:
        """What made the value; None of inputs and constants."""
        return self._made.get(value.name)

    def value(self, name: str) -> Value:
        """The value of that name."""
        return self._values[name]

    # ------------------------------------------------------------------------------------------ a node at a time

    def lower(self, target: Any, args: Sequence[Any], words: dict[str, Any]) -> Any:
        """What a call becomes: a constant where it depends on nothing else, else values."""
        held = [x for x in _leaves([*args, *words.values()]) if isinstance(x, Value)]
        if not held:
            return target(*args, **words)
        if not isinstance(target, torch._ops.OpOverload):  # getitem, of what was split
            return target(*args, **words)
        name = target._schema.name.removeprefix("aten::")
        if name != "_to_copy":
            name = name.removesuffix("_copy").removeprefix("unsafe_")
        if target._schema.is_mutable:  # on what nobody else looks at: the caller puts the result in its place
            name = name.removesuffix("_")
        given = _mapped(args, lambda x: x.example.clone() if isinstance(x, Value) else x)
        example = target(*given, **words) if name not in _NO_EXAMPLE else None
        if name in PLAIN:
            return self._plain(name, [*args], cast(Tensor, example))
        if name not in SPECIAL:
            raise UnsupportedError(f"torch's operation '{name}' has no counterpart in a program")
        return SPECIAL[name](self, example, *args, **words)

    def call(self, function: Callable[..., Any], *args: Any, **words: Any) -> Any:
        """An operation of ATen on values, for rules that are made of others."""
        return self.lower(function, args, words)

    def _plain(self, name: str, args: list[Any], example: Tensor) -> Value:
        """Element by element: all inputs in the result's dtype, or where they are compared in their common one."""
        if name in ("add", "sub") and len(args) > 2 and args[2] != 1:
            raise UnsupportedError(f"{name} with a factor")
        args = args[: PLAIN[name][1]]
        op, dtype = PLAIN[name][0], example.dtype
        if op == "mul" and dtype == torch.bool:
            op = "logical_and"
        if dtype == torch.bool:
            tensors = [example_of(x) for x in args]
            dtype = torch.result_type(*tensors) if len(tensors) == 2 else tensors[0].dtype
            if op.startswith("logical"):
                dtype = torch.bool
        if op in ("eq", "ne") and isinstance(args[1], float) and math.isinf(args[1]):
            most = torch.finfo(dtype).max
            op, args = ("gt", [args[0], most]) if args[1] > 0 else ("lt", [args[0], -most])
            same = self.emit(op, [self.named(x, dtype) for x in args], example)
            return same if name == "eq" else self._plain("logical_not", [same], example)
        if op == "mul" and _neutral(args[1], example) and example_of(args[0]).shape == example.shape:
            return self.named(args[0], dtype)
        if op == "where":
            condition = self.named(args[0], torch.bool)
            return self.emit("where", [condition, *(self.named(x, example.dtype) for x in args[1:])], example)
        return self.emit(op, [self.named(x, dtype) for x in args], example)


def inputs_of(slots: Sequence[tuple[str, Tensor]]) -> tuple[tuple[runtime.Tensor, ...], list[Value]]:
    """The inputs of a program, and their values."""
    made = tuple(runtime.Tensor(name, tuple(example.shape), dtype_name(example.dtype)) for name, example in slots)
    return made, [Value(name, example) for name, example in slots]


def _neutral(factor: Any, product: Tensor) -> bool:
    """Whether a product by this is the other factor."""
    if isinstance(factor, Tensor):
        return factor.dtype == product.dtype and bool((factor == 1).all())
    return isinstance(factor, int | float) and factor == 1


def _content(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tuple(tensor.shape), tensor.cpu().contiguous().numpy().tobytes()


def _leaves(items: Any) -> list[Any]:
    if isinstance(items, list | tuple):
        return [leaf for item in items for leaf in _leaves(item)]
    return [items]


def _mapped(items: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(items, list | tuple):
        return [_mapped(item, change) for item in items]
    return change(items)


def example_of(value: Any) -> Any:
    """A value's example; what is none stays as it is."""
    return value.example if isinstance(value, Value) else value


# --------------------------------------------------------------------------------------- element by element

PLAIN: dict[str, tuple[str, int]] = {
    **{name: (name, 1) for name in ("neg", "abs", "exp", "log", "sqrt", "rsqrt", "reciprocal", "tanh", "sigmoid")},
    **{name: (name, 1) for name in ("relu", "sin", "cos", "erf", "floor", "logical_not", "softplus")},
    **{name: (name, 2) for name in ("add", "sub", "mul", "div", "maximum", "minimum", "eq", "ne", "lt", "le", "gt")},
    **{name: (name, 2) for name in ("ge", "logical_and", "logical_or")},
    "bitwise_and": ("logical_and", 2),
    "bitwise_or": ("logical_or", 2),
    "bitwise_not": ("logical_not", 1),
    "where": ("where", 3),
}
"""ATen's name: the program's, and the number of its operands."""
_NO_EXAMPLE = ("split", "split_with_sizes", "unbind", "var_mean")

SPECIAL: dict[str, Callable[..., Any]] = {}
"""How the others are lowered: see `rule`."""


def rule(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The function lowers these operations of ATen: (lowering, example of the result, arguments...)."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        SPECIAL.update(dict.fromkeys(names, function))
        return function

    return add
