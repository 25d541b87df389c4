"""Pictures of MuJoCo worlds drawn off screen, by whichever OpenGL works on this machine.

MuJoCo chooses its OpenGL when it is imported, from MUJOCO_GL, and on a machine without a screen the default then
fails at the first picture, sometimes by aborting the process. Here the choice is made when the first picture is
wanted: candidates are tried in a process of their own, and the context is made without MuJoCo's own choice.
"""

from __future__ import annotations

import functools
import importlib
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import mujoco
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from metarl.core.errors import UserError, unknown_name
from metarl.sim.mujoco.decor import Decor
from metarl.sim.mujoco.marks import Marks

_CANDIDATES = {"darwin": ("cgl", "glfw"), "win32": ("glfw",)}.get(sys.platform, ("egl", "osmesa"))
_BACKENDS = ("egl", "osmesa", "glfw", "cgl")
_PACKAGES = {"egl": "libegl1 and libgl1-mesa-dri", "osmesa": "libosmesa6"}
"""Debian and Ubuntu packages a backend needs."""
_ALIASES = {"glx": "glfw", "wgl": "glfw", "enable": "", "enabled": "", "on": "", "true": "", "1": ""}
_OFF = ("disable", "disabled", "off", "false", "0")
_PROBE_SECONDS = 60.0
_MAX_GEOMS = 2000
_SHADOW_MAP = 1024  # [pixels]; MuJoCo's 4096 doubles the time of a picture on a CPU
_FINER = 1.5  # drawn this many times wider and higher, then reduced: half the time of MuJoCo's four samples per pixel
_SLICES = 16  # of a round shape, in place of 28: a quarter of the time where a robot has many

_CONTRAST = 28.0  # of a ground's squares, at most, of 255
_SHADED = 3.0  # robot's radii around it, where there are shadows
_SUN = np.array([0.25, 0.35, -1.0])  # from behind the camera's left shoulder, where the camera looks along +y
_LIGHT_DISTANCE = 4.0  # [m]
_GROUND = 400.0  # [m] from the origin


def gl_backend() -> str:
    """The OpenGL to draw with: MUJOCO_GL where it is set, else the first that works; `UserError` where none does."""
    setting = os.environ.get("METARL_GL", os.environ.get("MUJOCO_GL", "")).lower().strip()
    wanted = _ALIASES.get(setting, setting)
    if wanted in _OFF:
        raise UserError(f"MUJOCO_GL={setting} switches pictures off: unset it to record a video")
    if wanted and wanted not in _BACKENDS:
        raise UserError(f"MUJOCO_GL: {unknown_name('OpenGL backend', wanted, _BACKENDS)}; or unset it")
    reasons = {}
    for backend in (wanted,) if wanted else _CANDIDATES:
        reasons[backend] = _probe(backend)
        if not reasons[backend]:
            return backend
    tried = "; ".join(f"{backend}: {reason}" for backend, reason in reasons.items())
    install = " or ".join(_PACKAGES[backend] for backend in _PACKAGES if backend in reasons)
    cure = f"install {install} (Debian, Ubuntu)" if install else "unset MUJOCO_GL"
    if wanted and install:
        cure += ", or unset MUJOCO_GL"
    raise UserError(f"no picture can be drawn without a screen here ({tried}): {cure}")


@functools.cache
def _probe(backend: str) -> str:
    """Why `backend` cannot draw, tried in another process; empty where it can."""
    root = str(Path(__file__).parents[3])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    # MuJoCo must not try the backend itself: a missing library would fail its import with a message about Python.
    environment = os.environ | {"MUJOCO_GL": "disabled", "PYTHONPATH": paths}
    command = [sys.executable, "-m", "metarl.sim.mujoco.rendering", backend]
    try:
        with tempfile.TemporaryDirectory() as folder:  # MuJoCo leaves a MUJOCO_LOG.TXT where it fails
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, timeout=_PROBE_SECONDS, check=False
            )
    except subprocess.TimeoutExpired:
        return f"no answer within {_PROBE_SECONDS:g} s"
    if done.returncode == 0:
        return ""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


class Camera:
    """Films one world, in an OpenGL context of its own: two of MuJoCo's in one disturb each other's shadows."""

    def __init__(self, model: mujoco.MjModel, name: str | None, size: tuple[int, int], backend: str) -> None:
        """`model` is changed to look well: give a copy. `name` is its camera; None follows the robot from the side.

        `backend` is what `gl_backend` found. Raises `UserError` where the model has no such camera.
        """
        self._size = size
        width, height = (round(_FINER * edge) for edge in size)
        _beautify(model, (width, height))
        _endless_ground(model)
        _leave_out_unused_terrain(model)
        _calm_ground(model)
        self.data = mujoco.MjData(model)
        mujoco.mj_forward(model, self.data)
        self._model = model
        _lights_follow(model, self.data)
        if name is None:
            self._view = _free_view(model, self.data, size)
        else:
            self._view = _named_view(model, self.data, name, size)
        root, radius = _root(model), float(np.linalg.norm(_robot(model, self.data)[1]))
        still = name is not None and model.cam_mode[self._view.fixedcamid] == mujoco.mjtCamLight.mjCAMLIGHT_FIXED
        follows = bool(root and not still)
        if follows:  # shadows as sharp as the map allows
            model.vis.map.shadowclip = min(model.vis.map.shadowclip, _SHADED * radius / model.stat.extent)
        self._scene = mujoco.MjvScene(model, _MAX_GEOMS)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._option = mujoco.MjvOption()
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._buffer = np.empty((height, width, 3), np.uint8)
        self._gl = importlib.import_module(f"mujoco.{backend}").GLContext(width, height)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        seen = radius if follows else max(radius, 0.12 * model.stat.extent)
        self._decor = Decor(model, self.data, root, seen, lines=follows and _roams(model, root))

    def aim(self, eye: Float[np.ndarray, "3"], target: Float[np.ndarray, "3"], fov: float) -> None:
        """Look from a place at another one [m], with a vertical angle of view [rad]."""
        view, away = self._view, np.asarray(target) - eye
        view.type, view.lookat[:] = mujoco.mjtCamera.mjCAMERA_FREE, target
        view.distance = float(np.linalg.norm(away))
        view.azimuth = float(np.degrees(np.arctan2(away[1], away[0])))
        view.elevation = float(np.degrees(np.arcsin(away[2] / view.distance)))
        self._model.vis.global_.fovy = np.degrees(fov)

    def draw(
        self,
        marks: Marks | None = None,
        going: Float[np.ndarray, "2"] | None = None,
        wind: Float[np.ndarray, "2"] | None = None,
    ) -> UInt8[np.ndarray, "H W 3"]:
        """Picture of `data`, with what marks its task, the velocity that is asked for, and the wind [m/s]."""
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        if marks is not None:
            self._decor.paint(marks)
        mujoco.mjv_updateScene(self._model, self.data, self._option, None, self._view, everything, self._scene)
        self._upright()
        if marks is not None:
            self._decor.add(self._scene, self.data, marks, going, wind)
        self._gl.make_current()
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(self._buffer, None, self._rect, self._context)
        return np.asarray(Image.fromarray(self._buffer[::-1]).resize(self._size, Image.Resampling.BOX))

    def _upright(self) -> None:
        """Turn the view about the robot until gravity points down in it: flat ground that rises is seen to rise."""
        gravity = self._model.opt.gravity
        strength = float(np.linalg.norm(gravity))
        axis = np.cross((0.0, 0.0, -1.0), gravity / strength) if strength else np.zeros(3)
        sine = float(np.linalg.norm(axis))
        if sine < 1e-6:
            return
        turn, quat = np.zeros(9), np.zeros(4)
        mujoco.mju_axisAngle2Quat(quat, axis / sine, math.atan2(sine, -gravity[2] / strength))
        mujoco.mju_quat2Mat(turn, quat)
        centre = self.data.xpos[_root(self._model)]
        for eye in self._scene.camera:
            eye.pos[:] = centre + turn.reshape(3, 3) @ (eye.pos - centre)
            eye.forward[:], eye.up[:] = turn.reshape(3, 3) @ eye.forward, turn.reshape(3, 3) @ eye.up

    def close(self) -> None:
        """Free the graphics memory."""
        self._gl.make_current()
        self._context.free()
        self._gl.free()


def _beautify(model: mujoco.MjModel, size: tuple[int, int]) -> None:
    """More light, no black surfaces, and no more pixels and facets than are seen."""
    visual = model.vis
    visual.quality.offsamples, visual.quality.numquads = 0, 2
    visual.quality.numslices, visual.quality.numstacks = _SLICES, _SLICES // 2
    visual.global_.offwidth, visual.global_.offheight = size
    visual.quality.shadowsize = min(visual.quality.shadowsize, _SHADOW_MAP)
    visual.headlight.ambient[:] = np.maximum(visual.headlight.ambient, 0.35)
    visual.headlight.diffuse[:] = np.maximum(visual.headlight.diffuse, 0.45)
    model.tex_data[:] = 80 + (model.tex_data * 0.68).astype(np.uint8)


def _endless_ground(model: mujoco.MjModel) -> None:
    """Draw planes as far as a robot can run: in the physics they have no end, whatever their size says."""
    for plane in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE):
        size, material = model.geom_size[plane, :2], model.geom_matid[plane]
        wider = np.where(size > 0, np.maximum(size, _GROUND), size)
        if material >= 0 and not model.mat_texuniform[material]:  # the texture's squares keep their size
            model.mat_texrepeat[material] *= np.where(size > 0, wider / np.maximum(size, 1e-9), 1.0)
        model.geom_size[plane, :2] = wider


def _calm_ground(model: mujoco.MjModel) -> None:
    """Less contrast in a ground's squares, which would hide what is drawn on it."""
    for texture in np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_2D):
        size = int(model.tex_height[texture] * model.tex_width[texture] * model.tex_nchannel[texture])
        first = int(model.tex_adr[texture])
        pixels = model.tex_data[first : first + size].reshape(-1, int(model.tex_nchannel[texture])).astype(float)
        middle = pixels.mean(axis=0)
        spread = max(1.0, float(np.abs(pixels - middle).max()) / _CONTRAST)
        model.tex_data[first : first + size] = (middle + (pixels - middle) / spread).ravel().astype(np.uint8)


def _leave_out_unused_terrain(model: mujoco.MjModel) -> None:
    """A context prepares every height field of the model for drawing: those of other tasks get the least size."""
    unused = np.ones(model.nhfield, bool)
    unused[model.geom_dataid[model.geom_type == mujoco.mjtGeom.mjGEOM_HFIELD]] = False
    model.hfield_nrow[unused] = model.hfield_ncol[unused] = 2


def _robot(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
    """Centre and half size [m], along the axes of the world, of all that is not part of the scenery."""
    moving = model.body_weldid[model.geom_bodyid] > 0
    if not moving.any():
        return model.stat.center.copy(), np.full(3, model.stat.extent / 2)
    points, reach = data.geom_xpos[moving], model.geom_rbound[moving, None]
    low, high = (points - reach).min(axis=0), (points + reach).max(axis=0)
    return (low + high) / 2, (high - low) / 2


def _needed_height(offset: np.ndarray, half: np.ndarray, axes: np.ndarray, size: tuple[int, int]) -> float:
    """Half the height [m] a picture must show for a box of half size `half`, `offset` [m] from the line of sight.

    `axes` has right and up in its columns. Captions take the upper part, and a robot that moves needs some room.
    """
    right, up = np.abs(axes[:, :2]).T @ half
    across, above = axes[:, :2].T @ offset
    width = (abs(across) + right) / 0.7
    return float(max((above + up) / 0.6, (up - above) / 0.88, width * size[1] / size[0]))


def _named_view(model: mujoco.MjModel, data: mujoco.MjData, name: str, size: tuple[int, int]) -> mujoco.MjvCamera:
    """The model's camera `name`; one that follows the robot is narrowed until the robot fills the picture."""
    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA.value, name)
    if index < 0:
        raise unknown_name("camera", name, [model.cam(i).name for i in range(model.ncam)])
    if model.cam_mode[index] != mujoco.mjtCamLight.mjCAMLIGHT_FIXED:
        centre, half = _robot(model, data)
        axes, offset = data.cam_xmat[index].reshape(3, 3), centre - data.cam_xpos[index]
        height = _needed_height(offset, half, axes, size)
        needed = np.degrees(2 * np.arctan2(height, max(-offset @ axes[:, 2], 1e-6)))
        model.cam_fovy[index] = min(model.cam_fovy[index], needed)
    view = mujoco.MjvCamera()
    view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, index
    return view


def _free_view(model: mujoco.MjModel, data: mujoco.MjData, size: tuple[int, int]) -> mujoco.MjvCamera:
    """Return a camera that looks from the side and a little above, and moves with the robot."""
    view = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, view)
    centre, half = _robot(model, data)
    height = _needed_height(np.zeros(3), half, np.eye(3)[:, [0, 2, 1]], size)
    view.lookat[:] = centre
    view.distance = half[1] + height / np.tan(np.radians(model.vis.global_.fovy) / 2)
    view.azimuth, view.elevation = 90.0, -15.0
    root = _root(model)
    if root:
        view.type, view.trackbodyid = mujoco.mjtCamera.mjCAMERA_TRACKING, root
    return view


def _root(model: mujoco.MjModel) -> int:
    """The first body that moves; 0 where none does."""
    moving = np.flatnonzero(model.body_weldid > 0)
    return int(moving[0]) if len(moving) else 0


def _roams(model: mujoco.MjModel, root: int) -> bool:
    """Whether the robot leaves its place along x."""
    joints = range(model.body_jntadr[root], model.body_jntadr[root] + model.body_jntnum[root])
    slides = [j for j in joints if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_SLIDE and model.jnt_axis[j, 0] > 0.9]
    return bool(slides) or any(model.jnt_type[j] == mujoco.mjtJoint.mjJNT_FREE for j in joints)


def _lights_follow(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """Let the scenery's directional lights go with the robot: MuJoCo draws shadows only near a light.

    One that shines straight down is tilted: its shadow would hide under the robot, and MuJoCo 4.0 then draws stray
    shadows at the edge of the lit area.
    """
    root = _root(model)
    for light in range(model.nlight if root else 0):
        directional = model.light_type[light] == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
        if directional and model.light_bodyid[light] == 0:
            direction = data.light_xdir[light]
            if direction[2] < -0.95:
                direction = _SUN / np.linalg.norm(_SUN)
            model.light_bodyid[light] = root
            model.light_mode[light] = mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM
            model.light_dir0[light] = direction
            model.light_poscom0[light] = -_LIGHT_DISTANCE * direction


def _self_test(backend: str) -> int:
    """Draw a sphere; exit code 0 where it is seen."""
    world = "<mujoco><worldbody><body><freejoint/><geom size='1' rgba='1 1 1 1'/></body></worldbody></mujoco>"
    camera = Camera(mujoco.MjModel.from_xml_string(world), None, (64, 64), backend)
    picture = camera.draw()
    seen = int(picture[32, 32].min()) > int(picture[0, 0].max())
    camera.close()
    if not seen:
        print("the picture is empty", file=sys.stderr)
    return 0 if seen else 1


if __name__ == "__main__":
    sys.exit(_self_test(sys.argv[1]))
