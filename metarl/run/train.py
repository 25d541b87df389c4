"""The training loop, the same for every learner, and what stops it."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from rich.console import Console
from torch import Tensor

from metarl.core import seeding
from metarl.core.config import STEP_BYTES, TrainConfig, task_visible
from metarl.core.errors import Diverged, UserError
from metarl.core.graphs import own_stream
from metarl.core.machine import available_memory
from metarl.core.parameters import declarations, memory_text
from metarl.core.registry import make_family
from metarl.core.tasks import Tasks
from metarl.core.types import Metrics, Segment
from metarl.rl.learner import Learner, require_device
from metarl.rl.parallel import device_math, single_threaded_math
from metarl.rl.policy import Policy, unsound
from metarl.run import checkpoint, folder
from metarl.run.checkpoint import CheckpointError
from metarl.run.collect import Stepper
from metarl.run.evaluate import evaluate
from metarl.run.logs import MetricsFile, progress_view
from metarl.run.records import EvaluationRecord, Origin
from metarl.run.run import Run, env_options, make_learner
from metarl.run.stop import Clock, OutOfTime, StopRequest
from metarl.sim.make import make_env

_FIRST_SHARE = 0.1
"""Share of a parameter's range, its easiest, with which a curriculum begins."""

Callback = Callable[[Metrics], bool | None]
"""Told an iteration's metrics once they are logged; False ends the training there, saved and unfinished."""


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

    def __init__(self, run: Run, config: TrainConfig[Any]) -> None:
        single_threaded_math()
        require_device(config.device)
        device_math(config.device)
        own_stream(config.device)
        self.run = run
        self.config = config
        self.family = make_family(config.family, config.disturbances, config.task_ranges)
        if config.curriculum:  # says what is wrong with it before any world is made
            self.family.space.sample("train", 1, seeding.rng(0, "tasks"), {config.curriculum: 1.0})
        _require_memory(config, config.episode_steps or self.family.episode_steps)
        self.env = make_env(
            self.family,
            config.num_worlds,
            episodes_per_trial=config.episodes_per_trial,
            threads=config.threads,
            **env_options(config),
        )
        self.learner: Learner = make_learner(config, self.env.info, config.device)
        if config.staggered and self.learner.segment_steps is None:
            raise UserError(f"staggered = True: {config.agent} updates after whole trials; only with segments of them")
        self._stepper: Stepper | None = None
        self.iteration = 0
        self.elapsed = 0.0
        self.saved = 0
        """Iteration of the newest checkpoint; 0 where there is none."""
        self.resumed = False
        self._argv: Sequence[str] = ()
        self._listed: Tasks | None = None

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

    def restore(self, which: str | None = None, argv: Sequence[str] = ()) -> None:
        """Continue from the run's newest checkpoint, or the one named `which`; `execute` sets newer ones aside.

        A run stopped before its first checkpoint begins again: its draws depend on seed and iteration only. Nothing is
        written before `execute`, which notes in `run.json` that the run went on by the command `argv`.
        """
        self.resumed, self._argv = True, argv
        if which is None and not checkpoint.existing(self.run.checkpoints):
            return
        manifest = self.run.load_learner(self.learner, which)
        self.iteration, self.elapsed = manifest.iteration, manifest.elapsed
        self.saved = self.iteration

    def save(self, validate: bool = False) -> None:
        """Write a checkpoint of the present iteration, unless there is one; `validate` measures how good it is."""
        if self.iteration != self.saved:
            folder.require_there(self.run)
            state = self.learner.state_dict()
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

    def execute(self, console: Console, max_minutes: float = 0.0, callbacks: Sequence[Callback] = ()) -> Outcome:
        """Train until done, stopped by a signal or a callback, or out of time; saves on the way and at the end."""
        log = MetricsFile(self.run.path, self.iteration, self.total_steps)
        limit = 0.0
        try:
            self._prepare()
            clock = Clock(self, max_minutes)
            with StopRequest(self._present) as stop, progress_view(self.num_iterations, console) as show:
                try:
                    while self.iteration < self.num_iterations and stop.signal is None:
                        clock.check()
                        with clock.watching(self.env):
                            metrics = self._iterate()
                        folder.require_there(self.run)
                        rate, remaining = clock.tick()
                        times = {"time/elapsed": self.elapsed, "time/steps_per_second": rate}
                        log.write(self.iteration, self.total_steps, metrics | times)
                        first, last = metrics["rollout/return_first"], metrics["rollout/return_last"]
                        show(self.iteration, rate, first, last, remaining)
                        if not all([callback(metrics) is not False for callback in callbacks]):
                            break
                        if clock.checkpoint_is_due():
                            self.save(validate=True)
                except BrokenPipeError:  # whoever read our output has gone: as good as a signal
                    stop.signal = signal.SIGPIPE
                except OutOfTime:
                    limit = max_minutes
                self.save(validate=self._ends_validated())
        except Diverged as error:
            raise type(error)(f"{error}; {self._last_good()}") from None
        except CheckpointError:
            raise
        except UserError:  # from collecting, or before any update: the learner is as the last iteration left it
            with suppress(UserError):
                self.save()
            raise
        finally:
            log.close()
        return Outcome(self.iteration, self.num_iterations, self.total_steps, self.elapsed, stop.signal, limit)

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
        tasks = self.family.space.sample("train", number, seeding.rng(config.seed, "validation"))
        value = float(self.evaluate(tasks).returns[:, -1].mean())
        return value if math.isfinite(value) else None

    def evaluate(self, tasks: Tasks) -> EvaluationRecord:
        """The present policy's returns by mean actions, in as many episodes as it is trained in."""
        config = self.config
        return evaluate(
            self.learner.policy,
            self.family,
            tasks,
            config.episodes_per_trial,
            seed=config.seed,
            threads=config.threads,
            origin=Origin(episode_steps=config.episode_steps, task_visible=task_visible(config)),
        )

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
            trials *= self._places
            opened = number / trials / config.curriculum_share
            easiest[config.curriculum] = min(1.0, _FIRST_SHARE + (1.0 - _FIRST_SHARE) * opened)
        return self.family.space.sample("train", config.num_worlds, rng, easiest)

    def _iterate(self) -> Metrics:
        """One iteration: collect whole trials on freshly drawn training tasks, or the next segment; then update."""
        seed, number, learner, begun = self.config.seed, self.iteration, self.learner, time.perf_counter()
        segment, stepper = self.collect()
        if learner.segment_steps is None:
            returns = segment.episode_returns(self.config.episodes_per_trial)
        else:
            returns = stepper.returns[stepper.completed] if stepper.completed.any() else stepper.returns
        collected = time.perf_counter()
        metrics = learner.update(segment, seeding.generator(seed, "update", number), number / self.num_iterations)
        times = {"time/collect": collected - begun, "time/update": time.perf_counter() - collected}
        self.iteration += 1
        dropped = vars(self.env.dropped())  # of the whole segment, in control steps of single worlds
        amiss = {f"physics/{name}": count / self.steps_per_iteration for name, count in dropped.items() if count}
        if number == 0 and self.env.seconds_to_compile:
            amiss["time/compile"] = self.env.seconds_to_compile
        return rollout_metrics(segment, returns) | amiss | times | metrics

    def collect(self) -> tuple[Segment, Stepper]:
        """What an iteration learns from, and what collected it."""
        learner, policy = self.learner, self.learner.behaviour
        if bad := unsound(policy):
            raise Diverged(f"the training diverged: {bad}")
        kept, steps = getattr(learner, "kept_every", None), learner.segment_steps or self.env.trial_steps
        stepper = self._stepper = self._begun(policy)
        return stepper.segment(policy, steps, learner.record, privileged=learner.wants_privileged, every=kept), stepper

    @property
    def _places(self) -> int:
        """Places of a trial at which worlds are at once."""
        return max(1, self.env.trial_steps // (self.learner.segment_steps or 1)) if self.config.staggered else 1

    def _begun(self, policy: Policy[Any]) -> Stepper:
        """New trials in all worlds, or trials that run on from segment to segment.

        A resumed training begins these anew in all worlds.
        """
        if self.learner.segment_steps is not None:
            return self._stepper or self._running_on(policy)
        number = self.iteration
        tasks, task_number = self.sample_tasks(number), self.task_number(number)
        key = seeding.key(self.config.seed, "collect", number, 0)
        if self._stepper is None:
            return Stepper(self.env, policy, tasks, key, task_number=task_number)
        self._stepper.begin(policy, tasks, key, task_number=task_number)
        return self._stepper

    def _running_on(self, policy: Policy[Any]) -> Stepper:
        trial = self._places * self.total_steps // (self.config.num_worlds * self.env.trial_steps)

        def next_tasks() -> tuple[Tasks, Int64[Tensor, "N"]]:
            nonlocal trial
            trial += 1
            return self.sample_tasks(trial), self.task_number(trial)

        key = seeding.key(self.config.seed, "collect", self.iteration, 0)
        number, places = self.task_number(trial), self._places
        clock = torch.arange(self.config.num_worlds) % places * (self.learner.segment_steps or 0)
        tasks = self.sample_tasks(trial)
        at = clock if places > 1 else None
        return Stepper(self.env, policy, tasks, key, task_number=number, next_tasks=next_tasks, clock=at)


def rollout_metrics(segment: Segment, returns: Float64[Tensor, "N K"]) -> Metrics:
    """Mean return of the first and the last episode, their difference, and what went wrong."""
    first, last = returns[:, 0].mean(), returns[:, -1].mean()
    values = torch.stack((first, last, last - first, segment.diverged.sum().to(first.dtype))).tolist()
    names = ("return_first", "return_last", "adaptation_delta", "diverged")
    return {f"rollout/{name}": value for name, value in zip(names, values, strict=True)}


def _require_memory(config: TrainConfig[Any], episode_steps: int) -> None:
    """`UserError` where the machine's memory cannot hold what an iteration keeps at the least, and the learner."""
    kept = getattr(config.learner, "segment_steps", 0) or config.episodes_per_trial * episode_steps
    needs = {"num_worlds": float(config.num_worlds * kept * STEP_BYTES)}
    for name, _, declared in declarations(type(config.learner)):
        if declared.memory is not None:
            needs[name] = declared.memory(getattr(config.learner, name))
    left, most = available_memory(), max(needs, key=lambda name: needs[name])
    if left is not None and sum(needs.values()) > left:
        raise UserError(
            f"this training needs at least {memory_text(sum(needs.values()))} of memory, and {memory_text(left)} are "
            f"left on this machine: most of it is for {most}, which must be smaller"
        )
