"""A study: which configurations were tried and what came of them, in Optuna's journal; and what to try next.

A trial that was interrupted is not a trial yet: its parameters wait in the journal and are the next to be tried, under
the same number. What is drawn for a trial depends on the seed, its number and the trials before it only, so that an
interrupted study tries what it would have tried anyway.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from metarl.core import seeding
from metarl.core.config import TrainConfig
from metarl.core.errors import UserError, unknown_name
from metarl.core.parameters import Between, Log, Search, Value, declarations, searches

try:
    import optuna
except ImportError:
    raise UserError("metarl tune needs Optuna: pip install 'optuna>=5'") from None
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

RUN_FIELDS = ("num_worlds",)
"""Options of the run, not of the learner, that a learner may have searched too."""

_RANDOM_TRIALS = 8
"""Trials, the default's included, before the sampler uses what it has seen."""
_UNPRUNED_TRIALS = 4
"""Complete trials before one is pruned."""
_KEPT_PERCENT = 75.0
"""A trial is pruned when this share of the complete ones was better after as many steps. Half would be too strict:
what is complete has survived this already, so that the measure rises by itself."""
_ERROR = "error"
"""User attribute of a trial whose training failed: what went wrong."""
_NUMBER = "number"
"""User attribute of a trial: what it is called, which it keeps when it is interrupted."""
_REPORTED = "reported"
"""User attribute of a trial that was interrupted: its intermediate values."""


@dataclass(frozen=True)
class Plan:
    """What is searched, and how a configuration is judged."""

    base: TrainConfig[Any]
    """The default: the first trial, and what all trials have in common."""
    ranges: Mapping[str, Search]
    """What is searched: fields of the learner's configuration or of `RUN_FIELDS`."""
    num_tasks: int
    """Training tasks on which a trained policy is evaluated."""
    trial_minutes: float = 0.0
    """Limit of one training [min]; 0 for none."""

    def configuration(self, values: Mapping[str, Value]) -> TrainConfig[Any]:
        """The default with the searched fields replaced; `ConfigError` where the values do not go together."""
        of_learner = {field.name for field in fields(self.base.learner)}
        learner = replace(self.base.learner, **{k: v for k, v in values.items() if k in of_learner})
        of_run: dict[str, Any] = {k: v for k, v in values.items() if k not in of_learner}
        return replace(self.base, learner=learner, **of_run)

    def default(self) -> dict[str, Value]:
        """The searched fields' values in the default."""
        return {name: value_of(self.base, name) for name in self.ranges}

    def summary(self) -> dict[str, Any]:
        """What has to stay the same for trials to be comparable, as plain data."""
        run = asdict(self.base)
        learner = {f"learner.{name}": value for name, value in run.pop("learner").items()}
        for name in ("threads", "checkpoint_minutes", "validation_tasks"):
            del run[name]
        ranges = {f"search.{name}": str(support) for name, support in self.ranges.items()}
        judged = {"num_tasks": self.num_tasks, "trial_minutes": self.trial_minutes}
        plain: dict[str, Any] = json.loads(json.dumps(run | learner | ranges | judged, default=str))
        return plain


def value_of(config: TrainConfig[Any], name: str) -> Any:
    """A searched field's value."""
    owner = config.learner if name in {field.name for field in fields(config.learner)} else config
    return getattr(owner, name)


def declared_ranges(config: TrainConfig[Any], only: Iterable[str] = ()) -> dict[str, Search]:
    """What the learner's configuration declares to be searched, or those of it in `only`; `UserError` for mistakes."""
    config_class = type(config.learner)
    declared, where = searches(config_class), f"`search` of {config_class.__name__}"
    if not declared:
        raise UserError(
            f"agent '{config.agent}' declares nothing to search: write it at the fields of {config_class.__name__}, "
            "as learning_rate: float = number(1e-3, search=Log(1e-4, 3e-3)), with metarl.core.parameters"
        )
    known = [*(field.name for field in fields(config.learner)), *RUN_FIELDS]
    for name, support in declared.items():
        if name not in known:
            raise UserError(f"{where}: {unknown_name('field', name, known)}")
        try:
            for value in support.ends():
                Plan(config, {}, 1).configuration({name: value})
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    for name in only:
        if name not in declared:
            raise unknown_name("searched field", name, declared)
    return {name: support for name, support in declared.items() if not only or name in only}


class Study:
    """The trials so far, and the next one. The journal has one owner at a time: whoever holds the folder's lock."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        """Open the study in `folder`, or begin it; `UserError` where its trials were made to another plan."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.plan = plan
        journal = folder.resolve() / "journal.log"
        self._study = _open(journal)
        if self._study.user_attrs.get("plan") != plan.summary():
            if self.trials:
                raise self._another_plan(folder)
            journal.unlink()  # nothing is lost
            self._study = _open(journal)
            self._study.set_user_attr("plan", plan.summary())
        self._requeue_interrupted()

    @property
    def trials(self) -> list[FrozenTrial]:
        """Trials that ended: complete, pruned or failed. Interrupted ones are not among them."""
        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        return [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state in ended or _ERROR in trial.user_attrs
        ]

    @property
    def complete(self) -> list[tuple[int, FrozenTrial]]:
        """Trials with a value, and their numbers."""
        named = [(trial.user_attrs.get(_NUMBER, place), trial) for place, trial in enumerate(self.trials, start=1)]
        return [(number, trial) for number, trial in named if trial.state == TrialState.COMPLETE]

    @property
    def best(self) -> tuple[int, FrozenTrial] | None:
        """Number and trial of the highest value, the earliest among equals; None before the first is complete."""
        return max(self.complete, key=lambda numbered: (numbered[1].values[0], -numbered[0]), default=None)

    def begin_trial(self) -> tuple[int, Trial]:
        """Number and trial that are next, its parameters drawn.

        First the default, then what was interrupted, then what the sampler picks.
        """
        known = [trial.user_attrs.get(_NUMBER, 0) for trial in self._study.get_trials(deepcopy=False)]
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        number = waiting[0].user_attrs.get(_NUMBER, 0) if waiting else 0
        number = number or max(len(self.trials), *known, 0) + 1
        if number == 1 and not waiting:
            self._study.enqueue_trial(self.plan.default())
        seed = int(seeding.rng(self.plan.base.seed, "tune", number).integers(2**32))
        self._study.sampler = optuna.samplers.TPESampler(n_startup_trials=_RANDOM_TRIALS, seed=seed)
        trial = self._study.ask({name: self._distribution(name) for name in self.plan.ranges})
        trial.set_user_attr(_NUMBER, number)
        return number, trial

    def reported(self, trial: Trial) -> dict[int, float]:
        """What a trial that was interrupted had reported, by control steps; empty for a new one."""
        values: dict[str, float] = trial.user_attrs.get(_REPORTED, {})
        return {int(steps): value for steps, value in values.items()}

    def end_trial(self, trial: Trial, value: float | None, error: str = "") -> None:
        """Book its value; without one it was given up, or failed where there is an error."""
        if error:
            trial.set_user_attr(_ERROR, error)
        state = TrialState.FAIL if error else TrialState.PRUNED
        self._study.tell(trial, value, state=None if value is not None else state)

    def importance(self) -> dict[str, float]:
        """Each field's share in what sets the best quarter of the complete trials apart, largest first.

        PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255). Empty for fewer than 20 of them: it would say nothing.
        """
        if len(self.complete) < 20:
            return {}
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
        return optuna.importance.get_param_importances(self._study, evaluator=evaluator)

    def _another_plan(self, folder: Path) -> UserError:
        before, now = self._study.user_attrs.get("plan", {}), self.plan.summary()
        name = next(name for name in {**before, **now} if before.get(name) != now.get(name))
        return UserError(
            f"{folder} holds trials with {name} = {before.get(name)!r}, not {now.get(name)!r}: go on with the options "
            "it was begun with, or choose another --output"
        )

    def _distribution(self, name: str) -> BaseDistribution:
        """Optuna's word for what is searched."""
        support, base = self.plan.ranges[name], self.plan.base
        if not isinstance(support, Between):
            return CategoricalDistribution(support.values)
        kinds = {field: kind for owner in (TrainConfig, type(base.learner)) for field, kind, _ in declarations(owner)}
        if kinds[name] is int:
            return IntDistribution(int(support.low), int(support.high), log=isinstance(support, Log))
        return FloatDistribution(support.low, support.high, log=isinstance(support, Log))

    def _requeue_interrupted(self) -> None:
        """Trials still running are nobody's: whoever ran them was killed. Their parameters are to be tried again."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)
            if trial.params.keys() == self.plan.ranges.keys():
                values = {str(steps): value for steps, value in trial.intermediate_values.items()}
                reported = {_REPORTED: {**trial.user_attrs.get(_REPORTED, {}), **values}}
                self._study.enqueue_trial(dict(trial.params), user_attrs={**trial.user_attrs, **reported})


def _open(journal: Path) -> optuna.Study:
    """The study in the journal, old or new."""
    return optuna.create_study(
        study_name="metarl",
        storage=JournalStorage(JournalFileBackend(str(mended(journal)))),
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.PercentilePruner(_KEPT_PERCENT, n_startup_trials=_UNPRUNED_TRIALS),
    )


def mended(journal: Path) -> Path:
    """The journal without what a killed writer left: its lock, and a last line without an end."""
    with contextlib.suppress(FileNotFoundError):
        journal.with_name(journal.name + ".lock").unlink()
    if journal.exists():
        content = journal.read_bytes()
        if not content.endswith(b"\n"):
            os.truncate(journal, content.rfind(b"\n") + 1)
    return journal
