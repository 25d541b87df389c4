"""What a quadruped may have to adapt to: its body, a weak motor, the ground, an unknown goal. See quadruped.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.core.mirror import signed
from metarl.core.tasks import Choice, LogUniform, Parameter, Tasks, TaskSpace, Uniform
from metarl.envs.quadruped import FEET, JOINTS_MIRRORED, MOTORS, PROPRIOCEPTION, SPEED, SYMMETRY, TURN, Quadruped
from metarl.sim.mujoco.physics import Physics
from metarl.sim.terrain import TerrainChoice, Tile
from metarl.sim.variations import CentreOfMass, Friction, JointDamping, MotorStrength, Payload, WeakMotor


class QuadrupedBody(Quadruped):
    """Follow the command in an unknown body: payload, centre of mass, grip, motors and joints vary.

    Ranges as in sim-to-real practice (Kumar et al. 2021, RMA, arXiv:2107.04034, and legged_gym); `ood` is beyond each.
    """

    space = TaskSpace(
        {
            "payload": Parameter(
                Uniform(0.0, 5.0), ood=Uniform(5.0, 8.0), unit="kg", nominal=0.0, help="on the back", graded=True
            ),
            "centre": Parameter(
                Uniform(-0.04, 0.04),
                ood=Uniform(0.04, 0.08),
                unit="m",
                nominal=0.0,
                help="of mass of the trunk, forward",
            ),
            "friction": Parameter(
                Uniform(0.3, 1.25), ood=Uniform(0.15, 0.3), unit="1", nominal=1.0, help="of the feet on the ground"
            ),
            "strength": Parameter(
                Uniform(0.7, 1.1), ood=Uniform(0.5, 0.7), unit="1", nominal=1.0, help="of all motors, ratio"
            ),
            "damping": Parameter(
                LogUniform(0.5, 3.0), ood=Uniform(3.0, 5.0), unit="1", nominal=1.0, help="joint damping ratio"
            ),
        }
    )
    mirror = SYMMETRY
    variations = (
        CentreOfMass("centre", "trunk", axis=0),
        Payload("payload", "trunk", at=(0.0, 0.0, 0.1)),
        Friction("friction", FEET),
        MotorStrength("strength"),
        JointDamping("damping", MOTORS),
    )


class QuadrupedCrippled(Quadruped):
    """Follow the command with one weak motor: in training of three legs, in `ood` a dead one of the fourth (RR)."""

    space = TaskSpace(
        {
            "motor": Parameter(
                Choice((0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)),
                ood=Choice((9.0, 10.0, 11.0)),
                unit="index",
                nominal=-1.0,
                help="the weak one",
                labels=MOTORS,
            ),
            "strength": Parameter(
                Uniform(0.05, 0.6),
                ood=Choice((0.0,)),
                unit="1",
                nominal=1.0,
                help="what is left of its force; 0 is dead",
            ),
        }
    )
    variations = (WeakMotor("motor", "strength", MOTORS),)
    mirror = replace(SYMMETRY, parameters={"motor": tuple((index, 1) for index, _ in JOINTS_MIRRORED)})


class QuadrupedCommand(Quadruped):
    """Walk at an unknown speed and turn rate, known by their reward alone: the task, and not observed (42 elements)."""

    space = TaskSpace(
        {
            "velocity": Parameter(Uniform(*SPEED), ood=Uniform(1.0, 1.4), unit="m/s", help="goal velocity, forward"),
            "turn": Parameter(Uniform(*TURN), ood=Uniform(0.5, 0.9), unit="rad/s", help="goal turn rate, to the left"),
        }
    )
    mirror = replace(SYMMETRY, parameters={"turn": signed(-1)})
    observation = PROPRIOCEPTION

    def observe(self, physics: Physics, tasks: Tasks) -> Mapping[str, Float[Tensor, "N size"]]:
        """Without the command."""
        return self.proprioception(physics)

    def command(self, physics: Physics, tasks: Tasks) -> Float[Tensor, "N 2"]:
        """The task."""
        return torch.stack((tasks["velocity"], tasks["turn"]), dim=1)


class QuadrupedVel(QuadrupedCommand):
    """Walk straight on at an unknown speed, forward or backward, known by its reward alone (42 elements).

    The reward falls off as `long_tailed`: a metre per second away a bell curve would be flat, and tell nothing.
    """

    episode_steps = 300
    space = TaskSpace(
        {"velocity": Parameter(Uniform(-1.0, 1.5), ood=Uniform(1.5, 2.0), unit="m/s", help="goal velocity, forward")}
    )
    mirror = SYMMETRY

    def command(self, physics: Physics, tasks: Tasks) -> Float[Tensor, "N 2"]:
        """The task, and no turn."""
        return torch.stack((tasks["velocity"], torch.zeros_like(tasks["velocity"])), dim=1)

    def closeness(self, x: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        """With a long tail."""
        return long_tailed(x)


def long_tailed(x: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """1 / (1 + (e / 0.5)²) of an error e, for `closeness`: near the command it is the others' bell curve."""
    return 1.0 / (1.0 - x)


class QuadrupedTerrain(Quadruped):
    """Follow the command over unknown ground, blind. Difficulty in [0, 1]; `ood` is harder than any trained on.

    At difficulty 0 all is flat. At 1: slopes of 24°, stairs of 16 cm, bumps of 12 cm, blocks 10 cm up or down. Half a
    metre ahead of the start is flat. Where on the ground the robot starts is part of the task. No ground is the mirror
    image of another, so no symmetry is declared.
    """

    mirror = None

    ground = TerrainChoice(
        kinds=("slope-up", "slope-down", "rough", "stairs-up", "stairs-down", "blocks"),
        difficulties=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0),
        tile=Tile(length=9.0, width=12.0, cell=0.05),
        geom="ground",
        side=1.0,
    )
    space = ground.space(hardest=0.6)
    variations = (ground,)

    def spec(self) -> mujoco.MjSpec:
        """Our own model, on height fields."""
        spec = super().spec()
        self.ground.add_to(spec)
        return spec
