"""What a new task subclasses: a robot, the tasks it may face, and what it observes and is rewarded for."""

from __future__ import annotations

import functools
from abc import ABCMeta, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import mujoco
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.info import Part
from metarl.core.mirror import Symmetry
from metarl.core.renamed import old_names
from metarl.core.seeding import WorldRandom
from metarl.core.tasks import Tasks, TaskSpace
from metarl.core.types import Trial
from metarl.sim.disturbances import Disturbance
from metarl.sim.mujoco.physics import Physics
from metarl.sim.variation import Variation


class Wanted(NamedTuple):
    """Where a robot is to go, as it is drawn; never shown to a policy."""

    direction: Float[Tensor, "N 2"]
    """Of unit length, in the world's plane; 0 where it is to go nowhere."""
    speed: Float[Tensor, "N"] | None = None
    """Along it [m/s]; None where faster is better."""
    turn: Float[Tensor, "N"] | None = None
    """Turn rate, to the left [rad/s]."""
    wind: Float[Tensor, "N 2"] | None = None
    """What carries it away [m/s]."""


class _Immutable(ABCMeta):
    """Seals an object at the end of its construction."""

    def __call__(cls, *args: Any, **words: Any) -> Any:
        made = super().__call__(*args, **words)
        object.__setattr__(made, "_sealed", True)
        return made


class Family(metaclass=_Immutable):
    """A distribution of tasks, whatever simulates them: what may be trained on, evaluated and filmed.

    A family is immutable once it is made. Its constructor may set attributes; nothing may afterwards.
    """

    space: ClassVar[TaskSpace]
    """The task parameters and their splits."""
    control_step: ClassVar[float]
    """Time between two actions [s]."""
    episode_steps: ClassVar[int]
    """Time limit of an episode [control steps], unless `make_env` is given another."""
    observation: ClassVar[tuple[Part, ...]] = ()
    """The parts of the observation, in the order in which they stand in the vector that a policy sees."""
    constant_observations: ClassVar[Sequence[int]] = ()
    """Elements of the vector that never change: only a published observation should have any."""
    disturbances: ClassVar[Sequence[Disturbance]] = ()
    """What a real robot adds: latency, noise, pushes, sudden faults. See `metarl.sim.disturbances`."""
    trial: ClassVar[Trial] = "steps"
    """What a trial is worth, unless `make_env` is told otherwise."""
    mirror: ClassVar[Symmetry | None] = None
    """The robot's left-right symmetry, which learners learn from; None where it has none, or none is told.

    A subclass with task parameters, variations or disturbances of its own says it anew, or has none. `metarl check`
    tests it.
    """

    reward_needs: ClassVar[Mapping[str, bool] | None] = None
    """What its reward is made of, and of each whether a robot's own sensors tell it; None where nobody has said."""

    def __setattr__(self, name: str, value: object) -> None:
        if "_sealed" in vars(self):
            raise UserError(
                f"{type(self).__name__}.{name} cannot be set, as a family never changes once it is made: "
                "`episode_steps` and `task_visible` are arguments of make_env, and what an episode has to remember "
                "goes into physics.bind('userdata')"
            )
        super().__setattr__(name, value)


class MujocoFamily(Family):
    """A robot and the distribution of tasks it may face; its `control_step` is a multiple of the model's timestep.

    The functions below are batched torch over all worlds, in the device and dtype of the physics (float64 on the CPU);
    `physics.bind(field)` gives live tensors over MjData. What differs between worlds is in their `Tasks`.
    """

    trial: ClassVar[Trial] = "falls"
    """What a trial is worth, unless `make_env` is told otherwise.

    Where a fall costs no more than its step, RL² learns to fall, as measured on humanoid, ant, walker, hopper and
    quadruped. A family that ends episodes by success says "steps": what is done until then serves the next episode.
    """
    variations: ClassVar[Sequence[Variation]] = ()
    """How task parameters change the model."""
    hidden_parts: ClassVar[tuple[Part, ...]] = ()
    """What `hidden` returns, beside the task and what disturbances tell of themselves."""
    sensed: ClassVar[Sequence[str]] = ()
    """Task parameters that a robot's own sensor tells, as a slope by where gravity points: no leak to `check`."""
    camera: ClassVar[str | None] = None
    """Name of the camera that films the robot; None for MuJoCo's free camera."""
    actions: ClassVar[tuple[str, ...]] = ()
    """Names of an action's numbers, where `control` makes something else of them than one command per actuator."""
    velocity_limit: ClassVar[Sequence[float]] = ()
    """Largest velocity of each actuator's joint [rad/s or m/s], for whoever runs a policy on the robot.

    Empty where it is not known: MuJoCo's models have none.
    """
    control_every: ClassVar[int] = 0
    """Physics steps from one call of `control` to the next; 0: once for each command."""

    @abstractmethod
    def spec(self) -> mujoco.MjSpec:
        """The model to compile. Actions in [-1, 1] map linearly onto its actuators' control ranges."""

    def control(self, physics: Physics, action: Float[Tensor, "N A"], tasks: Tasks) -> Float[Tensor, "N U"]:
        """What the actuators are given (`ctrl`) under an action in [-1, 1], ahead of the physics: a law of your own.

        By default the action's linear map onto the actuators' control ranges. A law that feeds back, as impedance or
        torque control, is called anew after every `control_every` physics steps, with the state as it is then. It runs
        on the robot: what arrives late or not at all (`ActionLatency`) is the action, which is 0 until the first one.
        """
        low, high = model_constant(physics.model, "actuator_ctrlrange", action).unbind(dim=1)
        return low + (action + 1.0) * (high - low) / 2

    @abstractmethod
    def reset(self, physics: Physics, worlds: Int64[Tensor, "n"], tasks: Tasks, random: WorldRandom) -> None:
        """Write the initial state of an episode into the rows `worlds`, which are at the model's defaults.

        `tasks` are those of `worlds`, n of them; `random` draws (n, size).
        """

    @abstractmethod
    def observe(self, physics: Physics, tasks: Tasks) -> Mapping[str, Float[Tensor, "N size"]]:
        """Each part that `observation` declares, in every world; views of the state will do, they are copied.

        It must not contain the task.
        """

    @abstractmethod
    def reward(
        self, physics: Physics, before: Float[Tensor, "N S"], action: Float[Tensor, "N A"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """Named terms of the reward, which is their sum.

        `before` is the `snapshot` taken ahead of the step, `action` what was applied, in [-1, 1].
        """

    def snapshot(self, physics: Physics) -> Float[Tensor, "N S"]:
        """What `reward` needs to know of the state before the step; the joint positions by default."""
        return physics.bind("qpos").clone()

    def advance(self, physics: Physics, tasks: Tasks) -> None:
        """Called after each control step, ahead of `observe` and `reward`: the place to change the world's state.

        What a family wants to remember of an episode goes into `userdata` (`<size nuserdata="n"/>`), which is part of
        the physics' state and zero at a reset: how long a foot is in the air, a goal that moves.
        """

    def hidden(self, physics: Physics, tasks: Tasks) -> Mapping[str, Float[Tensor, "N size"]]:
        """Each of the `hidden_parts`, of about unit size: for oracles and privileged critics."""
        return {}

    def terminated(self, physics: Physics, tasks: Tasks) -> Bool[Tensor, "N"] | None:
        """Worlds whose episode is over by the family's rules (a fall); None where it never is."""
        return None

    def wanted(self, physics: Physics, tasks: Tasks) -> Wanted | None:
        """The velocity or direction that is rewarded, for pictures; None where there is none."""
        return None

    def num_substeps(self, model: mujoco.MjModel) -> int:
        """Physics steps per control step; `UserError` unless they are a whole number."""
        substeps = round(self.control_step / float(model.opt.timestep))
        if substeps < 1 or abs(substeps * model.opt.timestep - self.control_step) > 1e-9:
            raise UserError(
                f"control_step {self.control_step} s is not a whole multiple of the timestep {model.opt.timestep} s"
            )
        return substeps


def action_names(family: MujocoFamily, model: mujoco.MjModel) -> list[str]:
    """Names of an action's numbers, in their order."""
    own = [model.actuator(i).name or f"action_{i}" for i in range(model.nu)]
    return list(family.actions) or own


def constant_like(constant: Tensor, like: Tensor) -> Tensor:
    """A module's constant in the device and dtype of another tensor; copied once, not at every call."""
    if constant.dtype == like.dtype and constant.device == like.device:
        return constant
    return _copied(constant, like.device, like.dtype)


def model_constant(model: mujoco.MjModel, field: str, like: Tensor) -> Tensor:
    """A field of the model that no task changes, in the device and dtype of another tensor; copied once."""
    return _of_model(model, field, like.device, like.dtype)


@functools.cache
def _copied(constant: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    return constant.to(device, dtype)


@functools.lru_cache(maxsize=16)
def _of_model(model: mujoco.MjModel, field: str, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(getattr(model, field).copy()).to(device, dtype)


__getattr__ = old_names(__name__)
