"""Does a variation change its quantity by the ratio its task says? Small experiments on the family's own model.

Each measures a force that MuJoCo computes for the unmodified model and for a varied one: what a motor exerts at full
control, what damps a joint at several speeds, what it takes to accelerate a body against gravity, what holds a contact.
A variation that writes one field where MuJoCo reads two differs here, whatever it wrote.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import mujoco
import numpy as np
import torch
from jaxtyping import Float

from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.tasks import Tasks, Value
from metarl.sim.actuation import driven_joints, own_motors
from metarl.sim.family import MujocoFamily
from metarl.sim.mujoco.cpu import CpuPhysics
from metarl.sim.mujoco.mujoco_env import MujocoEnv, compile_spec
from metarl.sim.variation import Variation, dofs, ids, label
from metarl.sim.variations import (
    BodyMass,
    CentreOfMass,
    Friction,
    Gravity,
    JointDamping,
    JointFault,
    MotorStrength,
    Payload,
    Variator,
    WeakMotor,
)

Array: TypeAlias = Float[np.ndarray, "..."]

_DRAWS = 4  # tasks of each split
_CLOSE = 1e-5  # relative error of a ratio that counts as right
_SPEEDS = (0.1, 1.0, 10.0)  # [m/s, rad/s]
_HELD_STEPS = 20  # for currents and integrals to build up
_LOCKED_STEPS = 100
_LOCKED_SHARE = 0.05  # of the way a joint goes without its lock
_LOCKED_LEAST = 0.02  # [m, rad]
_CONTACT_STEPS, _CONTACT_WORLDS = 200, 4


@dataclass(frozen=True)
class Experiment:
    """One variation alone, in one task: the unmodified model and the varied one."""

    nominal: mujoco.MjModel
    varied: mujoco.MjModel
    task: Mapping[str, Value]
    poses: Poses

    def value(self, name: str) -> float:
        """A task parameter that is one number."""
        value = self.task[name]
        assert not isinstance(value, list)
        return value


@dataclass
class Poses:
    """Poses of the robot in random play, in which things touch; played when first asked for."""

    family: MujocoFamily

    @cached_property
    def touching(self) -> list[tuple[Array, Array, Array]]:
        """`qpos`, `mocap_pos` and `mocap_quat`, for each pair of geoms one in which it was first seen to touch."""
        env, found = MujocoEnv(self.family, _CONTACT_WORLDS, threads=1), []
        seen: set[tuple[int, ...]] = set()
        env.begin(self.family.space.sample("train", _CONTACT_WORLDS, seeding.rng(0, "check/touch")), key=0)
        generator = seeding.generator(0, "check/touch")
        datas = [mujoco.MjData(env.physics.model_of(world)) for world in range(_CONTACT_WORLDS)]
        for _ in range(min(_CONTACT_STEPS, env.trial_steps)):
            for world, data in enumerate(datas):
                env.physics.data_of(world, data)
                pairs = {tuple(geoms) for geoms in data.contact.geom.tolist()}
                if pairs - seen:
                    seen |= pairs
                    found.append((data.qpos.copy(), data.mocap_pos.copy(), data.mocap_quat.copy()))
            env.step(torch.rand(_CONTACT_WORLDS, env.action_size, generator=generator) * 2 - 1)
        env.close()
        return found


Measure = Callable[[Any, Experiment], str | None]
"""Of a variation and an experiment with it: what is wrong, in a clause, or None."""


def effect_problems(family: MujocoFamily) -> Iterator[str]:
    """One sentence for each variation of `family` whose quantity does not change as its tasks say."""
    model, poses = compile_spec(family.spec()), Poses(family)
    splits = [family.space.sample(split, _DRAWS, seeding.rng(0, "check/effects")) for split in family.space.splits]
    tasks = Tasks.from_rows([row for split in splits for row in split.rows()])
    for variation in family.variations:
        measure = _measure(variation)
        if measure is None:
            continue
        kind = f"the variation {type(variation).__name__} of '{', '.join(variation.parameters)}'"
        physics = CpuPhysics(model, len(tasks), 1)
        try:
            Variator(physics, (variation,)).apply(tasks)
        except UserError as error:
            yield f"{kind} cannot be applied: {error}"
            continue
        for world, task in enumerate(tasks.rows()):
            problem = measure(variation, Experiment(model, physics.model_of(world), task, poses))
            if problem is not None:
                read = ", ".join(f"{name} = {task[name]}" for name in variation.parameters)
                yield f"{kind}: {problem} (at {read})"
                break


def not_measured(family: MujocoFamily) -> list[str]:
    """Kinds of variations of `family` that `effect_problems` has no experiment for."""
    return sorted({type(variation).__name__ for variation in family.variations if _measure(variation) is None})


def _measure(variation: Variation) -> Measure | None:
    return next((measure for kind, measure in _MEASURES.items() if isinstance(variation, kind)), None)


def _compare(what: str, ratio: float, nominal: Array, varied: Array) -> str | None:
    """`varied` must be `ratio` times `nominal`, which must not be zero everywhere."""
    size = float(np.abs(nominal).max(initial=0.0))
    if size == 0.0:
        return f"{what} is zero on the unmodified model, so that no ratio changes it"
    error = np.abs(varied - ratio * nominal)
    if error.max() <= _CLOSE * size * max(1.0, abs(ratio)):
        return None
    worst = np.unravel_index(int(error.argmax()), error.shape)
    if nominal[worst] == 0.0:
        return f"{what} becomes {varied[worst]:.4g} where it was zero"
    return f"{what} changes by the ratio {varied[worst] / nominal[worst]:.4g} instead of {ratio:.4g}"


# motors


def _strength(variation: MotorStrength, experiment: Experiment) -> str | None:
    model, ratio = experiment.nominal, experiment.value(variation.parameter)
    return _motors(experiment, dict.fromkeys(ids(model, "actuator", variation.actuators).tolist(), ratio))


def _weak(variation: WeakMotor, experiment: Experiment) -> str | None:
    index, left = round(experiment.value(variation.motor)), experiment.value(variation.strength)
    motors = ids(experiment.nominal, "actuator", variation.actuators).tolist()
    return _motors(experiment, {motor: left if i == index else 1.0 for i, motor in enumerate(motors)})


def _fault(variation: JointFault, experiment: Experiment) -> str | None:
    model, index = experiment.nominal, round(experiment.value(variation.parameter))
    if index < 0:
        return None
    names = variation.joints[index]
    joints = ids(model, "joint", (names,) if isinstance(names, str) else names)
    if variation.mode == "dead":
        return _motors(experiment, {motor: 0.0 for joint in joints.tolist() for motor in own_motors(model, joint)})
    for dof in dofs(model, joints).tolist():
        free, locked = (abs(_way(each)[dof]) for each in (model, experiment.varied))
        if locked > max(_LOCKED_LEAST, _LOCKED_SHARE * free):
            name = label(model, "joint", int(model.dof_jntid[dof]))
            return f"locked, {name} still moves by {locked:.3g} at full control, and by {free:.3g} where it is free"
    return None


def _motors(experiment: Experiment, ratios: Mapping[int, float]) -> str | None:
    """Forces of actuators, and of all together on each joint, at full control: those of `ratios` change, others not."""
    model = experiment.nominal
    before, after = (np.stack([_exerted(each, *state) for state in _STATES]) for each in (model, experiment.varied))
    for motor, ratio in ratios.items():
        first = int(model.actuator_outadr[motor])
        out = slice(first, first + int(model.actuator_outnum[motor]))
        name = f"the force of {label(model, 'actuator', motor)} at full control"
        if problem := _compare(name, ratio, *_own(model, motor, before[:, out], after[:, out])):
            return problem
    acting: dict[int, set[int]] = {}
    for motor in range(model.nactuator):
        if int(model.actuator_trntype[motor]) != int(mujoco.mjtTrn.mjTRN_BODY):
            for joint in driven_joints(model, motor):
                acting.setdefault(joint, set()).add(motor)
    for joint, motors in acting.items():
        shared = {ratios.get(motor, 1.0) for motor in motors}
        if len(shared) == 1 and motors & set(ratios) and not any(_is_dc(model, motor) for motor in motors):
            of = model.nout + dofs(model, torch.tensor([joint])).numpy()
            name = f"the force of all actuators on {label(model, 'joint', joint)}"
            if before[:, of].any() and (problem := _compare(name, shared.pop(), before[:, of], after[:, of])):
                return problem
    return None


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
    _settle(model, data, end)
    qpos, qvel = data.qpos.copy(), data.qvel.copy()
    for _ in range(_HELD_STEPS + math.ceil(float(model.actuator_delay.max(initial=0.0)) / model.opt.timestep)):
        mujoco.mj_step(model, data)
        data.qpos[:], data.qvel[:] = qpos, qvel
    mujoco.mj_forward(model, data)
    return np.concatenate((data.actuator_force, data.qfrc_actuator))


def _settle(model: mujoco.MjModel, data: mujoco.MjData, end: int) -> None:
    """Activations where the control leads them in the end."""
    dyn = mujoco.mjtDyn
    follows = {int(dyn.mjDYN_FILTER), int(dyn.mjDYN_FILTEREXACT), int(dyn.mjDYN_MUSCLE), int(dyn.mjDYN_INTEGRATOR)}
    for motor in range(model.nactuator):
        if int(model.actuator_dyntype[motor]) in follows:
            act, control = int(model.actuator_actadr[motor]), int(model.actuator_ctrladr[motor])
            for i in range(int(model.actuator_actnum[motor])):
                limited = model.actuator_actlimited[motor]
                data.act[act + i] = model.actuator_actrange[motor, end] if limited else data.ctrl[control + i]


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


# joints and bodies


def _damping(variation: JointDamping, experiment: Experiment) -> str | None:
    index = dofs(experiment.nominal, ids(experiment.nominal, "joint", variation.joints)).numpy()
    before, after = (_damped(model)[:, index] for model in (experiment.nominal, experiment.varied))
    return _compare("what damps the joints", experiment.value(variation.parameter), before, after)


def _damped(model: mujoco.MjModel) -> Array:
    """Damping forces of all degrees of freedom, at several speeds either way."""
    data, forces = mujoco.MjData(model), []
    for speed in (*_SPEEDS, *(-speed for speed in _SPEEDS)):
        data.qvel[:] = speed
        mujoco.mj_forward(model, data)
        forces.append(data.qfrc_damper.copy())
    return np.stack(forces)


def _mass(variation: BodyMass, experiment: Experiment) -> str | None:
    double, index = copy.copy(experiment.nominal), ids(experiment.nominal, "body", variation.bodies).numpy()
    double.body_mass[index] *= 2.0
    double.body_inertia[index] *= 2.0
    mujoco.mj_setConst(double, mujoco.MjData(double))
    once, twice, varied = (_pushed(model)[0] for model in (experiment.nominal, double, experiment.varied))
    return _compare(
        "what it takes to accelerate the bodies",
        experiment.value(variation.parameter),
        twice - once,
        varied - once + (twice - once),
    )


def _payload(variation: Payload, experiment: Experiment) -> str | None:
    load, body = experiment.value(variation.parameter), int(ids(experiment.nominal, "body", (variation.body,)))
    before, data = _pushed(experiment.nominal)
    place = data.xpos[body] + data.xmat[body].reshape(3, 3) @ np.array(variation.at)
    needed = _of_mass(experiment.nominal, data, body, place)
    return _compare("what it takes to accelerate the load", load, needed, _pushed(experiment.varied)[0] - before)


def _centre(variation: CentreOfMass, experiment: Experiment) -> str | None:
    model, body = experiment.nominal, int(ids(experiment.nominal, "body", (variation.body,)))
    before, data = _pushed(model)
    way = data.xmat[body].reshape(3, 3)[:, variation.axis] * experiment.value(variation.parameter)
    here, there = (_of_mass(model, data, body, data.xipos[body] + step) for step in (np.zeros(3), way))
    moved = model.body_mass[body] * (there - here)
    if not way.any():
        return None
    return _compare("the moment of the body's weight", 1.0, moved, _pushed(experiment.varied)[0] - before)


_PULL = (3.0, 4.0, -9.81)  # [m/s²]: gravity that every slide and hinge feels


def _pushed(model: mujoco.MjModel) -> tuple[Array, mujoco.MjData]:
    """Forces that accelerate each degree of freedom by its number, from rest against `_PULL`; and in which state."""
    model = copy.copy(model)
    model.opt.gravity[:] = _PULL
    data, force = mujoco.MjData(model), np.zeros(model.nv)
    data.qacc[:] = _acceleration(model)
    mujoco.mj_fwdPosition(model, data)
    mujoco.mj_fwdVelocity(model, data)
    mujoco.mj_mulM(model, data, force, _acceleration(model))
    return force + data.qfrc_bias, data


def _acceleration(model: mujoco.MjModel) -> Array:
    return 1.0 + np.arange(model.nv, dtype=np.float64)


def _of_mass(model: mujoco.MjModel, data: mujoco.MjData, body: int, place: Array) -> Array:
    """What 1 kg at a place of a body adds to the forces of `_pushed`."""
    jacobian = np.zeros((3, model.nv))
    mujoco.mj_jac(model, data, jacobian, None, place, body)
    return np.asarray(jacobian.T @ (jacobian @ _acceleration(model) - np.array(_PULL)))


def _gravity(variation: Gravity, experiment: Experiment) -> str | None:
    before, after = (_weight(model) for model in (experiment.nominal, experiment.varied))
    return _compare("the weight upon the joints", experiment.value(variation.parameter), before, after)


def _weight(model: mujoco.MjModel) -> Array:
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return np.array(data.qfrc_bias)


# contacts


def _friction(variation: Friction, experiment: Experiment) -> str | None:
    """Every contact keeps its friction (another geom's counts) or changes by the ratio; some change."""
    model, ratio = experiment.nominal, experiment.value(variation.parameter)
    varied = set(ids(model, "geom", variation.geoms).tolist())
    seen: dict[tuple[int, int], tuple[float, float]] = {}
    of_nominal, of_varied = mujoco.MjData(model), mujoco.MjData(experiment.varied)
    for pose in experiment.poses.touching:
        after = _contacts(experiment.varied, of_varied, *pose)
        for pair, friction in _contacts(model, of_nominal, *pose).items():
            if varied & set(pair) and pair in after:
                seen.setdefault(pair, (friction, after[pair]))
    if not seen:
        return f"nothing that it varies touched anything with friction in {_CONTACT_STEPS} steps of random play"
    changed = False
    for pair, (before, after_) in seen.items():
        right = abs(after_ - max(ratio * before, mujoco.mjMINMU)) <= _CLOSE * max(ratio, 1.0) * before
        changed |= right
        if not right and abs(after_ - before) > _CLOSE * before:
            names = " on ".join(label(model, "geom", geom) for geom in pair)
            return (
                f"the friction of {names} changes by the ratio {after_ / before:.4g} instead of {ratio:.4g}, as that "
                "of the other geom counts from there on: vary both, or give the varied one a higher priority"
            )
    if changed:
        return None
    names = " on ".join(label(model, "geom", geom) for geom in next(iter(seen)))
    return f"the friction of {names} does not change, as that of the other geom counts: vary that one"


def _contacts(
    model: mujoco.MjModel, data: mujoco.MjData, qpos: Array, mocap_pos: Array, mocap_quat: Array
) -> dict[tuple[int, int], float]:
    """Sliding friction of each pair of geoms that touch with any."""
    data.qpos[:], data.mocap_pos[:], data.mocap_quat[:] = qpos, mocap_pos, mocap_quat
    mujoco.mj_fwdPosition(model, data)
    pairs = {}
    for contact in data.contact:
        if contact.dim > 1 and min(contact.geom) >= 0:
            pairs[int(contact.geom[0]), int(contact.geom[1])] = float(contact.friction[0])
    return pairs


_MEASURES: dict[type, Measure] = {
    MotorStrength: _strength,
    WeakMotor: _weak,
    JointFault: _fault,
    JointDamping: _damping,
    BodyMass: _mass,
    Payload: _payload,
    CentreOfMass: _centre,
    Gravity: _gravity,
    Friction: _friction,
}
