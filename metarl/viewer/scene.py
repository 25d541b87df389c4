"""The worlds in a browser: every shape of the robots and what they stand on, side by side where there are several."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import mujoco
import numpy as np
import trimesh
import viser
from jaxtyping import Float, UInt8
from mjviser.conversions import create_site_mesh, group_geoms_by_visual_compat, merge_geoms
from viser.transforms import SO3

from metarl.sim.mujoco.marks import ground_color, marks_of, tinted
from metarl.sim.mujoco.physics import Physics

_LOOKS: tuple[str, ...] = (
    "geom_size",
    "geom_pos",
    "geom_quat",
    "geom_dataid",
    "geom_rgba",
    "geom_friction",
    "site_size",
    "site_rgba",
)
_LOOKS += ("actuator_gainprm", "dof_frictionloss", "body_mass")
"""Fields of a model that change how it is drawn."""
_SHOWN = 3  # MuJoCo's groups from here on are not shown, as in its own viewer: they are shapes for collisions
_PLANE = int(mujoco.mjtGeom.mjGEOM_PLANE)
_GROUND = (236, 239, 242)
_LOAD, _GREY = np.array([176, 128, 72], np.uint8), np.array([150, 150, 155], np.uint8)
_ARROWS = {"wanted": (46, 160, 67), "actual": (60, 120, 216), "push": (230, 110, 30)}
_GRAVITY = 9.81
_FAR = 4.6  # radii of a robot between it and a camera
FOV = 0.7
"""Vertical angle of view [rad]."""


class _Shape(NamedTuple):
    """Instances of one shape, each at a body or site of a world."""

    handle: Any
    kind: str
    """`x` or `site_x`: what MuJoCo's fields of poses begin with."""
    worlds: np.ndarray
    numbers: np.ndarray


class Scene:
    """Draws worlds on a server. One thread calls all of it."""

    def __init__(self, server: viser.ViserServer, physics: Physics, root: int, plain: bool = False) -> None:
        """`root` is the body that is followed; a `plain` scene has no shadows."""
        self.server, self._physics, self._root = server, physics, root
        self.follow = True
        """Robots stay in their places before the camera, and the ground moves below the one in focus."""
        self.focus = 0
        """The world in focus."""
        self._shapes: list[_Shape] = []
        self._looks = b""
        self._built, n = physics.model, physics.num_worlds
        self.size, height = _size(self._built, root)
        """Radius of a robot [m]."""
        self.look_at = np.array([0.0, 0.0, 0.85 * height])
        fields = self._built.hfield_size[:, 1]
        gap = max([4.0 * self.size, *(2.1 * fields)])
        columns = math.ceil(math.sqrt(n))
        row, column = np.divmod(np.arange(n), columns)
        self._offset = np.stack((row * gap, -column * gap, 0.0 * row), axis=1)
        self._offset -= self._offset.mean(axis=0)
        self.extent = self.size + gap * (columns - 1) / 2
        """Half width of all worlds [m]."""
        self._dress(plain)
        self._arrows = {
            name: server.scene.add_arrows(
                f"/{name}",
                np.zeros((n, 2, 3)),
                color,
                shaft_radius=0.03 * self.size,
                head_radius=0.08 * self.size,
                head_length=0.2 * self.size,
                visible=False,
            )
            for name, color in _ARROWS.items()
        }
        self.refresh()

    def _dress(self, plain: bool) -> None:
        """Light and ground. A software renderer takes 0.2 s for the shadows of one frame, and 0.02 s for all else."""
        scene, model = self.server.scene, self._built
        scene.set_up_direction("+z")
        scene.configure_default_lights(enabled=True, cast_shadow=not plain)
        if not plain:
            scene.configure_environment_map(environment_intensity=0.6)
        planes = [i for i in range(model.ngeom) if model.geom_type[i] == _PLANE and model.geom_bodyid[i] == 0]
        cell = 0.25 * 2.0 ** round(math.log2(2.0 * self.size))
        self._height = float(model.geom_pos[planes[0], 2]) if planes else 0.0
        self._ground = scene.add_grid(
            "/ground",
            infinite_grid=True,
            cell_size=cell,
            section_size=4.0 * cell,
            cell_color=(208, 213, 219),
            section_color=(188, 196, 205),
            section_thickness=1.2,
            plane_color=_GROUND,
            plane_opacity=1.0,
            shadow_opacity=0.3,
            fade_distance=60.0 * self.size,
            visible=bool(planes),
        )

    # ------------------------------------------------------------------------------------------------------- shapes

    def refresh(self) -> None:
        """Take in how the worlds' models look; where nothing has changed, nothing happens."""
        models = [self._physics.model_of(world) for world in range(self._physics.num_worlds)]
        looks = b"".join(np.ascontiguousarray(getattr(model, name)).tobytes() for model in models for name in _LOOKS)
        if looks == self._looks:
            return
        self._looks = looks
        found: dict[Any, tuple[Callable[[], trimesh.Trimesh], list[tuple[int, int]]]] = {}
        for world, model in enumerate(models):
            marks = marks_of(model, self._built)
            if world == self.focus:
                self._ground.plane_color = ground_color(_GROUND, marks.friction)
            for body in range(model.nbody):
                left = marks.weak.get(body, 1.0)
                for geoms in group_geoms_by_visual_compat(model, _visible(model, body)):
                    key = ("x", left, *(_print(model, geom) for geom in geoms))
                    found.setdefault(key, (partial(_mesh, model, geoms, left), []))[1].append((world, body))
            for load in marks.loads:
                found.setdefault(("x", load), (partial(_box, load.at, load.edge), []))[1].append((world, load.body))
            for site in np.flatnonzero((model.site_rgba[:, 3] > 0) & (model.site_group < _SHOWN)).tolist():
                key = ("site_x", *(getattr(model, f"site_{name}")[site].tobytes() for name in ("type", "size", "rgba")))
                found.setdefault(key, (partial(create_site_mesh, model, site), []))[1].append((world, site))
        with self.server.atomic():
            for shape in self._shapes:
                shape.handle.remove()
            entries = enumerate(found.items())
            self._shapes = [self._add(number, key[0], *entry) for number, (key, entry) in entries]

    def _add(
        self, number: int, kind: str, make: Callable[[], trimesh.Trimesh], places: list[tuple[int, int]]
    ) -> _Shape:
        worlds, numbers = np.array(places).T
        n = len(worlds)
        handle = self.server.scene.add_batched_meshes_trimesh(
            f"/worlds/{kind}{number}",
            make(),
            batched_wxyzs=np.tile([1.0, 0.0, 0.0, 0.0], (n, 1)),
            batched_positions=np.tile([0.0, 0.0, -100.0], (n, 1)),
            lod="off",
        )
        return _Shape(handle, kind, worlds, numbers)

    # -------------------------------------------------------------------------------------------------------- poses

    def update(self) -> None:
        """Show the worlds as they are now."""
        poses = {"x": self._poses("x")}
        if any(shape.kind == "site_x" for shape in self._shapes):
            poses["site_x"] = self._poses("site_x")
        shift = self.shift()
        with self.server.atomic():
            self._ground.position = (*shift[self.focus, :2], self._height) if self.follow else (0.0, 0.0, self._height)
            for shape in self._shapes:
                place, turned = poses[shape.kind]
                shape.handle.batched_positions = place[shape.worlds, shape.numbers] + shift[shape.worlds]
                shape.handle.batched_wxyzs = turned[shape.worlds, shape.numbers]

    def shift(self) -> Float[np.ndarray, "N 3"]:
        """What moves each world to where it is shown [m]; those that are followed stay in their places."""
        shift = self._offset.copy()
        if self.follow:
            shift[:, :2] -= self._physics.bind("xpos", fresh=False)[:, self._root, :2].numpy()
        return shift

    def point(self, name: str, along: Float[np.ndarray, "N 2"], level: float, shown: bool = True) -> None:
        """Let an arrow above each robot point along a velocity [m/s], at a height of `level` radii; or hide it."""
        arrow = self._arrows[name]
        if not shown:
            if arrow.visible:
                arrow.visible = False
            return
        start = self._physics.bind("xpos", fresh=False)[:, self._root].numpy() + self.shift()
        start[:, 2] += level * self.size
        speed = np.linalg.norm(along, axis=1, keepdims=True)
        length = self.size * np.minimum(3.0 * speed / math.sqrt(_GRAVITY * self.size), 4.0)
        end = start.copy()
        end[:, :2] += length * along / np.maximum(speed, 1e-9)
        arrow.points = np.stack((start, end), axis=1).astype(np.float32)
        if not arrow.visible:
            arrow.visible = True

    def _poses(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        place = self._physics.bind(f"{kind}pos", fresh=False).numpy()
        if kind == "x":
            return place, self._physics.bind("xquat", fresh=False).numpy()
        matrices = self._physics.bind(f"{kind}mat", fresh=False).numpy().reshape(*place.shape, 3)
        return place, SO3.from_matrix(matrices).wxyz

    def camera(self) -> tuple[np.ndarray, np.ndarray]:
        """Where a camera begins, and what it looks at [m]."""
        far = _FAR * self.size + 2.2 * (self.extent - self.size)
        return self.look_at + far * np.array([0.35, -0.85, 0.40]), self.look_at

    def seen_from(
        self, eye: Float[np.ndarray, "3"], at: Float[np.ndarray, "3"]
    ) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
        """Such a camera in the worlds' own coordinates [m]; of several robots it sees each one near, by itself."""
        shift = self.shift()
        if len(shift) == 1:
            return eye - shift, at - shift
        place = self._physics.bind("xpos", fresh=False)[:, self._root].numpy().copy()
        place[:, 2] = at[2]
        return place + _FAR * self.size * (eye - at) / max(float(np.linalg.norm(eye - at)), 1e-6), place


def _visible(model: mujoco.MjModel, body: int) -> list[int]:
    first = int(model.body_geomadr[body])
    return [
        geom
        for geom in range(first, first + int(model.body_geomnum[body]))
        if model.geom_group[geom] < _SHOWN and model.geom_rgba[geom, 3] > 0 and model.geom_type[geom] != _PLANE
    ]


def _print(model: mujoco.MjModel, geom: int) -> tuple[Any, ...]:
    """What two geoms that look alike have in common."""
    fields = ("type", "dataid", "matid", "size", "rgba", "pos", "quat")
    return tuple(getattr(model, f"geom_{name}")[geom].tobytes() for name in fields)


def _mesh(model: mujoco.MjModel, geoms: Sequence[int], left: float) -> trimesh.Trimesh:
    """Shapes of a body; in red where its joints have only so much strength left."""
    mesh = merge_geoms(model, list(geoms))
    return _colored(mesh, tinted(_GREY, left)) if left < 1.0 else mesh


def _box(at: tuple[float, float, float], edge: float) -> trimesh.Trimesh:
    mesh: trimesh.Trimesh = trimesh.creation.box((edge, edge, edge))
    mesh.apply_translation(at)
    return _colored(mesh, _LOAD)


def _colored(mesh: trimesh.Trimesh, color: UInt8[np.ndarray, "3"]) -> trimesh.Trimesh:
    linear = 255.0 * (color / 255.0) ** 2.2  # as a material has it; the page shows it as the colour that is meant
    rgba = np.append(linear, 255.0).astype(np.uint8)
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=rgba, roughnessFactor=0.85, metallicFactor=0.0)  # type: ignore[no-untyped-call]
    mesh.visual = trimesh.visual.TextureVisuals(material=material)  # type: ignore[no-untyped-call]
    return mesh


def _size(model: mujoco.MjModel, root: int) -> tuple[float, float]:
    """Radius of the robot about its root, and the root's height [m]."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    moving = np.flatnonzero(model.body_weldid[model.geom_bodyid] != 0)
    reach = np.linalg.norm(data.geom_xpos[moving] - data.xpos[root], axis=1) + model.geom_rbound[moving]
    return float(reach.max(initial=0.1)), float(data.xpos[root, 2])
