"""Hopper: a planar robot on one leg. Every mass, inertia, friction and damping differs.

Model: Gymnasium's `hopper.xml`, timestep 0.002 s (Runge-Kutta), 4 substeps.

Observation (11), PEARL's lineage (`qpos[1:]`, `qvel` clipped to [-10, 10]):

| index | element | joint | unit |
|---|---|---|---|
| 0 | height of the torso | rootz | m |
| 1 | pitch of the torso | rooty | rad |
| 2-4 | thigh, leg, foot | thigh_joint, leg_joint, foot_joint | rad |
| 5, 6 | forward and vertical velocity | rootx, rootz | m/s |
| 7 | pitch rate | rooty | rad/s |
| 8-10 | joint velocities, in the order of 2-4 | | rad/s |

Action (3), in [-1, 1]: torque of the joints 2-4, times 200 N·m.
"""

from __future__ import annotations

import mujoco
import torch
from jaxtyping import Bool
from torch import Tensor

from metarl.core.tasks import Tasks
from metarl.envs.walker import MODELS, PlanarRunner, all_numbers
from metarl.sim.mujoco.physics import Physics


class HopperParams(PlanarRunner):
    """Hop in a body of which 41 numbers differ: see `PlanarRunner`. Over when it falls.

    That is when the torso sinks to 0.7 m, leans by 0.2 rad, or any position or velocity but the first two (`rootx`,
    `rootz`) reaches ±100.
    """

    space = all_numbers(num_bodies=5, num_geoms=5, num_dofs=6)

    def spec(self) -> mujoco.MjSpec:
        """Gymnasium's model, unchanged."""
        return mujoco.MjSpec.from_file(str(MODELS / "hopper.xml"))

    def terminated(self, physics: Physics, tasks: Tasks) -> Bool[Tensor, "N"]:
        """See the class."""
        qpos, qvel = physics.bind("qpos"), physics.bind("qvel")
        height, pitch = qpos[:, 1], qpos[:, 2]
        largest = torch.cat((qpos[:, 2:], qvel), dim=1).abs().amax(dim=1)
        return (height <= 0.7) | (pitch.abs() >= 0.2) | (largest >= 100.0)
