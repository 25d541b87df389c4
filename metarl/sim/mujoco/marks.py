"""What can be seen of a task in a world's model: joints weak or turned round, loads, slippery ground."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import mujoco
import numpy as np
from jaxtyping import UInt8

_DENSITY = 1500.0  # [kg/m³] of a load as it is drawn
_WEAK = 0.65  # of its strength, below which a motor counts as weak
_SEIZED = 100.0  # [N·m] of more dry friction: a joint that is locked
_RED = np.array([214, 40, 40])
_BLUE = np.array([128, 176, 214])


class Load(NamedTuple):
    """A point mass on a body, to be drawn as a box."""

    body: int
    at: tuple[float, float, float]
    """Of the box's centre in the body's frame [m]."""
    edge: float
    """Length of its edges [m]."""


class Marks(NamedTuple):
    """What differs from the robot as it was built."""

    weak: Mapping[int, float]
    """What is left of the strength of the joints that move a body, in [0, 1), by the body; 0 of one turned round."""
    loads: tuple[Load, ...]
    friction: float
    """Mean ratio of the friction of all that touches."""


def marks_of(model: mujoco.MjModel, built: mujoco.MjModel) -> Marks:
    """What distinguishes a world's model from the one that its family builds."""
    weak: dict[int, float] = {}
    for actuator in range(built.nu):
        if built.actuator_trntype[actuator] > int(mujoco.mjtTrn.mjTRN_JOINTINPARENT):
            continue
        joint = int(built.actuator_trnid[actuator, 0])
        own = float(built.actuator_gainprm[actuator, 0])
        left = float(model.actuator_gainprm[actuator, 0]) / own if own else 1.0
        if model.actuator_gear[actuator, 0] * built.actuator_gear[actuator, 0] < 0.0:
            left = -left  # it turns the other way
        dof = int(built.jnt_dofadr[joint])
        if model.dof_frictionloss[dof] > built.dof_frictionloss[dof] + _SEIZED:
            left = 0.0
        if left < _WEAK:
            body = int(built.jnt_bodyid[joint])
            weak[body] = min(max(left, 0.0), weak.get(body, 1.0))
    touching = (built.geom_contype != 0) | (built.geom_conaffinity != 0)
    ratio = model.geom_friction[touching, 0] / np.maximum(built.geom_friction[touching, 0], 1e-9)
    changed = ratio[np.abs(ratio - 1.0) > 1e-6]
    return Marks(weak, tuple(_loads(model, built)), float(changed.mean()) if len(changed) else 1.0)


def _loads(model: mujoco.MjModel, built: mujoco.MjModel) -> list[Load]:
    found = []
    for body in range(1, built.nbody):
        more = float(model.body_mass[body] - built.body_mass[body])
        moved = model.body_ipos[body] - built.body_ipos[body]
        if more > 0.01 * built.body_mass[body] and np.linalg.norm(moved) > 1e-6:
            at = built.body_ipos[body] + moved * float(model.body_mass[body]) / more
            found.append(Load(body, (float(at[0]), float(at[1]), float(at[2])), (more / _DENSITY) ** (1 / 3)))
    return found


def tinted(color: UInt8[np.ndarray, "*n 3"], left: float) -> UInt8[np.ndarray, "*n 3"]:
    """A body's colour where its joints have only so much strength left: the weaker, the redder."""
    share = 0.9 - 0.5 * left
    return (color * (1.0 - share) + _RED * share).astype(np.uint8)


def ground_color(color: tuple[int, int, int], friction: float) -> tuple[int, int, int]:
    """A ground's colour: the more slippery, the bluer."""
    share = min(max(1.6 * (1.0 - friction), 0.0), 1.0)
    red, green, blue = (np.array(color) * (1.0 - share) + _BLUE * share).astype(int).tolist()
    return red, green, blue
