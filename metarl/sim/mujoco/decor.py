"""Draws a task into a picture of its world: weak limbs red, a box per load, slippery ground blue, where to go, wind.

Lines on the ground, a metre apart and a yellow one where it starts, show how fast and which way the robot moves.
"""

from __future__ import annotations

import math

import mujoco
import numpy as np
from jaxtyping import Float

from metarl.sim.mujoco.marks import Marks, ground_color, tinted

_LOAD, _ARROW, _WIND = (0.69, 0.50, 0.28, 1.0), (0.18, 0.63, 0.26, 1.0), (0.25, 0.45, 0.95, 1.0)
_START, _METRE = (0.98, 0.76, 0.10, 1.0), (0.97, 0.98, 1.0, 1.0)
_SEEN = 8  # [m] of lines on either side of the robot
_GRAVITY = 9.81


class Decor:
    """Of one camera's model: what its geoms look like without marks, and what is drawn beside them."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, root: int, radius: float, lines: bool) -> None:
        """`root` is the body that an arrow stands above, `radius` the robot's [m]; `data` is where it starts."""
        self._model, self._root, self._radius = model, root, radius
        self._start, planes = data.xpos[root].copy(), model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
        flat = lines and planes.sum() == 1 and not (model.geom_type == mujoco.mjtGeom.mjGEOM_HFIELD).any()
        self._ground = float(data.geom_xpos[planes, 2][0]) if flat else None
        self._rgba, self._matid, self._mat = model.geom_rgba.copy(), model.geom_matid.copy(), model.mat_rgba.copy()

    def paint(self, marks: Marks) -> None:
        """Colour the model's shapes by the marks."""
        model = self._model
        model.geom_rgba[:], model.geom_matid[:], model.mat_rgba[:] = self._rgba, self._matid, self._mat
        for geom in range(model.ngeom):
            left = self._left(int(model.geom_bodyid[geom]), marks)
            if left is not None:
                model.geom_matid[geom] = -1
                model.geom_rgba[geom, :3] = tinted((255 * self._rgba[geom, :3]).astype(np.uint8), left) / 255.0
            ground = int(model.geom_bodyid[geom]) == 0 and int(model.geom_type[geom]) <= int(
                mujoco.mjtGeom.mjGEOM_HFIELD
            )
            if ground and marks.friction < 1.0:
                color = np.array(ground_color((255, 255, 255), marks.friction)) / 255.0
                material = int(self._matid[geom])
                model.geom_rgba[geom, :3] = self._rgba[geom, :3] * color
                if material >= 0:  # its colour counts where the shape has none of its own
                    model.mat_rgba[material, :3] = self._mat[material, :3] * color

    def _left(self, body: int, marks: Marks) -> float | None:
        """What is left of the strength of a body's joints; of what hangs on a weak one it looks like more."""
        if body in marks.weak:
            return marks.weak[body]
        above = self._left(int(self._model.body_parentid[body]), marks) if body else None
        return None if above is None else 0.5 + 0.5 * above

    def add(
        self,
        scene: mujoco.MjvScene,
        data: mujoco.MjData,
        marks: Marks,
        going: Float[np.ndarray, "2"] | None,
        wind: Float[np.ndarray, "2"] | None = None,
    ) -> None:
        """Put boxes, lines and arrows into the scene; `going` is the velocity asked for, `wind` another's [m/s]."""
        for load in marks.loads:
            turned = data.xmat[load.body].reshape(3, 3)
            place = data.xpos[load.body] + turned @ np.array(load.at)
            self._shape(scene, mujoco.mjtGeom.mjGEOM_BOX, np.full(3, load.edge / 2), place, turned.ravel(), _LOAD)
        self._lines(scene, data)
        self._arrow(scene, data, going, _ARROW, 0.55)
        self._arrow(scene, data, wind, _WIND, 0.85)

    def _lines(self, scene: mujoco.MjvScene, data: mujoco.MjData) -> None:
        if self._ground is None:
            return
        here, upright = round(float(data.xpos[self._root, 0] - self._start[0])), np.eye(3).ravel()
        for metre in range(here - _SEEN, here + _SEEN + 1):
            half = np.array([(0.03 if metre else 0.06) * self._radius, 0.8 * self._radius, 0.002])
            place = np.array([self._start[0] + metre, self._start[1], self._ground + 0.002])
            self._shape(scene, mujoco.mjtGeom.mjGEOM_BOX, half, place, upright, _METRE if metre else _START)

    def _arrow(
        self,
        scene: mujoco.MjvScene,
        data: mujoco.MjData,
        velocity: Float[np.ndarray, "2"] | None,
        color: tuple[float, float, float, float],
        height: float,
    ) -> None:
        """An arrow above the robot, the longer the faster."""
        speed = 0.0 if velocity is None else float(np.linalg.norm(velocity))
        if velocity is None or speed < 1e-6:
            return
        start = data.xpos[self._root] + np.array([0.0, 0.0, height * self._radius])
        length = self._radius * min(max(3.0 * speed / math.sqrt(_GRAVITY * self._radius), 0.8), 2.5)
        end = start + np.array([*(length * velocity / speed), 0.0])
        arrow = self._shape(scene, mujoco.mjtGeom.mjGEOM_ARROW, np.zeros(3), start, np.eye(3).ravel(), color)
        if arrow is not None:
            mujoco.mjv_connector(arrow, int(mujoco.mjtGeom.mjGEOM_ARROW), 0.05 * self._radius, start, end)

    @staticmethod
    def _shape(
        scene: mujoco.MjvScene,
        kind: mujoco.mjtGeom,
        size: np.ndarray,
        place: np.ndarray,
        turned: np.ndarray,
        color: tuple[float, float, float, float],
    ) -> mujoco.MjvGeom | None:
        if scene.ngeom >= scene.maxgeom:
            return None
        geom = scene.geoms[scene.ngeom]
        mujoco.mjv_initGeom(geom, int(kind), size, place, turned, np.array(color, np.float32))
        scene.ngeom += 1
        return geom
