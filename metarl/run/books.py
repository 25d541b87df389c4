"""The books of a training: who is told of an iteration, and what is to be done after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from metarl.core.types import Metrics
from metarl.run import folder
from metarl.run.beside import Beside
from metarl.run.logs import MetricsFile, Show
from metarl.run.stop import Clock
from metarl.run.track import Tracker

if TYPE_CHECKING:
    from metarl.run.train import Training

ENDS, LATE, SAVES = 1, 2, 3
"""What is to be done after an iteration: the training ends, is out of time, or is saved."""

Callback = Callable[[Metrics], bool | None]
"""Told an iteration's metrics once they are logged; False ends the training there, saved and unfinished."""


class Books:
    """Logs each iteration, shows it, tells callbacks and a tracker, and has the policy evaluated beside."""

    def __init__(self, training: Training, callbacks: Sequence[Callback], track: str) -> None:
        """Go on after the training's present iteration; `track`: see `Tracker`."""
        self._training, self._callbacks = training, callbacks
        self._tracker = Tracker(track, training.run) if track else None
        self._log = MetricsFile(training.run.path, training.iteration, training.total_steps)
        self._beside = Beside(training.run, training.config.evaluate_every)
        self._said = ""

    def enter(self, metrics: Metrics, clock: Clock, show: Show) -> int:
        """Write down and show an iteration; what is to be done after it, 0 for nothing."""
        training, last = self._training, self._training.iteration == self._training.num_iterations
        folder.require_there(training.run)
        rate, remaining = clock.tick()
        self._beside.begin_if_due(training.learner, training.total_steps)
        evaluated = self._beside.found(wait=last)
        if evaluated:
            self._said = f"evaluated {evaluated.returns[0]:.1f} → {evaluated.returns[-1]:.1f}"
        metrics = metrics | {"time/elapsed": training.elapsed, "time/steps_per_second": rate}
        self._log.write(training.iteration, training.total_steps, metrics, evaluated)
        first, final = metrics["rollout/return_first"], metrics["rollout/return_last"]
        show(training.iteration, rate, first, final, remaining, self._said)
        told = metrics | (evaluated.curve if evaluated else {})
        if self._tracker:
            self._tracker.write(training.total_steps, told, evaluated.picture if evaluated else b"")
        if not all([callback(told) is not False for callback in self._callbacks]):
            return ENDS
        if training.shares.size > 1 and clock.late and not last:
            return LATE
        return SAVES if clock.checkpoint_is_due() else 0

    def close(self) -> None:
        """End what is under way; a full disk has been reported by `enter`."""
        self._beside.close()
        self._log.close()
        if self._tracker:
            self._tracker.close()
