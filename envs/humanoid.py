"""Humanoid: two legs, two arms and a waist, 17 motors. Directions.

Model: Gymnasium's `humanoid.xml` (after Tassa et al. 2012), timestep 0.003 s (Runge-Kutta), 5 substeps.

The observation (376) is Gym's of version 2: `qpos[2:]`, `qvel`, `cinert`, `cvel`, `qfrc_actuator`, `cfrc_ext`. What is
told of each body begins with the world.

Action (17), in [-1, 1]: torque of abdomen_y, _z, _x, right_hip_x, _z, _y, right_knee, left_hip_x, _z, _y, left_knee,
right_shoulder1, _2, right_elbow, left_shoulder1, _2, left_elbow; ±1 is a control of ±0.4, scaled by the motors' gears
100, 100, 100, 100, 100, 300, 200, 100, 100, 300, 200, 25, 25, 25, 25, 25, 25 N·m.
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
from metarl.core.tasks import Angle, Parameter, Tasks, TaskSpace
from metarl.envs.parts import (
    GYMNASIUM_MODELS,
    add_camera,
    add_force_sensor,
    add_lane,
    free_torso,
    observe_free_torso,
    show_heading,
)
from metarl.sim.family import MujocoFamily, model_constant
from metarl.sim.mujoco.physics import Physics

MODEL = GYMNASIUM_MODELS / "humanoid.xml"
TIMESTEP = 0.003  # [s]
JOINTS = (
    *("abdomen_z", "abdomen_y", "abdomen_x"),
    *("right_hip_x", "right_hip_z", "right_hip_y", "right_knee", "left_hip_x", "left_hip_z", "left_hip_y", "left_knee"),
    *("right_shoulder1", "right_shoulder2", "right_elbow", "left_shoulder1", "left_shoulder2", "left_elbow"),
)
DERIVED = {
    "body_inertia": "cinert",
    "body_velocity": "cvel",
    "motor_force": "qfrc_actuator",
    "contact_force": "cfrc_ext",
}


class HumanoidDir(MujocoFamily):
    """Run in an unknown direction: r = 0.25 Δx·(cos θ, sin θ) / 0.003 s − 0.1 |u|² − min(5e-7 |c|², 10) + 5, any θ.

    Δx is how far the centre of mass moved in the step of 0.015 s, so that 1 m/s is worth 1.25; u are the controls, up
    to ±0.4; c the contact torques and forces of all bodies. Over when the torso leaves [1, 2] m; no `ood` split.

    PEARL's definition (Rakelly et al. 2019), 200 steps, there on 100 fixed tasks (`--train-tasks 100`), with 30 to
    test. As published, what MuJoCo derives (centre of mass, observations from 45) is a substep old. VariBAD's control
    cost is that of actions in [-1, 1]. With MuJoCo 2 the field's code saw no contacts (see `add_force_sensor`).
    """

    space = TaskSpace({"direction": Parameter(Angle(), unit="rad", nominal=0.0, help="heading to run")})
    variations = (show_heading("direction"),)
    control_step = 5 * TIMESTEP
    episode_steps = 200
    reward_needs: ClassVar[Mapping[str, bool] | None] = {
        "velocity of the centre of mass": False,
        "contact forces": False,
        "the action": True,
    }
    camera = "above"
    observation = (
        *free_torso(JOINTS),
        Part(
            "body_inertia",
            140,
            "kg·m², kg·m, kg",
            help="inertia (6), mass times place (3) and mass of each body, about the centre of mass",
        ),
        Part("body_velocity", 84, "rad/s, m/s", help="angular (3) and linear velocity (3) of each body"),
        Part("motor_force", 23, "N, N·m", help="on the torso's six degrees of freedom, then on the joints"),
        Part("contact_force", 84, "N·m, N", help="torque (3) and force (3) on each body"),
    )
    constant_observations = (*range(45, 55), *range(64, 185, 10), *range(185, 191), *range(269, 275), *range(292, 298))
    """Those of the world, masses, and motor forces of the root, which has no motor."""

    def spec(self) -> mujoco.MjSpec:
        """Gymnasium's model, with a sensor that makes MuJoCo compute contact forces, a lane and a camera."""
        spec = mujoco.MjSpec.from_file(str(MODEL))
        add_force_sensor(spec, "torso")
        add_lane(spec, half_width=0.4)
        add_camera(spec, "torso", "above", distance=4.0, height=1.5)
        return spec

    def reset(self, physics: Physics, worlds: Int64[Tensor, "n"], tasks: Tasks, random: WorldRandom) -> None:
        """Standing, with all positions and velocities + U(-0.01, 0.01)."""
        physics.bind("qpos")[worlds] += random.uniform(-0.01, 0.01, 24)
        physics.bind("qvel")[worlds] += random.uniform(-0.01, 0.01, 23)

    def observe(self, physics: Physics, tasks: Tasks) -> Mapping[str, Float[Tensor, "N size"]]:
        """The joints' state without the place, and what MuJoCo derives of the bodies."""
        derived = {part: physics.bind(field, fresh=False).flatten(1) for part, field in DERIVED.items()}
        return observe_free_torso(physics) | derived

    def snapshot(self, physics: Physics) -> Float[Tensor, "N 2"]:
        """Horizontal place of the centre of mass [m]."""
        place = physics.bind("xipos", fresh=False)
        mass = model_constant(physics.model, "body_mass", place)
        return mass @ place[:, :, :2] / mass.sum()

    def reward(
        self, physics: Physics, before: Float[Tensor, "N 2"], action: Float[Tensor, "N 17"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """Terms `progress`, `control`, `impact` and `alive`."""
        moved, angle = self.snapshot(physics) - before, tasks["direction"]
        progress = moved[:, 0] * angle.cos() + moved[:, 1] * angle.sin()
        impact = physics.bind("cfrc_ext", fresh=False).flatten(1).square().sum(dim=1)
        return {
            "progress": progress * (0.25 / TIMESTEP),
            "control": physics.bind("ctrl").square().sum(dim=1).mul_(-0.1),
            "impact": -(0.5e-6 * impact).clamp(max=10.0),
            "alive": torch.full_like(progress, 5.0),
        }

    def terminated(self, physics: Physics, tasks: Tasks) -> Bool[Tensor, "N"]:
        """The torso is lower than 1 m or higher than 2 m."""
        height = physics.bind("qpos")[:, 2]
        return (height < 1.0) | (height > 2.0)
