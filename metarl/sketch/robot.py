"""What a model says of a robot: how it moves, its home pose, its motors as servos, what it weighs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np

from metarl.core.errors import UserError
from metarl.sim.mujoco.mujoco_env import compile_spec
from metarl.sketch.servos import Servo, found_servos

Kind = Literal["free", "rail", "fixed"]
"""How the base moves: freely; along unpowered slides, as planar walkers do; not at all."""
CONTROL_STEP = 0.02  # [s], about
_HOME = re.compile(r"home|stand|init|default|neutral|rest", re.IGNORECASE)
_SLIDE, _HINGE, _FREE = (int(kind) for kind in (mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE, 0))
_PLANES = (int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_HFIELD))


@dataclass(frozen=True)
class Robot:
    """A robot as its model describes it, at home."""

    kind: Kind
    base: str
    """Name of the body that moves as a whole; of a fixed robot, of its tip."""
    place: tuple[float, float, float]
    """Where that body is at home [m]."""
    home: tuple[float, ...]
    """`qpos` at home."""
    default: bool
    """It is the model's own pose `qpos0` there, but for the height of a free base."""
    plain: bool
    """What no servo drives is so."""
    bare: bool
    """The model has no actuators: each joint is given a servo."""
    servos: tuple[Servo, ...]
    """In the order of their joints."""
    kept: tuple[str, ...]
    """Actuators that are no servos of a joint, and stay as they are."""
    joints: tuple[str, ...]
    """Joints whose angles are observed."""
    angles: tuple[int, ...]
    """Their places in `qpos`."""
    rates: tuple[int, ...]
    """Joint velocities that are observed: their places in `qvel`."""
    forward: int
    """Place in `qvel` of a rail's velocity."""
    floor: bool
    """The model has ground to stand on."""
    reach: float
    """How far the base is from where its chain of bodies begins [m]."""
    mass: float
    """Of all that moves [kg]."""
    substeps: int
    """Physics steps per control step."""
    timestep: float
    """[s]."""
    euler: bool
    """The model asks for MuJoCo's Euler integrator, which servos with much damping upset."""
    unnamed: int
    """Number of the body if it has no name in the file, else 0: the family has to name it `base`."""
    sensed: bool
    """Sensors of the model are of its actuators, by their names."""
    ranges: tuple[tuple[int, float, float], ...]
    """Kept actuators without a range: their index, and the range they are given."""

    @property
    def speed(self) -> float:
        """A velocity to ask for [m/s]: a quarter of the Froude number's square root of 1 on legs so high."""
        return float(f"{max(0.2, 0.5 * math.sqrt(9.81 * max(self.place[2], 0.05))):.1g}")

    @property
    def control_step(self) -> float:
        """[s]."""
        return round(self.substeps * self.timestep, 9)


def look_at(spec: mujoco.MjSpec) -> Robot:
    """Find out what the robot of a model is; `UserError` where there is nothing to drive."""
    model = compile_spec(spec)
    floor = any(
        int(model.geom_type[i]) in _PLANES and model.body_weldid[model.geom_bodyid[i]] == 0 for i in _geoms(model)
    )
    if not floor:
        spec = spec.copy()
        spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=(40.0, 40.0, 1.0))
        model = compile_spec(spec)
    servos, kept, ranges = found_servos(model, _home(model))
    if not servos and not kept:
        raise UserError("the model has neither actuators nor hinges or slides that could be driven")
    kind, body, forward = _base(model, [model.joint(servo.joint).id for servo in servos])
    home = _standing(model, _home(model), body) if kind == "free" else _home(model)
    data = mujoco.MjData(model)
    data.qpos[:] = home
    mujoco.mj_kinematics(model, data)
    driven = {model.joint(servo.joint).id for servo in servos}
    driven |= set(range(model.njnt)) if kept else set()
    chosen = [joint for joint in range(model.njnt) if _is_observed(model, joint, kind, driven)]
    substeps = max(1, round(CONTROL_STEP / model.opt.timestep))
    moved = {int(model.joint(servo.joint).qposadr[0]) for servo in servos} | ({2} if kind == "free" else set())
    passive = [i for i in range(model.nq) if i not in moved]
    others = [i for i in range(model.nq) if kind != "free" or i != 2]
    return Robot(
        kind=kind,
        base=model.body(body).name or "base",
        place=tuple(np.round(data.xpos[body], 3).tolist()),
        home=tuple(np.round(home, 4).tolist()),
        default=bool(np.allclose(home[others], model.qpos0[others], atol=1e-6)),
        plain=bool(np.allclose(home[passive], model.qpos0[passive], atol=1e-6)),
        bare=model.nu == 0,
        servos=tuple(sorted(servos, key=lambda servo: int(model.joint(servo.joint).qposadr[0]))),
        kept=kept,
        joints=tuple(model.joint(joint).name or f"joint_{joint}" for joint in chosen),
        angles=tuple(int(model.jnt_qposadr[joint]) for joint in chosen),
        rates=tuple(int(model.jnt_dofadr[joint]) for joint in chosen) if kind == "free" else _rates(model, chosen),
        forward=forward,
        floor=floor,
        reach=float(np.linalg.norm(data.xpos[body] - data.xpos[_chain(model, body)[-1]])),
        mass=float(model.body_mass[model.body_weldid != 0].sum()),
        substeps=substeps,
        timestep=float(model.opt.timestep),
        euler=int(model.opt.integrator) == int(mujoco.mjtIntegrator.mjINT_EULER),
        unnamed=0 if model.body(body).name else body,
        sensed=bool((model.sensor_objtype == int(mujoco.mjtObj.mjOBJ_ACTUATOR)).any()),
        ranges=ranges,
    )


def _geoms(model: mujoco.MjModel) -> range:
    return range(model.ngeom)


def _home(model: mujoco.MjModel) -> np.ndarray:
    """A keyframe called home or the like, else the model's own pose; joints within their ranges."""
    names = [model.key(i).name for i in range(model.nkey)]
    key = next((i for i, name in enumerate(names) if _HOME.search(name)), 0 if names == [""] else None)
    home: np.ndarray = (model.qpos0 if key is None else model.key_qpos[key]).copy()
    for joint in range(model.njnt):
        if model.jnt_limited[joint] and int(model.jnt_type[joint]) in (_SLIDE, _HINGE):
            low, high = model.jnt_range[joint]
            at = int(model.jnt_qposadr[joint])
            if not low <= home[at] <= high:
                home[at] = (low + high) / 2 if key is None else np.clip(home[at], low, high)
    return home


def _base(model: mujoco.MjModel, driven: list[int]) -> tuple[Kind, int, int]:
    """How the robot moves as a whole, its base (its tip where it is fixed), and the `qvel` of a rail."""
    below = {joint: _chain(model, int(model.jnt_bodyid[joint])) for joint in driven or range(model.njnt)}

    def carried(joint: int) -> int:
        return sum(int(model.jnt_bodyid[joint]) in chain for chain in below.values())

    free = [joint for joint in range(model.njnt) if int(model.jnt_type[joint]) == _FREE and carried(joint)]
    if free and (best := max(free, key=carried)) == 0:
        return "free", int(model.jnt_bodyid[best]), 0
    slides = [
        joint
        for joint in range(model.njnt)
        if int(model.jnt_type[joint]) == _SLIDE
        and joint not in driven
        and model.body_parentid[model.jnt_bodyid[joint]] == 0
        and abs(model.jnt_axis[joint, 0]) > 0.99
        and carried(joint)
    ]
    if slides:
        return "rail", int(model.jnt_bodyid[slides[0]]), int(model.jnt_dofadr[slides[0]])
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    moving = [body for body in range(1, model.nbody) if model.body_weldid[body] != 0]
    depth = {body: len([one for one in _chain(model, body) if model.body_jntnum[one]]) for body in moving}
    reach = {body: float(np.linalg.norm(data.xpos[body] - data.xpos[_chain(model, body)[-1]])) for body in moving}
    under = [body for body in moving if set(_chain(model, body)) & {int(model.jnt_bodyid[j]) for j in below}]
    return "fixed", max(under, key=lambda body: (depth[body], reach[body])), 0


def _chain(model: mujoco.MjModel, body: int) -> list[int]:
    """The body and those it hangs on, the world left out."""
    found = []
    while body:
        found.append(body)
        body = int(model.body_parentid[body])
    return found


def _standing(model: mujoco.MjModel, home: np.ndarray, base: int) -> np.ndarray:
    """The home pose with the robot's lowest point on the ground."""
    data, home = mujoco.MjData(model), home.copy()
    home[2] += 10.0
    data.qpos[:] = home
    mujoco.mj_forward(model, data)
    ground = next(i for i in _geoms(model) if int(model.geom_type[i]) in _PLANES and model.geom_bodyid[i] == 0)
    own = [
        i
        for i in _geoms(model)
        if base in _chain(model, int(model.geom_bodyid[i])) and (model.geom_contype[i] or model.geom_conaffinity[i])
    ]
    if int(model.geom_type[ground]) != _PLANES[0] or not own:
        home[2] -= 10.0
        return home
    gap = min(mujoco.mj_geomDistance(model, data, ground, geom, 50.0, None) for geom in own)
    home[2] -= gap - 0.002
    return home


def _is_observed(model: mujoco.MjModel, joint: int, kind: Kind, driven: set[int]) -> bool:
    """Encoders sit on driven joints; of a planar or fixed robot all joints are seen, but not how far it has come."""
    if int(model.jnt_type[joint]) not in (_SLIDE, _HINGE):
        return False
    if kind == "free":
        return joint in driven
    roots = {int(model.body_rootid[model.jnt_bodyid[own]]) for own in driven}
    return int(model.body_rootid[model.jnt_bodyid[joint]]) in roots and not (kind == "rail" and _travels(model, joint))


def _travels(model: mujoco.MjModel, joint: int) -> bool:
    """An unpowered horizontal slide of the base: along it nothing changes."""
    root = model.body_parentid[model.jnt_bodyid[joint]] == 0
    return bool(root and int(model.jnt_type[joint]) == _SLIDE and abs(model.jnt_axis[joint, 2]) < 0.01)


def _rates(model: mujoco.MjModel, chosen: list[int]) -> tuple[int, ...]:
    """Velocities of the observed joints, and of the slides along which the robot travels."""
    singles = [j for j in range(model.njnt) if int(model.jnt_type[j]) in (_SLIDE, _HINGE)]
    return tuple(int(model.jnt_dofadr[joint]) for joint in singles if joint in chosen or _travels(model, joint))
