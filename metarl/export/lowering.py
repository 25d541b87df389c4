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

from metarl.export.program import CONST, Operation, Slot

_SMALL = 16  # numbers of a constant that is not worth an operation `full`


class UnsupportedError(Exception):
    """A policy does something that a program has no operation for."""


@dataclass(frozen=True)
class Value:
    """A value of the program, with an example of what it may hold."""

    name: str
    example: Tensor


@dataclass(frozen=True)
class Pair:
    """A complex value: its parts, each a `Value` or a constant tensor."""

    real: Any
    imag: Any


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
        if isinstance(value, Pair):
            raise UnsupportedError("a complex number where a real one is needed")
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
        held = [x for x in _leaves([*args, *words.values()]) if isinstance(x, Value | Pair)]
        if not held:
            return target(*args, **words)
        if not isinstance(target, torch._ops.OpOverload):  # getitem, of what was split
            return target(*args, **words)
        name = target._schema.name.removeprefix("aten::")
        if name != "_to_copy":
            name = name.removesuffix("_copy").removeprefix("unsafe_")
        if target._schema.is_mutable:  # on what nobody else looks at: the caller puts the result in its place
            name = name.removesuffix("_")
        if any(isinstance(x, Pair) for x in held) or name == "complex":
            return self._complex(name, list(args), words)
        given = _mapped(args, lambda x: x.example.clone() if isinstance(x, Value) else x)
        example = target(*given, **words) if name not in _NO_EXAMPLE else None
        if name in _PLAIN:
            return self._plain(name, [*args], cast(Tensor, example))
        if name not in _SPECIAL:
            raise UnsupportedError(f"torch's operation '{name}' has no counterpart in a program")
        return _SPECIAL[name](self, example, *args, **words)

    def call(self, function: Callable[..., Any], *args: Any, **words: Any) -> Any:
        """An operation of ATen on values, for rules that are made of others."""
        return self.lower(function, args, words)

    def _plain(self, name: str, args: list[Any], example: Tensor) -> Value:
        """Element by element: all inputs in the result's dtype, or where they are compared in their common one."""
        if name in ("add", "sub") and len(args) > 2 and args[2] != 1:
            raise UnsupportedError(f"{name} with a factor")
        args = args[: _PLAIN[name][1]]
        op, dtype = _PLAIN[name][0], example.dtype
        if dtype == torch.bool:
            tensors = [_example(x) for x in args]
            dtype = torch.result_type(*tensors) if len(tensors) == 2 else tensors[0].dtype
            if op.startswith("logical"):
                dtype = torch.bool
        if op in ("eq", "ne") and isinstance(args[1], float) and math.isinf(args[1]):
            most = torch.finfo(dtype).max
            op, args = ("gt", [args[0], most]) if args[1] > 0 else ("lt", [args[0], -most])
            return (
                self.emit(op, [self.named(x, dtype) for x in args], example)
                if name == "eq"
                else self._plain(
                    "logical_not", [self.emit(op, [self.named(x, dtype) for x in args], ~example)], example
                )
            )
        if (
            op == "mul"
            and isinstance(args[1], Tensor)
            and _neutral(args[1], example)
            and args[0].example.shape == example.shape
        ):
            return self.named(args[0], dtype)
        if op == "where":
            condition = self.named(args[0], torch.bool)
            return self.emit("where", [condition, *(self.named(x, example.dtype) for x in args[1:])], example)
        return self.emit(op, [self.named(x, dtype) for x in args], example)

    def _complex(self, name: str, args: list[Any], words: dict[str, Any]) -> Any:
        """Complex numbers are pairs of real ones: the little that a linear recurrence does with them."""
        aten = torch.ops.aten
        if name == "complex":
            return Pair(*args)
        if name in ("add", "sub", "mul", "addcmul"):
            first, *others = (_pair(x) for x in args)
            if name == "addcmul":
                product = self._complex("mul", others, {})
                return self._complex("add", [first, product], {})
            a, b, c, d = first.real, first.imag, others[0].real, others[0].imag
            if name != "mul":
                both = aten.add.Tensor if name == "add" else aten.sub.Tensor
                return Pair(self.call(both, a, c), self.call(both, b, d))
            mul = aten.mul.Tensor
            real = self.call(aten.sub.Tensor, self.call(mul, a, c), self.call(mul, b, d))
            return Pair(real, self.call(aten.add.Tensor, self.call(mul, a, d), self.call(mul, b, c)))
        if name == "view_as_real":
            return self.call(aten.stack.default, [args[0].real, args[0].imag], -1)
        function = getattr(aten, name, None)
        if name not in ("slice", "select", "view", "unsqueeze", "squeeze", "cat", "alias", "clone", "expand"):
            raise UnsupportedError(f"torch's operation '{name}' on complex numbers has no counterpart in a program")
        of = getattr(function, "Tensor" if name == "slice" else "int" if name == "select" else "default")
        if name == "squeeze":
            of = aten.squeeze.dim
        parts = []
        for part in ("real", "imag"):
            own = _mapped(args, lambda x, part=part: getattr(_pair(x), part) if _is_complex(x) else x)
            parts.append(self.call(of, *own, **words))
        return Pair(*parts)


def inputs_of(slots: Sequence[tuple[str, Tensor]]) -> tuple[tuple[Slot, ...], list[Value]]:
    """The inputs of a program, and their values."""
    made = tuple(Slot(name, tuple(example.shape), dtype_name(example.dtype)) for name, example in slots)
    return made, [Value(name, example) for name, example in slots]


def _neutral(factor: Tensor, product: Tensor) -> bool:
    """Whether a product by this is the other factor."""
    return factor.dtype == product.dtype and bool((factor == 1).all())


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


def _example(value: Any) -> Any:
    return value.example if isinstance(value, Value) else value


def _is_complex(value: Any) -> bool:
    return isinstance(value, Pair) or (isinstance(value, Tensor) and value.is_complex())


def _pair(value: Any) -> Pair:
    if isinstance(value, Pair):
        return value
    if isinstance(value, Tensor):
        return Pair(value.real, value.imag) if value.is_complex() else Pair(value, torch.zeros_like(value))
    return Pair(value, 0.0)


# --------------------------------------------------------------------------------------- element by element

_PLAIN: dict[str, tuple[str, int]] = {
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

_SPECIAL: dict[str, Callable[..., Any]] = {}


def _rule(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The function lowers these operations of ATen: (lowering, example of the result, arguments...)."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        _SPECIAL.update(dict.fromkeys(names, function))
        return function

    return add


@_rule("alias", "clone", "detach", "lift_fresh", "contiguous")
def _same(to: Lowering, example: Tensor, x: Any, **_: Any) -> Any:
    return x


@_rule("copy")
def _copied(to: Lowering, example: Tensor, x: Any, new: Any, *_: Any) -> Value:
    return to.named(new, example.dtype, example.shape)


@_rule("_to_copy")
def _cast(to: Lowering, example: Tensor, x: Any, **_: Any) -> Value:
    return to.named(x, example.dtype)


@_rule("full_like", "zeros_like", "ones_like", "new_zeros", "new_full", "new_ones", "empty_like")
def _constant(to: Lowering, example: Tensor, *_: Any, **__: Any) -> Tensor:
    return example


@_rule("clamp", "clamp_min", "clamp_max", "hardtanh")
def _clamp(to: Lowering, example: Tensor, x: Any, *bounds: Any, **words: Any) -> Value:
    low, high = [*bounds, *words.values(), None, None][:2]
    return to.emit("clamp", [to.named(x, example.dtype)], example, min=low, max=high)


_SPECIAL["clamp_max"] = lambda to, example, x, high: to.emit("clamp", [to.named(x)], example, min=None, max=high)


@_rule("pow")
def _power(to: Lowering, example: Tensor, x: Any, power: Any) -> Any:
    if power == 1:
        return x
    if power == 0.5:
        return to.call(torch.ops.aten.sqrt.default, x)
    if power not in (2, 3):
        raise UnsupportedError(f"the power {power}")
    square = to.call(torch.ops.aten.mul.Tensor, x, x)
    return square if power == 2 else to.call(torch.ops.aten.mul.Tensor, square, x)


@_rule("isnan")
def _isnan(to: Lowering, example: Tensor, x: Any) -> Any:
    return to.call(torch.ops.aten.ne.Tensor, x, x)


@_rule("isinf")
def _isinf(to: Lowering, example: Tensor, x: Any) -> Any:
    return to.call(torch.ops.aten.eq.Scalar, to.call(torch.ops.aten.abs.default, x), math.inf)


@_rule("remainder")
def _remainder(to: Lowering, example: Tensor, x: Any, by: Any) -> Any:
    aten = torch.ops.aten
    whole = to.call(aten.floor.default, to.call(aten.div.Tensor, x, by))
    return to.call(aten.sub.Tensor, x, to.call(aten.mul.Tensor, whole, by))


@_rule("gelu")
def _gelu(to: Lowering, example: Tensor, x: Any, approximate: str = "none") -> Any:
    if approximate != "none":
        raise UnsupportedError("gelu by tanh")
    aten = torch.ops.aten
    share = to.call(aten.add.Tensor, to.call(aten.erf.default, to.call(aten.mul.Tensor, x, math.sqrt(0.5))), 1.0)
    return to.call(aten.mul.Tensor, to.call(aten.mul.Tensor, x, 0.5), share)


@_rule("special_ndtr")
def _normal_share(to: Lowering, example: Tensor, x: Any) -> Any:
    aten = torch.ops.aten
    share = to.call(aten.add.Tensor, to.call(aten.erf.default, to.call(aten.mul.Tensor, x, math.sqrt(0.5))), 1.0)
    return to.call(aten.mul.Tensor, share, 0.5)


# --------------------------------------------------------------------------------------- shapes


@_rule("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze")
def _reshape(to: Lowering, example: Tensor, x: Any, *_: Any, **__: Any) -> Value:
    x = to.named(x)
    return x if x.example.shape == example.shape else to.emit("reshape", [x], example)


@_rule("expand")
def _expand(to: Lowering, example: Tensor, x: Any, *_: Any, **__: Any) -> Value:
    return to.named(x, shape=example.shape)


@_rule("repeat")
def _repeat(to: Lowering, example: Tensor, x: Any, times: Sequence[int]) -> Any:
    x = to.named(x)
    if any(t != 1 and s != 1 for t, s in zip(times, x.example.shape, strict=True)):
        raise UnsupportedError("repeat of more than one row")
    return to.named(x, shape=example.shape)


@_rule("permute", "transpose", "t")
def _permute(to: Lowering, example: Tensor, x: Any, *how: Any) -> Value:
    x, order = to.named(x), list(range(example.dim()))
    if len(how) == 1:
        order = [d % len(order) for d in how[0]]
    else:
        a, b = how or (0, -1)
        order[a], order[b] = order[b], order[a]
    return to.emit("transpose", [x], example, perm=order)


@_rule("cat")
def _cat(to: Lowering, example: Tensor, parts: Sequence[Any], dim: int = 0) -> Value:
    kept = [to.named(x, example.dtype) for x in parts if _example(x).numel()]
    return kept[0] if len(kept) == 1 else to.emit("cat", kept, example, dim=dim % example.dim())


@_rule("stack")
def _stack(to: Lowering, example: Tensor, parts: Sequence[Any], dim: int = 0) -> Any:
    axis = dim % example.dim()
    rows = [to.call(torch.ops.aten.unsqueeze.default, x, axis) for x in parts]
    return to.call(torch.ops.aten.cat.default, rows, axis)


@_rule("slice")
def _slice(
    to: Lowering, example: Tensor, x: Any, dim: int = 0, start: Any = None, stop: Any = None, step: int = 1
) -> Value:
    x = to.named(x)
    axis, size = dim % x.example.dim(), x.example.shape[dim]
    first, last, _ = slice(start, stop, step).indices(size)
    if (first, last, step) == (0, size, 1):
        return x
    made = to.producer(x)
    if made is not None and step == 1 and made.op in ("slice", "cat") and made.attributes["dim"] == axis:
        if made.op == "slice" and made.attributes["step"] == 1:  # of a slice
            ahead = made.attributes["start"]
            return to.emit(
                "slice", [to.value(made.inputs[0])], example, dim=axis, start=ahead + first, end=ahead + last, step=1
            )
        for part in (to.value(name) for name in made.inputs if made.op == "cat"):
            width = part.example.shape[axis]
            if first >= 0 and last <= width:  # of what was put side by side
                return cast(Value, _slice(to, example, part, axis, first, last))
            first, last = first - width, last - width
        first, last, _ = slice(start, stop, step).indices(size)
    return to.emit("slice", [x], example, dim=axis, start=first, end=last, step=step)


@_rule("select")
def _select(to: Lowering, example: Tensor, x: Any, dim: int, index: int) -> Any:
    index %= _example(x).shape[dim]
    one = to.call(torch.ops.aten.slice.Tensor, x, dim, index, index + 1)
    return to.emit("reshape", [to.named(one)], example)


@_rule("split", "split_with_sizes")
def _split(to: Lowering, example: None, x: Any, sizes: Any, dim: int = 0) -> Any:
    total, parts, first = _example(x).shape[dim], [], 0
    for size in [sizes] * -(-total // sizes) if isinstance(sizes, int) else sizes:
        parts.append(to.call(torch.ops.aten.slice.Tensor, x, dim, first, min(first + size, total)))
        first += size
    return parts


@_rule("unbind")
def _unbind(to: Lowering, example: None, x: Any, dim: int = 0) -> Any:
    return [to.call(torch.ops.aten.select.int, x, dim, i) for i in range(_example(x).shape[dim])]


@_rule("slice_scatter")
def _slice_scatter(
    to: Lowering, example: Tensor, x: Any, new: Any, dim: int = 0, start: Any = None, stop: Any = None, step: int = 1
) -> Any:
    if step != 1:
        raise UnsupportedError("writing to every other row")
    size, cut = example.shape[dim], torch.ops.aten.slice.Tensor
    first, last, _ = slice(start, stop).indices(size)
    parts = [to.call(cut, x, dim, 0, first)] * (first > 0) + [new]
    return to.call(torch.ops.aten.cat.default, parts + [to.call(cut, x, dim, last, size)] * (last < size), dim)


@_rule("select_scatter")
def _select_scatter(to: Lowering, example: Tensor, x: Any, new: Any, dim: int, index: int) -> Any:
    index, aten = index % example.shape[dim], torch.ops.aten
    row = to.call(aten.unsqueeze.default, new, dim % example.dim())
    return to.call(aten.slice_scatter.default, x, row, dim, index, index + 1)


# --------------------------------------------------------------------------------------- products, sums


@_rule("mm", "bmm", "matmul")
def _matmul(to: Lowering, example: Tensor, a: Any, b: Any) -> Value:
    return to.emit("matmul", [to.named(a), to.named(b)], example)


@_rule("addmm", "baddbmm")
def _addmm(to: Lowering, example: Tensor, bias: Any, a: Any, b: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    if (beta, alpha) != (1, 1):
        raise UnsupportedError("a scaled product")
    product = to.emit("matmul", [to.named(a), to.named(b)], example)
    return to.call(torch.ops.aten.add.Tensor, product, bias)


def _reduction(name: str) -> Callable[..., Any]:
    def rule(to: Lowering, example: Tensor, x: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> Value:
        rank = _example(x).dim()
        dims = [dim] if isinstance(dim, int) else list(dim or range(rank))
        x = to.named(x, None if name in ("amax", "amin") else example.dtype)
        return to.emit(name, [x], example, dim=sorted(d % rank for d in dims), keepdim=bool(keepdim))

    return rule


_SPECIAL.update({name: _reduction(name) for name in ("sum", "mean", "amax", "amin")})


@_rule("any")
def _any(to: Lowering, example: Tensor, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    rank = _example(x).dim()
    dims = list(range(rank)) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    most = to.named(x, torch.float32)
    most = to.emit("amax", [most], example.float(), dim=sorted(d % rank for d in dims), keepdim=bool(keepdim))
    return to.call(torch.ops.aten.gt.Scalar, most, 0.0)


@_rule("linalg_vector_norm")
def _norm(to: Lowering, example: Tensor, x: Any, order: Any = 2, dim: Any = None, keepdim: bool = False) -> Any:
    if order != 2:
        raise UnsupportedError(f"the norm of order {order}")
    aten = torch.ops.aten
    dims = list(range(_example(x).dim())) if dim is None else dim
    total = to.call(aten.sum.dim_IntList, to.call(aten.mul.Tensor, x, x), dims, keepdim)
    return to.call(aten.sqrt.default, total)


@_rule("var_mean")
def _var_mean(
    to: Lowering, example: Tensor, x: Any, dim: Any = None, correction: Any = 1, keepdim: bool = False
) -> Any:
    if correction != 0:
        raise UnsupportedError("an unbiased variance")
    aten = torch.ops.aten
    far = to.call(aten.sub.Tensor, x, to.call(aten.mean.dim, x, dim, True))
    spread = to.call(aten.mean.dim, to.call(aten.mul.Tensor, far, far), dim, keepdim)
    return [spread, to.call(aten.mean.dim, x, dim, keepdim)]


@_rule("cumsum")
def _cumsum(to: Lowering, example: Tensor, x: Any, dim: int, **_: Any) -> Value:
    return to.emit("cumsum", [to.named(x, example.dtype)], example, dim=dim % example.dim())


@_rule("_softmax")
def _softmax(to: Lowering, example: Tensor, x: Any, dim: int, *_: Any) -> Value:
    return to.emit("softmax", [to.named(x)], example, dim=dim % example.dim())


def _first_of(extreme: str) -> Callable[..., Any]:
    """The first place of the least, or largest: all such places, counted along, where the count is one."""

    def rule(to: Lowering, example: Tensor, x: Any, dim: int, keepdim: bool = False) -> Any:
        aten, rank, size = torch.ops.aten, _example(x).dim(), _example(x).shape[dim]
        best = to.call(getattr(aten, extreme).default, x, [dim], True)
        hit = to.call(aten._to_copy.default, to.call(aten.eq.Tensor, x, best), dtype=torch.int64)
        first = to.call(aten.eq.Scalar, to.call(aten.cumsum.default, hit, dim), 1)
        hit = to.call(aten.mul.Tensor, hit, to.call(aten._to_copy.default, first, dtype=torch.int64))
        place = torch.arange(size).reshape([size if d == dim % rank else 1 for d in range(rank)])
        return to.call(aten.sum.dim_IntList, to.call(aten.mul.Tensor, hit, place), [dim], keepdim)

    return rule


_SPECIAL.update(argmin=_first_of("amin"), argmax=_first_of("amax"))


# --------------------------------------------------------------------------------------- by index


@_rule("gather")
def _gather(to: Lowering, example: Tensor, x: Any, dim: int, index: Any, **_: Any) -> Value:
    return to.emit("gather", [to.named(x), to.named(index)], example, dim=dim % example.dim())


@_rule("scatter")
def _scatter(to: Lowering, example: Tensor, x: Any, dim: int, index: Any, new: Any, **_: Any) -> Value:
    shape = _example(index).shape
    written = to.named(new, example.dtype, shape)
    return to.emit("scatter", [to.named(x), to.named(index), written], example, dim=dim % example.dim())


@_rule("index_select")
def _index_select(to: Lowering, example: Tensor, x: Any, dim: int, index: Any) -> Value:
    return to.emit("index_select", [to.named(x), to.named(index)], example, dim=dim % _example(x).dim())


@_rule("index")
def _index(to: Lowering, example: Tensor, x: Any, indices: Sequence[Any]) -> Any:
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) == 1 and _example(given[0][1]).dim() == 1:
        return to.call(torch.ops.aten.index_select.default, x, *given[0])
    x, own = _of_the_world(to, x, indices)
    return to.call(torch.ops.aten.index_select.default, x, 0, own)


@_rule("index_put")
def _index_put(
    to: Lowering, example: Tensor, x: Any, indices: Sequence[Any], new: Any, accumulate: bool = False
) -> Any:
    aten, shape = torch.ops.aten, example.shape
    rows, place = _of_the_world(to, x, indices)
    width = [1] * (len(shape) - 2)
    index = to.call(aten.expand.default, to.call(aten.view.default, place, [1, *width]), [1, *shape[2:]])
    new = to.call(aten.view.default, new, [1, *shape[2:]])
    return to.call(aten.unsqueeze.default, to.call(aten.scatter.src, rows, 0, index, new), 0)


def _of_the_world(to: Lowering, x: Any, indices: Sequence[Any]) -> tuple[Any, Any]:
    """The rows of the one world, and which of them is meant, of `x[worlds, place]`."""
    if len(indices) != 2 or isinstance(indices[0], Value) or indices[0] is None or _example(x).shape[0] != 1:
        raise UnsupportedError("indexing by several tensors")
    return to.call(torch.ops.aten.select.int, x, 0, 0), indices[1]
