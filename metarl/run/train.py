"""The training loop, the same for every learner, and what stops it."""

from __future__ import annotations

import math
import signal
import time
from dataclasses import dataclass
from types import FrameType

import torch
from rich.console import Console

from metarl import seeding
from metarl.config import TrainConfig
from metarl.registry import make_family
from metarl.rl.learner import Learner, Policy
from metarl.rl.parallel import single_threaded_math
from metarl.run import checkpoint
from metarl.run.collect import collect
from metarl.run.folder import RunFolder, load_learner, make_learner
from metarl.run.logs import MetricsFile, progress_view
from metarl.sim.family import Family
from metarl.sim.trials import TrialEnv
from metarl.types import Metrics, Rollout


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
        self.family: Family = make_family(config.family)
        self.env = TrialEnv(
            self.family,
            config.num_worlds,
            episodes_per_trial=config.episodes_per_trial,
            threads=config.threads,
        )
        self.learner: Learner = make_learner(config, self.env)
        self.iteration = 0
        self.elapsed = 0.0

    @property
    def steps_per_iteration(self) -> int:
        """Control steps of one trial of all worlds."""
        return self.config.num_worlds * self.env.trial_steps

    @property
    def num_iterations(self) -> int:
        """Iterations of the whole training."""
        return math.ceil(self.config.total_steps / self.steps_per_iteration)

    def restore(self, which: str | None = None) -> None:
        """Continue from the run's newest checkpoint, or the one named `which`."""
        manifest = load_learner(self.run, self.learner, which)
        self.iteration, self.elapsed = manifest.iteration, manifest.elapsed

    def save(self) -> None:
        """Write a checkpoint of the present iteration."""
        steps = self.iteration * self.steps_per_iteration
        checkpoint.save(self.run.checkpoints, self.learner.state_dict(), self.iteration, steps, self.elapsed)

    def execute(self, console: Console, max_minutes: float = 0.0) -> Outcome:
        """Train until done, stopped by a signal, or out of time; saves on the way and at the end."""
        log = MetricsFile(self.run.path, self.iteration)
        begun = saved = time.monotonic()
        earlier, first_iteration = self.elapsed, self.iteration
        with StopRequest() as stop, progress_view(self.num_iterations, console) as view:
            try:
                while self.iteration < self.num_iterations:
                    metrics = self._iterate()
                    now = time.monotonic()
                    self.elapsed = earlier + now - begun
                    done = self.iteration - first_iteration
                    rate = done * self.steps_per_iteration / (now - begun)
                    remaining = (self.num_iterations - self.iteration) * (now - begun) / done
                    if max_minutes:
                        remaining = min(remaining, max(0.0, max_minutes * 60 - (now - begun)))
                    log.write(
                        self.iteration,
                        self.iteration * self.steps_per_iteration,
                        metrics | {"time/elapsed": self.elapsed, "time/steps_per_second": rate},
                    )
                    view.update(
                        self.iteration,
                        rate,
                        metrics["rollout/return_first"],
                        metrics["rollout/return_last"],
                        remaining,
                    )
                    if stop.signal is not None or (max_minutes and now - begun >= max_minutes * 60):
                        break
                    if now - saved >= self.config.checkpoint_minutes * 60:
                        self.save()
                        saved = now
            finally:
                log.close()
        self.save()
        return Outcome(
            iteration=self.iteration,
            total_steps=self.iteration * self.steps_per_iteration,
            elapsed=self.elapsed,
            signal=stop.signal,
            finished=self.iteration >= self.num_iterations,
        )

    def _iterate(self) -> Metrics:
        """One iteration on freshly drawn training tasks."""
        seed, number = self.config.seed, self.iteration
        tasks = self.family.space.sample("train", self.config.num_worlds, seeding.rng(seed, "tasks", number))
        rollouts: list[Rollout] = []

        def collect_trial(policy: Policy) -> Rollout:
            generator = seeding.generator(seed, "collect", number, len(rollouts))
            rollouts.append(collect(self.env, policy, tasks, generator))
            return rollouts[-1]

        update = seeding.generator(seed, "update", number)
        metrics = self.learner.train_step(collect_trial, update, number / self.num_iterations)
        self.iteration += 1
        return rollout_metrics(rollouts, self.config.episodes_per_trial) | metrics


def rollout_metrics(rollouts: list[Rollout], num_episodes: int) -> Metrics:
    """Mean return of the first and the last episode, their difference, and what went wrong."""
    first = rollouts[0].episode_returns(num_episodes)[:, 0].mean()
    last = rollouts[-1].episode_returns(num_episodes)[:, -1].mean()
    return {
        "rollout/return_first": float(first),
        "rollout/return_last": float(last),
        "rollout/adaptation_delta": float(last - first),
        "rollout/diverged": float(sum(int(torch.sum(rollout.diverged)) for rollout in rollouts)),
    }
