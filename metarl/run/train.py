"""The training loop, the same for every learner, and what stops it."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from rich.console import Console
from torch import Tensor

from metarl.core import seeding
from metarl.core.config import STEP_BYTES, TrainConfig, task_visible, train_defaults
from metarl.core.errors import Diverged, UserError
from metarl.core.graphs import own_stream
from metarl.core.machine import available_memory
from metarl.core.parameters import declarations, memory_text
from metarl.core.registry import make_family
from metarl.core.tasks import Tasks
from metarl.core.types import Metrics, Segment
from metarl.rl.learner import Learner, require_device
from metarl.rl.parallel import Shares, device_math, single_threaded_math
from metarl.run import checkpoint, folder, ranks
from metarl.run.beside import validated, validation_tasks
from metarl.run.books import ENDS, LATE, SAVES, Books, Callback
from metarl.run.calibration import recalibrated
from metarl.run.checkpoint import CheckpointError
from metarl.run.fleet import Fleet
from metarl.run.logs import Show, progress_view
from metarl.run.metrics import rollout_metrics, together
from metarl.run.ranks import RankLostError
from metarl.run.records import EvaluationRecord
from metarl.run.run import Run, make_learner
from metarl.run.stop import Clock, OutOfTime, StopRequest
from metarl.sim.faults import Dropped

_FIRST_SHARE = 0.1
"""Share of a parameter's range, its easiest, with which a curriculum begins."""

_RECALIBRATED = 64
"""Tasks by which the deviations of a policy's beliefs are corrected, at most."""
_COMPARED_EVERY = 10
"""Iterations after which processes compare their policies."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    iteration: int
    num_iterations: int
    """Number of iterations of the whole training."""
    total_steps: int
    elapsed: float
    """Training time, earlier sessions included [s]."""
    signal: int | None = None
    """The signal that stopped it."""
    out_of_time: float = 0.0
    """The limit that stopped it [min]; 0 if none did."""

    @property
    def finished(self) -> bool:
        """Whether all steps were taken."""
        return self.iteration >= self.num_iterations


class Training:
    """One run from its present checkpoint onwards."""

    def __init__(self, run: Run, config: TrainConfig[Any], shares: Shares | None = None) -> None:
        """`shares` says which part of the work is this process's: all of it unless told."""
        shares = shares or Shares(max(1, config.shards))
        single_threaded_math()
        require_device(config.device)
        device_math(config.device)
        own_stream(config.device)
        self.run, self.config, self.shares = run, config, shares
        self.family = make_family(config.family, config.disturbances, config.task_ranges)
        if config.curriculum:  # says what is wrong with it before any world is made
            self.family.space.sample("train", 1, seeding.rng(0, "tasks"), {config.curriculum: 1.0})
        _require_memory(config, config.episode_steps or self.family.episode_steps)
        self.fleet = Fleet(self.family, config, shares)
        self.env = self.fleet.envs[0]
        """The worlds, or the first of this process's shards of them."""
        self.learner: Learner = make_learner(config, self.env.info, config.device)
        if shares.pieces > 1 and hasattr(self.learner, "share"):
            self.learner.share(shares)
        own = train_defaults(type(config.learner)).get("staggered")  # of updates by segments, if there are any
        if config.staggered and self.learner.segment_steps is None and not own:
            raise UserError(f"staggered = True: {config.agent} updates after whole trials; only with segments of them")
        self.iteration, self.elapsed = 0, 0.0
        self.saved = 0
        """Iteration of the newest checkpoint; 0 where there is none."""
        self.resumed = False
        self._argv: Sequence[str] = ()
        self._listed: Tasks | None = None
        self._midway = False  # an iteration has begun to learn, and not ended

    @property
    def steps_per_iteration(self) -> int:
        """Control steps of all worlds in an iteration: of a trial each, or of a segment where trials run on."""
        return self.config.num_worlds * self.fleet.steps(self.learner.segment_steps)

    @property
    def total_steps(self) -> int:
        """Control steps taken so far, over all worlds."""
        return self.iteration * self.steps_per_iteration

    @property
    def num_iterations(self) -> int:
        """Iterations of the whole training."""
        return math.ceil(self.config.total_steps / self.steps_per_iteration)

    def restore(self, which: str | None = None, argv: Sequence[str] = ()) -> None:
        """Continue from the run's newest checkpoint, or the one named `which`; `execute` sets newer ones aside.

        A run stopped before its first checkpoint begins again: its draws depend on seed and iteration only. Nothing is
        written before `execute`, which notes in `run.json` that the run went on by the command `argv`.
        """
        self.resumed, self._argv = True, argv
        if which is None and not checkpoint.existing(self.run.checkpoints):
            return
        manifest = self.run.load_learner(self.learner, which, lambda kept: self.fleet.go_on(self.learner, kept))
        self.iteration, self.elapsed = manifest.iteration, manifest.elapsed
        self.saved = self.iteration

    def save(self, validate: bool = False) -> None:
        """Write a checkpoint of the present iteration, unless there is one; `validate` measures how good it is.

        Of several processes the leading one writes it, and the others wait.
        """
        self._write(validate)
        self.shares.wait()

    def _write(self, validate: bool = False) -> None:
        if self.iteration != self.saved and self.shares.leads:
            folder.require_there(self.run)
            state = self.learner.state_dict() | self.fleet.underway()
            if self.iteration >= self.num_iterations:
                state |= self._recalibrated()
            checkpoint.require_finite(state, self.run.checkpoints / f"iteration-{self.iteration:06d}")  # ere it acts
            checkpoint.save(
                self.run.checkpoints,
                state,
                iteration=self.iteration,
                total_steps=self.total_steps,
                elapsed=self.elapsed,
                validation=self._validation() if validate else None,
            )
        self.saved = self.iteration

    def execute(
        self, console: Console, max_minutes: float = 0.0, callbacks: Sequence[Callback] = (), track: str = ""
    ) -> Outcome:
        """Train until done, stopped by a signal or a callback, or out of time; saves on the way and at the end.

        Of several processes the leading one keeps the books, and decides for all when to save and when to stop.
        `track` is the module that is told the numbers too, as `wandb`.
        """
        shares, limit = self.shares, 0.0
        books = Books(self, callbacks, track) if shares.leads else None
        try:
            if shares.leads:
                self._prepare()
            clock = Clock(self, max_minutes)
            with StopRequest(self._present, shares.leads) as stop, progress_view(self.num_iterations, console) as show:
                try:
                    self._iterations(clock, books, show, stop)
                except OutOfTime:
                    limit = max_minutes
                self.save(validate=shares.leads and self._ends_validated())
        except Diverged as error:
            raise type(error)(f"{error}; {self._last_good()}") from None
        except (CheckpointError, RankLostError):  # the latter perhaps in the midst of an update
            raise
        except UserError:  # from collecting, or before any update: the learner is as the last iteration left it
            if not self._midway:
                with suppress(UserError):
                    self._write()
            raise
        finally:
            if books:
                books.close()
        return Outcome(self.iteration, self.num_iterations, self.total_steps, self.elapsed, stop.signal, limit)

    def _iterations(self, clock: Clock, books: Books | None, show: Show, stop: StopRequest) -> None:
        """Iterate until done or stopped; raises `OutOfTime`.

        Several processes heed no signal of their own, only one that they agreed on: else one would wait for another.
        """
        shares, verdict = self.shares, 0
        alone = shares.size == 1
        stopped = alone and stop.signal
        while self.iteration < self.num_iterations and not stopped and verdict != ENDS:
            if alone:
                clock.check()
            with clock.watching(self.env) if alone else nullcontext():
                metrics = self._iterate()
            try:
                verdict = books.enter(metrics, clock, show) if books else 0
            except BrokenPipeError:  # whoever read our output has gone: as good as a signal
                verdict, stop.signal = 0, signal.SIGPIPE
            verdict, stopped = ranks.agreed(shares, verdict, stop.signal or 0)
            if self.iteration % _COMPARED_EVERY == 0:
                ranks.require_same_policy(shares, self.learner.policy)
            if verdict == LATE:
                raise OutOfTime
            if verdict == SAVES:
                self.save(validate=True)
            if alone:
                stopped = stop.signal
        stop.signal = stopped or None

    def _prepare(self) -> None:
        """Bring the folder to where the training goes on from, once nothing can refuse it any more."""
        if self.resumed:
            folder.note_resumption(self.run, self._argv, self.config, self.iteration)
        folder.clean(self.run)
        folder.write_info(self.run, self.learner.policy.info, self.family)
        checkpoint.set_aside_after(self.run.checkpoints, self.iteration)

    def _present(self) -> str:
        return f"iteration {self.iteration + 1} of {self.num_iterations}"

    def _last_good(self) -> str:
        found = checkpoint.last_good(self.run.checkpoints)
        return f"the last good checkpoint is {found}" if found else "no checkpoint was written"

    def _ends_validated(self) -> bool:
        """Whether the last checkpoint of a finished training has others to be compared with."""
        found = checkpoint.existing(self.run.checkpoints)
        return self.iteration >= self.num_iterations and any(
            checkpoint.read_manifest(path).validation is not None for path in found
        )

    def _validation(self) -> float | None:
        """Mean return of the last episode on tasks drawn as in training, which no training draws; None if turned off.

        Tasks and initial states are the same for every checkpoint of the run, and no stream of the training is used.
        """
        config, number = self.config, self.config.validation_tasks
        if not number:
            return None
        value = float(self.evaluate(validation_tasks(self.family, config, number)).returns[:, -1].mean())
        return value if math.isfinite(value) else None

    def _recalibrated(self) -> dict[str, Tensor]:
        """What makes the deviations of the policy's beliefs right; it is saved, and the training does not use it."""
        config = self.config
        return recalibrated(
            self.learner.policy,
            self.family,
            validation_tasks(self.family, config, min(_RECALIBRATED, config.num_worlds)),
            config.episodes_per_trial,
            episode_steps=config.episode_steps or None,
            task_visible=task_visible(config),
            threads=config.threads,
        )

    def evaluate(self, tasks: Tasks) -> EvaluationRecord:
        """The present policy's returns, as `validated` has them."""
        return validated(self.learner.policy, self.family, self.config, tasks)

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
            trials *= self.fleet.places(self.learner.segment_steps)
            opened = number / trials / config.curriculum_share
            easiest[config.curriculum] = min(1.0, _FIRST_SHARE + (1.0 - _FIRST_SHARE) * opened)
        return self.family.space.sample("train", config.num_worlds, rng, easiest)

    def _iterate(self) -> Metrics:
        """One iteration: collect whole trials on freshly drawn training tasks, or the next segment; then update.

        With segments of a trial that all worlds begin together, update after each of them.
        """
        number, parts, found = self.iteration, self.fleet.parts(self.learner.segment_steps), []
        for part in range(parts):
            found.append(self._update(number, part, parts))
            self._midway = part + 1 < parts
        self.iteration += 1
        self.fleet.learnt()
        metrics = together(found)
        if number == 0 and self.fleet.seconds_to_compile:
            metrics["time/compile"] = self.fleet.seconds_to_compile
        return metrics

    def _update(self, number: int, part: int, parts: int) -> dict[str, float]:
        """Collect what is to be learnt from, and learn from it."""
        seed, begun = self.config.seed, time.perf_counter()
        segment, returns, dropped = self.collect(part)
        collected = time.perf_counter()
        generator = seeding.generator(seed, "update", number, *([part] if part else []))
        metrics = self.learner.update(segment, generator, (number + part / parts) / self.num_iterations)
        times = {"time/collect": collected - begun, "time/update": time.perf_counter() - collected}
        steps = segment.reward.numel()
        amiss = {f"physics/{name}": count / steps for name, count in vars(dropped).items() if count}
        return {**rollout_metrics(segment, returns), **amiss, **times, **metrics}

    def collect(self, part: int = 0) -> tuple[Segment, Float64[Tensor, "N K"], Dropped]:
        """See `Fleet.collect`."""
        return self.fleet.collect(
            self.learner, self.iteration, self.total_steps, lambda n: (self.sample_tasks(n), self.task_number(n)), part
        )


def _require_memory(config: TrainConfig[Any], episode_steps: int) -> None:
    """`UserError` where the machine's memory cannot hold what an iteration keeps at the least, and the learner."""
    trial = config.episodes_per_trial * episode_steps
    kept = min(getattr(config.learner, "segment_steps", 0) or trial, trial)
    state = config.learner.state_memory(trial) if hasattr(config.learner, "state_memory") else 0.0
    needs = {"num_worlds": config.num_worlds * (kept * STEP_BYTES + state)}
    for name, _, declared in declarations(type(config.learner)):
        if declared.memory is not None:
            needs[name] = declared.memory(getattr(config.learner, name))
    left, most = available_memory(), max(needs, key=lambda name: needs[name])
    if left is not None and sum(needs.values()) > left:
        raise UserError(
            f"this training needs at least {memory_text(sum(needs.values()))} of memory, and {memory_text(left)} are "
            f"left on this machine: most of it is for {most}, which must be smaller"
        )
