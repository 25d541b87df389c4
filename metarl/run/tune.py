"""The search of `metarl tune`: one training per trial, hopeless ones given up, the best written as a run's TOML."""

from __future__ import annotations

import math
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, Trial, TrialState
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
    """How a search ended."""

    signal: int | None = None
    """The signal that stopped it."""
    out_of_time: bool = False
    """Whether trials were left when the time was over."""


class Search:
    """Tries configurations, in a folder that it holds the lock of."""

    def __init__(self, path: Path, plan: Plan, command: list[str], console: Console) -> None:
        """`command`: the words that are to be typed to do the same again."""
        self.path, self.plan, self.command, self.console = path, plan, command, console
        self.study = Study(path, plan)

    def run(self, num_trials: int, max_minutes: float = 0.0) -> Ended:
        """Go on until the study has `num_trials` trials, or for `max_minutes` [min; 0: no limit].

        A training that fails counts as a failed trial. Raises its `UserError` if it is the default's, or the second
        in a row: then it is not for the configuration.
        """
        deadline = time.monotonic() + max_minutes * 60.0 if max_minutes else math.inf
        failed = False
        while (number := len(self.study.trials) + 1) <= num_trials:
            if time.monotonic() >= deadline:
                return Ended(out_of_time=True)
            trial = self.study.begin_trial()
            try:
                ended = self._try(number, num_trials, trial, deadline)
            except UserError as error:
                if number == 1:
                    raise
                self.study.fail_trial(trial, str(error))
                self._tell(number, num_trials, f"failed: {error}")
                if failed:
                    raise
                failed = True
                continue
            failed = False
            self._write_best()
            if ended is not None:
                return ended
        return Ended()

    def _try(self, number: int, num_trials: int, trial: Trial, deadline: float) -> Ended | None:
        """Train and judge one configuration; how the search ended, if it did so in the course of it."""
        run = Run(self.path / f"trial-{number:03d}")
        with (
            self._training(run, self.plan.configuration(trial.params)) as training,
            self.console.status("") as status,
        ):
            watch = Watch(
                training,
                trial,
                evaluate=lambda: self._value(training),
                show=lambda text: status.update(f"trial {number} of {num_trials} · {text}"),
                trial_minutes=self.plan.trial_minutes,
                deadline=deadline,
            )
            watch.take_up(self.study.reported(trial))
            signal = None
            if not watch.hopeless:
                signal = training.execute(Console(quiet=True), callbacks=[watch]).signal
            if signal is not None or watch.out_of_time:
                return Ended(signal, watch.out_of_time)
            value = None if watch.hopeless else self._value(training)
        minutes = f"{training.elapsed / 60:.1f} min"
        if value is None:
            self.study.prune_trial(trial)
            shutil.rmtree(run.checkpoints, ignore_errors=True)
            what = f"pruned at {training.total_steps:,} steps, return {watch.reported:.4g} · {minutes}"
        else:
            self.study.complete_trial(trial, value)
            what = f"return {value:.4g} · {minutes}"
        self._tell(number, num_trials, what, trial)
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
        with training.env:
            if goes_on:
                training.restore(argv=self.command)
            yield training

    def _value(self, training: Training) -> float:
        """Return of the last episode of a trial, deterministic policy, mean over the fixed list of training tasks."""
        tasks = training.family.space.fixed("train", self.plan.num_tasks)
        value = float(training.evaluate(tasks).returns[:, -1].mean())
        if not math.isfinite(value):
            raise UserError(f"the trained policy's return is {value}")
        return value

    def _write_best(self) -> None:
        """`best.toml`: the best trial's configuration as it was trained, and what is known of it."""
        if self.study.best is not None:
            config = self.plan.configuration(self.study.best[1].params)
            write_best(self.path / "best.toml", config, [shlex.join(["metarl", *self.command]), *self.verdict()])

    def verdict(self) -> list[str]:
        """What came of the search, as lines of text."""
        best, trials, base = self.study.best, self.study.trials, self.plan.base
        states = [trial.state for trial in trials]
        lines = [
            f"{len(trials)} trials of {base.total_steps:,} steps: {states.count(TrialState.COMPLETE)} complete, "
            f"{states.count(TrialState.PRUNED)} pruned, {states.count(TrialState.FAIL)} failed"
        ]
        if best is None:
            return lines
        number, trial = best
        default = next((trial.values[0] for n, trial in self.study.complete if n == 1), math.nan)
        lines += [
            f"return of episode {base.episodes_per_trial}, mean over {self.plan.num_tasks} training tasks: "
            f"default {default:.4g}, best (trial {number}) {trial.values[0]:.4g}",
            *(changes(self.plan, trial) if number > 1 else ["nothing tried was better than the default"]),
        ]
        if importance := self.study.importance():
            lines.append("importance: " + ", ".join(f"{name} {share:.0%}" for name, share in importance.items()))
        return lines

    def _tell(self, number: int, num_trials: int, what: str, trial: Trial | None = None) -> None:
        """One line of a trial that ended."""
        values = trial.params if trial else {}
        default = self.plan.default()
        changed = " ".join(f"{k}={_text(v)}" for k, v in values.items() if v != default[k])
        best = f" · best {self.study.best[1].values[0]:.4g}" if self.study.best else ""
        label = " (default)" if number == 1 else ""
        print(f"trial {number}/{num_trials}{label} · {what}{best}" + (f" · {changed}" if changed else ""), flush=True)


class Watch:
    """Follows a training: reports its value at each rung, and ends it when it is hopeless or late."""

    def __init__(
        self,
        training: Training,
        trial: Trial,
        evaluate: Callable[[], float],
        show: Callable[[str], None] = lambda text: None,
        *,
        trial_minutes: float = 0.0,
        deadline: float = math.inf,
    ) -> None:
        """`trial_minutes`: limit of the training [min; 0: none]; `deadline`: end of the search [s, monotonic clock]."""
        self._training, self._trial, self._evaluate, self._show = training, trial, evaluate, show
        self._trial_seconds, self._deadline = trial_minutes * 60.0 or math.inf, deadline
        self._rungs = [round(share * training.config.total_steps) for share in RUNGS]
        self.hopeless = False
        """The study's pruner gave it up."""
        self.out_of_time = False
        """The search is over before the training is."""
        self.reported = math.nan
        """Last value reported."""

    def __call__(self, metrics: Metrics) -> bool:
        """Whether to go on, after an iteration."""
        training = self._training
        progress = f"iteration {training.iteration} of {training.num_iterations}"
        self._show(f"{progress} · return {metrics['rollout/return_last']:.4g} while training")
        if training.iteration == training.num_iterations:
            return True
        if reached := self._reached():
            value = self._evaluate()
            self._report({rung: value for rung in reached})
        late = training.elapsed >= self._trial_seconds
        self.out_of_time = not (self.hopeless or late) and time.monotonic() >= self._deadline
        return not (self.hopeless or late or self.out_of_time)

    def take_up(self, reported: Mapping[int, float]) -> None:
        """Report anew what the training had reached when it was interrupted: the values of the rungs behind it."""
        self._report({rung: reported[rung] for rung in self._reached() if rung in reported})

    def _reached(self) -> list[int]:
        """Rungs reached since the last time, which count as reported from now on."""
        reached = [rung for rung in self._rungs if rung <= self._training.total_steps]
        self._rungs = self._rungs[len(reached) :]
        return reached

    def _report(self, values: Mapping[int, float]) -> None:
        for rung, self.reported in values.items():
            self._trial.report(self.reported, rung)
        if values:
            self.hopeless = self._trial.should_prune()


def changes(plan: Plan, trial: FrozenTrial) -> list[str]:
    """The searched fields' values in a trial beside the default's, a line each."""
    config = plan.configuration(trial.params)
    return [
        f"  {name} {_text(before)}" + ("" if before == (after := value_of(config, name)) else f" -> {_text(after)}")
        for name, before in plan.default().items()
    ]


def write_best(path: Path, config: TrainConfig[Any], header: list[str]) -> None:
    """The configuration as TOML below comment lines."""
    write_atomic(path, "".join(f"# {line}\n" for line in header) + "\n" + to_toml(config))


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
