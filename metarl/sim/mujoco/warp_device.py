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
from metarl.sim.mujoco.graphs import launched

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
        own = "sees no NVIDIA GPU" if torch.backends.cuda.is_built() else "was built without CUDA: see pytorch.org"
        raise UserError(f"the device 'cuda' is not available, as this PyTorch ({torch.__version__}) {own}")
    if not wp.is_cuda_available():
        raise UserError("the device 'cuda' is not available to Warp: it needs an NVIDIA driver for CUDA 12 or newer")
    return torch.device("cuda", torch.cuda.current_device()) if str(chosen) == "cuda" else chosen


class Runner:
    """Runs work made of Warp's kernels on one device, in order with torch's; on CUDA as graphs."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        """What loading and compiling kernels took [s]."""
        self._device = device
        self._graphs: dict[str, wp.Graph] = {}

    @contextmanager
    def here(self) -> Iterator[None]:
        """Warp's launches go to this device, and on CUDA to torch's present stream."""
        if self._device.type == "cpu":
            with wp.ScopedDevice("cpu"):
                yield
        else:
            with wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(self._device)), sync_enter=False):
                yield

    def __call__(self, name: str, work: Callable[[], None]) -> None:
        """Do `work`. On CUDA it is captured when its name is first met, and must do the same ever after."""
        if self._device.type == "cpu":
            with self.here():
                work()
            return
        if name not in self._graphs:
            self._graphs[name] = self._captured(work)
        launched(partial(self._launch, self._graphs[name]))

    def forget(self) -> None:
        """Drop the graphs: arrays of the model have been replaced."""
        self._graphs.clear()

    def _captured(self, work: Callable[[], None]) -> wp.Graph:
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]  # the one that torch uses by default cannot be captured
        stream.wait_stream(torch.cuda.current_stream(self._device))
        warp_stream = wp.stream_from_torch(stream)
        with wp.ScopedStream(warp_stream, sync_enter=False), wp.ScopedCapture(stream=warp_stream) as capture:
            work()
        return capture.graph

    def _launch(self, graph: wp.Graph) -> None:
        wp.capture_launch(graph, stream=wp.stream_from_torch(torch.cuda.current_stream(self._device)))

    def prepare(self, rehearsal: Callable[[], None]) -> None:
        """Run `rehearsal`, which meets every kernel; where they have to be compiled, a line on the screen says so."""
        begun, cache = time.monotonic(), Path(wp.config.kernel_cache_dir)
        known = _modules(cache)

        def tell() -> None:
            if _modules(cache) != known:
                print(f"Warp compiles kernels for this robot (once: they are kept in {cache}) ...", file=sys.stderr)

        teller = threading.Timer(_PATIENCE, tell)
        teller.start()
        try:
            with self.here():
                rehearsal()
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
        finally:
            teller.cancel()
        self.seconds = time.monotonic() - begun
        if self.seconds > _PATIENCE and _modules(cache) != known:
            print(f"Warp's kernels are ready after {self.seconds:.0f} s", file=sys.stderr)


def _modules(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()} if cache.is_dir() else set()
