"""Walker: a planar biped with a torso. Every mass, inertia, friction and damping differs.

Model: Gymnasium's `walker2d.xml`, timestep 0.002 s (Runge-Kutta), 4 substeps. Like the published one it has a friction
of 0.9 under the right foot and of 1.9 under the left; `walker2d_v5.xml` has 1.9 under both.

The observation (17) is of PEARL's lineage: `qpos[1:]`, and `qvel` clipped to [-10, 10].

Action (6), in [-1, 1]: torque of the joints in the order of their positions, times 100 N·m.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import mujoco
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from metarl.core.info import Part
from metarl.core.seeding import WorldRandom
from metarl.core.tasks import LogUniform, Parameter, Tasks, TaskSpace, Uniform
from metarl.envs.parts import GYMNASIUM_MODELS
from metarl.sim.family import MujocoFamily
from metarl.sim.mujoco.physics import Physics
from metarl.sim.variations import ModelField

JOINTS = ("thigh_joint", "leg_joint", "foot_joint", "thigh_left_joint", "leg_left_joint", "foot_left_joint")
MODELS = GYMNASIUM_MODELS


def all_numbers(num_bodies: int, num_geoms: int, num_dofs: int) -> TaskSpace:
    """One factor for every number: mass and inertia of bodies (the world first), friction of geoms, joint damping."""

    def factors(base: float, size: int, of: str, ood: Uniform | None = None) -> Parameter:
        return Parameter(LogUniform(base**-3, base**3, size), "1", ood, [1.0] * size, f"ratio of each number of {of}")

    slippery = Uniform(0.1, 0.25, 3 * num_geoms)
    return TaskSpace(
        {
            "mass": factors(1.5, num_bodies, "body_mass"),
            "inertia": factors(1.5, 3 * num_bodies, "body_inertia"),
            "friction": factors(1.5, 3 * num_geoms, "geom_friction", slippery),
            "damping": factors(1.3, num_dofs, "dof_damping"),
        }
    )


def planar_torso(joints: tuple[str, ...]) -> tuple[Part, ...]:
    """The observation of a robot that runs in a plane."""
    clipped = "clipped to [-10, 10]"
    return (
        Part("torso_height", 1, "m"),
        Part("torso_pitch", 1, "rad"),
        Part("joint_position", len(joints), "rad", joints),
        Part("torso_velocity", 2, "m/s", ("x", "z"), clipped),
        Part("pitch_rate", 1, "rad/s", help=clipped),
        Part("joint_velocity", len(joints), "rad/s", joints, clipped),
    )


class PlanarRunner(MujocoFamily):
    """What walker-params and hopper-params share: r = v + 1 − 0.001 |a|², and a body in which every number differs.

    PEARL's definition (Rakelly et al. 2019, from `rand_param_envs`), 200 steps, there on 40 fixed tasks (`--train-tasks
    40`), with 10 to test. Each number of `body_mass`, `body_inertia` and `geom_friction` is multiplied by its own
    1.5^U(−3, 3), of `dof_damping` by 1.3^U(−3, 3); some are zero and stay so. Ours is also the `ood` split: ground and
    robot more slippery than ever in training, every friction factor U(0.1, 0.25), and all else from the training
    ranges, beyond which a task would mostly be a body that cannot move. The published code kept the constraint solver's
    weights of the unmodified body.

    Standing still earns 1 per step: 200 of a good walker's return are for not falling.
    """

    reward_needs: ClassVar[Mapping[str, bool] | None] = {"the torso's forward velocity": False, "the action": True}
    variations = (
        ModelField("mass", "body_mass"),
        ModelField("inertia", "body_inertia"),
        ModelField("friction", "geom_friction"),
        ModelField("damping", "dof_damping"),
    )
    control_step = 0.008
    episode_steps = 200
    camera = "track"

    def reset(self, physics: Physics, worlds: Int64[Tensor, "n"], tasks: Tasks, random: WorldRandom) -> None:
        """Standing, with all positions and velocities + U(-0.005, 0.005)."""
        physics.bind("qpos")[worlds] += random.uniform(-0.005, 0.005, physics.model.nq)
        physics.bind("qvel")[worlds] += random.uniform(-0.005, 0.005, physics.model.nv)

    def observe(self, physics: Physics, tasks: Tasks) -> Mapping[str, Float[Tensor, "N size"]]:
        """The joints' state, without the place."""
        qpos, qvel = physics.bind("qpos"), physics.bind("qvel").clamp(-10.0, 10.0)
        return {
            "torso_height": qpos[:, 1:2],
            "torso_pitch": qpos[:, 2:3],
            "joint_position": qpos[:, 3:],
            "torso_velocity": qvel[:, :2],
            "pitch_rate": qvel[:, 2:3],
            "joint_velocity": qvel[:, 3:],
        }

    def reward(
        self, physics: Physics, before: Float[Tensor, "N Q"], action: Float[Tensor, "N A"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """Terms `forward`, `alive` and `control`; v is the torso's mean velocity over the step."""
        velocity = (physics.bind("qpos")[:, 0] - before[:, 0]) / self.control_step
        control = action.square().sum(dim=1).mul_(-1e-3)
        return {"forward": velocity, "alive": torch.ones_like(velocity), "control": control}


class WalkerParams(PlanarRunner):
    """Walk in a body of which 65 numbers differ: see `PlanarRunner`. Over when it falls.

    That is when the torso leaves (0.8, 2) m or leans by 1 rad.
    """

    space = all_numbers(num_bodies=8, num_geoms=8, num_dofs=9)
    observation = planar_torso(JOINTS)

    def spec(self) -> mujoco.MjSpec:
        """Gymnasium's model, unchanged."""
        return mujoco.MjSpec.from_file(str(MODELS / "walker2d.xml"))

    def terminated(self, physics: Physics, tasks: Tasks) -> Bool[Tensor, "N"]:
        """See the class."""
        qpos = physics.bind("qpos")
        height, pitch = qpos[:, 1], qpos[:, 2]
        return (height <= 0.8) | (height >= 2.0) | (pitch.abs() >= 1.0)
