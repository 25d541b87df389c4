"""Where Warp's kernels run: the device, torch's stream, graphs of kernels, and the wait while they are compiled."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
import warp as wp

from metarl.core.errors import UserError
from metarl.core.graphs import launched

_PATIENCE = 2.0  # [s] of preparation before a line says what takes so long


def chosen_device(device: str | torch.device | None) -> torch.device:
    """The device, CUDA unless told; `UserError` where there is none."""
    chosen = torch.device("cuda" if device is None else device)
    if chosen.type not in ("cpu", "cuda"):
        raise UserError(f"the physics 'warp' works on the devices 'cpu' and 'cuda', not on '{chosen}'")
    wp.config.log_level = wp.LOG_ERROR  # its notes on what it compiles would stand in between ours
    wp.init()
    if chosen.type == "cpu":
        return chosen
    if not torch.cuda.is_available():
        with_cuda = getattr(torch.version, "cuda", None) is not None
        own = "sees no NVIDIA GPU" if with_cuda else "was built without CUDA: see pytorch.org"
        raise UserError(f"the device 'cuda' is not available, as this PyTorch ({torch.__version__}) {own}")
    if not wp.is_cuda_available():
        raise UserError("the device 'cuda' is not available to Warp: it needs an NVIDIA driver for CUDA 12 or newer")
    return torch.device("cuda", torch.cuda.current_device()) if str(chosen) == "cuda" else chosen


class Runner:
    """Runs work made of Warp's kernels on one device, in order with torch's, as graphs: Python launches each once."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        """What loading and compiling kernels has taken [s]."""
        self._device = device
        self._graphs: dict[str, wp.Graph] = {}
        self._streams: dict[int, wp.Stream] = {}

    @contextmanager
    def here(self) -> Iterator[None]:
        """Warp's launches go to this device, and on CUDA to torch's present stream."""
        if self._device.type == "cpu":
            with wp.ScopedDevice("cpu"):
                yield
        else:
            with wp.ScopedStream(self._stream(), sync_enter=False):
                yield

    def __call__(self, name: str, work: Callable[[], None]) -> None:
        """Do `work`. It is captured when its name is first met, and must do the same ever after."""
        if name not in self._graphs:
            with self.compiling():
                self._graphs[name] = self._captured(work)
        launched(partial(self._launch, self._graphs[name]))

    def forget(self) -> None:
        """Drop the graphs: arrays of the model have been replaced, or other work bears their names."""
        self._graphs.clear()

    def _stream(self) -> wp.Stream:
        """Torch's present stream. Always the same object for the same stream: Warp looks a capture up by it."""
        stream = torch.cuda.current_stream(self._device)
        if stream.cuda_stream not in self._streams:
            self._streams[stream.cuda_stream] = wp.stream_from_torch(stream)
        return self._streams[stream.cuda_stream]

    def _captured(self, work: Callable[[], None]) -> wp.Graph:
        if self._device.type == "cpu":
            with wp.ScopedDevice("cpu"), wp.ScopedCapture(device="cpu") as capture:
                work()
            return capture.graph
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]  # torch's default cannot be captured
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream), self.here(), wp.ScopedCapture(stream=self._stream()) as capture:
            work()
        return capture.graph

    def _launch(self, graph: wp.Graph) -> None:
        wp.capture_launch(graph, stream=None if self._device.type == "cpu" else self._stream())

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Within it kernels may have to be compiled: a line on the screen says so where they have to."""
        begun, cache = time.monotonic(), Path(wp.config.kernel_cache_dir)
        known = _modules(cache)

        def tell() -> None:
            if _modules(cache) != known:
                print(f"Warp compiles kernels for this robot (once: they are kept in {cache}) ...", file=sys.stderr)

        teller = threading.Timer(_PATIENCE, tell)
        teller.start()
        try:
            yield
        finally:
            teller.cancel()
        seconds = time.monotonic() - begun
        self.seconds += seconds
        if seconds > _PATIENCE and _modules(cache) != known:
            print(f"Warp's kernels are ready after {seconds:.0f} s", file=sys.stderr)


def _modules(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()} if cache.is_dir() else set()
