"""Motors as position servos: gains, reach and force limits from what the model says, or from what the robot weighs."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

_SINGLE = (int(mujoco.mjtJoint.mjJNT_SLIDE), int(mujoco.mjtJoint.mjJNT_HINGE))
_ONTO = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))
_SWING = 50.0  # [rad/s]: no servo alone swings its limb faster than this
_SLOWEST = 0.1  # [s]: no servo creeps to its target more slowly than this
_REACH = {True: 0.5, False: 0.1}  # [rad, m] of an action of 1, for a hinge and a slide
_LOAD = 2.0  # what a motor of unknown strength can lift, in multiples of the heaviest load it may meet
_GRAVITY = 9.81


@dataclass(frozen=True)
class Servo:
    """A position servo on a joint."""

    joint: str
    home: float
    """Angle at which an action of 0 holds the joint [rad, m]."""
    reach: float
    """How far an action of 1 moves the target from there [rad, m]."""
    kp: float
    """[N·m/rad, N/m]."""
    kd: float
    """[N·m·s/rad, N·s/m]."""
    limit: float
    """Of its force [N·m, N]."""
    estimated: bool
    """The model does not say how strong it is: `limit` is a guess from masses."""


def found_servos(
    model: mujoco.MjModel, home: np.ndarray
) -> tuple[list[Servo], tuple[str, ...], tuple[tuple[int, float, float], ...]]:
    """Servos for the motors and servos on joints, or for all joints of a model without actuators.

    Also the names of the actuators that stay as they are, and a range for those of them that have none.
    """
    data = mujoco.MjData(model)
    data.qpos[:] = home
    mujoco.mj_forward(model, data)
    inertia = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, inertia)
    servos, kept, ranges = list[Servo](), list[str](), list[tuple[int, float, float]]()
    for i in range(model.nu):
        joint = int(model.actuator_trnid[i, 0])
        if _is_motor(model, i):
            servos.append(_servo(model, data, inertia, joint, i))
        else:
            kept.append(model.actuator(i).name or f"action_{i}")
            if not model.actuator_ctrlrange[i, 0] < model.actuator_ctrlrange[i, 1]:
                limit = float(model.actuator_forcerange[i, 1]) or 1.0
                ranges.append((i, -limit, limit))
    if model.nu == 0:
        singles = [j for j in range(model.njnt) if int(model.jnt_type[j]) in _SINGLE and model.joint(j).name]
        servos = [_servo(model, data, inertia, joint, None) for joint in singles]
    return servos, tuple(kept), tuple(ranges)


def _is_motor(model: mujoco.MjModel, i: int) -> bool:
    """A motor or a position servo, without states of its own, on a hinge or slide that has a name."""
    if int(model.actuator_trntype[i]) not in _ONTO or int(model.actuator_dyntype[i]) != 0:
        return False
    joint, gain, bias = int(model.actuator_trnid[i, 0]), model.actuator_gainprm[i], model.actuator_biasprm[i]
    alone = int((model.actuator_trnid[:, 0] == joint)[np.isin(model.actuator_trntype, _ONTO)].sum()) == 1
    fixed = int(model.actuator_gaintype[i]) == int(mujoco.mjtGain.mjGAIN_FIXED)
    kinds = (int(mujoco.mjtBias.mjBIAS_NONE), int(mujoco.mjtBias.mjBIAS_AFFINE))
    known = fixed and int(model.actuator_biastype[i]) in kinds and model.actuator_plugin[i] < 0
    drives = gain[0] != 0 and (bias[1] != 0 or bias[2] == 0)  # no servo of velocity, no damper
    return bool(alone and int(model.jnt_type[joint]) in _SINGLE and model.joint(joint).name and known and drives)


def _servo(model: mujoco.MjModel, data: mujoco.MjData, inertia: np.ndarray, joint: int, i: int | None) -> Servo:
    dof, hinge = int(model.jnt_dofadr[joint]), int(model.jnt_type[joint]) == _SINGLE[1]
    low, high = model.jnt_range[joint] if model.jnt_limited[joint] else (-np.inf, np.inf)
    moved, reach = float(inertia[dof, dof]), min(_REACH[hinge], (high - low) / 2)
    limit = _limit(model, joint, i)
    estimated = limit is None
    strength = _load(model, data, joint) if limit is None else limit
    kp = min(strength / reach, moved * min(_SWING, 0.5 / model.opt.timestep) ** 2)
    kd = min(2.0 * np.sqrt(kp * moved), _SLOWEST * kp)
    if i is not None and model.actuator_biasprm[i, 1] != 0:  # a servo already
        gear = abs(float(model.actuator_gear[i, 0]))
        kp = abs(float(model.actuator_gainprm[i, 0])) * gear**2
        kd = -float(model.actuator_biasprm[i, 2]) * gear**2 or kd
        strength = 2.0 * kp * reach if limit is None else strength
        estimated = False
    at = float(data.qpos[int(model.jnt_qposadr[joint])])
    home, reach, kp, kd, strength = (float(f"{number:.3g}") for number in (at, reach, kp, kd, strength))
    return Servo(model.joint(joint).name, home, reach, kp, kd, strength, estimated)


def _limit(model: mujoco.MjModel, joint: int, i: int | None) -> float | None:
    """Largest force upon the joint that the model allows; None where it does not say."""
    found = [float(model.jnt_actfrcrange[joint, 1])] if model.jnt_actfrclimited[joint] else []
    if i is not None:
        gear, gain = abs(float(model.actuator_gear[i, 0])), abs(float(model.actuator_gainprm[i, 0]))
        if model.actuator_forcelimited[i]:
            found.append(gear * float(np.abs(model.actuator_forcerange[i]).max()))
        if model.actuator_ctrllimited[i] and model.actuator_biasprm[i, 1] == 0:
            found.append(gear * gain * float(np.abs(model.actuator_ctrlrange[i]).max()))
    return min((limit for limit in found if limit > 0), default=None)


def _load(model: mujoco.MjModel, data: mujoco.MjData, joint: int) -> float:
    """Twice the load of what hangs on the joint and, on a leg, of a share of the whole robot."""
    body = int(model.jnt_bodyid[joint])
    subtree, whole = float(model.body_subtreemass[body]), float(model.body_subtreemass[model.body_rootid[body]])
    weight = _GRAVITY * (subtree + 0.25 * (whole - subtree) * bool(model.jnt_type[0] == 0))
    if int(model.jnt_type[joint]) == _SINGLE[0]:
        return _LOAD * weight
    below = [other for other in range(model.nbody) if _hangs(model, other, body)]
    lever = max(float(np.linalg.norm(data.xipos[other] - data.xanchor[joint])) for other in below)
    return _LOAD * weight * max(lever, 0.02)


def _hangs(model: mujoco.MjModel, body: int, on: int) -> bool:
    while body and body != on:
        body = int(model.body_parentid[body])
    return body == on
