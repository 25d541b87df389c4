"""What `metarl tune` does: one training per trial, hopeless ones given up, the best written as a run's TOML."""

from __future__ import annotations

import math
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.trial import Trial, TrialState
from rich.console import Console

from metarl.core.config import TrainConfig, to_toml
from metarl.core.errors import UserError
from metarl.core.files import write_atomic
from metarl.core.types import Metrics
from metarl.run import checkpoint, folder
from metarl.run.run import Run
from metarl.run.study import Plan, Study, value_of
from metarl.run.train import Training

RUNGS = (0.4, 0.6, 0.8)
"""Shares of its control steps after which a training is compared with earlier ones. Before, haste would decide."""


@dataclass(frozen=True)
class Ended:
    """How a session of tuning ended."""

    signal: int | None = None
    """The signal that stopped it."""
    out_of_time: bool = False
    """Whether trials were left when the time was over."""


class Tuner:
    """Tries configurations in a folder that it holds the lock of, and books them in the folder's study."""

    def __init__(self, path: Path, plan: Plan, command: list[str], console: Console) -> None:
        """`command`: the words that are to be typed to do the same again."""
        self.path, self.plan, self.command, self.console = path, plan, command, console
        self.study = Study(path, plan)

    def run(self, num_trials: int, max_minutes: float = 0.0) -> Ended:
        """Go on until the study has `num_trials` trials, or for `max_minutes` [min; 0: no limit].

        A training that fails counts as a failed trial. Raises its `UserError` if it is the default's, or the second
        in a row: then the configuration is not the cause.
        """
        deadline = time.monotonic() + max_minutes * 60.0 if max_minutes else math.inf
        failed = False
        while (number := len(self.study.trials) + 1) <= num_trials:
            if time.monotonic() >= deadline:
                return Ended(out_of_time=True)
            trial = self.study.begin_trial()
            try:
                ended = self._try(f"trial {number}/{num_trials}", number, trial, deadline)
            except UserError as error:
                if number == 1:
                    raise
                self.study.end_trial(trial, None, str(error))
                print(f"trial {number}/{num_trials} · failed: {error}", flush=True)
                if failed:
                    raise
                failed = True
                continue
            failed = False
            if self.study.best is not None:
                head = [shlex.join(["metarl", *self.command]), *self.verdict()]
                _write_best(self.path / "best.toml", self.plan.configuration(self.study.best[1].params), head)
            if ended is not None:
                return ended
        return Ended()

    def _try(self, label: str, number: int, trial: Trial, deadline: float) -> Ended | None:
        """Train and judge one configuration; how the session ended, if it did so in the course of it."""
        run = Run(self.path / f"trial-{number:03d}")
        with (
            self._training(run, self.plan.configuration(trial.params)) as training,
            self.console.status("") as status,
        ):
            watch = Watch(training, trial, self.plan, deadline)
            watch.report(self.study.reported(trial))

            def after_iteration(metrics: Metrics) -> bool:
                progress = f"iteration {training.iteration} of {training.num_iterations}"
                status.update(f"{label} · {progress} · return {metrics['rollout/return_last']:.4g} while training")
                return watch.goes_on()

            signal = None
            if not watch.hopeless:
                signal = training.execute(Console(quiet=True), callbacks=[after_iteration]).signal
            if signal is not None or watch.out_of_time:
                return Ended(signal, watch.out_of_time)
            value = None if watch.hopeless else value_after(training, self.plan)
        self.study.end_trial(trial, value)
        ending = f"return {value:.4g}" if value is not None else f"return {watch.reported:.4g}"
        if value is None:
            shutil.rmtree(run.checkpoints, ignore_errors=True)
            ending = f"pruned at {training.total_steps:,} steps, {ending}"
        default = self.plan.default()
        changed = " ".join(f"{name}={_text(v)}" for name, v in trial.params.items() if v != default[name])
        best = f" · best {self.study.best[1].values[0]:.4g}" if self.study.best else ""
        first, minutes = " (default)" if number == 1 else "", training.elapsed / 60
        print(f"{label}{first} · {ending} · {minutes:.1f} min{best}" + (f" · {changed}" if changed else ""), flush=True)
        return None

    @contextmanager
    def _training(self, run: Run, config: TrainConfig[Any]) -> Iterator[Training]:
        """The run's training from its newest checkpoint on, or a new one."""
        goes_on = bool(checkpoint.existing(run.checkpoints))
        goes_on = goes_on and replace(run.config(), threads=config.threads) == config
        if not goes_on:
            shutil.rmtree(run.path, ignore_errors=True)
            folder.create(run.path, config, self.command)
        training = Training(run, config)
        with training.fleet:
            if goes_on:
                training.restore(argv=self.command)
            yield training

    def verdict(self) -> list[str]:
        """What came of the study, as lines of text."""
        best, trials, base = self.study.best, self.study.trials, self.plan.base
        states = [trial.state for trial in trials]
        lines = [
            f"{len(trials)} trials of {base.total_steps:,} steps: {states.count(TrialState.COMPLETE)} complete, "
            f"{states.count(TrialState.PRUNED)} pruned, {states.count(TrialState.FAIL)} failed"
        ]
        if best is None:
            return lines
        number, trial = best
        first = next((trial.values[0] for n, trial in self.study.complete if n == 1), math.nan)
        lines.append(
            f"return of episode {base.episodes_per_trial}, mean over {self.plan.num_tasks} training tasks: "
            f"default {first:.4g}, best (trial {number}) {trial.values[0]:.4g}"
        )
        if number == 1:
            lines.append("nothing tried was better than the default")
        else:
            config = self.plan.configuration(trial.params)
            for name, before in self.plan.default().items():
                after = value_of(config, name)
                lines.append(f"  {name} {_text(before)}" + (f" -> {_text(after)}" if after != before else ""))
        if importance := self.study.importance():
            lines.append("importance: " + ", ".join(f"{name} {share:.0%}" for name, share in importance.items()))
        return lines


class Watch:
    """Follows a training: reports its value at each rung, and ends it when it is hopeless or late."""

    def __init__(self, training: Training, trial: Trial, plan: Plan, deadline: float = math.inf) -> None:
        """`deadline`: end of the session [s, monotonic clock]."""
        self._training, self._trial, self._plan, self._deadline = training, trial, plan, deadline
        self._rungs = [round(share * training.config.total_steps) for share in RUNGS]
        self.hopeless = False
        """The study's pruner gave it up."""
        self.out_of_time = False
        """The session is over before the training is."""
        self.reported = math.nan
        """Last value reported."""

    def goes_on(self) -> bool:
        """Whether to go on, after an iteration."""
        training = self._training
        if training.iteration == training.num_iterations:
            return True
        if any(rung <= training.total_steps for rung in self._rungs):
            self.report(dict.fromkeys(self._rungs, value_after(training, self._plan)))
        late = training.elapsed >= (self._plan.trial_minutes * 60.0 or math.inf)
        self.out_of_time = not (self.hopeless or late) and time.monotonic() >= self._deadline
        return not (self.hopeless or late or self.out_of_time)

    def report(self, values: Mapping[int, float]) -> None:
        """Report the values of the rungs reached since the last time, as far as there are any."""
        reached = [rung for rung in self._rungs if rung <= self._training.total_steps]
        self._rungs = self._rungs[len(reached) :]
        for rung in reached:
            if rung in values:
                self.reported = values[rung]
                self._trial.report(self.reported, rung)
                self.hopeless = self._trial.should_prune()


def value_after(training: Training, plan: Plan) -> float:
    """Return of the last episode of a trial, deterministic policy, mean over the fixed list of training tasks."""
    tasks = training.family.space.fixed("train", plan.num_tasks)
    value = float(training.evaluate(tasks).returns[:, -1].mean())
    if not math.isfinite(value):
        raise UserError(f"the trained policy's return is {value}")
    return value


def _write_best(path: Path, config: TrainConfig[Any], head: list[str]) -> None:
    """Write the best trial's configuration as it was trained, below comment lines."""
    write_atomic(path, "".join(f"# {line}\n" for line in head) + "\n" + to_toml(config))


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
