"""A log brought to the form that is fitted: worlds at its rate, what its sensors tell, and short shots of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from metarl.core.errors import UserError
from metarl.sim.family import MujocoFamily
from metarl.sysid.fit import Shots
from metarl.sysid.log import Log, require_fits
from metarl.sysid.plant import Base, Plant

TYPICAL = {"gyro": 0.02, "gravity": 5e-3, "acc": 0.15, "rad": 1.5e-3, "rad/s": 0.1, "m": 1e-3, "m/s": 0.02, "1": 5e-3}
"""Typical noise of a sensor by part or unit: a first guess, for where a shot starts."""
_UNKNOWN = (0.02, 0.5)
"""How well the state is known where a shot starts [rad or m, and per s]."""
_LOST = (1e-5, 1e-3)
"""What of that is lost in a row: much more, and the filter follows noise into contacts that jump."""
_LEAST = 6  # shots


@dataclass(frozen=True)
class Options:
    """How a log is taken."""

    parameters: tuple[str, ...] = ()
    """Task parameters to find, the others nominal; all of the family's if empty."""
    base: Base = "standing"
    shot: float = 0.6
    """Length of a shot that is compared [s]."""
    settle: float = 0.8
    """Run-up of each [s], in which a filter finds where the robot is: shorter, and payloads came out low."""
    max_shots: int = 24
    """At most so many, spread over the log."""
    starts: int = 2
    """First guesses, the best of which counts."""
    threads: int = 0
    seed: int = 0


def plant_of(family: MujocoFamily, name: str, log: Log, o: Options) -> tuple[Plant, Log, float]:
    """Worlds at the log's rate; a log that is faster than the physics is thinned out."""
    step = float(family.spec().option.timestep)
    every = max(1, round(step / log.period)) if log.period < 0.75 * step else 1
    if every > 1:
        log = Log({key: value[::every] for key, value in log.columns.items()}, log.where)
    period = round(log.period / step) * step
    if abs(log.period / period - 1.0) > 0.05:
        raise UserError(
            f"{log.where}: its rows are {1000 * log.period:.3g} ms apart, which is no whole multiple of the time step "
            f"{1000 * step:g} ms of {name}: write it at another rate"
        )
    down = log.matrix([f"gravity.{axis}" for axis in "xyz"])
    sound = np.isfinite(down).all(axis=1)
    plant = Plant(family, period, o.base, down[sound].mean(axis=0) if sound.any() else None, o.threads)
    require_fits(log, plant.names, plant.targets, name)
    return plant, log, period


def commands_of(plant: Plant, log: Log, name: str) -> Float64[np.ndarray, "R U"]:
    """What the actuators were told, in their own units; NaN where that is not known."""
    if f"target.{plant.targets[0]}" in log.columns:
        return log.matrix([f"target.{one}" for one in plant.targets])
    action = log.matrix([f"action.{one}" for one in plant.targets])
    if np.nanmax(np.abs(action), initial=0.0) > 1.001:
        raise UserError(f"{log.where}: actions of {name} are in [-1, 1], here up to {np.nanmax(np.abs(action)):.3g}")
    low, high = plant.model.actuator_ctrlrange.T
    return np.asarray(low + (action + 1.0) * (high - low) / 2.0)


def sensors_of(plant: Plant, seen: np.ndarray, log: Log) -> tuple[list[str], np.ndarray]:
    """What to say of sensors that tell nothing, and which do."""
    missing = np.array([name not in log.columns for name in plant.names])
    constant = np.array([np.isfinite(x).sum() < 3 or float(np.nanstd(x)) < 1e-12 for x in seen.T])
    notes = []
    for what, which in (("is silent", constant & ~missing), ("is not in the log", missing)):
        names = [name for name, tells, at in zip(plant.names, plant.tells, which, strict=True) if tells and at]
        if names and not all(name.startswith("acc.") for name in names):
            verb = what if len(names) == 1 else what.replace("is", "are", 1)
            notes.append(f"{', '.join(names)} {verb}: left out")
    used = plant.tells & ~constant & ~missing
    if not used.any():
        raise UserError(f"{log.where}: no sensor in it tells anything of the robot's state")
    return notes, used


def typical_noise(plant: Plant, seen: np.ndarray) -> Float64[np.ndarray, "C"]:
    """A first guess of each sensor's noise; a fiftieth of its variation where its kind is not known."""
    units = {part.name: part.unit for part in plant.parts}
    heads = [name.split(".")[0] for name in plant.names]
    known = [TYPICAL.get(head, TYPICAL.get(units[head], 0.0)) for head in heads]
    spread = np.array([float(np.nanstd(x)) if np.isfinite(x).any() else 1.0 for x in seen.T])
    return np.where(np.array(known) > 0.0, known, np.maximum(0.02 * spread, 1e-6))


def filtering(plant: Plant, noise: np.ndarray, rows: int) -> Float64[np.ndarray, "T D C"]:
    """Gains of a Kalman filter over the rows of a shot, by Riccati's recursion for the robot at rest."""
    nv = plant.model.nv
    known, lost = np.repeat(_UNKNOWN, nv), np.repeat(_LOST, nv)
    if plant.base == "hung" and plant.free is not None:
        known[_base(plant)] = lost[_base(plant)] = 0.0
    covariance, moves = np.diag(known**2), plant.transition()
    slope = np.where(np.isfinite(noise)[:, None], plant.slope, 0.0)
    gains = np.zeros((rows, 2 * nv, len(noise)))
    for number in range(rows):
        gains[number] = plant.correcting(noise, covariance)
        covariance = moves @ (covariance - gains[number] @ slope @ covariance) @ moves.T + np.diag(lost**2)
        covariance = (covariance + covariance.T) / 2.0
    return gains


def _base(plant: Plant) -> list[int]:
    """Which of the numbers of a state are a free base's."""
    assert plant.free is not None
    first, nv = int(plant.model.jnt_dofadr[plant.free]), plant.model.nv
    return [*range(first, first + 6), *range(nv + first, nv + first + 6)]


def shots_of(
    plant: Plant, log: Log, seen: np.ndarray, command: np.ndarray, noise: np.ndarray, period: float, o: Options
) -> Shots:
    """The log cut up: shots compared follow each other, each after a run-up that may be part of another."""
    settle, length = round(o.settle / period), max(2, round(o.shot / period))
    rows = settle + length + 1
    starts = [
        first for piece in log.pieces(period, command) for first in range(piece.start, piece.stop - rows + 1, length)
    ]
    if len(starts) < _LEAST:
        raise UserError(
            f"{log.where} has {len(starts)} unbroken pieces of {o.settle + o.shot:g} s, and needs at least {_LEAST}"
        )
    if len(starts) > o.max_shots:
        starts = [starts[round(i)] for i in np.linspace(0, len(starts) - 1, o.max_shots)]
    measured = np.stack([seen[first : first + rows] for first in starts])
    commands = np.stack([command[first : first + rows - 1] for first in starts])
    return Shots(measured, commands, *_guessed(plant, log, measured[:, 0], noise, starts), settle)


def _guessed(
    plant: Plant, log: Log, seen: np.ndarray, noise: np.ndarray, rows: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Where the sensors say that a robot is; what they do not tell of its base, as `base` says."""
    nv = plant.model.nv
    qpos, qvel = np.tile(plant.rest, (len(seen), 1)), np.zeros((len(seen), nv))
    if plant.base == "logged":
        qpos, qvel = _from_outside(plant, log, qpos, qvel, rows)
    gain = plant.correcting(noise, np.diag(np.repeat((1.0, 10.0), nv) ** 2))
    if plant.free is not None and plant.base != "standing":
        gain[_base(plant)] = 0.0
    for _ in range(3):
        qpos, qvel = plant.moved(qpos, qvel, np.nan_to_num(seen - plant.sensed(qpos, qvel)) @ gain.T)
    if plant.base == "standing" and plant.free is not None:
        return plant.on_its_feet(qpos, qvel)
    return qpos, qvel


def _from_outside(
    plant: Plant, log: Log, qpos: np.ndarray, qvel: np.ndarray, rows: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    wide, found = {0: (7, 6), 1: (4, 3)}, False
    for joint in range(plant.model.njnt):
        sizes = wide.get(int(plant.model.jnt_type[joint]), (1, 1))
        addresses = int(plant.model.jnt_qposadr[joint]), int(plant.model.jnt_dofadr[joint])
        for field, size, at, into in zip(("qpos", "qvel"), sizes, addresses, (qpos, qvel), strict=True):
            name = f"{field}.{plant.model.joint(joint).name}"
            columns = log.matrix([name] if size == 1 else [f"{name}.{i}" for i in range(size)])[rows]
            if np.isfinite(columns).all():
                into[:, at : at + size], found = columns, True
            elif joint == plant.free:
                raise UserError(f"--base logged: {log.where} needs {name}.0 to {name}.{size - 1}, in every row")
    if not found:
        raise UserError(f"--base logged: {log.where} has no column qpos.JOINT or qvel.JOINT of a joint of the model")
    return qpos, qvel
