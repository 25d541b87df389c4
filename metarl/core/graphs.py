"""Work on a GPU, captured once and replayed: many small kernels take longer to launch one by one than to run.

What is captured is a function of nothing that reads and writes tensors which stay where they are; what the host decides
in it is decided once and for all. Where a capture fails, the same function is called as it is.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

SWITCH = "METARL_GRAPHS"
"""Environment variable: with the value 0 nothing is captured."""
_WARM_UP = 3  # calls before a capture, in which libraries allocate what they need


_said: set[str] = set()  # what has been said of captures that failed, once each
_as_on_a_gpu = False  # the CPU is worked with as a GPU would be: by tests, and by `unlooked`


def looks(device: torch.device) -> bool:
    """Whether one may look at what a tensor holds: on the CPU that costs nothing, on a GPU one has to wait for it."""
    return device.type == "cpu" and not _as_on_a_gpu


@contextmanager
def unlooked() -> Iterator[None]:
    """Within it nobody looks, on the CPU neither: what is done does not depend on what tensors hold."""
    global _as_on_a_gpu
    before, _as_on_a_gpu = _as_on_a_gpu, True
    try:
        yield
    finally:
        _as_on_a_gpu = before


def own_stream(device: torch.device | str) -> None:
    """On a GPU, let this thread launch on a stream of its own, as a training does.

    Work on torch's default stream, as the first half of a derivative, may not be waited for within a capture.
    """
    if torch.device(device).type == "cuda" and torch.cuda.current_stream() == torch.cuda.default_stream():
        torch.cuda.set_stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]


class _Tape:
    """Graphs, and between them what torch cannot capture, in the order of their launches."""

    _count = 0

    def __init__(self) -> None:
        _Tape._count += 1
        self.number = _Tape._count
        self.parts: list[Callable[[], None]] = []
        self._pool = torch.cuda.graph_pool_handle() if torch.cuda.is_available() else None
        self.begin()

    def begin(self) -> None:
        self.graph = torch.cuda.CUDAGraph()
        self.graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")

    def end(self) -> None:
        with warnings.catch_warnings():  # between two cuts there may be nothing
            warnings.filterwarnings("ignore", message=".*CUDA Graph is empty")
            self.graph.capture_end()
        self.parts.append(self.graph.replay)


_running: list[_Tape] = []
"""The capture that is going on, if one is."""


def capture() -> int:
    """Number of the capture that is going on, from 1; 0 where none is."""
    return _running[-1].number if _running else 0


def launched(launch: Callable[[], None]) -> None:
    """Launch what torch cannot capture, as a graph of Warp's: now, or in a capture at this place of every replay."""
    if not _running:
        launch()
        return
    tape = _running[-1]
    tape.end()
    tape.parts.append(launch)
    tape.begin()


class Carried:
    """Attributes that hold tensors, or tuples or batches of tasks of them, and are replaced from call to call."""

    def __init__(self, *attributes: tuple[object, str]) -> None:
        self._attributes = attributes
        self._places: dict[int, Any] = {}

    def settle(self) -> None:
        """Write what the attributes hold to where it lay at the first call, and let them hold that."""
        for number, (owner, name) in enumerate(self._attributes):
            now, place = getattr(owner, name), self._places.get(number)
            if now is None or now is place:
                continue
            if place is None:
                self._places[number] = place = _cloned(now)
            else:
                for old, new in zip(_tensors(place), _tensors(now), strict=True):
                    if old is not new:
                        old.copy_(new)
            setattr(owner, name, place)

    def put_back(self) -> None:
        """Let the attributes hold again what `settle` left them: what has replaced it since came to nothing."""
        for number, place in self._places.items():
            setattr(*self._attributes[number], place)


def _cloned(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, tuple):
        return type(value)(*(part.clone() for part in value))
    return type(value)({name: part.clone() for name, part in value.values.items()})


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return list(value) if isinstance(value, tuple) else list(value.values.values())


class Replay:
    """Calls `work`, and after a few times replays it where it can be captured.

    Every call does the work once. `work` must change nothing on the host that a later call relies on.
    """

    def __init__(
        self,
        work: Callable[[], object],
        device: torch.device,
        what: str,
        warm_up: int = _WARM_UP,
        put_back: Callable[[], None] | None = None,
    ) -> None:
        """`what` names it in the line that says that it could not be captured, `warm_up` is the number of calls before.

        `put_back` is called where it could not be: whatever the work has replaced meanwhile was never computed.
        """
        self._put_back = put_back
        self._work, self._what, self._calls, self._warm_up = work, what, 0, warm_up
        self._captures = not looks(device) and os.environ.get(SWITCH, "1") != "0"
        on_cuda = self._captures and device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if on_cuda else None  # type: ignore[no-untyped-call]
        self._parts: list[Callable[[], None]] = []

    @property
    def replays(self) -> bool:
        """Whether the work is captured by now."""
        return bool(self._parts)

    def __call__(self) -> None:
        """Do the work."""
        if not self._parts and self._captures and self._calls >= self._warm_up:
            self._apart_from_others(self._capture)
        if self._parts:
            for part in self._parts:
                part()
        elif self._captures:
            self._calls += 1
            self._apart_from_others(self._work)
        else:
            self._work()

    def _apart_from_others(self, work: Callable[[], object]) -> None:
        """Call `work` on no default stream, as a capture needs it, between what is before and what comes after."""
        if self._stream is None or (now := torch.cuda.current_stream()) != torch.cuda.default_stream():
            work()
            return
        self._stream.wait_stream(now)
        with torch.cuda.stream(self._stream):
            work()
        now.wait_stream(self._stream)

    def _capture(self) -> None:
        gc.collect()
        if self._stream is not None:
            torch.cuda.synchronize()
        tape = _Tape()
        _running.append(tape)
        try:
            self._work()
            tape.end()
        except Exception as error:  # whatever it is: the same work can be done without
            with suppress(Exception):
                tape.graph.capture_end()
            with suppress(Exception):
                torch.cuda.synchronize()
            self._captures = False
            if self._put_back is not None:
                self._put_back()
            reason = (str(error) or type(error).__name__).splitlines()[0]
            said = f"metarl: {self._what} is not captured as a CUDA graph, and slower: {reason}"
            if said not in _said:
                print(said, file=sys.stderr)
                _said.add(said)
        else:
            self._parts = tape.parts
        finally:
            _running.pop()
