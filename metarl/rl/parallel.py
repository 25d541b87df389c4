"""Work cut into fixed pieces that are summed in order, on several threads and in several processes.

Small recurrent networks gain little from parallel matrix products, but two half-batches run twice as fast on two
cores. The pieces are fixed and summed in order, so the result depends neither on how many threads there are nor on
which process computed which piece.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from metarl.core.graphs import looks
from metarl.core.machine import num_cpus

T = TypeVar("T")
Stretch = tuple[slice, slice, float]
"""Some of a batch's tasks, which rows are theirs, and their share of all."""
ShardLoss = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Indices of samples -> (mean loss over them, vector of diagnostics averaged over them)."""
_LONG = 4096
"""Numbers in a row from which on two exchanges of parts of it take less than one of the whole."""


def single_threaded_math() -> None:
    """Make torch's own kernels run on the calling thread only: results are then free of the thread count."""
    torch.set_num_threads(1)


def device_math(device: str) -> None:
    """On a GPU, let matrix products of float32 take TF32, of ten bits of mantissa: several times as fast."""
    if device == "cuda" and os.environ.get("METARL_TF32", "1") != "0":
        torch.set_float32_matmul_precision("high")


@runtime_checkable
class Group(Protocol):
    """What processes tell each other; each call returns once all have made it."""

    def gather(self, rows: Shaped[Tensor, "*F"]) -> Shaped[Tensor, "P *F"]:
        """What each process gave, in their order; of the same shape in all."""
        ...

    def swap(self, rows: Shaped[Tensor, "P *F"]) -> Shaped[Tensor, "P *F"]:
        """What each process gave for this one, whose own rows are for one process each."""
        ...

    def add(self, row: Float[Tensor, "*F"]) -> Float[Tensor, "*F"]:
        """The sum of what all gave, in an order that depends on how many they are."""
        ...

    def wait(self) -> None:
        """Return once all have come here, however long one is busy by itself."""
        ...


@dataclass(frozen=True)
class Shares:
    """A number of pieces that work is cut into, and which of them are this process's: all, where it is alone."""

    pieces: int = 1
    """Results depend on it, as far as rounding does, and unless `any_order` on nothing else here."""
    rank: int = 0
    """Number of this process among `size`."""
    size: int = 1
    group: Group | None = None
    any_order: bool = False
    """Whether sums may be made in an order that depends on the number of processes, which sends less."""

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    def own(self, number: int) -> range:
        """Which of `number` like things this process does: one stretch, so that processes in order are things in order.

        Where they cannot be shared out evenly, some processes do one more than others.
        """
        return range(number * self.rank // self.size, number * (self.rank + 1) // self.size)

    def wait(self) -> None:
        """Return once all processes have called it."""
        if self.group is not None:
            self.group.wait()

    def gather(self, rows: Shaped[Tensor, "n *F"], number: int) -> Shaped[Tensor, "S *F"]:
        """The rows of all `number` things, in order, of those that each process made of its own."""
        if self.group is None:
            return rows
        counts = self._counts(number)
        if min(counts) == max(counts):
            return self.group.gather(rows).flatten(0, 1)
        filled = rows.new_zeros(max(counts), *rows.shape[1:])
        filled[: len(rows)] = rows
        return torch.cat([found[:count] for found, count in zip(self.group.gather(filled), counts, strict=True)])

    def total(self, rows: Float[Tensor, "n D"], number: int) -> Float[Tensor, "D"]:
        """The sum of the rows of all `number` things, in their order, of those that each process made of its own.

        Long rows are added in stretches, one in each process, which gather the sums then: what is sent does not grow
        with the number of things.
        """
        if self.group is None:
            return in_order(rows)
        if self.any_order:
            return self.group.add(in_order(rows))
        if self.size == 2 or rows.shape[1] < _LONG:
            return in_order(self.gather(rows, number))
        counts, length = self._counts(number), -(-rows.shape[1] // self.size)
        filled = rows.new_zeros(max(counts), self.size * length)
        filled[: len(rows), : rows.shape[1]] = rows
        found = self.group.swap(filled.view(-1, self.size, length).transpose(0, 1).contiguous())
        stretch = in_order(torch.cat([each[:count] for each, count in zip(found, counts, strict=True)]))
        return self.group.gather(stretch).flatten()[: rows.shape[1]]

    def summed(
        self, pieces: Sequence[T], work: Callable[[Sequence[T]], list[Float[Tensor, "D"]]]
    ) -> Float[Tensor, "D"]:
        """The sum, in their order, of what `work` makes of the pieces: each is done by one process.

        Where there are fewer pieces than processes, every process does all of them.
        """
        if len(pieces) < self.size:
            return in_order(torch.stack(work(pieces)))
        own = self.own(len(pieces))
        return self.total(torch.stack(work(pieces[own.start : own.stop])), len(pieces))

    def _counts(self, number: int) -> list[int]:
        """How many of so many things each process has."""
        return [number * (rank + 1) // self.size - number * rank // self.size for rank in range(self.size)]


def in_order(rows: Float[Tensor, "n D"]) -> Float[Tensor, "D"]:
    """The sum of rows, one after the other: torch's own adds in an order that depends on how many columns there are."""
    total: Tensor = reduce(torch.add, rows.unbind())
    return total


ALONE = Shares()
"""One piece, in one process."""


def stretches(number: int, pieces: int, rows: int) -> list[Stretch]:
    """`number` tasks of so many `rows` each in at most so many pieces: their tasks, their rows, and their weight."""
    pieces = min(number, pieces)
    bounds = [number * i // pieces for i in range(pieces + 1)]
    return [(slice(a, b), slice(a * rows, b * rows), (b - a) / number) for a, b in pairwise(bounds)]


def summed_gradient(
    shares: Shares,
    pieces: Sequence[T],
    work: Callable[[T], tuple[Float[Tensor, ""], Float[Tensor, "D"]]],
    parameters: Sequence[Tensor],
) -> tuple[list[Tensor | None], Float[Tensor, "D"]]:
    """The sum over the pieces of the gradients of their losses, and of what `work` tells of them beside.

    None for parameters that no loss depends on. Work that is not cut is taken as it is.
    """
    if shares.pieces == 1:
        loss, told = work(pieces[0])
        return list(torch.autograd.grad(loss, parameters, allow_unused=True)), told.detach()
    unused: set[int] = set()

    def flat(piece: T) -> Tensor:
        loss, told = work(piece)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        unused.update(i for i, each in enumerate(found) if each is None)
        parts = [torch.zeros_like(own) if each is None else each for own, each in zip(parameters, found, strict=True)]
        return torch.cat([*(part.reshape(-1) for part in parts), told.detach()])

    total = shares.summed(pieces, lambda own: [flat(piece) for piece in own])
    sizes = [parameter.numel() for parameter in parameters]
    *gradients, told = torch.split(total, [*sizes, len(total) - sum(sizes)])
    shaped = [part.view_as(own) for part, own in zip(gradients, parameters, strict=True)]
    return [None if i in unused else part for i, part in enumerate(shaped)], told


class ShardedGradient:
    """Computes the gradient of a mean loss over a minibatch as the weighted sum of fixed shards' gradients."""

    def __init__(self, num_shards: int, threads: int = 0) -> None:
        """`threads` = 0 takes one per shard, but no more than there are CPUs."""
        self._num_shards, self._threads, self._shares = num_shards, threads, ALONE
        self._pool = self._threads_for(num_shards)

    def share(self, shares: Shares) -> None:
        """Cut minibatches into at least as many shards as there are pieces, and compute this process's alone."""
        if shares.pieces > 1:
            self._shares, self._num_shards = shares, max(self._num_shards, shares.pieces)
            self._pool = self._threads_for(len(shares.own(self._num_shards)))

    def _threads_for(self, shards: int) -> ThreadPoolExecutor | None:
        workers = self._threads or min(shards, num_cpus())
        return ThreadPoolExecutor(workers, initializer=single_threaded_math) if workers > 1 else None

    def __call__(self, loss: ShardLoss, parameters: Sequence[Tensor], minibatch: Tensor) -> tuple[list[Tensor], Tensor]:
        """Gradients (one per parameter) and diagnostics of `loss` over the indices in `minibatch`.

        On a GPU, which has threads of its own, in one piece, unless it is shared out.
        """
        on_gpu = not looks(minibatch.device)
        if on_gpu and self._shares.pieces == 1:
            value, diagnostics = loss(minibatch)
            return list(torch.autograd.grad(value, parameters)), diagnostics.detach()

        def shard(index: Tensor) -> Tensor:
            value, diagnostics = loss(index)
            weight = len(index) / len(minibatch)
            gradients = torch.autograd.grad(value * weight, parameters)
            return torch.cat([*(part.reshape(-1) for part in gradients), diagnostics.detach() * weight])

        apply = map if self._pool is None or on_gpu else self._pool.map
        total = self._shares.summed(minibatch.chunk(self._num_shards), lambda own: list(apply(shard, own)))
        sizes = [parameter.numel() for parameter in parameters]
        *gradients, diagnostics = torch.split(total, [*sizes, len(total) - sum(sizes)])
        return [part.view_as(own) for part, own in zip(gradients, parameters, strict=True)], diagnostics
