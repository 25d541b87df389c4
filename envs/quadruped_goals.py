"""Quadrupeds that are to go somewhere, and are not told where: reward alone tells. See quadruped.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.core.info import Part
from metarl.core.mirror import signed
from metarl.core.tasks import Angle, Disc, Parameter, Tasks, TaskSpace
from metarl.envs.parts import MARK, add_camera, add_goal, add_lane, show_heading
from metarl.envs.quadruped import PROPRIOCEPTION, SYMMETRY, Quadruped
from metarl.sim.family import Wanted
from metarl.sim.mujoco.physics import Physics
from metarl.sim.variations import SitePosition

HEADING = Part("heading", 2, "1", ("cos", "sin"), "of the trunk, seen from above")
_MARK_BODY = "mark"
"""The site that shows the task has a body of its own, behind all others: those of the feet are the first four."""


class _Bound(Quadruped):
    """Somewhere to go in the world instead of a command."""

    episode_steps = 300
    reward_needs: ClassVar[Mapping[str, bool]] = {**Quadruped.reward_needs, "its heading": True}
    observation: ClassVar[tuple[Part, ...]] = (*PROPRIOCEPTION, HEADING)

    def spec(self) -> mujoco.MjSpec:
        """With a body for the mark."""
        spec = super().spec()
        spec.worldbody.add_body(name=_MARK_BODY)
        return spec

    def observe(self, physics: Physics, tasks: Tasks) -> Mapping[str, Float[Tensor, "N size"]]:
        """What the robot feels of itself, and where it looks."""
        w, x, y, z = physics.bind("qpos")[:, 3:7].unbind(dim=1)
        yaw = torch.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y.square() + z.square()))
        return {**self.proprioception(physics), "heading": torch.stack((yaw.cos(), yaw.sin()), dim=1)}

    def reward(
        self, physics: Physics, before: Float[Tensor, "N 40"], action: Float[Tensor, "N 12"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """`goal` stands for the terms that reward a command."""
        terms = super().reward(physics, before, action, tasks)
        costs = {name: term for name, term in terms.items() if name not in ("velocity", "turn")}
        return {"goal": self.nearness(physics, tasks), **costs}

    def wanted(self, physics: Physics, tasks: Tasks) -> Wanted | None:
        """No command: the mark on the ground is drawn."""
        return None

    def nearness(self, physics: Physics, tasks: Tasks) -> Float[Tensor, "N"]:
        """Of what is wanted: 3 where it is reached."""
        raise NotImplementedError


class QuadrupedDirection(_Bound):
    """Walk at 0.6 m/s in a direction of the world that is not told, anywhere on the circle (44 elements).

    Its reward is 3 / (1 + |v - v*|² / 0.25) of the horizontal velocity, and the costs of every quadruped. The robot
    starts facing along x, and may turn, or walk sideways. No `ood` split: the circle is all there is.
    """

    space = TaskSpace({"direction": Parameter(Angle(), unit="rad", nominal=0.0, help="to walk in")})
    variations = (show_heading("direction"),)
    mirror = replace(
        SYMMETRY, parts={**SYMMETRY.parts, "heading": signed(1, -1)}, parameters={"direction": signed(1, -1)}
    )
    speed: ClassVar[float] = 0.6
    """Wanted velocity [m/s]."""

    def spec(self) -> mujoco.MjSpec:
        """With a lane that shows the direction."""
        spec = super().spec()
        add_lane(spec, half_width=0.25, body=_MARK_BODY)
        return spec

    def wanted(self, physics: Physics, tasks: Tasks) -> Wanted:
        """Its velocity."""
        angle = tasks["direction"]
        return Wanted(torch.stack((angle.cos(), angle.sin()), dim=1), torch.full_like(angle, self.speed))

    def nearness(self, physics: Physics, tasks: Tasks) -> Float[Tensor, "N"]:
        """Of the velocity wanted."""
        error = physics.bind("qvel")[:, :2] - self.speed * self.wanted(physics, tasks).direction
        return 3.0 / (1.0 + 4.0 * error.square().sum(dim=1))


class QuadrupedGoal(_Bound):
    """Go to a place up to 2 m away that is not told, and stay there (46 elements).

    Its reward is 3 / (1 + |x - g|² / 0.25) of the place, and the costs of every quadruped.
    """

    space = TaskSpace(
        {
            "goal": Parameter(
                Disc(2.0), ood=Disc(3.0, inner=2.0), unit="m", nominal=[0.0, 0.0], help="place to go to", graded=True
            )
        }
    )
    variations = (SitePosition("goal", MARK),)
    mirror = replace(
        SYMMETRY,
        parts={**SYMMETRY.parts, "heading": signed(1, -1), "position": signed(1, -1)},
        parameters={"goal": signed(1, -1)},
    )
    camera = "overview"
    # Its place is among what it observes.
    reward_needs: ClassVar[Mapping[str, bool]] = {**Quadruped.reward_needs, "its place": True}
    observation = (*_Bound.observation, Part("position", 2, "m", ("x", "y"), "of the trunk, from the start"))

    def spec(self) -> mujoco.MjSpec:
        """With a disc that shows the goal, and a camera that sees all goals."""
        spec = super().spec()
        add_camera(spec, "world", "overview", distance=4.5, height=4.0)
        add_goal(spec, radius=0.2, body=_MARK_BODY)
        return spec

    def observe(self, physics: Physics, tasks: Tasks) -> Mapping[str, Float[Tensor, "N size"]]:
        """With the place."""
        return {**super().observe(physics, tasks), "position": physics.bind("qpos")[:, :2]}

    def nearness(self, physics: Physics, tasks: Tasks) -> Float[Tensor, "N"]:
        """Of the place."""
        error = physics.bind("qpos")[:, :2] - tasks["goal"]
        return 3.0 / (1.0 + 4.0 * error.square().sum(dim=1))
