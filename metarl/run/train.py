"""The training loop, the same for every learner, and what stops it."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from rich.console import Console
from torch import Tensor

from metarl.core import seeding
from metarl.core.config import TrainConfig
from metarl.core.errors import UserError
from metarl.core.tasks import Tasks
from metarl.core.types import Metrics, Segment
from metarl.rl.learner import Learner
from metarl.rl.parallel import single_threaded_math
from metarl.rl.policy import Policy
from metarl.run import checkpoint
from metarl.run.checkpoint import CheckpointError
from metarl.run.collect import Stepper, collect
from metarl.run.logs import MetricsFile, progress_view
from metarl.run.run import RunFolder, family_of, load_learner, make_learner
from metarl.sim.family import Family
from metarl.sim.make import make_env

_FIRST_SHARE = 0.1
"""Share of a parameter's range, its easiest, with which a curriculum begins."""


AfterIteration = Callable[[Metrics], bool]
"""Told an iteration's metrics once they are logged; False ends the training there, saved and unfinished."""


class StopRequest:
    """Remembers the first SIGINT or SIGTERM, so that the iteration can finish and be saved; a second acts at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def __enter__(self) -> StopRequest:
        for number in self._before:
            signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    iteration: int
    total_steps: int
    elapsed: float
    """Training time, earlier sessions included [s]."""
    signal: int | None
    """The signal that stopped it."""
    finished: bool
    """Whether all steps were taken."""


class Training:
    """One run from its present checkpoint onwards."""

    def __init__(self, run: RunFolder, config: TrainConfig) -> None:
        single_threaded_math()
        self.run = run
        self.config = config
        self.family: Family = family_of(config)
        self.env = make_env(
            self.family,
            config.num_worlds,
            episodes_per_trial=config.episodes_per_trial,
            threads=config.threads,
        )
        self.learner: Learner = make_learner(config, self.env.info, self.env.device)
        self._stepper: Stepper | None = None
        self.iteration = 0
        self.elapsed = 0.0
        self._saved = 0
        self._listed: Tasks | None = None
        self.sample_tasks(0)  # says what is wrong with the curriculum before anything is written

    @property
    def steps_per_iteration(self) -> int:
        """Control steps of all worlds between two updates: of a trial each, or of a segment."""
        return self.config.num_worlds * (self.learner.segment_steps or self.env.trial_steps)

    @property
    def total_steps(self) -> int:
        """Control steps taken so far, over all worlds."""
        return self.iteration * self.steps_per_iteration

    @property
    def num_iterations(self) -> int:
        """Iterations of the whole training."""
        return math.ceil(self.config.total_steps / self.steps_per_iteration)

    def restore(self, which: str | None = None) -> None:
        """Continue from the run's newest checkpoint, or the one named `which`; newer ones are set aside in `execute`.

        A run stopped before its first checkpoint begins again: its draws depend on seed and iteration only.
        """
        if which is None and not checkpoint.existing(self.run.checkpoints):
            return
        manifest = load_learner(self.run, self.learner, which)
        self.iteration, self.elapsed = manifest.iteration, manifest.elapsed
        self._saved = self.iteration

    def save(self) -> None:
        """Write a checkpoint of the present iteration, unless there is one."""
        if self.iteration != self._saved:
            state, steps = self.learner.state_dict(), self.total_steps
            checkpoint.save(self.run.checkpoints, state, self.iteration, steps, self.elapsed)
            self._saved = self.iteration

    def execute(
        self, console: Console, max_minutes: float = 0.0, after_iteration: AfterIteration | None = None
    ) -> Outcome:
        """Train until done, stopped by a signal, or out of time; saves on the way and at the end."""
        log = MetricsFile(self.run.path, self.iteration, self.total_steps)
        checkpoint.set_aside_after(self.run.checkpoints, self.iteration)
        clock = _Clock(self, max_minutes)
        with StopRequest() as stop, progress_view(self.num_iterations, console) as view:
            try:
                while self.iteration < self.num_iterations and stop.signal is None and not clock.out_of_time():
                    metrics = self._iterate()
                    rate, remaining = clock.tick()
                    times = {"time/elapsed": self.elapsed, "time/steps_per_second": rate}
                    log.write(self.iteration, self.total_steps, metrics | times)
                    view.update(
                        self.iteration, rate, metrics["rollout/return_first"], metrics["rollout/return_last"], remaining
                    )
                    if after_iteration is not None and not after_iteration(metrics):
                        break
                    if clock.checkpoint_is_due():
                        self.save()
            except BrokenPipeError:  # whoever read our output has gone: as good as a signal
                stop.signal = signal.SIGPIPE
            except UserError:  # from collecting, or before any update: the learner is as the last iteration left it
                with suppress(CheckpointError):
                    self.save()
                raise
            finally:
                log.close()
            self.save()
        finished = self.iteration >= self.num_iterations
        return Outcome(self.iteration, self.total_steps, self.elapsed, stop.signal, finished)

    def task_number(self, number: int) -> Int64[Tensor, "N"]:
        """Which tasks the `number`-th trials are on: places in the fixed list, or numbers that no trial had before.

        The list is gone through in rounds, each in an order of its own, so that every task is met equally often.
        """
        config = self.config
        count = number * config.num_worlds + np.arange(config.num_worlds)
        if config.train_tasks:
            turn, place = np.divmod(count, config.train_tasks)
            orders = {
                n: seeding.rng(config.seed, "tasks", n).permutation(config.train_tasks) for n in set(turn.tolist())
            }
            count = np.array([orders[n][i] for n, i in zip(turn.tolist(), place.tolist(), strict=True)])
        return torch.from_numpy(count)

    def sample_tasks(self, number: int) -> Tasks:
        """Training tasks of the `number`-th trials, one per world: of a fixed list, a curriculum's share, or of all."""
        config, easiest = self.config, {}
        if config.train_tasks:
            if self._listed is None:
                self._listed = self.family.space.fixed("train", config.train_tasks)
            return self._listed.select(self.task_number(number))
        rng = seeding.rng(config.seed, "tasks", number)
        if config.curriculum:
            trials = self.num_iterations * self.steps_per_iteration / (config.num_worlds * self.env.trial_steps)
            opened = number / trials / config.curriculum_share
            easiest[config.curriculum] = min(1.0, _FIRST_SHARE + (1.0 - _FIRST_SHARE) * opened)
        return self.family.space.sample("train", config.num_worlds, rng, easiest)

    def _iterate(self) -> Metrics:
        """One iteration: collect whole trials on freshly drawn training tasks, or the next segment; then update."""
        seed, number, learner, begun = self.config.seed, self.iteration, self.learner, time.perf_counter()
        policy, record = learner.behaviour, learner.record
        if learner.segment_steps is None:
            tasks, task_number = self.sample_tasks(number), self.task_number(number)
            key = seeding.key(seed, "collect", number, 0)
            segment = collect(self.env, policy, tasks, key, record=record, task_number=task_number)
            returns = segment.episode_returns(self.config.episodes_per_trial)
        else:
            stepper = self._stepper = self._stepper or self._running_on(policy)
            segment = stepper.segment(policy, learner.segment_steps, record)
            returns = stepper.returns
        collected = time.perf_counter()
        metrics = learner.update(segment, seeding.generator(seed, "update", number), number / self.num_iterations)
        times = {"time/collect": collected - begun, "time/update": time.perf_counter() - collected}
        self.iteration += 1
        return rollout_metrics(segment, returns) | times | metrics

    def _running_on(self, policy: Policy[Any]) -> Stepper:
        """Trials that run on from segment to segment. A resumed training begins new ones, in all worlds."""
        trial = self.total_steps // (self.config.num_worlds * self.env.trial_steps)

        def next_tasks() -> tuple[Tasks, Int64[Tensor, "N"]]:
            nonlocal trial
            trial += 1
            return self.sample_tasks(trial), self.task_number(trial)

        key = seeding.key(self.config.seed, "collect", self.iteration, 0)
        number = self.task_number(trial)
        return Stepper(self.env, policy, self.sample_tasks(trial), key, task_number=number, next_tasks=next_tasks)


class _Clock:
    """Keeps a training's time: its rate, what remains, and when the next checkpoint is due."""

    def __init__(self, training: Training, max_minutes: float) -> None:
        self._training, self._limit = training, max_minutes * 60.0
        self._begun = self._checkpointed = time.monotonic()
        self._earlier, self._first = training.elapsed, training.iteration

    def out_of_time(self) -> bool:
        """Whether the limit is over, after at least one iteration."""
        return 0.0 < self._limit <= time.monotonic() - self._begun and self._training.iteration > self._first

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


def rollout_metrics(segment: Segment, returns: Float64[Tensor, "N K"]) -> Metrics:
    """Mean return of the first and the last episode, their difference, and what went wrong."""
    first, last = returns[:, 0].mean(), returns[:, -1].mean()
    return {
        "rollout/return_first": float(first),
        "rollout/return_last": float(last),
        "rollout/adaptation_delta": float(last - first),
        "rollout/diverged": float(segment.diverged.sum()),
    }
