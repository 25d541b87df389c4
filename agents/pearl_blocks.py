"""PEARL's gradient steps on a GPU: in blocks captured as one graph each, beside the collection of the next trial."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from metarl.agents.pearl_policy import PearlPolicy
from metarl.core.graphs import Replay, looks
from metarl.core.seeding import on_device
from metarl.rl.finite import Guard

COMPILED = "METARL_COMPILE"
"""Environment variable: with the value 0 the objectives are not compiled on CUDA (`torch.compile`).

With another value but 1 in the mode of that name, as `max-autotune-no-cudagraphs`, which takes minutes once.
"""
Step = Callable[..., Float32[Tensor, "D"] | None]
"""`Pearl.gradient_step`."""
Drawn = tuple[Int64[Tensor, "K M"], Float32[Tensor, "K M C W"], Float32[Tensor, "K B W"]]
"""Slots, contexts and batches of several gradient steps."""
Taken = tuple[Float32[Tensor, "D"], int]
"""What gradient steps recorded in all, and their number."""
_BLOCK = 20  # gradient steps whose data is drawn at once, and on a GPU captured as one
_DRAWN_ON_GPU = 10 * _BLOCK  # those drawn at once there, where few launches can be under way


def compiled(device: torch.device, *functions: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """Compile functions for a GPU, unless that is turned off; else they stay as they are."""
    mode = os.environ.get(COMPILED, "1")
    if device.type != "cuda" or mode == "0":
        return functions
    torch._dynamo.config.suppress_errors = True  # what cannot be compiled is done without
    return tuple(torch.compile(function, dynamic=False, mode=None if mode == "1" else mode) for function in functions)


class Block:
    """Gradient steps whose data lies in the same place each time, captured as one graph."""

    def __init__(self, step: Step, data: Sequence[Tensor], size: int) -> None:
        """`data` is that of `gradient_step`, with a leading dimension for the steps; `size` is that of a record."""
        self._step, self._data = step, [part.clone() for part in data]
        self._total = torch.zeros(size, device=data[0].device)
        self._replay = Replay(self._work, data[0].device, "PEARL's gradient step")

    def __call__(self, data: Sequence[Tensor]) -> Float32[Tensor, "D"]:
        """As many steps as the data is for; the sum of what they record."""
        whole, parts = self._data[0], self._data[1:]  # numbers of tasks, and floats, which are copied in one kernel
        whole.copy_(data[0])
        torch._foreach_copy_(parts, list(data[1:]))
        self._replay()
        return self._total

    def _work(self) -> None:
        total = torch.zeros_like(self._total)
        for slots, context, batch, *noise in zip(*self._data, strict=True):
            record = self._step(slots, context, batch, iter(noise))
            assert record is not None
            total = total + record
        self._total.copy_(total)


class GradientSteps:
    """Those of an update: one by one on the CPU, block by block on a GPU, which is not waited for."""

    def __init__(
        self,
        draw: Callable[[Tensor, int, torch.Generator], Drawn],
        noise: Callable[..., Iterator[Tensor]],
        step: Step,
        number: int,
        record_size: int,
        guard: Guard,
        device: torch.device,
    ) -> None:
        """The first three are those of `Pearl`, `number` is that of an update."""
        self._draw, self._noise, self._step = draw, noise, step
        self._number, self._record_size, self._guard = number, record_size, guard
        self._device, self._on_gpu = device, not looks(device)
        self._blocks: dict[int, Block] = {}

    def sum(self, ready: Int64[Tensor, "R"], generator: torch.Generator) -> Taken:
        """Take them on data of the slots in `ready`."""
        generator = on_device(generator, self._device)
        total, taken = torch.zeros(self._record_size, device=self._device), 0
        if not len(ready):
            return total, taken
        at_once = _DRAWN_ON_GPU if self._on_gpu else _BLOCK
        for done in range(0, self._number, at_once):
            drawn = self._draw(ready, min(at_once, self._number - done), generator)
            if self._on_gpu:
                data = (*drawn, *self._noise(*drawn, generator))
                for pieces in zip(*(torch.split(part, _BLOCK) for part in data), strict=True):
                    total += self._block(pieces)
                taken += len(drawn[0])
                continue
            for one in zip(*drawn, strict=True):
                record = self._step(*one, self._noise(*one, generator))
                if record is not None:
                    total, taken = total + record, taken + 1
        return total, taken

    def mean(self, taken: Taken) -> Float32[Tensor, "D"]:
        """Of what steps recorded, without those that were left out; waits for a GPU."""
        skipped = self._guard.skipped
        self._guard.read()
        return taken[0] / max(taken[1] - (self._guard.skipped - skipped), 1)

    def _block(self, pieces: Sequence[Tensor]) -> Float32[Tensor, "D"]:
        size = len(pieces[0])
        if size not in self._blocks:
            self._blocks[size] = Block(self._step, pieces, self._record_size)
        return self._blocks[size](pieces)


class Beside:
    """Gradient steps on a stream of their own, while a copy of the policy, as it was before them, collects.

    On the CPU, which may be worked with as if it were a GPU, they are done when they are begun.
    """

    def __init__(self, policy: PearlPolicy) -> None:
        self._policy, self.acting = policy, deepcopy(policy)
        self._begun: Taken | None = None
        device = next(policy.parameters()).device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        """Let what is launched from here on come after the steps."""
        if self._stream is not None and self._begun is not None:
            torch.cuda.current_stream().wait_stream(self._stream)

    def take(self) -> Taken | None:
        """What the steps begun last recorded, once; None where none were begun."""
        self.wait()
        begun, self._begun = self._begun, None
        return begun

    @torch.no_grad()
    def catch_up(self) -> None:
        """Let the copy act as the policy does now."""
        for own, new in zip(self._tensors(self.acting), self._tensors(self._policy), strict=True):
            own.copy_(new)

    def begin(self, steps: Callable[[], Taken]) -> None:
        """Let the copy act as the policy does, then take gradient steps; nothing waits for them."""
        self.catch_up()
        if self._stream is None:
            self._begun = steps()
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._begun = steps()

    @staticmethod
    def _tensors(policy: PearlPolicy) -> list[Tensor]:
        return [*policy.parameters(), *policy.buffers()]
