"""Hopper: a planar robot on one leg. Every mass, inertia, friction and damping differs.

Model: Gymnasium's `hopper.xml`, timestep 0.002 s (Runge-Kutta), 4 substeps.

The observation (11) is of PEARL's lineage: `qpos[1:]`, and `qvel` clipped to [-10, 10].

Action (3), in [-1, 1]: torque of the thigh, leg and foot joint, times 200 N·m.
"""

from __future__ import annotations

import mujoco
import torch
from jaxtyping import Bool
from torch import Tensor

from metarl.core.tasks import Tasks
from metarl.envs.walker import JOINTS, MODELS, PlanarRunner, all_numbers, planar_torso
from metarl.sim.mujoco.physics import Physics


class HopperParams(PlanarRunner):
    """Hop in a body of which 41 numbers differ: see `PlanarRunner`. Over when it falls.

    That is when the torso sinks to 0.7 m, leans by 0.2 rad, or any position or velocity but the first two (`rootx`,
    `rootz`) reaches ±100.
    """

    space = all_numbers(num_bodies=5, num_geoms=5, num_dofs=6)
    observation = planar_torso(JOINTS[:3])

    def spec(self) -> mujoco.MjSpec:
        """Gymnasium's model, unchanged."""
        return mujoco.MjSpec.from_file(str(MODELS / "hopper.xml"))

    def terminated(self, physics: Physics, tasks: Tasks) -> Bool[Tensor, "N"]:
        """See the class."""
        qpos, qvel = physics.bind("qpos"), physics.bind("qvel")
        height, pitch = qpos[:, 1], qpos[:, 2]
        largest = torch.cat((qpos[:, 2:], qvel), dim=1).abs().amax(dim=1)
        return (height <= 0.7) | (pitch.abs() >= 0.2) | (largest >= 100.0)
