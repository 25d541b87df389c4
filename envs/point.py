"""Point: a disc that steps about the plane. Goals anywhere in a square, and goals found by their reward alone.

Model: our own; one physics step of 0.1 s per control step.

Action (2), in [-1, 1]: displacement along x and y, times 0.1 m.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import mujoco
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metarl.core.info import Part
from metarl.core.seeding import WorldRandom
from metarl.core.tasks import Angle, Disc, Parameter, Tasks, TaskSpace, Uniform
from metarl.envs.parts import MARK, SiteHeading, add_goal
from metarl.sim.family import MujocoFamily, Wanted
from metarl.sim.mujoco.physics import Physics
from metarl.sim.variations import SitePosition

# Gain = mass / timestep: a step turns whatever velocity there was into the wanted one, exactly, and so moves by 0.1 a.
MODEL = """<mujoco model="point">
  <statistic extent="4" center="0 0 0"/>
  <option timestep="0.1" gravity="0 0 0" integrator="Euler"/>
  <asset>
    <texture name="grid" type="2d" builtin="checker" mark="edge" width="256" height="256"
             rgb1="0.05 0.1 0.16" rgb2="0 0.05 0.1" markrgb="0.2 0.26 0.34"/>
    <material name="grid" texture="grid" texrepeat="4 4" reflectance="0"/>
  </asset>
  <worldbody>
    <light pos="0 0 3" dir="0 0 -1" directional="true" diffuse="0.4 0.4 0.4" specular="0 0 0" castshadow="false"/>
    <camera name="top" pos="0 0.3 5.1" fovy="45"/>
    <geom name="floor" type="plane" size="2 2 0.1" material="grid" contype="0" conaffinity="0"/>
    <site name="square" type="box" size="1 1 0.001" rgba="1 1 1 0.15"/>
    <body name="robot">
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
      <geom name="robot" type="cylinder" size="0.1 0.04" pos="0 0 0.05" mass="1" rgba="1 0.6 0.1 1"
            contype="0" conaffinity="0"/>
    </body>
  </worldbody>
  <actuator>
    <velocity name="x" joint="x" kv="10" ctrlrange="-1 1"/>
    <velocity name="y" joint="y" kv="10" ctrlrange="-1 1"/>
  </actuator>
</mujoco>"""


class Point(MujocoFamily):
    """What the point families share: a disc that moves by 0.1 a in each step, and never meets anything."""

    control_step = 0.1
    episode_steps = 20
    camera = "top"
    reward_needs: ClassVar[Mapping[str, bool] | None] = {"the distance to the goal": False}
    observation = (Part("position", 2, "m", ("x", "y")),)

    def spec(self) -> mujoco.MjSpec:
        """Our own model, with a disc that shows the goal."""
        spec = mujoco.MjSpec.from_string(MODEL)
        add_goal(spec, radius=0.14)
        return spec

    def observe(self, physics: Physics, tasks: Tasks) -> Mapping[str, Float[Tensor, "N size"]]:
        """Return where the disc is."""
        return {"position": physics.bind("qpos")}


class PointGoal(Point):
    """Go to an unknown place: r = −|x − g|, g uniform in the square [−1, 1]².

    PEARL's definition (Rakelly et al. 2019), 20 steps, 80 fixed tasks to train on (`--train-tasks 80`) and 20 to test,
    from a start that is uniform in the square too. The `ood` goals lie around the square, 1.5 to 1.75 m from its
    centre.
    """

    space = TaskSpace(
        {
            "goal": Parameter(
                Uniform(-1.0, 1.0, 2), ood=Disc(1.75, inner=1.5), unit="m", nominal=[0.0, 0.0], help="place to go to"
            )
        }
    )
    variations = (SitePosition("goal", MARK),)

    def reset(self, physics: Physics, worlds: Int64[Tensor, "n"], tasks: Tasks, random: WorldRandom) -> None:
        """Anywhere in the square."""
        physics.bind("qpos")[worlds] = random.uniform(-1.0, 1.0, 2)

    def reward(
        self, physics: Physics, before: Float[Tensor, "N 2"], action: Float[Tensor, "N 2"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """Term `distance`."""
        return {"distance": -(physics.bind("qpos") - tasks["goal"]).norm(dim=1)}


class PointGoalSparse(Point):
    """Find a place on the unit semicircle: r = 1 − |x − g| within 0.2 m of g, else 0; g = (cos θ, sin θ), θ ~ U(0, π).

    PEARL's (Rakelly et al. 2019), 20 steps, 80 fixed tasks to train on (`--train-tasks 80`) and 20 to test. There the
    encoder alone sees these rewards, and the policy is trained on the dense −|x − g|; here both see the sparse ones.
    VariBAD runs 100 steps. The `ood` goals lie on the other half.
    """

    space = TaskSpace(
        {
            "angle": Parameter(
                Angle(0.0, math.pi), ood=Angle(math.pi, 2.0 * math.pi), unit="rad", nominal=0.0, help="of the goal"
            )
        }
    )
    variations = (SiteHeading("angle", MARK, distance=1.0),)
    radius = 0.2
    """Distance within which the goal is felt [m]."""

    def spec(self) -> mujoco.MjSpec:
        """The goal's disc at the first of the tasks."""
        spec = super().spec()
        mark = spec.site(MARK)
        mark.pos[0], mark.size[0] = 1.0, self.radius
        return spec

    def reset(self, physics: Physics, worlds: Int64[Tensor, "n"], tasks: Tasks, random: WorldRandom) -> None:
        """Within a millimetre of the origin, where PEARL's starts exactly: no two episodes are the same."""
        physics.bind("qpos")[worlds] = random.uniform(-0.001, 0.001, 2)

    def reward(
        self, physics: Physics, before: Float[Tensor, "N 2"], action: Float[Tensor, "N 2"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """Term `goal`."""
        angle = tasks["angle"]
        goal = torch.stack((angle.cos(), angle.sin()), dim=1)
        distance = (physics.bind("qpos") - goal).norm(dim=1)
        return {"goal": torch.where(distance <= self.radius, 1.0 - distance, 0.0)}


class PointWind(Point):
    """Reach a known place in an unknown wind: r = 1 within 0.03 m of (0, 1), else 0; a step moves by 0.1 a + w.

    As in pomdp-baselines (Ni et al. 2022, arXiv:2110.05038): w uniform in [−0.08, 0.08]² m, 75 steps, 40 fixed tasks to
    train on (`--train-tasks 40`) and 20 to test. The `ood` winds are stronger, yet none is too strong to stand against.
    """

    space = TaskSpace(
        {
            "wind": Parameter(
                Uniform(-0.08, 0.08, 2), ood=Uniform(0.08, 0.09, 2), unit="m", nominal=[0.0, 0.0], help="drift per step"
            )
        }
    )
    episode_steps = 75
    radius = 0.03
    """Distance within which the goal is felt [m]."""

    def spec(self) -> mujoco.MjSpec:
        """The goal's disc at the goal."""
        spec = super().spec()
        spec.site(MARK).pos[1] = 1.0
        return spec

    def reset(self, physics: Physics, worlds: Int64[Tensor, "n"], tasks: Tasks, random: WorldRandom) -> None:
        """Within a millimetre of the origin: no two episodes are the same."""
        physics.bind("qpos")[worlds] = random.uniform(-0.001, 0.001, 2)

    def advance(self, physics: Physics, tasks: Tasks) -> None:
        """The wind."""
        physics.bind("qpos").add_(tasks["wind"])

    def wanted(self, physics: Physics, tasks: Tasks) -> Wanted:
        """No velocity; the wind is drawn."""
        wind = tasks["wind"] / self.control_step
        return Wanted(torch.zeros_like(wind), wind=wind)

    def reward(
        self, physics: Physics, before: Float[Tensor, "N 2"], action: Float[Tensor, "N 2"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """Term `goal`."""
        x, y = physics.bind("qpos").unbind(dim=1)
        return {"goal": (torch.hypot(x, y - 1.0) <= self.radius).to(x.dtype)}
