"""Gradients of a mean loss, computed in shards on several threads.

Small recurrent networks gain little from parallel matrix products, but two half-batches run twice as fast on two
cores. The shards are fixed and summed in order, so the result does not depend on how many threads there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from metarl.core.graphs import looks
from metarl.core.machine import num_cpus

ShardLoss = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Indices of samples -> (mean loss over them, vector of diagnostics averaged over them)."""


def single_threaded_math() -> None:
    """Make torch's own kernels run on the calling thread only: results are then free of the thread count."""
    torch.set_num_threads(1)


def device_math(device: str) -> None:
    """On a GPU, let matrix products of float32 take TF32, of ten bits of mantissa: several times as fast."""
    if device == "cuda" and os.environ.get("METARL_TF32", "1") != "0":
        torch.set_float32_matmul_precision("high")


class ShardedGradient:
    """Computes the gradient of a mean loss over a minibatch as the weighted sum of fixed shards' gradients."""

    def __init__(self, num_shards: int, threads: int = 0) -> None:
        """`threads` = 0 takes one per shard, but no more than there are CPUs."""
        self._num_shards = num_shards
        workers = threads or min(num_shards, num_cpus())
        self._pool = ThreadPoolExecutor(workers, initializer=single_threaded_math) if workers > 1 else None

    def __call__(self, loss: ShardLoss, parameters: Sequence[Tensor], minibatch: Tensor) -> tuple[list[Tensor], Tensor]:
        """Gradients (one per parameter) and diagnostics of `loss` over the indices in `minibatch`.

        On a GPU, which has threads of its own, in one piece.
        """
        if not looks(minibatch.device):
            value, diagnostics = loss(minibatch)
            return list(torch.autograd.grad(value, parameters)), diagnostics.detach()

        def shard(index: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
            value, diagnostics = loss(index)
            weight = len(index) / len(minibatch)
            gradients = torch.autograd.grad(value * weight, parameters)
            return gradients, diagnostics.detach() * weight

        shards = minibatch.chunk(self._num_shards)
        results = list(map(shard, shards)) if self._pool is None else list(self._pool.map(shard, shards))
        gradients = [torch.stack(parts).sum(dim=0) for parts in zip(*(grads for grads, _ in results), strict=True)]
        return gradients, torch.stack([diagnostics for _, diagnostics in results]).sum(dim=0)
