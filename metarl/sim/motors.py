"""From an action to the physics: the map onto the actuators' ranges, or a family's own law of control ahead of it."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.tasks import Tasks
from metarl.sim.family import MujocoFamily, action_names
from metarl.sim.mujoco.physics import Physics

Shift = Callable[[Float[Tensor, "N U"]], Float[Tensor, "N U"]]
"""What becomes of `ctrl` on its way to the actuators."""


def control_range(model: mujoco.MjModel) -> Float64[Tensor, "2 U"]:
    """Lowest and highest control of every actuator; `UserError` names one without a range."""
    limits = torch.from_numpy(model.actuator_ctrlrange.T.copy())
    for i in range(model.nu):
        if not limits[0, i] < limits[1, i]:
            name = model.actuator(i).name or i
            raise UserError(f"actuator '{name}' needs a ctrlrange: actions in [-1, 1] are mapped onto it")
    return limits


class Motors:
    """Moves the worlds under what was commanded.

    A command is what travels to the robot: `ctrl`, or the action itself where the family's `control` makes `ctrl` of it
    there, ahead of the physics.
    """

    def __init__(self, physics: Physics, family: MujocoFamily) -> None:
        self.lawful = type(family).control is not MujocoFamily.control
        """The family has a law of control of its own."""
        self._physics, self._family = physics, family
        self.ctrl = physics.bind("ctrl")
        self.size = len(action_names(family, physics.model))
        """Numbers of a command."""
        if not self.lawful:
            self._low, self._high = control_range(physics.model).to(physics.device, physics.dtype)
            self._unit_range = bool((self._low == -1).all() and (self._high == 1).all())

    def command(self, action: Float[Tensor, "N A"]) -> Float[Tensor, "N A"]:
        """What an action in [-1, 1] commands."""
        if self.lawful or self._unit_range:
            return action
        command: Tensor = self._low + (action + 1.0) * (self._high - self._low) / 2
        return command

    def at_rest(self) -> Float[Tensor, "N A"]:
        """The command in force when an episode begins: what `reset` wrote to `ctrl`, or no action at all."""
        return self.ctrl.new_zeros(len(self.ctrl), self.size) if self.lawful else self.ctrl

    def drive(self, command: Float[Tensor, "N A"], number: int, tasks: Tasks, shift: Shift | None = None) -> None:
        """`number` physics steps under a command."""
        every = (self._family.control_every if self.lawful else 0) or number
        for done in range(0, number, every):
            ctrl = self._family.control(self._physics, command, tasks) if self.lawful else command
            self.ctrl.copy_(shift(ctrl) if shift else ctrl)
            self._physics.step(min(every, number - done))
