"""How ATen's products, sums and operations by index are lowered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from metarl.export.lowering import SPECIAL, Lowering, UnsupportedError, Value, example_of, rule

# --------------------------------------------------------------------------------------- products, sums


@rule("mm", "bmm", "matmul")
def _matmul(to: Lowering, example: Tensor, a: Any, b: Any) -> Value:
    return to.emit("matmul", [to.named(a), to.named(b)], example)


def _reduction(name: str) -> Callable[..., Any]:
    def rule(to: Lowering, example: Tensor, x: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> Value:
        rank = example_of(x).dim()
        dims = [dim] if isinstance(dim, int) else list(dim or range(rank))
        x = to.named(x, None if name in ("amax", "amin") else example.dtype)
        return to.emit(name, [x], example, dim=sorted(d % rank for d in dims), keepdim=bool(keepdim))

    return rule


SPECIAL.update({name: _reduction(name) for name in ("sum", "mean", "amax", "amin")})


@rule("any")
def _any(to: Lowering, example: Tensor, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    rank = example_of(x).dim()
    dims = list(range(rank)) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    most = to.named(x, torch.float32)
    most = to.emit("amax", [most], example.float(), dim=sorted(d % rank for d in dims), keepdim=bool(keepdim))
    return to.call(torch.ops.aten.gt.Scalar, most, 0.0)


@rule("var_mean")
def _var_mean(to: Lowering, example: None, x: Any, dim: Any = None, correction: Any = 1, keepdim: bool = False) -> Any:
    if correction != 0:
        raise UnsupportedError("an unbiased variance")
    aten = torch.ops.aten
    far = to.call(aten.sub.Tensor, x, to.call(aten.mean.dim, x, dim, True))
    spread = to.call(aten.mean.dim, to.call(aten.mul.Tensor, far, far), dim, keepdim)
    return [spread, to.call(aten.mean.dim, x, dim, keepdim)]


@rule("cumsum")
def _cumsum(to: Lowering, example: Tensor, x: Any, dim: int, **_: Any) -> Value:
    return to.emit("cumsum", [to.named(x, example.dtype)], example, dim=dim % example.dim())


def _first_of(extreme: str) -> Callable[..., Any]:
    """The first place of the least, or largest: all such places, counted along, where the count is one."""

    def rule(to: Lowering, example: Tensor, x: Any, dim: int, keepdim: bool = False) -> Any:
        aten, rank, size = torch.ops.aten, example_of(x).dim(), example_of(x).shape[dim]
        best = to.call(getattr(aten, extreme).default, x, [dim], True)
        hit = to.call(aten._to_copy.default, to.call(aten.eq.Tensor, x, best), dtype=torch.int64)
        first = to.call(aten.eq.Scalar, to.call(aten.cumsum.default, hit, dim), 1)
        hit = to.call(aten.mul.Tensor, hit, to.call(aten._to_copy.default, first, dtype=torch.int64))
        place = torch.arange(size).reshape([size if d == dim % rank else 1 for d in range(rank)])
        return to.call(aten.sum.dim_IntList, to.call(aten.mul.Tensor, hit, place), [dim], keepdim)

    return rule


SPECIAL.update(argmin=_first_of("amin"), argmax=_first_of("amax"))


# --------------------------------------------------------------------------------------- by index


@rule("gather")
def _gather(to: Lowering, example: Tensor, x: Any, dim: int, index: Any, **_: Any) -> Value:
    return to.emit("gather", [to.named(x), to.named(index)], example, dim=dim % example.dim())


@rule("scatter")
def _scatter(to: Lowering, example: Tensor, x: Any, dim: int, index: Any, new: Any, **_: Any) -> Value:
    shape = example_of(index).shape
    written = to.named(new, example.dtype, shape)
    return to.emit("scatter", [to.named(x), to.named(index), written], example, dim=dim % example.dim())


@rule("index_select")
def _index_select(to: Lowering, example: Tensor, x: Any, dim: int, index: Any) -> Value:
    return to.emit("index_select", [to.named(x), to.named(index)], example, dim=dim % example_of(x).dim())


@rule("index")
def _index(to: Lowering, example: Tensor, x: Any, indices: Sequence[Any]) -> Any:
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) == 1 and example_of(given[0][1]).dim() == 1:
        return to.call(torch.ops.aten.index_select.default, x, *given[0])
    x, own = _of_the_world(to, x, indices)
    return to.call(torch.ops.aten.index_select.default, x, 0, own)


@rule("index_put")
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
    if len(indices) != 2 or isinstance(indices[0], Value) or indices[0] is None or example_of(x).shape[0] != 1:
        raise UnsupportedError("indexing by several tensors")
    return to.call(torch.ops.aten.select.int, x, 0, 0), indices[1]
