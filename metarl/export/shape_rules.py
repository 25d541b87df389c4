"""How ATen's operations on single elements and on shapes are lowered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from metarl.export.lowering import Lowering, UnsupportedError, Value, example_of, rule


@rule("alias", "clone", "detach", "lift_fresh", "contiguous")
def _same(to: Lowering, example: Tensor, x: Any, **_: Any) -> Any:
    return x


@rule("copy")
def _copied(to: Lowering, example: Tensor, x: Any, new: Any, *_: Any) -> Value:
    return to.named(new, example.dtype, example.shape)


@rule("_to_copy")
def _cast(to: Lowering, example: Tensor, x: Any, **_: Any) -> Value:
    return to.named(x, example.dtype)


@rule("full_like", "zeros_like", "ones_like", "new_zeros", "new_full", "new_ones", "empty_like")
def _constant(to: Lowering, example: Tensor, *_: Any, **__: Any) -> Tensor:
    return example


@rule("clamp", "clamp_min", "hardtanh")
def _clamp(to: Lowering, example: Tensor, x: Any, *bounds: Any, **words: Any) -> Value:
    low, high = (None if b is None else float(b) for b in [*bounds, *words.values(), None, None][:2])
    return to.emit("clamp", [to.named(x, example.dtype)], example, min=low, max=high)


@rule("clamp_max")
def _clamp_max(to: Lowering, example: Tensor, x: Any, high: float) -> Value:
    return to.emit("clamp", [to.named(x, example.dtype)], example, min=None, max=float(high))


@rule("pow")
def _power(to: Lowering, example: Tensor, x: Any, power: Any) -> Any:
    if power == 1:
        return x
    if power == 0.5:
        return to.call(torch.ops.aten.sqrt.default, x)
    if power not in (2, 3):
        raise UnsupportedError(f"the power {power}")
    square = to.call(torch.ops.aten.mul.Tensor, x, x)
    return square if power == 2 else to.call(torch.ops.aten.mul.Tensor, square, x)


@rule("isnan")
def _isnan(to: Lowering, example: Tensor, x: Any) -> Any:
    return to.call(torch.ops.aten.ne.Tensor, x, x)


@rule("isinf")
def _isinf(to: Lowering, example: Tensor, x: Any) -> Any:
    return to.call(torch.ops.aten.eq.Scalar, to.call(torch.ops.aten.abs.default, x), math.inf)


@rule("remainder")
def _remainder(to: Lowering, example: Tensor, x: Any, by: Any) -> Any:
    aten = torch.ops.aten
    whole = to.call(aten.floor.default, to.call(aten.div.Tensor, x, by))
    rest = to.call(aten.sub.Tensor, x, to.call(aten.mul.Tensor, whole, by))
    return rest if example_of(rest).dtype == example.dtype else to.named(rest, example.dtype)


# --------------------------------------------------------------------------------------- shapes


@rule("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze")
def _reshape(to: Lowering, example: Tensor, x: Any, *_: Any, **__: Any) -> Value:
    x = to.named(x)
    return x if x.example.shape == example.shape else to.emit("reshape", [x], example)


@rule("expand")
def _expand(to: Lowering, example: Tensor, x: Any, *_: Any, **__: Any) -> Value:
    return to.named(x, shape=example.shape)


@rule("permute", "transpose", "t")
def _permute(to: Lowering, example: Tensor, x: Any, *how: Any) -> Value:
    x, order = to.named(x), list(range(example.dim()))
    if len(how) == 1:
        order = [d % len(order) for d in how[0]]
    else:
        a, b = how or (0, -1)
        order[a], order[b] = order[b], order[a]
    return to.emit("transpose", [x], example, perm=order)


@rule("cat")
def _cat(to: Lowering, example: Tensor, parts: Sequence[Any], dim: int = 0) -> Value:
    kept = [to.named(x, example.dtype) for x in parts if example_of(x).numel()]
    return kept[0] if len(kept) == 1 else to.emit("cat", kept, example, dim=dim % example.dim())


@rule("stack")
def _stack(to: Lowering, example: Tensor, parts: Sequence[Any], dim: int = 0) -> Any:
    axis = dim % example.dim()
    rows = [to.call(torch.ops.aten.unsqueeze.default, x, axis) for x in parts]
    return to.call(torch.ops.aten.cat.default, rows, axis)


@rule("slice")
def _slice(
    to: Lowering, example: Tensor, x: Any, dim: int = 0, start: Any = None, stop: Any = None, step: int = 1
) -> Value:
    x = to.named(x)
    axis, size = dim % x.example.dim(), x.example.shape[dim]
    first, last, _ = slice(start, stop, step).indices(size)
    if (first, last, step) == (0, size, 1):
        return cast(Value, x)
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


@rule("select")
def _select(to: Lowering, example: Tensor, x: Any, dim: int, index: int) -> Any:
    index %= example_of(x).shape[dim]
    one = to.call(torch.ops.aten.slice.Tensor, x, dim, index, index + 1)
    return to.emit("reshape", [to.named(one)], example)


@rule("split", "split_with_sizes")
def _split(to: Lowering, example: None, x: Any, sizes: Any, dim: int = 0) -> Any:
    total, parts, first = example_of(x).shape[dim], [], 0
    for size in [sizes] * -(-total // sizes) if isinstance(sizes, int) else sizes:
        parts.append(to.call(torch.ops.aten.slice.Tensor, x, dim, first, min(first + size, total)))
        first += size
    return parts


@rule("unbind")
def _unbind(to: Lowering, example: None, x: Any, dim: int = 0) -> Any:
    return [to.call(torch.ops.aten.select.int, x, dim, i) for i in range(example_of(x).shape[dim])]


@rule("slice_scatter")
def _slice_scatter(
    to: Lowering, example: Tensor, x: Any, new: Any, dim: int = 0, start: Any = None, stop: Any = None, step: int = 1
) -> Any:
    if step != 1:
        raise UnsupportedError("writing to every other row")
    size, cut = example.shape[dim], torch.ops.aten.slice.Tensor
    first, last, _ = slice(start, stop).indices(size)
    parts = [to.call(cut, x, dim, 0, first)] * (first > 0) + [new]
    return to.call(torch.ops.aten.cat.default, parts + [to.call(cut, x, dim, last, size)] * (last < size), dim)


@rule("select_scatter")
def _select_scatter(to: Lowering, example: Tensor, x: Any, new: Any, dim: int, index: int) -> Any:
    index, aten = index % example.shape[dim], torch.ops.aten
    row = to.call(aten.unsqueeze.default, new, dim % example.dim())
    return to.call(aten.slice_scatter.default, x, row, dim, index, index + 1)
