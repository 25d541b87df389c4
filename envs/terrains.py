"""The half-cheetah and the ant over unknown ground. Observations and actions: see half_cheetah.py and ant.py.

Ours. GrBAL (Nagabandi et al. 2019) runs its half-cheetah over one height field per task; here a task is a kind of
ground, a difficulty in [0, 1] and the strip of it the robot starts on. `ood` grounds are harder than any trained on.
"""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.core.tasks import Tasks
from metarl.envs.ant import AntRunner
from metarl.envs.half_cheetah import HalfCheetah, control_cost
from metarl.sim.mujoco.physics import Physics
from metarl.sim.terrain import TerrainChoice, Tile

KINDS = ("slope-up", "slope-down", "rough", "stairs-up", "stairs-down", "blocks", "waves")
DIFFICULTIES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)


class HalfCheetahTerrain(HalfCheetah):
    """Run forward over unknown ground: r = v − 0.05 |a|², 200 steps. Stairs of 24 cm at difficulty 1, slopes of 24°."""

    ground = TerrainChoice(
        KINDS,
        DIFFICULTIES,
        Tile(length=135.0, width=3.0, cell=0.075, start=15.0, flat=1.05, scale=1.5),
        "floor",
        side=1.0,
    )
    space = ground.space(hardest=0.5)
    variations = (ground,)

    def spec(self) -> mujoco.MjSpec:
        """Gymnasium's model on height fields."""
        spec = super().spec()
        self.ground.add_to(spec)
        return spec

    def reward(
        self, physics: Physics, before: Float[Tensor, "N 9"], action: Float[Tensor, "N 6"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """Terms `forward` and `control`."""
        return {"forward": self.forward_velocity(physics, before), "control": control_cost(action)}


class AntTerrain(AntRunner):
    """Run forward over unknown ground: ant-dir's reward with θ = 0, 200 steps. Stairs of 24 cm at difficulty 1.

    Its end, a torso that leaves [0.2, 1.0] m, counts from the ground beneath.
    """

    ground = TerrainChoice(
        KINDS,
        DIFFICULTIES,
        Tile(length=70.05, width=24.0, cell=0.15, start=10.05, flat=1.05, scale=1.5),
        "floor",
        side=4.0,
    )
    space = ground.space(hardest=0.5)
    variations = (ground,)

    def spec(self) -> mujoco.MjSpec:
        """Gymnasium's model on height fields."""
        spec = super().spec()
        self.ground.add_to(spec)
        return spec

    def terminated(self, physics: Physics, tasks: Tasks) -> Bool[Tensor, "N"]:
        """The torso is lower than 0.2 m or higher than 1 m above the ground."""
        qpos = physics.bind("qpos")
        height = qpos[:, 2] - self.ground.height(tasks, qpos[:, :2])
        return (height < 0.2) | (height > 1.0)
