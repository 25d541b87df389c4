"""What a family's simulated robot tells of the real one: commands, gains, limits and the pose it starts from."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import torch

from metarl.core.errors import UserError
from metarl.core.info import PolicyInfo
from metarl.sim.env import TrialEnv
from metarl.sim.mujoco.mujoco_env import MujocoEnv

_CLOSE = 1e-6


def action_of(env: TrialEnv, info: PolicyInfo) -> dict[str, Any]:
    """The contract's `action`: what an action in [-1, 1] commands, by the model of the nominal task.

    Servos are commanded an angle, motors a torque; where actuators are of other kinds, or of several, or there is no
    MuJoCo model, the action is commanded as it is.
    """
    plain: dict[str, Any] = {"names": list(info.actions), "kind": "normalised", "unit": "1"}
    plain |= {"scale": [1.0] * info.action_size, "offset": [0.0] * info.action_size}
    if not isinstance(env, MujocoEnv):
        return plain
    env.begin(env.family.space.nominal(1), key=0)
    model, data = env.physics.model_of(0), env.physics.data_of(0)
    low, high = model.actuator_ctrlrange.T
    gear, gain, bias = model.actuator_gear[:, 0], model.actuator_gainprm[:, 0], model.actuator_biasprm
    on_joints = bool((model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT).all()) and bool((gear != 0).all())
    servos = on_joints and bool((bias[:, 1] < 0).all()) and np.allclose(gain, -bias[:, 1])
    motors = on_joints and not bias.any() and bool((model.actuator_gaintype == mujoco.mjtGain.mjGAIN_FIXED).all())
    if not (servos or motors):
        return plain
    joints = model.actuator_trnid[:, 0]
    factor = 1.0 / gear if servos else gain * gear
    sliding = bool((model.jnt_type[joints] == mujoco.mjtJoint.mjJNT_SLIDE).any())
    made = plain | {
        "kind": "position" if servos else "torque",
        "unit": ("m" if sliding else "rad") if servos else ("N" if sliding else "N·m"),
        "scale": _list((high - low) / 2 * factor),
        "offset": _list((high + low) / 2 * factor),
        "joints": [model.joint(int(joint)).name for joint in joints],
    }
    limits = np.where(model.actuator_forcelimited.astype(bool), model.actuator_forcerange[:, 1] * np.abs(gear), np.nan)
    if motors:
        limits = np.fmin(limits, np.abs(np.stack((low, high)) * factor).max(axis=0))
    made |= _known("torque_limit", limits)
    if fastest := env.family.velocity_limit:
        if len(fastest) != len(joints):
            raise UserError(
                f"{type(env.family).__name__}.velocity_limit has {len(fastest)} numbers for {len(joints)} joints"
            )
        made["velocity_limit"] = list(fastest)
    limited, ranges = model.jnt_limited[joints].astype(bool), model.jnt_range[joints]
    made |= _known("position_low", np.where(limited, ranges[:, 0], np.nan))
    made |= _known("position_high", np.where(limited, ranges[:, 1], np.nan))
    if servos:
        rest = data.ctrl * factor
        made |= {"kp": _list(gain * gear**2), "kd": _list(-bias[:, 2] * gear**2), "default": _list(rest)}
        made |= _measured(env, model.jnt_qposadr[joints], model.jnt_dofadr[joints], rest)
    return made


def gravity_part(info: PolicyInfo) -> str | None:
    """The part of the observation that is the direction of gravity in the robot's frame."""
    return next((part.name for part in info.observation if part.name == "gravity" and part.size == 3), None)


def physics_step(env: TrialEnv) -> float | None:
    """Timestep of the simulation [s]; None where the simulator is not ours."""
    return float(env.physics.model_of(0).opt.timestep) if isinstance(env, MujocoEnv) else None


def _measured(env: MujocoEnv, position: Any, velocity: Any, rest: Any) -> dict[str, str]:
    """The parts that measure the servos' joints in their order, found by what they hold a few steps into an episode.

    The position's is of the pose `default`: what is measured from elsewhere is not named.
    """
    for _ in range(3):
        env.step(0.3 * torch.ones(1, env.action_size))
    seen, data = env.family.observe(env.physics, env.tasks), env.physics.data_of(0)
    wanted = {"joint_position": data.qpos[position] - rest, "joint_velocity": data.qvel[velocity]}
    return {
        name: part
        for name, value in wanted.items()
        for part, found in seen.items()
        if part == name and found.shape[1] == len(value) and np.abs(found[0].double().numpy() - value).max() < _CLOSE
    }


def _known(name: str, values: Any) -> dict[str, list[float]]:
    """One number per actuator, if all of them have one."""
    return {} if np.isnan(values).any() else {name: _list(values)}


def _list(values: Any) -> list[float]:
    return [float(np.round(value, 12)) for value in values]
