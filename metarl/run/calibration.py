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
from metarl.rl.policy import Believing, Policy
from metarl.run.collect import Stepper
from metarl.run.records import Origin
from metarl.sim.family import Family
from metarl.sim.make import make_env

LEVEL = 0.9
"""Share of the truths that an interval is to cover."""
_REACH = 1.6448536269514722  # standard deviations about the mean of a Gaussian that cover that share
_MOST_ROWS = 16  # of a table; of more numbers only their mean is shown


@dataclass(frozen=True)
class Calibration:
    """What the beliefs of many trials are worth, at K instants of a trial, for each of P privileged numbers."""

    names: tuple[str, ...]
    """Of the privileged numbers, without those that are the same in all trials."""
    seconds: tuple[float, ...]
    """The instants, from the trial's begin."""
    coverage: Float[np.ndarray, "K P"]
    """Share of the trials whose truth lies within the 90 % interval."""
    error: Float[np.ndarray, "K P"]
    """Root mean square error of the beliefs' means, divided by that of guessing the mean of all."""

    def to_json(self) -> dict[str, Any]:
        """Plain data with a checksum of itself."""
        lists = {"coverage": self.coverage.tolist(), "error": self.error.tolist()}
        return sealed({"names": list(self.names), "seconds": list(self.seconds), **lists})

    @staticmethod
    def from_json(content: Mapping[str, Any], where: str = "this") -> Calibration:
        """Inverse of `to_json`; `UserError` says what is wrong with the content."""
        try:
            names, seconds = tuple(map(str, content["names"])), tuple(map(float, content["seconds"]))
            coverage, error = (np.array(content[key], np.float64) for key in ("coverage", "error"))
            if {coverage.shape, error.shape} != {(len(seconds), len(names))} or not np.isfinite(error).all():
                raise ValueError("its numbers do not fit its names and instants")
        except (KeyError, TypeError, ValueError) as problem:
            raise UserError(f"{where} holds no calibration of beliefs: {problem}") from None
        return Calibration(names, seconds, coverage, error)

    def table(self) -> Table:
        """Error and coverage by number and instant."""
        table = Table(title="what it believes of its task: error (1: knows nothing), and coverage of 90 % intervals")
        table.add_column("task parameter")
        for seconds in self.seconds:
            table.add_column(f"after {seconds:.3g} s", justify="right")
        overall = np.sqrt(np.square(self.error).mean(axis=1)), self.coverage.mean(axis=1)
        rows = [("all", *overall)]
        if 1 < len(self.names) <= _MOST_ROWS:
            rows += list(zip(self.names, self.error.T, self.coverage.T, strict=True))
        for name, error, coverage in rows:
            table.add_row(name, *(f"{e:.2f}, {c:.0%}" for e, c in zip(error, coverage, strict=True)))
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

    At its first step, after `seconds`, and at its last. None where the policy has no beliefs, or the tasks are all one.
    """
    if not isinstance(policy, Believing):
        return None
    options: dict[str, Any] = {"episode_steps": origin.episode_steps or None, "task_visible": origin.task_visible}
    with make_env(family, len(tasks), episodes_per_trial=num_episodes, **options) as env:
        last, after = env.trial_steps - 1, np.atleast_1d(seconds).tolist()
        instants = sorted({0, last, *(min(round(each / family.control_step), last) for each in after)})
        names = element_names(env.info.privileged)
        stepper = Stepper(env, policy, tasks, seeding.key(seed, "evaluate"))
        truth, rows = env.privileged(), []
        for t, now in enumerate(stepper.steps(policy, env.trial_steps, deterministic=True)):
            if t in instants:
                rows.append((truth, *policy.beliefs(now.state)))
            truth = env.privileged()
    columns = (torch.stack(column).cpu() for column in zip(*rows, strict=True))
    return measured(tuple(names), tuple(t * family.control_step for t in instants), *columns)


def measured(
    names: tuple[str, ...],
    seconds: tuple[float, ...],
    truth: Float32[Tensor, "K N P"],
    mean: Float32[Tensor, "K N P"],
    std: Float32[Tensor, "K N P"],
) -> Calibration | None:
    """The calibration of N trials' beliefs at K instants."""
    spread = truth.flatten(0, 1).std(dim=0, unbiased=False)
    told = (spread > 1e-6).nonzero()[:, 0]
    if not len(told):
        return None
    off = (mean - truth).abs()[..., told]
    error = off.square().mean(dim=1).sqrt() / spread[told]
    covered = (off <= _REACH * std[..., told]).double().mean(dim=1)
    return Calibration(tuple(names[i] for i in told.tolist()), seconds, covered.numpy(), error.double().numpy())
