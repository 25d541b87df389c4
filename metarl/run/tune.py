"""What `metarl tune` does: one training per trial, hopeless ones given up, the best written as a run's TOML."""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from optuna.trial import Trial, TrialState
from rich.console import Console

from metarl.core.config import TrainConfig, to_toml
from metarl.core.errors import UserError
from metarl.core.files import write_atomic
from metarl.core.types import Metrics
from metarl.run import checkpoint, folder
from metarl.run.launch import end_with_parent
from metarl.run.run import Run
from metarl.run.stop import StopRequest
from metarl.run.study import Plan, Study, value_of
from metarl.run.train import Training

_FORKED = multiprocessing.get_context("fork")  # what a configuration names is loaded already
RUNGS = (0.4, 0.6, 0.8)
"""Shares of its control steps after which a training is compared with earlier ones. Before, haste would decide."""


@dataclass(frozen=True)
class Ended:
    """How a session of tuning ended."""

    signal: int | None = None
    """The signal that stopped it."""
    out_of_time: bool = False
    """Whether trials were left when the time was over."""


@dataclass(frozen=True)
class Trained:
    """What came of a configuration's training."""

    value: float | None
    """None where it was given up, or has not ended."""
    reported: float
    """The last value reported."""
    total_steps: int
    minutes: float
    stopped: Ended | None = None
    """How the session ended in the course of it."""


class Tuner:
    """Tries configurations in a folder that it holds the lock of, and books them in the folder's study."""

    def __init__(self, path: Path, plan: Plan, command: list[str], console: Console) -> None:
        """`command`: the words that are to be typed to do the same again."""
        self.path, self.plan, self.command, self.console = path, plan, command, console
        self.study = Study(path, plan)
        self._failed = False  # the last one did

    def run(self, num_trials: int, max_minutes: float = 0.0, jobs: int = 1) -> Ended:
        """Go on until the study has `num_trials` trials, or for `max_minutes` [min; 0: no limit].

        `jobs` trainings run at once, in processes of their own if they are several. A training that fails counts as a
        failed trial. Raises its `UserError` if it is the default's, or the second in a row: then the configuration is
        not the cause.
        """
        deadline = time.monotonic() + max_minutes * 60.0 if max_minutes else math.inf
        if jobs > 1:
            return self._several(num_trials, deadline, jobs)
        while len(self.study.trials) < num_trials:
            if time.monotonic() >= deadline:
                return Ended(out_of_time=True)
            number, trial = self.study.begin_trial()
            label = f"trial {number}/{num_trials}"
            with self.console.status("") as status:
                found = self._outcome(
                    number, trial.params, self.study.reported(trial), trial, deadline,
                    lambda progress, label=label: status.update(f"{label} · {progress}"),  # type: ignore[misc]
                )  # fmt: skip
            if self._booked(label, number, trial, found) is not None:
                assert isinstance(found, Trained) and found.stopped is not None
                return found.stopped
        return Ended()

    def _several(self, num_trials: int, deadline: float, jobs: int) -> Ended:
        """`run` with a process for each training: this one alone has the study, and answers what they report."""
        running: dict[Any, tuple[int, Trial, Any]] = {}
        stopped, passed_on = None, False
        with StopRequest(lambda: "the present iterations") as stop:
            try:
                while True:
                    while not (stopped or stop.signal) and len(running) < jobs and time.monotonic() < deadline:
                        if len(self.study.trials) + len(running) >= num_trials:
                            break
                        number, trial = self.study.begin_trial()
                        ours, theirs = _FORKED.Pipe()
                        words = (number, trial.params, self.study.reported(trial), theirs, deadline, jobs)
                        process = _FORKED.Process(target=self._apart, args=words)
                        process.start()
                        theirs.close()
                        running[ours] = number, trial, process
                    if not running:
                        late = len(self.study.trials) < num_trials and time.monotonic() >= deadline
                        return Ended(stop.signal) if stop.signal else stopped or Ended(out_of_time=late)
                    if stop.signal and not passed_on:
                        passed_on = True
                        for *_, process in running.values():
                            process.terminate()
                    told: list[Any] = wait(list(running), timeout=0.2)
                    for pipe in told:
                        number, trial, process = running[pipe]
                        found = _received(pipe, process)
                        if isinstance(found, tuple):
                            trial.report(*found)
                            pipe.send(bool(trial.should_prune()))
                            continue
                        del running[pipe]
                        process.join()  # it has said its last word
                        stopped = self._booked(f"trial {number}/{num_trials}", number, trial, found) or stopped
            finally:
                for pipe, (*_, process) in running.items():
                    pipe.close()
                    process.terminate()
                for *_, process in running.values():
                    process.join()

    def _apart(
        self, number: int, values: dict[str, Any], reported: dict[int, float], pipe: Any, deadline: float, jobs: int
    ) -> None:
        """Train in a process of its own, that shares the machine with as many others, and tell what came of it."""
        gc.freeze()  # what the other process left to be collected may wait for threads that are not here
        os.setpgid(0, 0)  # Ctrl-C is for the one that began it, and passes it on
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end_with_parent()
        os.environ["LOCAL_WORLD_SIZE"] = str(jobs)
        found = self._outcome(number, values, reported, _Reports(pipe), deadline, lambda _: None)
        with suppress(OSError):  # nobody may be left to hear it
            pipe.send(found)

    def _outcome(
        self,
        number: int,
        values: dict[str, Any],
        reported: dict[int, float],
        trial: Trial | _Reports,
        deadline: float,
        tell: Callable[[str], None],
    ) -> Trained | UserError:
        """Train and judge one configuration; the mistake that it fails by is returned."""
        try:
            with self._training(Run(self.path / f"trial-{number:03d}"), self.plan.configuration(values)) as training:
                watch = Watch(training, trial, self.plan, deadline)
                watch.report(reported)

                def after_iteration(metrics: Metrics) -> bool:
                    progress = f"iteration {training.iteration} of {training.num_iterations}"
                    tell(f"{progress} · return {metrics['rollout/return_last']:.4g} while training")
                    return watch.goes_on()

                stopped = None
                if not watch.hopeless:
                    ended = training.execute(Console(quiet=True), callbacks=[after_iteration]).signal
                    stopped = Ended(ended, watch.out_of_time) if ended is not None or watch.out_of_time else None
                value = None if stopped or watch.hopeless else value_after(training, self.plan)
                return Trained(value, watch.reported, training.total_steps, training.elapsed / 60, stopped)
        except UserError as error:
            return error

    def _booked(self, label: str, number: int, trial: Trial, found: Trained | UserError) -> Ended | None:
        """Book what came of a trial, and say it; how the session ended, if it did so in the course of it."""
        if isinstance(found, UserError):
            if number == 1:
                raise found
            self.study.end_trial(trial, None, str(found))
            print(f"{label} · failed: {found}", flush=True)
            if self._failed:
                raise found
            self._failed = True
            return None
        self._failed = False
        if found.stopped is None:
            self.study.end_trial(trial, found.value)
            ending = f"return {found.reported if found.value is None else found.value:.4g}"
            if found.value is None:
                shutil.rmtree(Run(self.path / f"trial-{number:03d}").checkpoints, ignore_errors=True)
                ending = f"pruned at {found.total_steps:,} steps, {ending}"
            default = self.plan.default()
            changed = " ".join(f"{name}={_text(v)}" for name, v in trial.params.items() if v != default[name])
            best = f" · best {self.study.best[1].values[0]:.4g}" if self.study.best else ""
            first = f"{label} (default)" if number == 1 else label
            words = f"{first} · {ending} · {found.minutes:.1f} min{best}" + (f" · {changed}" if changed else "")
            print(words, flush=True)
        if self.study.best is not None:
            head = [shlex.join(["metarl", *self.command]), *self.verdict()]
            _write_best(self.path / "best.toml", self.plan.configuration(self.study.best[1].params), head)
        return found.stopped

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


class _Reports:
    """What a training in a process of its own has of its trial: its values go to the one that has the study."""

    def __init__(self, pipe: Any) -> None:
        self._pipe, self._hopeless = pipe, False

    def report(self, value: float, step: int) -> None:
        try:
            self._pipe.send((value, step))
            self._hopeless = self._pipe.recv()
        except (EOFError, OSError):
            raise UserError("the search has ended") from None

    def should_prune(self) -> bool:
        return self._hopeless


def _received(pipe: Any, process: Any) -> tuple[float, int] | Trained | UserError:
    """What a training in a process of its own tells: a value at some step, or how it ended."""
    try:
        found: tuple[float, int] | Trained | UserError = pipe.recv()
    except EOFError:
        process.join()
        found = UserError(f"its process ended with exit code {process.exitcode}")
    return found


class Watch:
    """Follows a training: reports its value at each rung, and ends it when it is hopeless or late."""

    def __init__(self, training: Training, trial: Trial | _Reports, plan: Plan, deadline: float = math.inf) -> None:
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
