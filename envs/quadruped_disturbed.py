"""Quadrupeds whose task cannot be seen in one observation, and may change in mid-episode. See quadruped.py."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metarl.core.distributions import Points
from metarl.core.info import Part
from metarl.core.mirror import signed
from metarl.core.seeding import WorldRandom
from metarl.core.tasks import Choice, Parameter, Tasks, TaskSpace, Uniform
from metarl.envs.quadruped import (
    FEET,
    JOINTS_MIRRORED,
    LEGS,
    MOTORS,
    OTHER_SIDE,
    PROPRIOCEPTION,
    SYMMETRY,
    Quadruped,
)
from metarl.envs.quadruped_shapes import BlindQuadruped
from metarl.envs.quadruped_tasks import QuadrupedCommand, long_tailed
from metarl.sim.disturbances import ActionLatency, EncoderOffset, Fault, Force, ImuTilt, Redrawn
from metarl.sim.family import constant_like
from metarl.sim.mujoco.physics import Physics
from metarl.sim.variations import FAULTS, Friction, LimbSigns, LimbStrength, MotorFault

_LEGS_MOTORS = tuple(MOTORS[3 * leg : 3 * leg + 3] for leg in range(len(LEGS)))
_ALL_SIGNS = tuple(itertools.product((1.0, -1.0), repeat=len(LEGS)))
_AHEAD = torch.tensor([1.0, 0.0], dtype=torch.float64)  # [m/s, rad/s]
_TILT = 0.14  # [rad]: 8 degrees
_LEAN = 0.1  # [rad] of roll and pitch, at the start


class SteadyQuadruped(Quadruped):
    """Walk straight on at 0.6 m/s, in whatever gait.

    Neither command nor previous action is observed (30): what is wrong with a motor shows over time only.
    """

    episode_steps = 300
    speed: ClassVar[float] = 0.6
    """Wanted forward velocity [m/s]."""
    gait_terms = False
    observation: ClassVar[tuple[Part, ...]] = PROPRIOCEPTION[:-1]

    def reset(self, physics: Physics, worlds: Int64[Tensor, "n"], tasks: Tasks, random: WorldRandom) -> None:
        """As every quadruped, with one command for all."""
        super().reset(physics, worlds, tasks, random)
        memory = physics.bind("userdata")
        memory[worlds, :2] = self.speed * constant_like(_AHEAD, memory)

    def observe(self, physics: Physics, tasks: Tasks) -> Mapping[str, Float[Tensor, "N size"]]:
        """What the robot feels of itself, but for its previous action."""
        seen = self.proprioception(physics)
        return {part.name: seen[part.name] for part in self.observation}


class QuadrupedFaults(SteadyQuadruped):
    """Walk on at 0.6 m/s when a motor breaks in mid-walk: in training of three legs, in `ood` of the fourth (RR).

    The motor is dead, holds its joint locked, turns the wrong way, or its whole leg is dead. That begins 1 to 3 s into
    an episode, in a quarter of them it is so from the start. A learner that uses the declared symmetry knows a fault of
    the fourth leg by its mirror image.
    """

    space = TaskSpace(
        {
            "kind": Parameter(
                Choice((0.0, 1.0, 2.0, 3.0)), unit="index", nominal=0.0, help="what is broken", labels=FAULTS
            ),
            "motor": Parameter(
                Choice(tuple(map(float, range(9)))),
                ood=Choice((9.0, 10.0, 11.0)),
                unit="index",
                nominal=-1.0,
                help="the broken one",
                labels=MOTORS,
            ),
        }
    )
    variations = (MotorFault("kind", "motor", MOTORS, limb=3),)
    disturbances = (Fault(("motor",), onset=Uniform(1.0, 3.0), at_start=0.25),)
    mirror = replace(SYMMETRY, parameters={"motor": tuple((index, 1) for index, _ in JOINTS_MIRRORED)})


class QuadrupedSigns(SteadyQuadruped):
    """Walk on at 0.6 m/s when all motors of some legs turn round in mid-walk: what was to bend them stretches them.

    Any of the legs may, alone or with others, 1 to 3 s into an episode, in a quarter of them from the start. `ood` has
    the four combinations in which three legs do.
    """

    space = TaskSpace(
        {
            "signs": Parameter(
                Points(tuple(signs for signs in _ALL_SIGNS if sum(signs) != -2.0)),
                ood=Points(tuple(signs for signs in _ALL_SIGNS if sum(signs) == -2.0)),
                unit="1",
                nominal=[1.0] * len(LEGS),
                help=f"which way the motors of each leg turn: {', '.join(LEGS)}",
            )
        }
    )
    variations = (LimbSigns("signs", _LEGS_MOTORS),)
    disturbances = (Fault(("signs",), onset=Uniform(1.0, 3.0), at_start=0.25),)
    mirror = replace(SYMMETRY, parameters={"signs": OTHER_SIDE})


class QuadrupedHiddenActuation(BlindQuadruped):
    """Follow the command with late commands, sensors that are off and legs of unequal strength, none of which is seen.

    Commands arrive up to three control steps late, in the midst of one if need be; encoders mislead the servos as well
    as the policy, by up to a quarter of a radian; the inertial sensor is mounted askew, and where level is cannot be
    told at the start, when the trunk leans by up to 0.1 rad. The reward has no terms of a gait: legs of unequal
    strength may limp. Nor is the previous action seen (32 elements).
    """

    gait_terms = False
    space = TaskSpace(
        {
            "latency": Parameter(
                Uniform(0.0, 0.06), ood=Uniform(0.06, 0.08), unit="s", nominal=0.0, help="of commands", graded=True
            ),
            "offset": Parameter(
                Uniform(-0.25, 0.25, size=12),
                unit="rad",
                nominal=[0.0] * 12,
                help="of each joint's encoder",
            ),
            "tilt": Parameter(
                Uniform(-_TILT, _TILT, size=2), unit="rad", nominal=[0.0] * 2, help="roll and pitch of the IMU"
            ),
            "strength": Parameter(
                Uniform(0.4, 1.1, size=4), unit="1", nominal=[1.0] * 4, help="of the motors of each leg, ratio"
            ),
        }
    )
    variations = (LimbStrength("strength", _LEGS_MOTORS),)
    disturbances = (ActionLatency("latency"), EncoderOffset(offset="offset"), ImuTilt("tilt"))
    mirror = replace(SYMMETRY, parameters={"offset": JOINTS_MIRRORED, "tilt": signed(-1, 1), "strength": OTHER_SIDE})

    def reset(self, physics: Physics, worlds: Int64[Tensor, "n"], tasks: Tasks, random: WorldRandom) -> None:
        """As every quadruped, but leaning a little, and put down from as much higher."""
        super().reset(physics, worlds, tasks, random)
        qpos, lean = physics.bind("qpos"), random.uniform(-0.5 * _LEAN, 0.5 * _LEAN, 2)
        qpos[worlds, 4:6] = lean.sin()
        qpos[worlds, 3] = (1.0 - lean.sin().square().sum(dim=1)).sqrt()
        qpos[worlds, 2] += 0.2 * _LEAN


class QuadrupedPatches(Quadruped):
    """Follow the command over ground whose grip changes with every metre, under side forces that change as well.

    The task is the grip and the force that an episode begins with; those that follow are drawn from the same range. The
    largest force is what the feet can just hold on the most slippery ground: 0.2 of the robot's weight.
    """

    episode_steps = 300
    space = TaskSpace(
        {
            "friction": Parameter(
                Uniform(0.2, 1.2), ood=Uniform(0.1, 0.2), unit="1", nominal=1.0, help="of the feet on the ground"
            ),
            "force": Parameter(
                Uniform(-25.0, 25.0), ood=Uniform(25.0, 40.0), unit="N", nominal=0.0, help="on the trunk, to the left"
            ),
        }
    )
    variations = (Friction("friction", FEET),)
    disturbances = (
        Redrawn(("friction",), every=1.0, of="distance"),
        Redrawn(("force",), every=Uniform(1.0, 3.0)),
        Force("trunk", "force"),
    )
    mirror = replace(SYMMETRY, parameters={"force": signed(-1), "present_force": signed(-1)})


class QuadrupedCommandWide(QuadrupedCommand):
    """Walk at an unknown speed and turn rate, forward or backward, which change unseen every 2 to 4 s (42 elements).

    The task is the command that an episode begins with; those that follow are drawn from the same range. Reward alone
    tells them, with a long tail as in `QuadrupedVel`.
    """

    episode_steps = 300
    space = TaskSpace(
        {
            "velocity": Parameter(Uniform(-1.0, 1.5), ood=Uniform(1.5, 2.0), unit="m/s", help="goal velocity, forward"),
            "turn": Parameter(Uniform(-1.0, 1.0), unit="rad/s", help="goal turn rate, to the left"),
        }
    )
    disturbances = (Redrawn(("velocity", "turn"), every=Uniform(2.0, 4.0)),)
    mirror = replace(SYMMETRY, parameters={"turn": signed(-1), "present_turn": signed(-1)})

    def closeness(self, x: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        """With a long tail."""
        return long_tailed(x)
