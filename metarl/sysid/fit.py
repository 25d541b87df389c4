"""Task parameters fitted to what the sensors measured, by least squares over short shots of a log.

A long replay runs through contacts into wrong minima and reports them with confidence, so a log is cut into short
shots. No robot knows the full state of its base where a shot starts: each is led there. A filter keeps it near the
sensors, with whichever parameters are tried; what is compared, after the first rows, is what the sensors say with what
was played a row ahead. So the starts are no unknowns, and the finite differences of all shots are one batch of worlds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64

from metarl.core.tasks import Tasks
from metarl.sysid.plant import Plant

_WIDE, _NARROW = 0.1, 0.005
"""Finite differences of a parameter, as shares of its range: at first, and at last. Contacts make residuals rough on a
small scale, where a derivative tells nothing; what is smooth is what a wide secant sees."""
_DAMPINGS = (0.0, 0.03, 0.3, 3.0)
"""Steps that are tried at once (Levenberg-Marquardt)."""
_ITERATIONS = 15
_GAIN = 0.2
"""A smaller gain of the cost, in which the deviation of an estimate is 1, is no progress."""


@dataclass(frozen=True)
class Unknown:
    """One number that is to be found."""

    name: str
    """The task parameter."""
    index: int | None
    """Which of its numbers; None where it is one."""
    low: float
    high: float
    expected: float
    """Where it lies if the log says nothing: the prior's mean. The prior's deviation is half the range."""

    @property
    def label(self) -> str:
        """`payload`, or `strength.2`."""
        return self.name if self.index is None else f"{self.name}.{self.index}"


@dataclass(frozen=True)
class Shots:
    """S pieces of a log, of as many rows each."""

    measured: Float64[np.ndarray, "S R C"]
    """What the sensors said; NaN where they did not."""
    command: Float64[np.ndarray, "S T U"]
    """What was commanded from each row to the next; T = R − 1."""
    qpos: Float64[np.ndarray, "S Q"]
    """Where each start is guessed to be."""
    qvel: Float64[np.ndarray, "S V"]
    settle: int
    """Rows for which a shot is kept with the sensors, before it is compared with them."""

    def __len__(self) -> int:
        return len(self.qpos)

    def select(self, index: np.ndarray) -> Shots:
        """Some of them."""
        picked = {name: getattr(self, name)[index] for name in ("measured", "command", "qpos", "qvel")}
        return replace(self, **picked)


@dataclass(frozen=True)
class Fit:
    """Where the residuals are least."""

    values: Float64[np.ndarray, "P"]
    cost: float
    """Half the sum of squares, in terms of the noise, with what the prior costs."""
    residual: Float64[np.ndarray, "S R C"]
    """Measured − played, in the sensors' units; NaN where nothing was compared."""
    jacobian: Float64[np.ndarray, "S M P"]
    """Derivatives of the residuals in terms of the noise, M of each shot."""


def tasks_of(plant: Plant, unknowns: Sequence[Unknown], values: Float64[np.ndarray, "N P"]) -> Tasks:
    """The unmodified robot but for the unknowns, in N worlds."""
    tasks = {name: value.clone() for name, value in plant.family.space.nominal(len(values)).values.items()}
    for unknown, column in zip(unknowns, values.T, strict=True):
        found = torch.from_numpy(column.copy())
        if unknown.index is None:
            tasks[unknown.name] = found
        else:
            tasks[unknown.name][:, unknown.index] = found
    return Tasks(tasks)


class Residuals:
    """Residuals of all shots as a function of the unknowns."""

    def __init__(
        self,
        plant: Plant,
        unknowns: Sequence[Unknown],
        shots: Shots,
        noise: Float64[np.ndarray, "C"],
        gains: Float64[np.ndarray, "G D C"],
    ) -> None:
        self.plant, self.unknowns, self.shots, self.noise, self.gains = plant, unknowns, shots, noise, gains
        self.low = np.array([one.low for one in unknowns])
        self.high = np.array([one.high for one in unknowns])
        self.expected = np.array([one.expected for one in unknowns])
        self.spread = (self.high - self.low) / 2.0

    def played(self, values: Float64[np.ndarray, "B P"]) -> Float64[np.ndarray, "B S R C"]:
        """Measured − played, for B points at once; NaN while a shot settles."""
        (b, _), s, shots = values.shape, len(self.shots), self.shots
        qpos, qvel, command, measured = (
            np.tile(x, (b, *(1,) * (x.ndim - 1))) for x in (shots.qpos, shots.qvel, shots.command, shots.measured)
        )
        tasks = tasks_of(self.plant, self.unknowns, np.repeat(values, s, axis=0))
        residual = measured - self.plant.play(tasks, qpos, qvel, command, measured, self.gains)
        residual[:, : shots.settle + 1] = np.nan
        residual[:, :, ~np.isfinite(self.noise)] = np.nan
        return np.asarray(residual.reshape(b, s, *residual.shape[1:]))

    def weighted(self, residual: Float64[np.ndarray, "*B S R C"]) -> Float64[np.ndarray, "*B S M"]:
        """In terms of the noise, nothing where nothing was measured."""
        scaled = np.nan_to_num(residual / self.noise, nan=0.0, posinf=0.0, neginf=0.0)
        return np.asarray(scaled.reshape(*scaled.shape[:-2], -1))

    def costs(self, residual: Float64[np.ndarray, "B S R C"], values: Float64[np.ndarray, "B P"]) -> np.ndarray:
        """What is least at the best values: the pseudo-Huber loss 2 (√(1 + z²) − 1) of residuals z, and the prior's."""
        loss = 2.0 * (np.sqrt(1.0 + np.square(self.weighted(residual))) - 1.0)
        return np.asarray(loss.sum(axis=(1, 2)) + np.square((values - self.expected) / self.spread).sum(axis=1))

    def slopes(self, values: Float64[np.ndarray, "P"], width: float) -> Float64[np.ndarray, "S M P"]:
        """Derivatives of the weighted residuals: differences over `width` of a parameter's range on either side."""
        by = 2.0 * width * np.diag(self.spread)
        less, more = np.maximum(values - by, self.low), np.minimum(values + by, self.high)
        residual = self.weighted(self.played(np.concatenate((less, more))))
        apart = (more - less).diagonal()
        return np.moveaxis((residual[len(by) :] - residual[: len(by)]) / apart[:, None, None], 0, -1)

    def fit(self, start: Float64[np.ndarray, "P"], width: float = _WIDE) -> Fit:
        """The least cost within the bounds, by Gauss-Newton's steps from `start`; slopes are over `width` at first."""
        values = np.clip(start, self.low, self.high)
        residual, cost = self._at(values[None])
        for _ in range(_ITERATIONS):
            steps = self._steps(values, self.weighted(residual[0]), self.slopes(values, width))
            tried, costs = self._at(steps)
            best, last = int(np.argmin(costs)), width <= _NARROW
            gain, width = cost[0] - costs[best], max(_NARROW, width / 2.0)
            if gain > 0.0:
                values, residual, cost = steps[best], tried[best, None], costs[best, None]
            if last and gain < _GAIN:
                break
        return Fit(values, float(cost[0]), residual[0], self.slopes(values, _NARROW))

    def _at(self, values: Float64[np.ndarray, "B P"]) -> tuple[np.ndarray, np.ndarray]:
        residual = self.played(values)
        return residual, self.costs(residual, values)

    def _steps(
        self, values: Float64[np.ndarray, "P"], residual: Float64[np.ndarray, "S M"], jacobian: np.ndarray
    ) -> Float64[np.ndarray, "B P"]:
        """Where Gauss-Newton steps of several dampings lead; a value at a bound that would leave it stays."""
        weight = 1.0 / np.sqrt(1.0 + np.square(residual))
        hessian = np.einsum("smi,sm,smj->ij", jacobian, weight, jacobian, optimize=True) + np.diag(1.0 / self.spread**2)
        gradient = np.einsum("smi,sm->i", jacobian, weight * residual) + (values - self.expected) / self.spread**2
        go = np.flatnonzero(~((values <= self.low) & (gradient > 0) | (values >= self.high) & (gradient < 0)))
        matrix, steps = hessian[np.ix_(go, go)], np.tile(values, (len(_DAMPINGS), 1))
        for step, damping in zip(steps, _DAMPINGS, strict=True):
            step[go] -= np.linalg.solve(matrix + damping * np.diag(matrix.diagonal()), gradient[go])
        return np.asarray(np.clip(steps, self.low, self.high))
