"""How well a policy's beliefs of its task hold: how wrong their means are, and how often their intervals are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from rich.table import Table
from torch import Tensor

from metarl.core import seeding
from metarl.core.info import element_names
from metarl.core.tasks import Tasks
from metarl.rl.policy import Believing, Policy
from metarl.run.collect import Stepper
from metarl.run.records import Origin
from metarl.sim.disturbances import Fault, Redrawn
from metarl.sim.family import Family
from metarl.sim.make import make_env

LEVEL = 0.9
"""Share of the truths that an interval is to cover."""
_REACH = 1.6448536269514722  # standard deviations about the mean of a Gaussian that cover that share
_MOST_ROWS = 16  # of a table; of more numbers only their mean is shown

_Row = tuple[Float32[Tensor, "_n P"], Float32[Tensor, "_n P"], Float32[Tensor, "_n P"]]
"""Truth (NaN where it does not count), mean and standard deviation."""


@dataclass(frozen=True)
class Calibration:
    """What the beliefs of many trials are worth, at K instants, for each of P privileged numbers.

    Where something changes unseen (a fault begins, a command is redrawn), an instant is counted from the change. What a
    fault brings is left out until it has come, and what has been redrawn as soon as it has.
    """

    names: tuple[str, ...]
    """Of the privileged numbers, without those that are always the same."""
    instants: tuple[str, ...]
    coverage: Float[np.ndarray, "K P"]
    """Share of the truths that lie within the 90 % interval; NaN where there are none."""
    error: Float[np.ndarray, "K P"]
    """Root mean square error of the beliefs' means, divided by that of guessing the mean of all; NaN where none."""

    def table(self) -> Table:
        """Error and coverage by number and instant."""
        table = Table(title="what it believes of its task: error (1: knows nothing), and coverage of 90 % intervals")
        table.add_column("task parameter")
        for instant in self.instants:
            table.add_column(instant, justify="right")
        overall = np.sqrt(np.nanmean(np.square(self.error), axis=1)), np.nanmean(self.coverage, axis=1)
        rows = [("all", *overall)]
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
    seconds: float = 1.0,
    seed: int = 0,
    origin: Origin,
) -> Calibration | None:
    """Play a trial on each task, all at once, and hold the beliefs against the truth.

    When a task begins or changes, `seconds` after that if it is still so, and at the trial's end. None where the policy
    has no beliefs, or the tasks are all one.
    """
    if not isinstance(policy, Believing):
        return None
    options: dict[str, Any] = {"episode_steps": origin.episode_steps or None, "task_visible": origin.task_visible}
    with make_env(family, len(tasks), episodes_per_trial=num_episodes, **options) as env:
        later = max(1, min(round(seconds / family.control_step), env.trial_steps - 1))
        names = element_names(env.info.privileged)
        stepper = Stepper(env, policy, tasks, seeding.key(seed, "evaluate"))
        truth, age = env.privileged().cpu(), torch.zeros(len(tasks), dtype=torch.long)
        known = _Knowable(family, names)
        rows: tuple[list[_Row], ...] = ([], [], [])
        for t, now in enumerate(stepper.steps(policy, env.trial_steps, deterministic=True)):
            at = (age == 0, age == later, torch.full_like(age, t == env.trial_steps - 1, dtype=torch.bool))
            if any(worlds.any() for worlds in at):
                mean, std = (each.cpu() for each in policy.beliefs(now.state))
                for row, worlds in zip(rows, at, strict=True):
                    row.append((known(truth)[worlds], mean[worlds], std[worlds]))
            before, truth = truth, env.privileged().cpu()
            age = torch.where((truth != before).any(dim=1), 0, age + 1)
    changes = "a change" if family.disturbances else "the start"
    instants = ("at first", f"{later * family.control_step:.3g} s after {changes}", "at the end")
    return measured(tuple(names), instants, [_joined(row) for row in rows])


def _joined(rows: list[_Row]) -> _Row:
    truth, mean, std = (torch.cat(column) for column in zip(*rows, strict=True))
    return truth, mean, std


class _Knowable:
    """Makes NaN of the privileged numbers that nothing tells yet, or any more."""

    def __init__(self, family: Family, names: Sequence[str]) -> None:
        def columns(kind: type[Fault] | type[Redrawn]) -> list[int]:
            changed = {name for each in family.disturbances if isinstance(each, kind) for name in each.parameters}
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
    instants: tuple[str, ...],
    rows: Sequence[_Row],
) -> Calibration | None:
    """The calibration of beliefs at K instants, a row for each."""
    truths = torch.cat([truth for truth, _, _ in rows]).double()
    told = [i for i, column in enumerate(truths.T) if column[~column.isnan()].unique().numel() > 1]
    if not told:
        return None
    spread = np.nanstd(truths[:, told].numpy(), axis=0)
    error, covered = [], []
    for truth, mean, std in rows:
        off = (mean - truth).abs()[:, told].double()
        inside = torch.where(off.isnan(), torch.nan, (off <= _REACH * std[:, told]).double())
        error.append(off.square().nanmean(dim=0).sqrt().numpy() / spread)
        covered.append(inside.nanmean(dim=0).numpy())
    return Calibration(tuple(names[i] for i in told), instants, np.stack(covered), np.stack(error))
