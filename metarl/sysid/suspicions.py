"""What a log looks like that is in wrong units or in a wrong order: told before anything is fitted to it."""

from __future__ import annotations

import mujoco
import numpy as np
from jaxtyping import Float64

from metarl.core.errors import UserError
from metarl.sysid.plant import Plant

_BEYOND = 0.5  # [rad, m] that a joint may be measured outside its range
_FACTOR = 5.0  # by which a unit must be off
_FOLLOWS, _STRANGER = 0.8, 0.3  # correlations
_MOVES = 0.03  # [rad, m] of a target that is followed: less, and it may be a policy's answer to the joint


def require_plausible(
    plant: Plant, seen: Float64[np.ndarray, "R C"], command: Float64[np.ndarray, "R U"], period: float, where: str
) -> None:
    """`UserError`, which names both sides, for a log that cannot be of this robot in these units and this order."""
    places, speeds = coordinates(plant, 0), coordinates(plant, plant.model.nv)
    for dof, (column, offset) in places.items():
        _within_range(plant, dof, seen[:, column] - offset, plant.names[column], where)
        if dof in speeds:
            _same_time(seen[:, column], seen[:, speeds[dof][0]], period, plant.names, (column, speeds[dof][0]), where)
    _own_orders(plant, places, seen, command, where)
    for part, length, unit, other in (("gravity", 1.0, "a unit vector", "m/s²"), ("acc", 9.81, "m/s²", "g")):
        columns = [i for i, name in enumerate(plant.names) if name.startswith(f"{part}.")]
        norms = np.linalg.norm(seen[:, columns], axis=1)
        typical = float(np.nanmedian(norms)) if columns and np.isfinite(norms).any() else length
        if not length / _FACTOR < typical < length * _FACTOR:
            raise UserError(
                f"{where}: '{part}' is typically {typical:.3g} long, where {type(plant.family).__name__} observes "
                f"{unit}, about {length:g}: is it in {other}?"
            )


def coordinates(plant: Plant, first: int) -> dict[int, tuple[int, float]]:
    """Of each degree of freedom the column that observes it and nothing else, and what that says at rest.

    Positions for `first` = 0, speeds for V.
    """
    found: dict[int, tuple[int, float]] = {}
    at_rest = plant.sensed(plant.rest[None], np.zeros((1, plant.model.nv)))[0]
    scalar = plant.model.jnt_type[plant.model.dof_jntid] >= int(mujoco.mjtJoint.mjJNT_SLIDE)
    for column, slope in enumerate(plant.slope):
        moved_by = np.flatnonzero(np.abs(slope) > 1e-3)
        dof = int(moved_by[0]) - first if len(moved_by) == 1 else -1
        if 0 <= dof < plant.model.nv and scalar[dof] and abs(slope[dof + first] - 1.0) < 1e-3:
            found.setdefault(dof, (column, float(at_rest[column])))
    return found


def _within_range(plant: Plant, dof: int, moved: np.ndarray, name: str, where: str) -> None:
    joint = int(plant.model.dof_jntid[dof])
    if not plant.model.jnt_limited[joint] or not np.isfinite(moved).any():
        return
    low, high = plant.model.jnt_range[joint] - plant.rest[plant.model.jnt_qposadr[joint]]
    least, most = float(np.nanmin(moved)), float(np.nanmax(moved))
    if least < low - _BEYOND or most > high + _BEYOND:
        turned = plant.model.jnt_type[joint] == int(mujoco.mjtJoint.mjJNT_HINGE)
        doubt = "is it in degrees, counted from another zero, or another joint's?" if turned else "is it in mm?"
        raise UserError(
            f"{where}: '{name}' goes from {least:.3g} to {most:.3g}, and that joint from {low:.3g} to {high:.3g} "
            f"{'rad' if turned else 'm'} (counted from where the robot rests): {doubt}"
        )


def _same_time(
    place: np.ndarray, speed: np.ndarray, period: float, names: tuple[str, ...], columns: tuple[int, int], where: str
) -> None:
    """A speed must be the rate of change of its position."""
    rate, mean = (place[2:] - place[:-2]) / (2.0 * period), speed[1:-1]
    sound = np.isfinite(rate) & np.isfinite(mean)
    if sound.sum() < 20 or np.std(rate[sound]) < 0.05:
        return
    ratio = float(np.sqrt(np.mean(np.square(mean[sound])) / np.mean(np.square(rate[sound]))))
    if not 1.0 / _FACTOR < ratio < _FACTOR:
        raise UserError(
            f"{where}: '{names[columns[1]]}' is {ratio:.3g} times the rate at which '{names[columns[0]]}' changes: one "
            "of them, or time, is in another unit (degrees, rpm, ms)"
        )


def _own_orders(
    plant: Plant, places: dict[int, tuple[int, float]], seen: np.ndarray, command: np.ndarray, where: str
) -> None:
    """A servo's joint must follow its own target."""
    model = plant.model
    servos = np.flatnonzero(model.actuator_biastype == int(mujoco.mjtBias.mjBIAS_AFFINE))
    driven = {
        int(i): int(model.jnt_dofadr[model.actuator_trnid[i, 0]]) for i in servos if model.actuator_trntype[i] == 0
    }
    own = {i: places[dof][0] for i, dof in driven.items() if dof in places}
    sound = np.isfinite(command).all(axis=1) & np.isfinite(seen[:, list(own.values())]).all(axis=1)
    if len(own) < 2 or sound.sum() < 20:
        return
    together = _correlation(command[sound][:, list(own)], seen[sound][:, list(own.values())])
    for i, (motor, column) in enumerate(own.items()):
        best = int(np.argmax(together[i]))
        moves = float(np.std(command[sound, motor])) > _MOVES
        if moves and together[i, best] > _FOLLOWS and together[i, i] < _STRANGER:
            other = list(own.values())[best]
            raise UserError(
                f"{where}: 'target.{plant.targets[motor]}' is followed by '{plant.names[other]}' (correlation "
                f"{together[i, best]:.2f}) and not by '{plant.names[column]}' ({together[i, i]:.2f}): are the joints "
                "in another order?"
            )


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one - one.mean(axis=0), other - other.mean(axis=0)
    sizes = np.sqrt(np.square(one).sum(axis=0))[:, None] * np.sqrt(np.square(other).sum(axis=0))
    return np.asarray((one.T @ other) / np.maximum(sizes, 1e-12))
