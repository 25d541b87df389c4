"""Ant: a torso on four legs. Directions, goals, bodies that differ and legs that fail.

Model: Gymnasium's `ant.xml`, timestep 0.01 s (Runge-Kutta), 5 substeps. The observation (27) is of PEARL's lineage,
`qpos[2:]` and `qvel`; that of ant-goal (113), where the place matters, is `qpos`, `qvel` and clipped `cfrc_ext`.

Legs 1 to 4: front left, front right, back left, back right, x being forward. Action (8), in [-1, 1]: torque of hip_4,
ankle_4, hip_1, ankle_1, hip_2, ankle_2, hip_3, ankle_3, times 150 N·m.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import mujoco
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from metarl.core.info import Part
from metarl.core.seeding import WorldRandom
from metarl.core.tasks import Angle, Choice, Disc, LogUniform, Parameter, Tasks, TaskSpace, Uniform
from metarl.envs.parts import (
    BODY,
    GYMNASIUM_MODELS,
    MARK,
    add_camera,
    add_force_sensor,
    add_goal,
    add_lane,
    free_torso,
    observe_free_torso,
    show_heading,
)
from metarl.sim.family import MujocoFamily
from metarl.sim.mujoco.physics import Physics
from metarl.sim.variations import BodyMass, Friction, JointDamping, JointFault, MotorStrength, SitePosition

MODEL = GYMNASIUM_MODELS / "ant.xml"
LEGS = tuple((f"hip_{leg}", f"ankle_{leg}") for leg in (1, 2, 3, 4))
JOINTS = tuple(joint for leg in LEGS for joint in leg)


FREE_TORSO = free_torso(JOINTS)


class Ant(MujocoFamily):
    """What all ant families share: model, reset, and the cost of contacts.

    The contact forces are those of MuJoCo 1.5, which computed them in every step: as published they belong to the
    start of the last substep. With later versions the field's code saw zeros instead (see `add_force_sensor`). The
    torso's place is that of its joint; the published code reads `xpos`, which is a substep (10 ms) old.
    """

    control_step = 0.05
    episode_steps = 200
    camera = "above"
    reward_needs: ClassVar[Mapping[str, bool] | None] = {
        "the torso's velocity": False,
        "contact forces": False,
        "the action": True,
    }
    observation: ClassVar[tuple[Part, ...]] = FREE_TORSO

    def spec(self) -> mujoco.MjSpec:
        """Gymnasium's model, with a sensor that makes MuJoCo compute the contact forces, and a camera."""
        spec = mujoco.MjSpec.from_file(str(MODEL))
        add_force_sensor(spec, "torso")
        add_camera(spec, "torso", "above", distance=4.0, height=2.5)
        return spec

    def reset(self, physics: Physics, worlds: Int64[Tensor, "n"], tasks: Tasks, random: WorldRandom) -> None:
        """Dropped from 0.75 m with straight legs; all positions + U(-0.1, 0.1), velocities + N(0, 0.1²)."""
        physics.bind("qpos")[worlds] += random.uniform(-0.1, 0.1, 15)
        physics.bind("qvel")[worlds] += random.normal(0.0, 0.1, 14)

    def observe(self, physics: Physics, tasks: Tasks) -> Mapping[str, Float[Tensor, "N size"]]:
        """The joints' state, without the place."""
        return observe_free_torso(physics)

    def contact_forces(self, physics: Physics) -> Float[Tensor, "N 84"]:
        """Torques and forces of contacts on all bodies, clipped to [-1, 1]."""
        return physics.bind("cfrc_ext", fresh=False).flatten(1).clamp(-1.0, 1.0)

    def contact_cost(self, physics: Physics) -> Float[Tensor, "N"]:
        """−0.0005 Σ clip(c, −1, 1)²."""
        return self.contact_forces(physics).square_().sum(dim=1).mul_(-0.5e-3)


class AntRunner(Ant):
    """Running: r = v·d − 0.5 |a|² − 0.0005 Σ clip(c, −1, 1)² + 1, over when the torso leaves [0.2, 1.0] m."""

    def progress(self, velocity: Float[Tensor, "N 2"], tasks: Tasks) -> Float[Tensor, "N"]:
        """Velocity in the wanted direction d [m/s]: forward."""
        return velocity[:, 0]

    def reward(
        self, physics: Physics, before: Float[Tensor, "N 15"], action: Float[Tensor, "N 8"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """Terms `progress`, `control`, `contact` and `alive`; v is the torso's mean velocity over the step."""
        velocity = (physics.bind("qpos")[:, :2] - before[:, :2]) / self.control_step
        progress = self.progress(velocity, tasks)
        return {
            "progress": progress,
            "control": action.square().sum(dim=1).mul_(-0.5),
            "contact": self.contact_cost(physics),
            "alive": torch.ones_like(progress),
        }

    def terminated(self, physics: Physics, tasks: Tasks) -> Bool[Tensor, "N"]:
        """The torso is lower than 0.2 m or higher than 1 m."""
        height = physics.bind("qpos")[:, 2]
        return (height < 0.2) | (height > 1.0)


class AntDir(AntRunner):
    """Run forward or backward, whichever is rewarded: r = v·(cos θ, sin θ) − 0.5 |a|² − contacts + 1, θ ∈ {0, π}.

    PEARL's definition (Rakelly et al. 2019), 200 steps, with the two opposite directions of its paper; train and test
    hold the same two, and there is no `ood` split. Others differ: the code published with PEARL draws its two
    directions anywhere unless told otherwise; VariBAD and those who build on it take cos and sin of ±1 rad, 115°
    apart, so their figures cannot be compared; ProMP rewards ±v_x and lets the torso sink to the ground.
    """

    space = TaskSpace({"direction": Parameter(Choice((0.0, math.pi)), unit="rad", nominal=0.0, help="heading to run")})
    variations = (show_heading("direction"),)

    def spec(self) -> mujoco.MjSpec:
        """Return the model with a lane that shows the direction."""
        spec = super().spec()
        add_lane(spec, half_width=0.5)
        return spec

    def progress(self, velocity: Float[Tensor, "N 2"], tasks: Tasks) -> Float[Tensor, "N"]:
        """Velocity along the task's direction [m/s]."""
        angle = tasks["direction"]
        return velocity[:, 0] * angle.cos() + velocity[:, 1] * angle.sin()


class AntDir2D(AntDir):
    """Run in any direction: ant-dir's reward and end, 200 steps, with θ uniform on the whole circle.

    It is what papers call Ant-Dir-2D or AntDir with directions anywhere, among them the code published with PEARL; no
    `ood` split. Directions of `ant-dir` are two of these.
    """

    space = TaskSpace({"direction": Parameter(Angle(), unit="rad", nominal=0.0, help="heading to run")})


class AntGoal(Ant):
    """Go to an unknown place and stay: r = −|x − g|₁ − 0.1 |a|² − 0.0005 Σ clip(c, −1, 1)², g uniform in a disc of 3 m.

    PEARL's definition (Rakelly et al. 2019, from ProMP's), 200 steps; an episode never ends early. PEARL trains on 100
    fixed tasks (`--train-tasks 100`) and tests on 30; its README calls the result not reproduced. VariBAD ran it
    without contact forces: with MuJoCo 2.0 those 84 numbers were zero.
    """

    space = TaskSpace(
        {
            "goal": Parameter(
                Disc(3.0), ood=Disc(4.0, inner=3.0), unit="m", nominal=[0.0, 0.0], help="place to go to", graded=True
            )
        }
    )
    variations = (SitePosition("goal", MARK),)
    camera = "overview"
    reward_needs: ClassVar[Mapping[str, bool] | None] = {
        "the distance to the goal": False,
        "contact forces": False,
        "the action": True,
    }
    observation = (
        Part("torso_position", 2, "m", ("x", "y")),
        *FREE_TORSO,
        Part("contact_force", 84, "N·m, N", help="torque (3) and force (3) on each body, the world first, in [-1, 1]"),
    )
    constant_observations = tuple(29 + 6 * body + i for body in (0, 2, 5, 8, 11) for i in range(6))
    """Contacts of the world, and of the inner ends of the legs, which the torso shields."""

    def spec(self) -> mujoco.MjSpec:
        """Return the model with a disc that shows the goal, and a camera that sees all goals."""
        spec = super().spec()
        add_camera(spec, "world", "overview", distance=8.0, height=7.0)
        add_goal(spec, radius=0.3)
        return spec

    def observe(self, physics: Physics, tasks: Tasks) -> Mapping[str, Float[Tensor, "N size"]]:
        """Return the observation with the place and the contacts."""
        own = {"torso_position": physics.bind("qpos")[:, :2], "contact_force": self.contact_forces(physics)}
        return observe_free_torso(physics) | own

    def reward(
        self, physics: Physics, before: Float[Tensor, "N 15"], action: Float[Tensor, "N 8"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """Terms `distance`, `control` and `contact`."""
        return {
            "distance": -(physics.bind("qpos")[:, :2] - tasks["goal"]).abs().sum(dim=1),
            "control": action.square().sum(dim=1).mul_(-0.1),
            "contact": self.contact_cost(physics),
        }


class AntGoalSparse(AntGoal):
    """Find an unknown place: r = 1 − |x − g| within 0.75 m of g, else −0.75; − 0.01 |a|² − 0.0005 Σ clip(c, −1, 1)².

    HyperX's definition (Zintgraf et al. 2021, arXiv:2010.01062), for exploration: g uniform in a disc of 3 m, 200
    steps, no early end; the distance is Euclidean, that of ant-goal is not.
    """

    radius = 0.75
    """Distance within which the goal is felt [m]."""

    def reward(
        self, physics: Physics, before: Float[Tensor, "N 15"], action: Float[Tensor, "N 8"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """Terms `goal`, `control` and `contact`."""
        distance = (physics.bind("qpos")[:, :2] - tasks["goal"]).norm(dim=1)
        return {
            "goal": torch.where(distance <= self.radius, 1.0 - distance, -self.radius),
            "control": action.square().sum(dim=1).mul_(-0.01),
            "contact": self.contact_cost(physics),
        }


class AntBody(AntRunner):
    """Run forward in an unknown body: ant-dir's reward and end with θ = 0, 200 steps; mass, friction and the like vary.

    Ours: no project of the field has it. The `ood` split lies beyond every range.
    """

    space = TaskSpace(
        BODY
        | {
            "strength": Parameter(
                LogUniform(0.5, 2.0), ood=Uniform(0.25, 0.5), unit="1", nominal=1.0, help="motor torque ratio"
            ),
        }
    )
    variations = (BodyMass("mass"), Friction("friction"), JointDamping("damping", JOINTS), MotorStrength("strength"))


class AntCrippled(AntRunner):
    """Run forward on three legs: ant-dir's reward and end with θ = 0, 200 steps; both joints of one leg without torque.

    The legs are those of GrBAL (Nagabandi et al. 2019): training breaks 0, 1 and 2, `ood` breaks 3. GrBAL also
    shrinks the dead leg, which we do not; it rewards v + 0.05, without an end before 1,000 steps.
    """

    space = TaskSpace(
        {
            "dead_leg": Parameter(
                Choice((0.0, 1.0, 2.0)),
                ood=Choice((3.0,)),
                unit="index",
                nominal=-1.0,
                help="leg without torque",
                labels=("front left", "front right", "back left", "back right"),
            )
        }
    )
    variations = (JointFault("dead_leg", LEGS),)
