"""Draws a task into a picture of its world: weak limbs in red, a box per load, slippery ground in blue, where to go."""

from __future__ import annotations

import math

import mujoco
import numpy as np
from jaxtyping import Float

from metarl.sim.mujoco.marks import Marks, ground_color, tinted

_LOAD, _ARROW = (0.69, 0.50, 0.28, 1.0), (0.18, 0.63, 0.26, 1.0)
_GRAVITY = 9.81


class Decor:
    """Of one camera's model: what its geoms look like without marks, and what is drawn beside them."""

    def __init__(self, model: mujoco.MjModel, root: int, radius: float) -> None:
        """`root` is the body that an arrow stands above, `radius` the robot's [m]."""
        self._model, self._root, self._radius = model, root, radius
        self._rgba, self._matid, self._mat = model.geom_rgba.copy(), model.geom_matid.copy(), model.mat_rgba.copy()

    def paint(self, marks: Marks) -> None:
        """Colour the model's shapes by the marks."""
        model = self._model
        model.geom_rgba[:], model.geom_matid[:], model.mat_rgba[:] = self._rgba, self._matid, self._mat
        for geom in range(model.ngeom):
            left = marks.weak.get(int(model.geom_bodyid[geom]))
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

    def add(
        self, scene: mujoco.MjvScene, data: mujoco.MjData, marks: Marks, going: Float[np.ndarray, "2"] | None
    ) -> None:
        """Put boxes and an arrow into the scene; `going` is the velocity that is asked for [m/s]."""
        for load in marks.loads:
            turned = data.xmat[load.body].reshape(3, 3)
            place = data.xpos[load.body] + turned @ np.array(load.at)
            self._shape(scene, mujoco.mjtGeom.mjGEOM_BOX, np.full(3, load.edge / 2), place, turned.ravel(), _LOAD)
        speed = 0.0 if going is None else float(np.linalg.norm(going))
        if going is None or speed < 1e-6:
            return
        start = data.xpos[self._root] + np.array([0.0, 0.0, 0.7 * self._radius])
        length = self._radius * min(3.0 * speed / math.sqrt(_GRAVITY * self._radius), 2.5)
        end = start + np.array([*(length * going / speed), 0.0])
        arrow = self._shape(scene, mujoco.mjtGeom.mjGEOM_ARROW, np.zeros(3), start, np.eye(3).ravel(), _ARROW)
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
