"""What a new task subclasses: a robot, the tasks it may face, and what it observes and is rewarded for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import mujoco
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.seeding import WorldRandom
from metarl.core.tasks import Tasks, TaskSpace
from metarl.sim.mujoco.physics import Physics
from metarl.sim.variation import Variation


class Family:
    """A distribution of tasks, whatever simulates them: what may be trained on, evaluated and filmed."""

    space: ClassVar[TaskSpace]
    """The task parameters and their splits."""
    control_step: ClassVar[float]
    """Time between two actions [s]."""
    episode_steps: int
    """Time limit of an episode [control steps]; a class declares it, and a run may set another for its own object."""
    task_visible: bool = False
    """The task's numbers stand behind the observation: what an oracle sees. A run sets it for its own object."""
    constant_observations: ClassVar[Sequence[int]] = ()
    """Elements of the observation that never change: only a published observation should have any."""


class MujocoFamily(Family, ABC):
    """A robot and the distribution of tasks it may face; its `control_step` is a multiple of the model's timestep.

    The functions below are batched torch over all worlds, float64 in and out; `physics.bind(field)` gives live
    tensors over MjData. A family holds no state of its own: what differs between worlds is in their `Tasks`.
    """

    variations: ClassVar[Sequence[Variation]] = ()
    """How task parameters change the model."""
    camera: ClassVar[str | None] = None
    """Name of the camera that films the robot; None for MuJoCo's free camera."""

    @abstractmethod
    def spec(self) -> mujoco.MjSpec:
        """The model to compile. Actions in [-1, 1] map linearly onto its actuators' control ranges."""

    @abstractmethod
    def reset(self, physics: Physics, worlds: Int64[Tensor, "n"], tasks: Tasks, random: WorldRandom) -> None:
        """Write the initial state of an episode into the rows `worlds`, which are at the model's defaults.

        `tasks` are those of `worlds`, n of them; `random` draws (n, size).
        """

    @abstractmethod
    def observe(self, physics: Physics, tasks: Tasks) -> Float64[Tensor, "N O"]:
        """Observation of every world. It must not contain the task."""

    @abstractmethod
    def reward(
        self, physics: Physics, before: Float64[Tensor, "N S"], action: Float64[Tensor, "N A"], tasks: Tasks
    ) -> Mapping[str, Float64[Tensor, "N"]]:
        """Named terms of the reward, which is their sum.

        `before` is the `snapshot` taken ahead of the step, `action` what was applied, in [-1, 1].
        """

    def snapshot(self, physics: Physics) -> Float64[Tensor, "N S"]:
        """What `reward` needs to know of the state before the step; the joint positions by default."""
        return physics.bind("qpos").clone()

    def advance(self, physics: Physics, tasks: Tasks) -> None:
        """Called after each control step, ahead of `observe` and `reward`: the place to change the world's state.

        What a family wants to remember of an episode goes into `userdata` (`<size nuserdata="n"/>`), which is part of
        the physics' state and zero at a reset: how long a foot is in the air, a goal that moves.
        """

    def terminated(self, physics: Physics, tasks: Tasks) -> Bool[Tensor, "N"] | None:
        """Worlds whose episode is over by the family's rules (a fall); None where it never is."""
        return None

    def num_substeps(self, model: mujoco.MjModel) -> int:
        """Physics steps per control step; `UserError` unless they are a whole number."""
        substeps = round(self.control_step / float(model.opt.timestep))
        if substeps < 1 or abs(substeps * model.opt.timestep - self.control_step) > 1e-9:
            raise UserError(
                f"control_step {self.control_step} s is not a whole multiple of the timestep {model.opt.timestep} s"
            )
        return substeps
