"""What several families share: bodies that differ, a torso's observation, marks for tasks, cameras, a force sensor."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.core.info import Part
from metarl.core.tasks import LogUniform, Parameter, Tasks, Uniform
from metarl.sim.mujoco.physics import Physics
from metarl.sim.variations import object_id

_GYMNASIUM = importlib.util.find_spec("gymnasium")
GYMNASIUM_MODELS = Path(str(_GYMNASIUM and _GYMNASIUM.origin)).parent / "envs" / "mujoco" / "assets"
"""The robots that come with Gymnasium, found without importing it, which takes long."""
BODY = {
    "mass": Parameter(LogUniform(0.5, 2.0), ood=Uniform(2.0, 3.0), unit="1", nominal=1.0, help="mass, ratio"),
    "friction": Parameter(LogUniform(0.5, 2.0), ood=Uniform(0.25, 0.5), unit="1", nominal=1.0, help="friction, ratio"),
    "damping": Parameter(
        LogUniform(0.5, 2.0), ood=Uniform(2.0, 3.0), unit="1", nominal=1.0, help="joint damping ratio"
    ),
}
"""Task parameters of a body that differs as a whole."""
MARK = "goal"
"""Name of the site that shows the task."""
_GREEN = (0.1, 0.75, 0.25, 0.6)
_LANE = 200.0  # [m]: no robot runs further in an episode
_THIN = 0.01  # [m]
_SCENE = 8.0  # [m]


def free_torso(joints: tuple[str, ...]) -> tuple[Part, ...]:
    """The observation of a torso that moves freely, without its place, and of the joints that follow it."""
    return (
        Part("torso_height", 1, "m"),
        Part("torso_orientation", 4, "1", ("w", "x", "y", "z"), "a quaternion"),
        Part("joint_position", len(joints), "rad", joints),
        Part("torso_velocity", 3, "m/s", ("x", "y", "z"), "in the world"),
        Part("gyro", 3, "rad/s", ("x", "y", "z"), "angular velocity about the torso's own axes"),
        Part("joint_velocity", len(joints), "rad/s", joints),
    )


def observe_free_torso(physics: Physics) -> dict[str, Float[Tensor, "N size"]]:
    """Return the parts that `free_torso` observes."""
    qpos, qvel = physics.bind("qpos"), physics.bind("qvel")
    _, height, orientation, joint_position = qpos.split_with_sizes((2, 1, 4, qpos.shape[1] - 7), dim=1)
    velocity, gyro, joint_velocity = qvel.split_with_sizes((3, 3, qvel.shape[1] - 6), dim=1)
    return {
        "torso_height": height,
        "torso_orientation": orientation,
        "joint_position": joint_position,
        "torso_velocity": velocity,
        "gyro": gyro,
        "joint_velocity": joint_velocity,
    }


def add_goal(spec: mujoco.MjSpec, radius: float, body: str = "world") -> None:
    """A green disc on the ground at the origin of a body, for `SitePosition` to place. Sites touch nothing."""
    _add_mark(spec, body, mujoco.mjtGeom.mjGEOM_CYLINDER, (radius, _THIN, 0.0), (0.0, 0.0, _THIN))


def add_lane(spec: mujoco.MjSpec, half_width: float, body: str = "world") -> None:
    """A green lane on the ground, from the origin of a body along x, for `SiteHeading` to turn. Sites touch nothing."""
    spec.stat.extent, spec.stat.center = _SCENE, (0.0, 0.0, 0.0)  # else shadows are drawn as coarse as the lane is long
    size = (_LANE / 2, half_width, _THIN)
    _add_mark(spec, body, mujoco.mjtGeom.mjGEOM_BOX, size, (_LANE / 2, 0.0, _THIN))


def _add_mark(
    spec: mujoco.MjSpec, body: str, kind: mujoco.mjtGeom, size: tuple[float, ...], position: tuple[float, ...]
) -> None:
    spec.body(body).add_site(name=MARK, type=kind, size=size, pos=position, rgba=_GREEN)


def add_camera(spec: mujoco.MjSpec, body: str, name: str, distance: float, height: float) -> None:
    """A camera that looks along y and down at a body, and moves with it; at the origin for the body `world`."""
    follow = mujoco.mjtCamLight.mjCAMLIGHT_FIXED if body == "world" else mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM
    tilt = math.atan2(distance, height) / 2  # half the turn about x from straight down
    quat = (math.cos(tilt), math.sin(tilt), 0.0, 0.0)
    spec.body(body).add_camera(name=name, mode=follow, pos=(0.0, -distance, height), quat=quat)


def add_force_sensor(spec: mujoco.MjSpec, body: str) -> None:
    """A force sensor nobody reads: with it MuJoCo computes `cfrc_ext` in every step, as MuJoCo 1.5 did without.

    Later versions compute it for sensors only, so the field's code saw zeros with them (see VariBAD's README).
    """
    spec.body(body).add_site(name=body, rgba=(0.0, 0.0, 0.0, 0.0))
    spec.add_sensor(type=mujoco.mjtSensor.mjSENS_FORCE, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=body)


@dataclass(frozen=True)
class SiteHeading:
    """Heading of a site about its body's z axis: a `Variation` that shows a direction in pictures, and touches nothing.

    The site's height stays; at heading 0 it lies on the body's x axis, and is not turned.
    """

    parameter: str
    """The task parameter: a heading [rad]."""
    site: str
    distance: float
    """Distance of the site from the body's origin, along the heading [m]."""
    fields: tuple[str, ...] = ("site_pos", "site_quat")

    @property
    def parameters(self) -> tuple[str, ...]:
        """It alone."""
        return (self.parameter,)

    def apply(self, model: mujoco.MjModel, live: Mapping[str, Tensor], tasks: Tasks) -> None:
        """See `Variation.apply`."""
        site, angle = object_id(model, "site", self.site), tasks[self.parameter]
        nil = torch.zeros_like(angle)
        live["site_pos"][:, site, :2] = self.distance * torch.stack((angle.cos(), angle.sin()), dim=1)
        live["site_quat"][:, site] = torch.stack(((angle / 2).cos(), nil, nil, (angle / 2).sin()), dim=1)


def show_heading(parameter: str) -> SiteHeading:
    """Lay the lane of `add_lane` in the direction of a task parameter."""
    return SiteHeading(parameter, MARK, _LANE / 2)
