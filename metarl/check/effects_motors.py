"""Experiments with motors and broken joints: forces at full control, and how far a locked joint goes."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import mujoco
import numpy as np

from metarl.check.experiment import Array, Experiment, compare
from metarl.sim.actuation import JointFault, MotorStrength, WeakMotor, driven_joints, own_motors
from metarl.sim.variation import dofs, label, object_ids

_HELD_STEPS = 20  # for currents and integrals to build up
_LOCKED_STEPS = 100
_LOCKED_SHARE = 0.05  # of the way a joint goes without its lock
_LOCKED_LEAST = 0.02  # [m, rad]


def strength(variation: MotorStrength, experiment: Experiment) -> str | None:
    """All chosen motors weaken by the ratio, and no other."""
    model, ratio = experiment.nominal, experiment.value(variation.parameter)
    return _motors(experiment, dict.fromkeys(object_ids(model, "actuator", variation.actuators), ratio))


def weak(variation: WeakMotor, experiment: Experiment) -> str | None:
    """One motor weakens to what is left of its force, and no other."""
    index, left = round(experiment.value(variation.motor)), experiment.value(variation.strength)
    motors = object_ids(experiment.nominal, "actuator", variation.actuators)
    return _motors(experiment, {motor: left if i == index else 1.0 for i, motor in enumerate(motors)})


def fault(variation: JointFault, experiment: Experiment) -> str | None:
    """The motors of the joint exert nothing, or it does not move at full control."""
    model, index = experiment.nominal, round(experiment.value(variation.parameter))
    if index < 0:
        return None
    joints = variation.joints_of(model, index)
    if variation.mode == "dead":
        return _motors(experiment, dict.fromkeys(own_motors(model, joints), 0.0))
    for dof in dofs(model, joints):
        free, locked = (abs(_way(each)[dof]) for each in experiment.models)
        if locked > max(_LOCKED_LEAST, _LOCKED_SHARE * free):
            name = label(model, "joint", int(model.dof_jntid[dof]))
            return f"locked, {name} still moves by {locked:.3g} at full control, and by {free:.3g} where it is free"
    return None


def _motors(experiment: Experiment, ratios: Mapping[int, float]) -> str | None:
    """Forces of actuators, and of all together on each joint, at full control: those of `ratios` change, others not."""
    model = experiment.nominal
    before, after = (np.stack([_exerted(each, *state) for state in _STATES]) for each in experiment.models)
    for motor, ratio in ratios.items():
        first = int(model.actuator_outadr[motor])
        out = slice(first, first + int(model.actuator_outnum[motor]))
        name = f"the force of {label(model, 'actuator', motor)} at full control"
        if problem := compare(name, ratio, *_own(model, motor, before[:, out], after[:, out])):
            return problem
    inner = np.flatnonzero(model.actuator_trntype != int(mujoco.mjtTrn.mjTRN_BODY)).tolist()
    moved = {motor: driven_joints(model, motor) for motor in inner}
    for joint in sorted(set[int]().union(*moved.values())):
        motors = {motor for motor, joints in moved.items() if joint in joints}
        shared = {ratios.get(motor, 1.0) for motor in motors}
        if len(shared) == 1 and motors & set(ratios) and not any(_is_dc(model, motor) for motor in motors):
            of = model.nout + np.array(dofs(model, (joint,)))
            name = f"the force of all actuators on {label(model, 'joint', joint)}"
            if before[:, of].any() and (problem := compare(name, shared.pop(), before[:, of], after[:, of])):
                return problem
    return None


_DYN = mujoco.mjtDyn
_FOLLOWS = [int(_DYN.mjDYN_FILTER), int(_DYN.mjDYN_FILTEREXACT), int(_DYN.mjDYN_MUSCLE), int(_DYN.mjDYN_INTEGRATOR)]
"""Dynamics whose activation goes where the control is."""
_STATES = ((0, 0.0), (1, 0.0), (1, 0.5), (0, -0.5))
"""Control at its lowest or highest, and the velocity of everything [m/s, rad/s]."""


def _own(model: mujoco.MjModel, motor: int, before: Array, after: Array) -> tuple[Array, Array]:
    """Of a DC motor, what its control makes of its force: cogging and friction do not weaken with it."""
    if not _is_dc(model, motor):
        return before, after
    return before[1] - before[0], after[1] - after[0]


def _is_dc(model: mujoco.MjModel, motor: int) -> bool:
    return int(model.actuator_gaintype[motor]) == int(mujoco.mjtGain.mjGAIN_DCMOTOR)


def _exerted(model: mujoco.MjModel, end: int, speed: float) -> Array:
    """Forces of all actuators, then of all on each degree of freedom, in a robot held in its first pose."""
    model = copy.copy(model)
    model.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONSTRAINT
    data = mujoco.MjData(model)
    data.ctrl[:] = model.actuator_ctrlrange[:, end]
    data.qvel[:] = speed
    for motor in np.flatnonzero(np.isin(model.actuator_dyntype, _FOLLOWS)):  # activations, as they are in the end
        act, size, control = (int(getattr(model, f"actuator_{of}")[motor]) for of in ("actadr", "actnum", "ctrladr"))
        limited, limit = model.actuator_actlimited[motor], model.actuator_actrange[motor, end]
        data.act[act : act + size] = limit if limited else data.ctrl[control : control + size]
    qpos, qvel = data.qpos.copy(), data.qvel.copy()
    for _ in range(_HELD_STEPS + math.ceil(float(model.actuator_delay.max(initial=0.0)) / model.opt.timestep)):
        mujoco.mj_step(model, data)
        data.qpos[:], data.qvel[:] = qpos, qvel
    mujoco.mj_forward(model, data)
    return np.concatenate((data.actuator_force, data.qfrc_actuator))


def _way(model: mujoco.MjModel) -> Array:
    """How far each degree of freedom goes at full control, without weight and contacts."""
    model = copy.copy(model)
    model.opt.gravity[:] = 0.0
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT
    data = mujoco.MjData(model)
    data.ctrl[:] = model.actuator_ctrlrange[:, 1]
    start, way = data.qpos.copy(), np.zeros(model.nv)
    mujoco.mj_step(model, data, _LOCKED_STEPS)
    mujoco.mj_differentiatePos(model, way, 1.0, start, data.qpos)
    return way
