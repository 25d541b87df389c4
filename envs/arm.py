"""Six-axis arm on a table: an unknown place to reach, and pucks of unknown weight and slipperiness to push.

Model: our own `assets/arm.xml`, of the size of a UR5e or xArm 6; timestep 0.005 s, 10 substeps. The origin is the foot
of the arm on the table, x points forward, y to the left, z up.

Action (6), in [-1, 1]: velocity command to the six joints, from the base on, scaled by 1.5 rad/s. The servos' torques
are limited to 150 N·m (base, shoulder, elbow) and 28 N·m (wrists); the weight of the links is compensated.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import mujoco
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metarl.core.info import Part
from metarl.core.seeding import WorldRandom
from metarl.core.tasks import Ball, LogUniform, Parameter, Tasks, TaskSpace, Uniform
from metarl.sim.family import MujocoFamily, constant_like, model_constant
from metarl.sim.mujoco.physics import Physics
from metarl.sim.variations import BodyMass, Friction, SitePosition

MODEL = Path(__file__).parent / "assets" / "arm.xml"
JOINTS = ("base", "shoulder", "elbow", "wrist_1", "wrist_2", "wrist_3")
NUM_JOINTS = len(JOINTS)
LOW_POSE = torch.tensor(
    [0.0, 0.355, 0.696, -1.051, 0.0, 0.0], dtype=torch.float64
)  # [rad]: the tip 0.405 m ahead of the foot, 0.04 m above the table


class Arm(MujocoFamily):
    """What both families share: the arm, its measurements, and terms of the reward."""

    control_step = 0.05
    episode_steps = 100
    camera = "side"
    reward_needs: ClassVar[Mapping[str, bool] | None] = {"the distance to the goal": False, "the action": True}
    observation: ClassVar[tuple[Part, ...]] = (
        Part("joint_position", NUM_JOINTS, "rad", JOINTS),
        Part("joint_velocity", NUM_JOINTS, "rad/s", JOINTS),
        Part("tool_position", 3, "m", ("x", "y", "z"), "of the tool's tip"),
    )

    def observe(self, physics: Physics, tasks: Tasks) -> Mapping[str, Float[Tensor, "N size"]]:
        """What every arm measures."""
        return {
            "joint_position": physics.bind("qpos")[:, :NUM_JOINTS],
            "joint_velocity": physics.bind("qvel")[:, :NUM_JOINTS],
            "tool_position": self.tool(physics),
        }

    def tool(self, physics: Physics) -> Float[Tensor, "N 3"]:
        """Position of the tip of the tool [m]. Bound fresh: it must agree with the joints observed beside it."""
        return physics.bind("sensordata")


def precision(distance: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """0.5 (1 − tanh(d / 0.1 m)): the kernel of Isaac Lab's reach task, a gradient where a distance is small."""
    return (distance / 0.1).tanh_().sub_(1.0).mul_(-0.5)


def control_cost(action: Float[Tensor, "N 6"]) -> Float[Tensor, "N"]:
    """−0.01 |a|²."""
    return action.square().sum(dim=1).mul_(-0.01)


class ArmReach(Arm):
    """Hold the tool at an unknown place: r = −|p − g| + 0.5 (1 − tanh(|p − g| / 0.1 m)) − 0.01 |a|².

    The goal g is told by the reward alone, as in the point robot's and Meta-World's meta-learning benchmarks; here the
    tool has to be steered there by six joints. It lies in a ball around the middle of the workspace, 0.5 m ahead of the
    arm and 0.35 m above the table; the `ood` split in the shell around that ball.
    """

    space = TaskSpace(
        {
            "goal": Parameter(
                Ball(0.22),
                ood=Ball(0.3, inner=0.22),
                unit="m",
                nominal=[0.0, 0.0, 0.0],
                help="place to reach, from the middle of the workspace",
            )
        }
    )
    variations = (SitePosition("goal", "goal"),)

    def spec(self) -> mujoco.MjSpec:
        """The arm and the goal."""
        spec = mujoco.MjSpec.from_file(str(MODEL))
        spec.delete(spec.body("puck"))
        spec.delete(spec.body("target"))
        return spec

    def reset(self, physics: Physics, worlds: Int64[Tensor, "n"], tasks: Tasks, random: WorldRandom) -> None:
        """At rest, upper arm upright, tool down, with joint positions + U(-0.1, 0.1)."""
        physics.bind("qpos")[worlds] += random.uniform(-0.1, 0.1, NUM_JOINTS)

    def reward(
        self, physics: Physics, before: Float[Tensor, "N 6"], action: Float[Tensor, "N 6"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """Terms `distance`, `precision` and `control`."""
        tool, model = self.tool(physics), physics.model
        middle = model_constant(model, "body_pos", tool)[model.body("workspace").id]
        distance = torch.linalg.vector_norm(tool - middle - tasks["goal"], dim=1)
        return {"distance": -distance, "precision": precision(distance), "control": control_cost(action)}


class ArmPush(Arm):
    """Push a puck of unknown weight and slipperiness to a target that is seen.

    r = −|x − x*| + 0.5 (1 − tanh(|x − x*| / 0.1 m)) − 0.2 |p − x| − 0.01 |a|², with the puck at x, its target x*
    (both in the plane of the table) and the tool at p. Ours: a slippery puck slides on after the tool has stopped, a
    heavy one slows the tool. Its mass is 1 kg and its friction 0.1, times the task's ratios; in the `ood` split all
    pucks are heavier and more slippery than in training.
    """

    reward_needs: ClassVar[Mapping[str, bool] | None] = {
        "the places of tool, puck and target": True,
        "the action": True,
    }
    space = TaskSpace(
        {
            "mass": Parameter(
                LogUniform(0.4, 2.5), ood=Uniform(2.5, 4.0), unit="1", nominal=1.0, help="mass ratio of the puck"
            ),
            "friction": Parameter(
                LogUniform(0.5, 2.0), ood=Uniform(0.25, 0.5), unit="1", nominal=1.0, help="friction ratio of the puck"
            ),
        }
    )
    variations = (BodyMass("mass", ("puck",)), Friction("friction", ("puck",)))
    observation = (
        *Arm.observation,
        Part("puck_position", 2, "m", ("x", "y")),
        Part("puck_velocity", 2, "m/s", ("x", "y")),
        Part("target_position", 2, "m", ("x", "y"), "where the puck is to go, drawn at each episode"),
    )

    def spec(self) -> mujoco.MjSpec:
        """The arm, a puck and its target."""
        spec = mujoco.MjSpec.from_file(str(MODEL))
        spec.delete(spec.body("workspace"))
        return spec

    def reset(self, physics: Physics, worlds: Int64[Tensor, "n"], tasks: Tasks, random: WorldRandom) -> None:
        """At rest, the tool low behind the puck, joints and puck + U(-0.01, 0.01); a new target in every episode."""
        qpos, target = physics.bind("qpos"), physics.bind("mocap_pos")
        qpos[worlds, :NUM_JOINTS] = constant_like(LOW_POSE, qpos) + random.uniform(-0.01, 0.01, NUM_JOINTS)
        qpos[worlds, NUM_JOINTS : NUM_JOINTS + 2] += random.uniform(-0.01, 0.01, 2)
        target[worlds, 0, :1] = random.uniform(0.62, 0.8, 1)
        target[worlds, 0, 1:2] = random.uniform(-0.15, 0.15, 1)

    def observe(self, physics: Physics, tasks: Tasks) -> Mapping[str, Float[Tensor, "N size"]]:
        """The arm, the puck and where it is to go."""
        puck = slice(NUM_JOINTS, NUM_JOINTS + 2)
        return {
            **super().observe(physics, tasks),
            "puck_position": physics.bind("qpos")[:, puck],
            "puck_velocity": physics.bind("qvel")[:, puck],
            "target_position": physics.bind("mocap_pos")[:, 0, :2],
        }

    def reward(
        self, physics: Physics, before: Float[Tensor, "N 13"], action: Float[Tensor, "N 6"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """Terms `distance`, `precision`, `contact` and `control`."""
        puck = physics.bind("qpos")[:, NUM_JOINTS : NUM_JOINTS + 3]
        distance = torch.linalg.vector_norm(puck[:, :2] - physics.bind("mocap_pos")[:, 0, :2], dim=1)
        contact = torch.linalg.vector_norm(self.tool(physics) - puck, dim=1).mul_(-0.2)
        return {
            "distance": -distance,
            "precision": precision(distance),
            "contact": contact,
            "control": control_cost(action),
        }
