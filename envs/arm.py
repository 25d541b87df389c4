"""Six-axis arm on a table: an unknown place to reach, and pucks of unknown weight and slipperiness to push.

Model: our own `assets/arm.xml`, of the size of a UR5e or xArm 6; timestep 0.005 s, 10 substeps. The origin is the foot
of the arm on the table, x points forward, y to the left, z up.

Observation of arm-reach (15), the first 15 elements of arm-push (21):

| index | element | joint | unit |
|---|---|---|---|
| 0-5 | joint positions | base, shoulder, elbow, wrist_1, wrist_2, wrist_3 | rad |
| 6-11 | joint velocities, in the order of 0-5 | | rad/s |
| 12-14 | position of the tool's tip: x, y, z | | m |
| 15, 16 | position of the puck: x, y | puck | m |
| 17, 18 | velocity of the puck: x, y | puck | m/s |
| 19, 20 | where the puck is to go, drawn at each episode: x, y | | m |

Action (6), in [-1, 1]: velocity command to the six joints in the order of 0-5, scaled by 1.5 rad/s. The servos' torques
are limited to 150 N·m (base, shoulder, elbow) and 28 N·m (wrists); the weight of the links is compensated.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mujoco
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from metarl.core.seeding import WorldRandom
from metarl.core.tasks import Ball, LogUniform, Parameter, Tasks, TaskSpace, Uniform
from metarl.sim.family import MujocoFamily
from metarl.sim.mujoco.physics import Physics
from metarl.sim.variations import BodyMass, Friction, SitePosition

MODEL = Path(__file__).parent / "assets" / "arm.xml"
JOINTS = 6
LOW_POSE = (0.0, 0.355, 0.696, -1.051, 0.0, 0.0)  # [rad]: the tip 0.405 m ahead of the foot, 0.04 m above the table


class Arm(MujocoFamily):
    """What both families share: the arm, its measurements, and terms of the reward."""

    control_step = 0.05
    episode_steps = 100
    camera = "side"

    def observe(self, physics: Physics, tasks: Tasks) -> Float64[Tensor, "N O"]:
        """What every arm measures: see the module's table, 0-14."""
        return torch.cat(
            (physics.bind("qpos")[:, :JOINTS], physics.bind("qvel")[:, :JOINTS], self.tool(physics)), dim=1
        )

    def tool(self, physics: Physics) -> Float64[Tensor, "N 3"]:
        """Position of the tip of the tool [m]. Bound fresh: it must agree with the joints observed beside it."""
        return physics.bind("sensordata")


def precision(distance: Float64[Tensor, "N"]) -> Float64[Tensor, "N"]:
    """0.5 (1 − tanh(d / 0.1 m)): the kernel of Isaac Lab's reach task, a gradient where a distance is small."""
    return (distance / 0.1).tanh_().sub_(1.0).mul_(-0.5)


def control_cost(action: Float64[Tensor, "N 6"]) -> Float64[Tensor, "N"]:
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
        physics.bind("qpos")[worlds] += random.uniform(-0.1, 0.1, JOINTS)

    def reward(
        self, physics: Physics, before: Float64[Tensor, "N 6"], action: Float64[Tensor, "N 6"], tasks: Tasks
    ) -> Mapping[str, Float64[Tensor, "N"]]:
        """Terms `distance`, `precision` and `control`."""
        middle = torch.from_numpy(physics.model.body("workspace").pos)
        distance = torch.linalg.vector_norm(self.tool(physics) - middle - tasks["goal"], dim=1)
        return {"distance": -distance, "precision": precision(distance), "control": control_cost(action)}


class ArmPush(Arm):
    """Push a puck of unknown weight and slipperiness to a target that is seen.

    r = −|x − x*| + 0.5 (1 − tanh(|x − x*| / 0.1 m)) − 0.2 |p − x| − 0.01 |a|², with the puck at x, its target x*
    (both in the plane of the table) and the tool at p. Ours: a slippery puck slides on after the tool has stopped, a
    heavy one slows the tool. Its mass is 1 kg and its friction 0.1, times the task's ratios; in the `ood` split all
    pucks are heavier and more slippery than in training.
    """

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

    def spec(self) -> mujoco.MjSpec:
        """The arm, a puck and its target."""
        spec = mujoco.MjSpec.from_file(str(MODEL))
        spec.delete(spec.body("workspace"))
        return spec

    def reset(self, physics: Physics, worlds: Int64[Tensor, "n"], tasks: Tasks, random: WorldRandom) -> None:
        """At rest, the tool low behind the puck, joints and puck + U(-0.01, 0.01); a new target in every episode."""
        qpos, target = physics.bind("qpos"), physics.bind("mocap_pos")
        qpos[worlds, :JOINTS] = qpos.new_tensor(LOW_POSE) + random.uniform(-0.01, 0.01, JOINTS)
        qpos[worlds, JOINTS : JOINTS + 2] += random.uniform(-0.01, 0.01, 2)
        target[worlds, 0, :1] = random.uniform(0.62, 0.8, 1)
        target[worlds, 0, 1:2] = random.uniform(-0.15, 0.15, 1)

    def observe(self, physics: Physics, tasks: Tasks) -> Float64[Tensor, "N O"]:
        """See the module's table."""
        puck = slice(JOINTS, JOINTS + 2)
        seen = (physics.bind("qpos")[:, puck], physics.bind("qvel")[:, puck], physics.bind("mocap_pos")[:, 0, :2])
        return torch.cat((super().observe(physics, tasks), *seen), dim=1)

    def reward(
        self, physics: Physics, before: Float64[Tensor, "N 13"], action: Float64[Tensor, "N 6"], tasks: Tasks
    ) -> Mapping[str, Float64[Tensor, "N"]]:
        """Terms `distance`, `precision`, `contact` and `control`."""
        puck = physics.bind("qpos")[:, JOINTS : JOINTS + 3]
        distance = torch.linalg.vector_norm(puck[:, :2] - physics.bind("mocap_pos")[:, 0, :2], dim=1)
        contact = torch.linalg.vector_norm(self.tool(physics) - puck, dim=1).mul_(-0.2)
        return {
            "distance": -distance,
            "precision": precision(distance),
            "contact": contact,
            "control": control_cost(action),
        }
