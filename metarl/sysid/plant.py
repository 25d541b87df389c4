"""A family's robot as a function: from task parameters, a state and commands to what its sensors would have logged."""

from __future__ import annotations

from typing import Literal

import mujoco
import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.info import Part, element_names
from metarl.core.tasks import Tasks
from metarl.sim.family import MujocoFamily
from metarl.sim.mujoco.mujoco_env import compile_spec
from metarl.sim.mujoco.physics import Physics, make_physics
from metarl.sim.variations import Variator

Base = Literal["standing", "hung", "logged"]
"""What is known of a free base: it stands on its feet, hangs in the air or is held, or was measured from outside."""
ACC = Part("acc", 3, "m/s²", ("x", "y", "z"), "specific force at the base's origin, in its own axes: an accelerometer")
_HANG = 1.0  # [m] height of the base of a hung robot
_NUDGE = 1e-5  # of a state, to see which sensors tell of it
_APART = (1e-4, 1e-3)  # [rad or m, and per s] of a state, to see what becomes of it
_RESTS = 1.0  # [s] in which it comes to rest
_KEPT = 3  # batches of worlds


class Plant:
    """Worlds of one family that replay commands. What disturbances of the family add is left out."""

    def __init__(
        self,
        family: MujocoFamily,
        period: float,
        base: Base = "standing",
        down: Float64[np.ndarray, "3"] | None = None,
        threads: int = 0,
    ) -> None:
        """`period` is the time between two rows of a log [s], a whole multiple of the model's timestep.

        A `hung` base is held such that `down`, in its own axes, is where gravity points; level unless told.
        """
        self.family, self.base, self.threads = family, base, threads
        spec = family.spec()
        self.model = compile_spec(spec)
        self.free = _free_joint(self.model)
        if base == "hung":
            if self.free is None:
                raise UserError(f"--base hung: {type(family).__name__} has no free base that could hang; leave it out")
            _hang(spec, self.model.joint(self.free).name, down)
            self.model = compile_spec(spec)
        self.substeps = round(period / self.model.opt.timestep)
        self.parts = (*family.observation, *((ACC,) if self.free is not None else ()))
        self.names = tuple(element_names(self.parts))
        self.targets = tuple(self.model.actuator(i).name or f"action_{i}" for i in range(self.model.nu))
        self.rest = self.model.key_qpos[0].copy() if self.model.nkey else self.model.qpos0.copy()
        if base == "hung":
            self.rest[self._place(7)] = [0.0, 0.0, _HANG, *_turned(down)]
        self._worlds: dict[int, tuple[Physics, Variator]] = {}
        self.slope = self._slope()
        self.tells: Bool[np.ndarray, "C"] = (np.abs(self.slope) > 1e-6).any(axis=1)
        """Which numbers of an observation tell anything of the state, as the previous action does not."""
        self.tells[[name.startswith("acc.") for name in self.names]] = True

    def play(
        self,
        tasks: Tasks,
        qpos: Float64[np.ndarray, "N Q"],
        qvel: Float64[np.ndarray, "N V"],
        command: Float64[np.ndarray, "N T U"],
        measured: Float64[np.ndarray, "N R C"] | None = None,
        gains: Float64[np.ndarray, "G D C"] | None = None,
    ) -> Float64[np.ndarray, "N R C"]:
        """What the sensors say at the start and after each of T = R − 1 rows of commands, in the order of `names`.

        At the first G rows the state is corrected towards what was `measured`, by `gains` (see `correcting`). A world
        whose physics goes bad repeats its last sound row. An accelerometer says nothing at the start: NaN.
        """
        physics, variator = self._of(len(qpos))
        variator.apply(tasks)
        self._put(physics, qpos, qvel)
        physics.bind("ctrl").copy_(torch.from_numpy(command[:, 0].copy()))
        physics.forward(torch.ones(len(qpos), dtype=torch.bool))
        rows = [self._sense(physics, tasks)]
        if self.free is not None:
            rows[0][:, -ACC.size :] = np.nan
        for number in range(command.shape[1]):
            if gains is not None and measured is not None and number < len(gains):
                by = np.nan_to_num(measured[:, number] - rows[-1]) @ gains[number].T
                state = self.moved(physics.bind("qpos").numpy(), physics.bind("qvel").numpy(), by)
                for field, value in zip(("qpos", "qvel"), state, strict=True):
                    physics.bind(field).copy_(torch.from_numpy(value))
            physics.bind("ctrl").copy_(torch.from_numpy(command[:, number].copy()))
            physics.step(self.substeps)
            row, bad = self._sense(physics, tasks), physics.diverged()
            if bad is not None:
                row[bad.numpy()] = rows[-1][bad.numpy()]
            rows.append(row)
        return np.stack(rows, axis=1)

    def sensed(self, qpos: Float64[np.ndarray, "N Q"], qvel: Float64[np.ndarray, "N V"]) -> Float64[np.ndarray, "N C"]:
        """What the sensors of the unmodified robot say in given states; an accelerometer nothing."""
        tasks = self.family.space.nominal(len(qpos))
        physics, variator = self._of(len(qpos))
        variator.apply(tasks)
        self._put(physics, qpos, qvel)
        physics.forward(torch.ones(len(qpos), dtype=torch.bool))
        return self._sense(physics, tasks)

    def correcting(
        self, noise: Float64[np.ndarray, "C"], covariance: Float64[np.ndarray, "D D"]
    ) -> Float64[np.ndarray, "D C"]:
        """The gain of a Kalman filter for a state that is known to a covariance P, and sensors with `noise`.

        K = P Hᵀ (H P Hᵀ + R)⁻¹ with the slopes H where the robot rests; infinite noise stands for no sensor.
        """
        used = np.flatnonzero(np.isfinite(noise) & (np.abs(self.slope) > 1e-6).any(axis=1))
        slope, gain = self.slope[used], np.zeros((len(covariance), len(self.names)))
        spread = covariance @ slope.T
        gain[:, used] = np.linalg.solve(slope @ spread + np.diag(noise[used] ** 2), spread.T).T
        return gain

    def transition(self) -> Float64[np.ndarray, "D D"]:
        """Derivatives of the state a row later with respect to the state, where the unmodified robot has come to rest.

        It stands with its contacts there, so that what moves a joint moves the base as well.
        """
        size, nv = 2 * self.model.nv, self.model.nv
        state = self.rest[None], np.zeros((1, nv))
        if self.base == "standing" and self.free is not None:
            state = self.on_its_feet(*state)
        (low, high), told = self.model.actuator_ctrlrange.T, self.model.actuator_ctrllimited.astype(bool)
        command = self.model.key_ctrl[0] if self.model.nkey else np.where(told, (low + high) / 2.0, 0.0)
        period = self.substeps * self.model.opt.timestep
        self.play(self.family.space.nominal(), *state, np.tile(command, (1, round(_RESTS / period), 1)))
        qpos, qvel = (self._of(1)[0].bind(name).numpy().copy() for name in ("qpos", "qvel"))
        by = np.repeat(_APART, nv)[:, None] * np.concatenate((np.eye(size), -np.eye(size)), axis=1)
        state = self.moved(np.tile(qpos, (2 * size, 1)), np.tile(qvel, (2 * size, 1)), by.T)
        self.play(self.family.space.nominal(2 * size), *state, np.tile(command, (2 * size, 1, 1)))
        places, speeds = (self._of(2 * size)[0].bind(name).numpy() for name in ("qpos", "qvel"))
        moved = np.zeros((2 * size, nv))
        for row, place in zip(moved, places, strict=True):
            mujoco.mj_differentiatePos(self.model, row, 1.0, qpos[0], place)
        later = np.concatenate((moved, speeds), axis=1)
        self._worlds.clear()
        slope: np.ndarray = ((later[:size] - later[size:]) / (2.0 * np.repeat(_APART, nv)[:, None])).T
        return slope

    def moved(
        self, qpos: Float64[np.ndarray, "N Q"], qvel: Float64[np.ndarray, "N V"], by: Float64[np.ndarray, "N D"]
    ) -> tuple[Float64[np.ndarray, "N Q"], Float64[np.ndarray, "N V"]]:
        """States displaced by D = 2 V numbers: in the tangent space of the positions, then in the speeds."""
        nv, new = self.model.nv, qpos.copy()
        for row, step in zip(new, by, strict=True):
            mujoco.mj_integratePos(self.model, row, np.ascontiguousarray(step[:nv]), 1.0)
        return new, qvel + by[:, nv:]

    def on_its_feet(
        self, qpos: Float64[np.ndarray, "N Q"], qvel: Float64[np.ndarray, "N V"]
    ) -> tuple[Float64[np.ndarray, "N Q"], Float64[np.ndarray, "N V"]]:
        """The states with a free base put down on what stands still, and moving such that no foot slips."""
        assert self.free is not None
        model, data = self.model, mujoco.MjData(self.model)
        place, first = int(model.jnt_qposadr[self.free]), int(model.jnt_dofadr[self.free])
        solid = (model.geom_contype | model.geom_conaffinity) != 0
        still = [i for i in range(model.ngeom) if solid[i] and model.geom_bodyid[i] == 0]
        moving = [i for i in range(model.ngeom) if solid[i] and model.geom_bodyid[i] != 0]
        qpos, qvel = qpos.copy(), qvel.copy()
        for q, v in zip(qpos, qvel, strict=True):
            data.qpos[:], v[first : first + 3] = q, 0.0
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            ends = {i: min((_distance(model, data, i, j) for j in still), key=lambda end: end[0]) for i in moving}
            lowest = min((gap for gap, _ in ends.values()), default=0.0)
            if not ends or not np.isfinite(lowest):
                continue
            q[place + 2] -= lowest + _SUNK
            slips = []
            for geom, (gap, point) in ends.items():
                if gap < lowest + _TOUCHING:
                    jacobian = np.zeros((3, model.nv))
                    mujoco.mj_jac(model, data, jacobian, None, point, int(model.geom_bodyid[geom]))
                    slips.append(jacobian @ v)
            v[first : first + 3] = -np.mean(slips, axis=0)
        return qpos, qvel

    def _place(self, size: int) -> slice:
        assert self.free is not None
        first = int(self.model.jnt_qposadr[self.free])
        return slice(first, first + size)

    def _of(self, num_worlds: int) -> tuple[Physics, Variator]:
        if num_worlds not in self._worlds:
            if len(self._worlds) >= _KEPT:
                self._worlds.pop(next(iter(self._worlds)))
            physics = make_physics("mujoco", self.model, num_worlds, self.threads)
            self._worlds[num_worlds] = physics, Variator(physics, self.family.variations)
            if self.free is not None:
                physics.bind("qacc", fresh=False)
            self.family.observe(physics, self.family.space.nominal(num_worlds))
        return self._worlds[num_worlds]

    def _put(self, physics: Physics, qpos: np.ndarray, qvel: np.ndarray) -> None:
        physics.reset(torch.ones(len(qpos), dtype=torch.bool))
        physics.bind("qpos").copy_(torch.from_numpy(np.ascontiguousarray(qpos)))
        physics.bind("qvel").copy_(torch.from_numpy(np.ascontiguousarray(qvel)))

    def _sense(self, physics: Physics, tasks: Tasks) -> Float64[np.ndarray, "N C"]:
        seen = self.family.observe(physics, tasks)
        columns = [seen[part.name].double() for part in self.family.observation]
        if self.free is not None:
            columns.append(_specific_force(physics, self.free))
        return torch.cat(columns, dim=1).numpy().copy()

    def _slope(self) -> Float64[np.ndarray, "C D"]:
        """Derivatives of what is observed with respect to the state, where the robot rests; none of accelerations."""
        size = 2 * self.model.nv
        nudges = np.concatenate((np.zeros((1, size)), _NUDGE * np.eye(size)))
        state = np.tile(self.rest, (size + 1, 1)), np.zeros((size + 1, self.model.nv))
        seen = self.sensed(*self.moved(*state, nudges))
        self._worlds.clear()
        slope: np.ndarray = (seen[1:] - seen[0]).T / _NUDGE
        slope[[name.startswith("acc.") for name in self.names]] = 0.0
        return slope


_TOUCHING = 0.01  # [m] above the lowest, and still taken to stand
_SUNK = 0.0025  # [m] that the soft ground gives way


def _distance(model: mujoco.MjModel, data: mujoco.MjData, one: int, other: int) -> tuple[float, np.ndarray]:
    """Gap between two geoms, and the point of the first next to the other; infinite from rough ground."""
    if int(model.geom_type[other]) == int(mujoco.mjtGeom.mjGEOM_HFIELD):
        return np.inf, np.zeros(3)
    ends = np.zeros(6)
    gap = float(mujoco.mj_geomDistance(model, data, one, other, 10.0, ends))
    return gap, ends[:3]


def _specific_force(physics: Physics, free: int) -> Float64[Tensor, "N 3"]:
    """R^T (a − g) of the free body's origin."""
    at, of = int(physics.model.jnt_qposadr[free]), int(physics.model.jnt_dofadr[free])
    quaternion, force = physics.bind("qpos")[:, at + 3 : at + 7], physics.bind("qacc", fresh=False)[:, of : of + 3]
    force = force - torch.from_numpy(physics.model.opt.gravity.copy())
    w, axis = quaternion[:, :1], quaternion[:, 1:]
    turned: Tensor = 2.0 * torch.linalg.cross(axis, force)
    inside: Tensor = force - w * turned + torch.linalg.cross(axis, turned)
    return inside


def _free_joint(model: mujoco.MjModel) -> int | None:
    """The joint of a base that moves freely; None for a robot that is mounted or moves along rails."""
    free = np.flatnonzero(model.jnt_type == int(mujoco.mjtJoint.mjJNT_FREE))
    return int(free[0]) if len(free) else None


def _turned(down: np.ndarray | None) -> Float64[np.ndarray, "4"]:
    """The orientation in which `down`, in a body's axes, points down."""
    quaternion = np.array([1.0, 0.0, 0.0, 0.0])
    if down is not None:
        mujoco.mju_quatZ2Vec(quaternion, -down / np.linalg.norm(down))
        mujoco.mju_negQuat(quaternion, quaternion)
    return quaternion


def _hang(spec: mujoco.MjSpec, joint: str, down: np.ndarray | None) -> None:
    """Hold the base in the air, as a stand does."""
    weld = spec.add_equality(
        type=mujoco.mjtEq.mjEQ_WELD,
        objtype=mujoco.mjtObj.mjOBJ_BODY,
        name1="world",
        name2=spec.joint(joint).parent.name,
        solref=[0.01, 1.0],
    )
    weld.data[:11] = [0.0, 0.0, 0.0, 0.0, 0.0, _HANG, *_turned(down), 1.0]
