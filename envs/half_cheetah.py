"""Half-cheetah: a planar runner with two legs. Goal velocities, directions, bodies that differ and joints that fail.

Model: Gymnasium's `half_cheetah.xml` (Wawrzyński 2009), timestep 0.01 s, 5 substeps. The observation (20) is of PEARL's
lineage: `qpos[1:]`, `qvel` and the position of the torso.

Action (6), in [-1, 1]: torque of bthigh, bshin, bfoot, fthigh, fshin, ffoot, scaled by the motors' gears
120, 90, 60, 120, 60, 30 N·m.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import ClassVar

import mujoco
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metarl.core.info import Part
from metarl.core.seeding import WorldRandom
from metarl.core.tasks import Choice, Parameter, Points, Tasks, TaskSpace, Uniform
from metarl.envs.parts import BODY, GYMNASIUM_MODELS
from metarl.sim.family import MujocoFamily, Wanted
from metarl.sim.mujoco.physics import Physics
from metarl.sim.variations import BodyMass, Friction, JointDamping, JointFault, MotorSigns

MODEL = GYMNASIUM_MODELS / "half_cheetah.xml"
JOINTS = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")
TORSO_HEIGHT = 0.7  # [m] of the torso's frame when rootz is zero


class HalfCheetah(MujocoFamily):
    """What all half-cheetah families share: model, reset, observation, and r = task term − 0.05 |a|²."""

    control_step = 0.05
    episode_steps = 200
    camera = "track"
    reward_needs: ClassVar[Mapping[str, bool] | None] = {"the torso's forward velocity": False, "the action": True}
    observation = (
        Part("torso_height", 1, "m", help="above its start"),
        Part("torso_pitch", 1, "rad"),
        Part("joint_position", 6, "rad", JOINTS),
        Part("torso_velocity", 2, "m/s", ("x", "z")),
        Part("pitch_rate", 1, "rad/s"),
        Part("joint_velocity", 6, "rad/s", JOINTS),
        Part("torso_position", 3, "m", ("x", "y", "z"), "y is always 0"),
    )
    constant_observations = (18,)

    def spec(self) -> mujoco.MjSpec:
        """Gymnasium's model, unchanged."""
        return mujoco.MjSpec.from_file(str(MODEL))

    def reset(self, physics: Physics, worlds: Int64[Tensor, "n"], tasks: Tasks, random: WorldRandom) -> None:
        """Standing, with joint positions + U(-0.1, 0.1) and velocities + N(0, 0.1²)."""
        physics.bind("qpos")[worlds] += random.uniform(-0.1, 0.1, 9)
        physics.bind("qvel")[worlds] += random.normal(0.0, 0.1, 9)

    def observe(self, physics: Physics, tasks: Tasks) -> Mapping[str, Float[Tensor, "N size"]]:
        """The torso's position follows from its joints, free of the substep lag of `xpos`."""
        x, height, pitch, joints = physics.bind("qpos").split_with_sizes((1, 1, 1, 6), dim=1)
        velocity, pitch_rate, joint_velocity = physics.bind("qvel").split_with_sizes((2, 1, 6), dim=1)
        return {
            "torso_height": height,
            "torso_pitch": pitch,
            "joint_position": joints,
            "torso_velocity": velocity,
            "pitch_rate": pitch_rate,
            "joint_velocity": joint_velocity,
            "torso_position": torch.cat((x, torch.zeros_like(x), height + TORSO_HEIGHT), dim=1),
        }

    def forward_velocity(self, physics: Physics, before: Float[Tensor, "N 9"]) -> Float[Tensor, "N"]:
        """Mean velocity of the torso over the step [m/s]."""
        return (physics.bind("qpos")[:, 0] - before[:, 0]) / self.control_step


def _forward(sign: Float[Tensor, "N"]) -> Float[Tensor, "N 2"]:
    return torch.stack((sign, torch.zeros_like(sign)), dim=1)


def control_cost(action: Float[Tensor, "N A"]) -> Float[Tensor, "N"]:
    """−0.05 |a|²."""
    return action.square().sum(dim=1).mul_(-0.05)


class HalfCheetahVel(HalfCheetah):
    """Run at an unknown speed: r = −|v − v*| − 0.05 |a|², v* ~ U(0, 3) m/s.

    PEARL's definition (Rakelly et al. 2019), 200 steps. PEARL trains on 100 fixed tasks (`--train-tasks 100`) and tests
    on 30; MAML's original draws ever new v* from U(0, 2) and runs 100 steps.
    """

    space = TaskSpace(
        {
            "velocity": Parameter(
                Uniform(0.0, 3.0), ood=Uniform(3.0, 4.0), unit="m/s", help="target forward velocity", graded=True
            )
        }
    )

    def reward(
        self, physics: Physics, before: Float[Tensor, "N 9"], action: Float[Tensor, "N 6"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """Terms `velocity` and `control`."""
        error = self.forward_velocity(physics, before) - tasks["velocity"]
        return {"velocity": -error.abs(), "control": control_cost(action)}

    def wanted(self, physics: Physics, tasks: Tasks) -> Wanted:
        """The rewarded speed."""
        return Wanted(_forward(tasks["velocity"].sign()), tasks["velocity"].abs())


class HalfCheetahDir(HalfCheetah):
    """Run forward or backward, whichever is rewarded: r = d·v − 0.05 |a|², d ∈ {−1, +1}.

    PEARL's definition (Rakelly et al. 2019), 200 steps; train and test hold the same two tasks, and there is no
    `ood` split.
    """

    space = TaskSpace({"direction": Parameter(Choice((-1.0, 1.0)), unit="1", help="+1 forward, -1 backward")})

    def reward(
        self, physics: Physics, before: Float[Tensor, "N 9"], action: Float[Tensor, "N 6"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """Terms `forward` and `control`."""
        velocity = self.forward_velocity(physics, before)
        return {"forward": tasks["direction"] * velocity, "control": control_cost(action)}

    def wanted(self, physics: Physics, tasks: Tasks) -> Wanted:
        """The rewarded direction."""
        return Wanted(_forward(tasks["direction"]))


class HalfCheetahDirSparse(HalfCheetahDir):
    """Run forward or backward, rewarded only 5 m from the start: r = d·v − 0.05 |a|² where |x| ≥ 5 m, else − 0.05 |a|².

    HyperX's definition (Zintgraf et al. 2021, arXiv:2010.01062), for exploration: half-cheetah-dir's two tasks, 200
    steps. A robot that has gone the wrong way has 10 m to go back.
    """

    sparse_distance = 5.0
    """Distance from the origin within which running earns nothing [m]."""

    def reward(
        self, physics: Physics, before: Float[Tensor, "N 9"], action: Float[Tensor, "N 6"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """Terms `forward` and `control`."""
        terms = super().reward(physics, before, action, tasks)
        far = physics.bind("qpos")[:, 0].abs() >= self.sparse_distance
        return {"forward": torch.where(far, terms["forward"], 0.0), "control": terms["control"]}


class HalfCheetahBody(HalfCheetah):
    """Run forward in an unknown body: r = v − 0.05 |a|², with mass, friction, damping and a dead joint varying.

    Ours: no project of the field has it. The `ood` split lies beyond every range and breaks the back thigh, the
    joint held out in training as in GrBAL's crippled cheetah (Nagabandi et al. 2019).
    """

    space = TaskSpace(
        BODY
        | {
            "dead_joint": Parameter(
                Choice((-1.0, 1.0, 2.0, 3.0, 4.0, 5.0)),
                ood=Choice((0.0,)),
                unit="index",
                nominal=-1.0,
                help="joint without torque",
                labels=JOINTS,
            ),
        }
    )
    variations = (
        BodyMass("mass"),
        Friction("friction"),
        JointDamping("damping", JOINTS),
        JointFault("dead_joint", JOINTS),
    )

    def reward(
        self, physics: Physics, before: Float[Tensor, "N 9"], action: Float[Tensor, "N 6"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """Terms `forward` and `control`."""
        return {"forward": self.forward_velocity(physics, before), "control": control_cost(action)}


class HalfCheetahCrippled(HalfCheetah):
    """Run forward with a joint without torque: r = v − 0.05 |a|².

    The joints are those of GrBAL (Nagabandi et al. 2019): training breaks 1 to 5, `ood` breaks 0. 200 steps
    as in all families of this file; GrBAL's episodes last 1,000.
    """

    space = TaskSpace(
        {
            "dead_joint": Parameter(
                Choice((1.0, 2.0, 3.0, 4.0, 5.0)),
                ood=Choice((0.0,)),
                unit="index",
                nominal=-1.0,
                help="joint without torque",
                labels=JOINTS,
            )
        }
    )
    variations = (JointFault("dead_joint", JOINTS),)

    def reward(
        self, physics: Physics, before: Float[Tensor, "N 9"], action: Float[Tensor, "N 6"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """Terms `forward` and `control`."""
        return {"forward": self.forward_velocity(physics, before), "control": control_cost(action)}


ALL_SIGNS = tuple(itertools.product((1.0, -1.0), repeat=len(JOINTS)))
HELD_OUT = tuple(signs for signs in ALL_SIGNS if math.prod(signs[:3]) < 0 and math.prod(signs[3:]) < 0)


class HalfCheetahSigns(HalfCheetah):
    """Run forward with motors some of which turn the wrong way: r = v − 0.05 |a|², a sign of ±1 for each of the six.

    Ours. The previous action is not observed, so that no single observation tells a motor's sign: without memory there
    is nothing to learn but to stand. Of the 64 combinations training has 48; `ood` has the 16 in which an odd number
    of motors is turned round in either leg. 200 steps.
    """

    space = TaskSpace(
        {
            "signs": Parameter(
                Points(tuple(signs for signs in ALL_SIGNS if signs not in HELD_OUT)),
                ood=Points(HELD_OUT),
                unit="1",
                nominal=[1.0] * len(JOINTS),
                help=f"direction of each motor: {', '.join(JOINTS)}",
            )
        }
    )
    variations = (MotorSigns("signs", JOINTS),)

    def reward(
        self, physics: Physics, before: Float[Tensor, "N 9"], action: Float[Tensor, "N 6"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """Terms `forward` and `control`."""
        return {"forward": self.forward_velocity(physics, before), "control": control_cost(action)}
