"""How well a policy's beliefs of its task hold: how wrong their means are, and how often their intervals are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from rich.table import Table
from torch import Tensor

from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.files import sealed
from metarl.core.info import element_names
from metarl.core.tasks import Tasks
from metarl.rl.policy import Believing, Policy, Recalibrated
from metarl.rl.recalibration import REACH, Recalibration
from metarl.run.collect import Stepper
from metarl.run.records import Origin
from metarl.sim.disturbances import Fault, Redrawn
from metarl.sim.family import Family
from metarl.sim.make import make_env

_MOST_ROWS = 16  # of a table; of more numbers only their mean is shown

_Row = tuple[Float32[Tensor, "_n P"], Float32[Tensor, "_n P"], Float32[Tensor, "_n P"]]
"""Truth (NaN where it does not count), mean and standard deviation."""


@dataclass(frozen=True)
class Calibration:
    """What the beliefs of many trials are worth, at K times, for each of P privileged numbers.

    Where something changes unseen (a fault begins, a command is redrawn), time is counted from the change. What a fault
    brings is left out until it has come, and what has been redrawn as soon as it has.
    """

    names: tuple[str, ...]
    """Of the privileged numbers, without those that are always the same."""
    seconds: tuple[float, ...]
    """The times [s]."""
    coverage: Float[np.ndarray, "K P"]
    """Share of the truths that lie within the 90 % interval; NaN where there are none."""
    error: Float[np.ndarray, "K P"]
    """Root mean square error of the beliefs' means, divided by that of guessing the mean of all; NaN where none."""

    def to_json(self) -> dict[str, Any]:
        """Plain data with a checksum of itself."""
        coverage, error = (plain(each) for each in (self.coverage, self.error))
        names, seconds = list(self.names), list(self.seconds)
        return sealed({"names": names, "seconds": seconds, "coverage": coverage, "error": error})

    @staticmethod
    def from_json(content: Mapping[str, Any], where: str = "this") -> Calibration:
        """Inverse of `to_json`; `UserError` says what is wrong with the content."""
        try:
            names, seconds = tuple(map(str, content["names"])), tuple(map(float, content["seconds"]))
            coverage, error = (np.array(content[key], np.float64) for key in ("coverage", "error"))
            if {coverage.shape, error.shape} != {(len(seconds), len(names))} or np.isinf(error).any():
                raise ValueError("its numbers do not fit its names and times")
        except (KeyError, TypeError, ValueError) as problem:
            raise UserError(f"{where} holds no calibration of beliefs: {problem}") from None
        return Calibration(names, seconds, coverage, error)

    @property
    def overall(self) -> Float[np.ndarray, "K"]:
        """Root mean square error of all numbers."""
        overall: Float[np.ndarray, "K"] = np.sqrt(np.nanmean(np.square(self.error), axis=1))
        return overall

    def table(self) -> Table:
        """Error and coverage by number and time."""
        table = Table(title="what it believes of its task: error (1: knows nothing), and coverage of 90 % intervals")
        table.add_column("task parameter")
        for seconds in self.seconds:
            table.add_column(f"after {seconds:.3g} s", justify="right")
        rows = [("all", self.overall, np.nanmean(self.coverage, axis=1))]
        if 1 < len(self.names) <= _MOST_ROWS:
            rows += list(zip(self.names, self.error.T, self.coverage.T, strict=True))
        for name, error, coverage in rows:
            shown = (f"{e:.2f}, {c:.0%}" if np.isfinite(e) else "–" for e, c in zip(error, coverage, strict=True))
            table.add_row(name, *shown)
        return table


def calibration(
    policy: Policy[Any],
    family: Family,
    tasks: Tasks,
    num_episodes: int,
    *,
    seconds: float | Sequence[float] = 1.0,
    seed: int = 0,
    origin: Origin,
) -> Calibration | None:
    """Play a trial on each task, all at once, and hold the beliefs against the truth.

    That is when a task begins or changes, `seconds` after that where it is still so, and where nothing changed all
    along, at the trial's last step; times that less than a tenth of the tasks come to unchanged are left out. None
    where the policy has no beliefs, or the tasks are all one.
    """
    if not isinstance(policy, Believing):
        return None
    options: dict[str, Any] = {"episode_steps": origin.episode_steps or None, "task_visible": origin.task_visible}
    with make_env(family, len(tasks), episodes_per_trial=num_episodes, **options) as env:
        last, after = env.trial_steps - 1, np.atleast_1d(seconds).tolist()
        ages = sorted({0, last, *(min(round(each / family.control_step), last) for each in after)})
        names = element_names(env.info.privileged)
        stepper = Stepper(env, policy, tasks, seeding.key(seed, "evaluate"))
        truth, age, known = env.privileged().cpu(), torch.zeros(len(tasks), dtype=torch.long), _Knowable(family, names)
        rows: dict[int, list[_Row]] = {}
        for now in stepper.steps(policy, env.trial_steps, deterministic=True):
            if due := set(age.tolist()).intersection(ages):
                mean, std = (each.cpu() for each in policy.beliefs(now.state))
                for each in due:
                    rows.setdefault(each, []).append((known(truth)[age == each], mean[age == each], std[age == each]))
            before, truth = truth, env.privileged().cpu()
            age = torch.where((truth != before).any(dim=1), 0, age + 1)
    met = [each for each in sorted(rows) if 10 * sum(len(truths) for truths, _, _ in rows[each]) >= len(tasks)]
    return measured(tuple(names), tuple(each * family.control_step for each in met), [_joined(rows[e]) for e in met])


def recalibrated(
    policy: Policy[Any], family: Family, tasks: Tasks, num_episodes: int, **options: Any
) -> dict[str, Tensor]:
    """What corrects the deviations of a policy's beliefs, as `Learner.state_dict` names it; of one without, nothing.

    By a trial on each of `tasks`, which no training and no evaluation is on, and by mean actions, as it is evaluated.
    `options` are those of `make_env`.
    """
    if not isinstance(policy, Recalibrated):
        return {}
    found = []
    with make_env(family, len(tasks), episodes_per_trial=num_episodes, **options) as env:
        stepper = Stepper(env, policy, tasks, seeding.key(0, "recalibrate"))
        truth, device = env.privileged(), policy.recalibration.log_factor.device
        for now in stepper.steps(policy, env.trial_steps, deterministic=True):
            found.append([each.cpu() for each in policy.mistaken(now.state, truth.to(device))])
            truth = env.privileged()
    error, log_std = (torch.stack(column) for column in zip(*found, strict=True))
    fitted = Recalibration(error.shape[-1])
    fitted.fit(error, log_std)
    return {"policy/recalibration.log_factor": fitted.log_factor.to(device)}


def plain(numbers: Float[np.ndarray, "_A _B"]) -> list[list[float | None]]:
    """As JSON may have them: None where NaN."""
    return [[None if np.isnan(number) else number for number in row] for row in numbers.tolist()]


def _joined(rows: list[_Row]) -> _Row:
    truth, mean, std = (torch.cat(column) for column in zip(*rows, strict=True))
    return truth, mean, std


class _Knowable:
    """Makes NaN of the privileged numbers that nothing tells yet, or any more."""

    def __init__(self, family: Family, names: Sequence[str]) -> None:
        def columns(kind: type[Fault] | type[Redrawn]) -> list[int]:
            changed = {name for each in family.disturbances if isinstance(each, kind) for name in each.parameters}
            for variation in getattr(family, "variations", ()):  # how something is broken shows where it is
                changed |= set(variation.parameters) if changed & set(variation.parameters) else set()
            return [i for i, name in enumerate(names) if name.rpartition(".")[0] in changed or name in changed]

        self._brought, self._redrawn = columns(Fault), columns(Redrawn)
        self._fault = list(names).index("fault") if self._brought else None

    def __call__(self, truth: Float32[Tensor, "N P"]) -> Float32[Tensor, "N P"]:
        truth = truth.clone()
        if self._fault is not None:
            off = (truth[:, self._fault] == 0.0)[:, None]
            truth[:, self._brought] = truth[:, self._brought].masked_fill(off, torch.nan)
        truth[:, self._redrawn] = torch.nan
        return truth


def measured(
    names: tuple[str, ...],
    seconds: tuple[float, ...],
    rows: Sequence[_Row],
) -> Calibration | None:
    """The calibration of beliefs at K times, a row for each."""
    truths = torch.cat([truth for truth, _, _ in rows]).double()
    told = [i for i, column in enumerate(truths.T) if column[~column.isnan()].unique().numel() > 1]
    if not told:
        return None
    spread = np.nanstd(truths[:, told].numpy(), axis=0)
    error, covered = [], []
    for truth, mean, std in rows:
        off = (mean - truth).abs()[:, told].double()
        inside = torch.where(off.isnan(), torch.nan, (off <= REACH * std[:, told]).double())
        error.append(off.square().nanmean(dim=0).sqrt().numpy() / spread)
        covered.append(inside.nanmean(dim=0).numpy())
    return Calibration(tuple(names[i] for i in told), seconds, np.stack(covered), np.stack(error))
