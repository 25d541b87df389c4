"""What one may do to a running robot beyond its task: break a motor, load it, wet the ground, delay its commands.

A family does not declare these. They are laid over a copy of it, so that its task space, and what a policy or an oracle
is told, stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import mujoco
import torch
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.tasks import Tasks
from metarl.sim.disturbances import ActionLatency
from metarl.sim.family import MujocoFamily
from metarl.sim.motor_faults import FAULTS, MotorFault
from metarl.sim.mujoco.mujoco_env import compile_spec
from metarl.sim.variation import Variation
from metarl.sim.variations import Friction, Payload

MOST_LATENCY = 0.1
"""Largest delay of commands that is offered [s]."""
WAYS = FAULTS[:3]
"""How a motor may be broken."""


@dataclass(frozen=True)
class Grip:
    """What is done to all worlds, beside their tasks."""

    motor: int = -1
    """The broken one; -1 for none."""
    way: int = 0
    """An index into `WAYS`."""
    payload: float = 0.0
    """On the robot's root [kg]."""
    friction: float = 1.0
    """Of all that touches, ratio."""
    latency: float = 0.0
    """Of commands [s]."""


class Held:
    """A variation whose parameters are no task's: the hand's, the same in all worlds."""

    parameters: tuple[str, ...] = ()

    def __init__(self, variation: Variation, neutral: Mapping[str, float]) -> None:
        self._variation, self._neutral = variation, dict(neutral)
        self.fields = variation.fields
        self.scales = getattr(variation, "scales", False)
        self.values = dict(neutral)
        """Present values of the parameters."""

    def apply(self, model: mujoco.MjModel, live: Mapping[str, Tensor], tasks: Tasks) -> None:
        """See `Variation.apply`; nothing is touched while the hand is off."""
        if self.values != self._neutral:
            self._variation.apply(model, live, _tasks(self.values, len(tasks)))


class Hand:
    """The copy of a family that can be interfered with, and what is done to it."""

    def __init__(self, family: MujocoFamily) -> None:
        model = compile_spec(family.spec())
        self.motors: tuple[str, ...] = tuple(model.actuator(i).name for i in range(model.nu))
        """Motors that can break; none where this robot's cannot."""
        body = root_of(model)
        self.weight = float(model.body_subtreemass[body])
        """Of the robot [kg]."""
        self.seat: tuple[str, tuple[float, float, float]] = model.body(body).name, (0.0, 0.0, _top(model, body))
        """The body that a payload sits on, and where on it [m]."""
        fault = MotorFault("way", "motor", self.motors)
        self._fault = self._fits(model, fault, {"way": 0.0, "motor": -1.0}) if all(self.motors) else None
        self._payload = self._fits(model, Payload("payload", *self.seat), {"payload": 0.0})
        self._friction = self._fits(model, Friction("friction"), {"friction": 1.0})
        self.motors = self.motors if self._fault else ()
        self.grip = Grip()
        """What is done at present."""
        own = [one for one in family.disturbances if isinstance(one, ActionLatency)]
        self.delays = not own
        """Whether commands can be delayed; a family with a latency of its own has it among its task parameters."""
        self.family = copy.copy(family)
        """The family with the hand on it."""
        held = [one for one in (self._fault, self._payload, self._friction) if one is not None]
        late = [ActionLatency(MOST_LATENCY)] if self.delays else []
        _set(self.family, "variations", (*family.variations, *held))
        _set(self.family, "disturbances", (*family.disturbances, *late))

    @property
    def loads(self) -> bool:
        """Whether the robot can be loaded."""
        return self._payload is not None

    def take(self, **changes: Any) -> None:
        """Change what is done; worlds learn of it when they are posed next, but for the latency."""
        self.grip = grip = replace(self.grip, **changes)
        if self._fault:
            self._fault.values = {"way": float(grip.way), "motor": float(grip.motor)}
        if self._payload:
            self._payload.values = {"payload": grip.payload}
        if self._friction:
            self._friction.values = {"friction": grip.friction}

    @staticmethod
    def _fits(model: mujoco.MjModel, variation: Any, neutral: Mapping[str, float]) -> Held | None:
        try:
            variation.require(model, _tasks(neutral, 1))
        except UserError:
            return None
        return Held(variation, neutral)


def root_of(model: mujoco.MjModel) -> int:
    """The body that carries the robot: the heaviest of those on the world, or on an unmovable one, that can move."""
    movable: list[int] = [
        body for body in range(1, model.nbody) if model.body_weldid[body] == body and model.body_dofnum[body]
    ]
    roots: list[int] = [body for body in movable if model.body_weldid[model.body_parentid[body]] == 0]
    found: int = max(roots or [model.nbody - 1], key=lambda body: float(model.body_subtreemass[body]))
    return found


def _top(model: mujoco.MjModel, body: int) -> float:
    """Height of a body's shapes above its origin [m]."""
    first, number = int(model.body_geomadr[body]), int(model.body_geomnum[body])
    solid = [i for i in range(first, first + number) if model.geom_contype[i] or model.geom_conaffinity[i]]
    return max([0.0, *(float(model.geom_pos[i, 2] + model.geom_aabb[i, 2] + model.geom_aabb[i, 5]) for i in solid)])


def _tasks(values: Mapping[str, float], n: int) -> Tasks:
    return Tasks({name: torch.full((n,), value, dtype=torch.float64) for name, value in values.items()})


def _set(family: MujocoFamily, name: str, value: object) -> None:
    """A sealed family's copy is nobody else's."""
    object.__setattr__(family, name, value)
