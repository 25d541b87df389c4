"""Work of a CUDA device captured once and replayed: torch's graphs, cut where another library launches its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class Captured(Generic[T]):
    """A function's work on CUDA, captured in pieces and replayed as often as wanted.

    What the function reads and writes must be tensors that stay where they are, written in place; what it returns is
    overwritten by each `replay`. Nothing in it may wait for the device, and what Python decides is decided once.
    """

    _present: Captured | None = None

    def __init__(self, work: Callable[[], T], warm_up: int = 3) -> None:
        """Capture `work`, which is first run `warm_up` times: whatever it does is then done so often."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(warm_up):
                work()
            torch.cuda.synchronize()
            self._pool = torch.cuda.graph_pool_handle()
            self._launches: list[Callable[[], None]] = []
            Captured._present = self
            try:
                self._begin()
                self.result = work()
                self._end()
            finally:
                Captured._present = None
        torch.cuda.current_stream().wait_stream(stream)

    def replay(self) -> T:
        """Launch the work; the result is the same tensors every time."""
        for launch in self._launches:
            launch()
        return self.result

    def _begin(self) -> None:
        self._piece = torch.cuda.CUDAGraph()
        self._piece.capture_begin(pool=self._pool, capture_error_mode="thread_local")

    def _end(self) -> None:
        self._piece.capture_end()
        self._launches.append(self._piece.replay)

    def _cut(self, launch: Callable[[], None]) -> None:
        self._end()
        self._launches.append(launch)
        self._begin()


def launched(launch: Callable[[], None]) -> None:
    """Launch a graph of another library: now, or, while a `Captured` is made, at its place in every replay."""
    if Captured._present is None:
        launch()
    else:
        Captured._present._cut(launch)
