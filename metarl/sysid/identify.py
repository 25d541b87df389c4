"""From a log to task parameters with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table
from scipy.stats import t as student

from metarl.core.distributions import Choice, LogUniform, Points, Uniform
from metarl.core.errors import UserError, unknown_name
from metarl.core.seeding import rng
from metarl.core.tasks import Tasks
from metarl.sim.family import MujocoFamily
from metarl.sysid.cutting import Options, commands_of, filtering, plant_of, sensors_of, shots_of, typical_noise
from metarl.sysid.fit import Fit, Residuals, Unknown, tasks_of
from metarl.sysid.log import Log
from metarl.sysid.suspicions import require_plausible

_CAUTION = 4.0
"""A first fit trusts sensors this much less: starts are not known better."""
_HELD_OUT = 4  # every fourth shot
_VAGUE = 0.8
"""An interval that is a larger share of the range than this tells nothing."""
_SCREENED = 12
_ROUGH_SHOTS = 8
"""A first fit looks at no more."""
_POLISHED = 0.02
"""Finite differences at first, as a share of a parameter's range, of the last fit."""
_ODD = 4.0
"""Residuals that are larger than this, in terms of a usual sensor's noise, are no noise."""
_UNLIKE = 1.3
"""Held-out residuals that are larger than this, in terms of the fit's, are not of its kind."""
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """One task parameter, or one number of it."""

    unknown: Unknown
    value: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    unit: str

    @property
    def told(self) -> bool:
        """Whether the log narrows it down at all."""
        return self.high - self.low < _VAGUE * (self.unknown.high - self.unknown.low)


@dataclass(frozen=True)
class Identified:
    """What a log says of the robot's task."""

    family: str
    tasks: Tasks
    """One task: what was found, with the family's nominal value where the log tells nothing."""
    estimates: tuple[Estimate, ...]
    held_out: tuple[float, float]
    """Typical residual on shots that were not fitted, in terms of the noise: of this task, and of the nominal one."""
    noise: Mapping[str, float]
    """What was found of each part, in its unit."""
    notes: tuple[str, ...]
    """What the log lacks, and what is odd, in sentences."""
    shots: tuple[int, int]
    """Fitted and held out."""

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Of the parameters that the log tells."""
        return {one.unknown.label: (one.low, one.high) for one in self.estimates if one.told}

    def table(self) -> Table:
        """What is shown."""
        table = Table(title=f"{self.family}, from {self.shots[0]} shots of the log", title_justify="left", box=None)
        for name in ("parameter", "value", "95 % interval", "unit", "range"):
            table.add_column(name, justify="left" if name in ("parameter", "unit") else "right", no_wrap=True)
        for one in self.estimates:
            found = (f"{one.value:.4g}", f"{one.low:.4g} to {one.high:.4g}") if one.told else ("not told", "")
            ends = f"{one.unknown.low:g} to {one.unknown.high:g}"
            table.add_row(one.unknown.label, *found, one.unit, ends)
        return table

    def details(self) -> dict[str, Any]:
        """What a file says beside the task."""
        return {
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "not_told": [one.unknown.label for one in self.estimates if not one.told],
            "held_out": {"identified": self.held_out[0], "nominal": self.held_out[1]},
            "noise": dict(self.noise),
            "notes": list(self.notes),
        }


def identify(
    family: MujocoFamily, name: str, log: Log, options: Options | None = None, say: Callable[[str], None] = print
) -> Identified:
    """Find the task parameters of `family`, called `name`, that explain a log.

    `UserError` for a log that is not of this robot, or too short; `say` is told what goes on.
    """
    o = options or Options()
    unknowns = unknowns_of(family, o.parameters)
    plant, log, period = plant_of(family, name, log, o)
    command, seen = commands_of(plant, log, name), log.matrix(plant.names)
    require_plausible(plant, seen, command, period, log.where)
    notes, used = sensors_of(plant, seen, log)
    noise = typical_noise(plant, seen)
    noise[~used] = np.inf
    shots = shots_of(plant, log, seen, command, noise, period, o)
    rows = shots.command.shape[1]
    gains = filtering(plant, noise, rows)
    held = np.arange(len(shots)) % _HELD_OUT == _HELD_OUT - 1
    fitted = shots.select(np.flatnonzero(~held))
    say(f"{len(fitted)} shots of {o.shot:g} s, {int(held.sum())} held out; {int(used.sum())} sensors")
    some = np.unique(np.linspace(0, len(fitted) - 1, min(len(fitted), _ROUGH_SHOTS)).round().astype(int))
    rough = Residuals(plant, unknowns, fitted.select(some), _CAUTION * noise, gains)
    found = _best(rough, o, say, notes)
    level = _level(rough, found.residual, noise)
    gains = filtering(plant, level, rows)
    everything = Residuals(plant, unknowns, fitted, level, gains)
    values, low, high = _with_interval(everything, everything.fit(found.values, _POLISHED))
    estimates = tuple(
        Estimate(one, float(v), float(a), float(b), family.space.parameters[one.name].unit)
        for one, v, a, b in zip(unknowns, values, low, high, strict=True)
    )
    known = np.array([one.value if one.told else one.unknown.expected for one in estimates])
    check = Residuals(plant, unknowns, shots.select(np.flatnonzero(held)), level, gains)
    nominal = np.array([one.expected for one in unknowns])
    sizes = [_typical_size(residual / level) for residual in check.played(np.stack((known, nominal)))]
    odd = dict.fromkeys(n.split(".")[0] for n, s, t in zip(plant.names, level, noise, strict=True) if s > _ODD * t)
    notes += _remarks(estimates, (sizes[0], sizes[1]), list(odd))
    by_part = {n.split(".")[0]: float(s) for n, s in zip(plant.names, level, strict=True) if np.isfinite(s)}
    counts = len(fitted), int(held.sum())
    return Identified(
        name, tasks_of(plant, unknowns, known[None]), estimates, (sizes[0], sizes[1]), by_part, tuple(notes), counts
    )


def unknowns_of(family: MujocoFamily, chosen: Sequence[str] = ()) -> tuple[Unknown, ...]:
    """The numbers of a family's task parameters that have a range and change its model; `UserError` for others."""
    space, found = family.space, []
    shaping = {name for variation in family.variations for name in variation.parameters}
    for name in chosen:
        if name not in space.parameters:
            raise unknown_name("task parameter", name, space.parameters)
    for name, parameter in space.parameters.items():
        ends = [
            (np.asarray(one.low).min(), np.asarray(one.high).max())
            for one in (parameter.train, parameter.ood)
            if isinstance(one, Uniform | LogUniform)
        ]
        finite = isinstance(parameter.train, Choice | Points)
        if finite or not ends or name not in shaping or (chosen and name not in chosen):
            if name in chosen:
                why = "a choice" if finite or not ends else "no property of the model"
                raise UserError(f"'{name}' cannot be identified, as it is {why}: leave it out of --parameters")
            continue
        low, high = min(a for a, _ in ends), max(b for _, b in ends)
        nominal = space.nominal()[name][0]
        for index in range(nominal.numel()):
            at = float(nominal.reshape(-1)[index])
            expected = at if parameter.nominal is not None and low <= at <= high else (low + high) / 2.0
            found.append(Unknown(name, index if nominal.dim() else None, float(low), float(high), float(expected)))
    if not found:
        raise UserError(f"{type(family).__name__} has no task parameter with a range that changes its model")
    return tuple(found)


def _best(rough: Residuals, o: Options, say: Callable[[str], None], notes: list[str]) -> Fit:
    """The best fit of several first guesses: the unmodified robot, and the best of some that are drawn."""
    draws = rng(o.seed, "sysid/starts").uniform(rough.low, rough.high, (_SCREENED, len(rough.low)))
    order = np.argsort(rough.costs(rough.played(draws), draws)) if o.starts > 1 else np.zeros(0, int)
    fits = []
    for number, start in enumerate([rough.expected, *draws[order]][: o.starts]):
        fits.append(rough.fit(start))
        say(f"guess {number + 1} of {o.starts}: residuals {fits[-1].cost:.0f}")
    best = min(fits, key=lambda one: one.cost)
    others = [one for one in fits if one is not best and one.cost < 1.1 * best.cost]
    apart = max((float(np.abs((one.values - best.values) / rough.spread).max()) for one in others), default=0.0)
    if apart > 0.2:
        notes.append("different first guesses end at different values that explain the log about as well")
    return best


def _level(residuals: Residuals, residual: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Noise of each part, from what is left of a fit: 1.48 times the median, as of a normal distribution."""
    heads = np.array([name.split(".")[0] for name in residuals.plant.names])
    level = noise.copy()
    for head in set(heads[np.isfinite(noise)].tolist()):
        mine = (heads == head) & np.isfinite(noise)
        level[mine] = np.maximum(_typical_size(residual[:, :, mine]), 0.1 * noise[mine])
    return level


def _typical_size(x: np.ndarray) -> float:
    return 1.4826 * float(np.nanmedian(np.abs(x)))


def _with_interval(residuals: Residuals, found: Fit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values with 95 % intervals, by Student's t and a jackknife over the S shots.

    What leaving out a shot does is a Gauss-Newton step, (H − H_s)⁻¹ g_s with its gradient g_s and its share H_s of the
    Hessian H: residuals of a shot hang together, contacts jump in one shot and not in another, and so errs a model that
    is not the robot. (CR3 of cluster-robust variances: Bell and McCaffrey 2002.) Never narrower than least squares.
    """
    jacobian, residual, number = found.jacobian, residuals.weighted(found.residual), len(found.residual)
    weight = 1.0 / np.sqrt(1.0 + np.square(residual))
    shares = np.einsum("smi,sm,smj->sij", jacobian, weight, jacobian, optimize=True)
    gradients = np.einsum("smi,sm->si", jacobian, weight * residual)
    hessian = shares.sum(axis=0) + np.diag(1.0 / residuals.spread**2)
    steps = np.linalg.solve(hessian - shares, gradients[..., None])[..., 0]
    clustered = (number - 1) / number * np.square(steps).sum(axis=0)
    error = np.sqrt(np.maximum(clustered, np.linalg.inv(hessian).diagonal()))
    wide = student.ppf((1.0 + _CONFIDENCE) / 2.0, number - 1) * error
    return found.values, np.maximum(found.values - wide, residuals.low), np.minimum(found.values + wide, residuals.high)


def _remarks(estimates: Sequence[Estimate], held_out: tuple[float, float], odd: Sequence[str]) -> list[str]:
    notes = []
    if vague := [one.unknown.label for one in estimates if not one.told]:
        notes.append(f"the log does not tell {', '.join(vague)}: left at the nominal value")
    for one in estimates:
        ends = one.unknown.low, one.unknown.high
        if one.told and min(abs(one.value - end) for end in ends) < 0.01 * (ends[1] - ends[0]):
            notes.append(f"{one.unknown.label} is at the end of its range: the robot may differ in something else")
    if held_out[0] > 0.95 * held_out[1]:
        notes.append("on shots that were held out this task explains the log no better than the unmodified robot")
    if odd or held_out[0] > _UNLIKE:
        what = f"what is left of {', '.join(odd)} is no noise of a usual sensor"
        what = what if odd else f"held-out residuals are {held_out[0]:.2f} times those of the fit"
        notes.append(
            f"{what}: intervals may be too narrow, as where feet lift or slip, the robot differs in something else, or "
            "another first guess does better (--starts)"
        )
    return notes
