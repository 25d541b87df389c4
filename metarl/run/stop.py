"""What stops a training before its end: signals and time."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from jaxtyping import Float32
from torch import Tensor

from metarl.core.types import Step
from metarl.sim.env import TrialEnv

if TYPE_CHECKING:
    from metarl.run.train import Training


class StopRequest:
    """Remembers the first SIGINT, SIGTERM or SIGHUP, so that the iteration can finish and be saved.

    A second one acts at once. A SIGHUP that is ignored, as under nohup, stays ignored.
    """

    def __init__(self, waits_for: Callable[[], str] = lambda: "this iteration", speaks: bool = True) -> None:
        """`waits_for`: what is finished first, for the person who asked to stop, who is told it if it `speaks`."""
        self.signal: int | None = None
        self._waits_for, self._speaks = waits_for, speaks
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        self._before = {number: signal.getsignal(number) for number in numbers}

    def __enter__(self) -> StopRequest:
        for number in self._before:
            signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()
        _leave_dead_terminals()
        if not self._speaks:
            return
        words = (
            f"\n{signal.Signals(number).name}: finishing {self._waits_for()}, then saving; once more stops at once\n"
        )
        with suppress(OSError):
            os.write(2, words.encode())

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class OutOfTime(Exception):  # noqa: N818
    """The time limit is over, in the course of an iteration."""


def _leave_dead_terminals() -> None:
    """Let what is written to a terminal that has gone, as with its connection, be lost instead of raising errors."""
    for descriptor in (1, 2):
        try:
            os.get_terminal_size(descriptor)
        except OSError as error:
            if error.errno == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


class Clock:
    """Keeps a training's time: its rate, what remains, and when the next checkpoint is due."""

    def __init__(self, training: Training, max_minutes: float) -> None:
        self._training, self._limit = training, max_minutes * 60.0
        self._begun = self._checkpointed = time.monotonic()
        self._earlier, self._first = training.elapsed, training.iteration

    def check(self) -> None:
        """Raise `OutOfTime` where it is `late`."""
        if self.late:
            raise OutOfTime

    @property
    def late(self) -> bool:
        """Whether the limit is over, after at least one iteration."""
        return 0.0 < self._limit <= time.monotonic() - self._begun and self._training.iteration > self._first

    @contextmanager
    def watching(self, env: TrialEnv) -> Iterator[None]:
        """Check ahead of each control step up to an iteration's first update: nothing is lost by it."""
        step, steps, first = env.step, 0, self._training.learner.segment_steps or env.trial_steps

        def checked(action: Float32[Tensor, "N A"]) -> Step:
            nonlocal steps
            steps += 1
            if steps <= first:
                self.check()
            return step(action)

        vars(env)["step"] = checked
        try:
            yield
        finally:
            del vars(env)["step"]

    def tick(self) -> tuple[float, float]:
        """Book an iteration: steps/s of this session, and the remaining time [s]."""
        training, spent = self._training, time.monotonic() - self._begun
        training.elapsed = self._earlier + spent
        done = training.iteration - self._first
        remaining = (training.num_iterations - training.iteration) * spent / done
        if self._limit:
            remaining = min(remaining, max(0.0, self._limit - spent))
        return done * training.steps_per_iteration / spent, remaining

    def checkpoint_is_due(self) -> bool:
        """Whether it is time for the next checkpoint; if so, its time begins anew."""
        now = time.monotonic()
        due = now - self._checkpointed >= self._training.config.checkpoint_minutes * 60.0
        if due:
            self._checkpointed = now
        return due
