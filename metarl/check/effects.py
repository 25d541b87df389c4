"""Does a variation change its quantity by the ratio its task says? Small experiments on the family's own model.

Each measures a force that MuJoCo computes for the unmodified model and for a varied one: what a motor exerts at full
control, what damps a joint at several speeds, what it takes to accelerate a body against gravity, what holds a contact.
A variation that writes one field where MuJoCo reads two differs here, whatever it wrote.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import mujoco
import numpy as np

from metarl.check.effects_motors import fault, strength, weak
from metarl.check.experiment import CLOSE, CONTACT_STEPS, Array, Experiment, Pose, Poses, compare, contacts
from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.tasks import Tasks
from metarl.sim.family import MujocoFamily
from metarl.sim.mujoco.cpu import CpuPhysics
from metarl.sim.mujoco.mujoco_env import compile_spec
from metarl.sim.variation import Variation, dofs, label, object_id, object_ids
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

_DRAWS = 4  # tasks of each split
_SPEEDS = (0.1, 1.0, 10.0)  # [m/s, rad/s]


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


# joints and bodies


def _damping(variation: JointDamping, experiment: Experiment) -> str | None:
    index = list(dofs(experiment.nominal, object_ids(experiment.nominal, "joint", variation.joints)))
    before, after = (_damped(model)[:, index] for model in (experiment.nominal, experiment.varied))
    return compare("what damps the joints", experiment.value(variation.parameter), before, after)


def _damped(model: mujoco.MjModel) -> Array:
    """Damping forces of all degrees of freedom, at several speeds either way."""
    data, forces = mujoco.MjData(model), []
    for speed in (*_SPEEDS, *(-speed for speed in _SPEEDS)):
        data.qvel[:] = speed
        mujoco.mj_forward(model, data)
        forces.append(data.qfrc_damper.copy())
    return np.stack(forces)


def _mass(variation: BodyMass, experiment: Experiment) -> str | None:
    double, index = copy.copy(experiment.nominal), list(object_ids(experiment.nominal, "body", variation.bodies))
    double.body_mass[index] *= 2.0
    double.body_inertia[index] *= 2.0
    mujoco.mj_setConst(double, mujoco.MjData(double))
    once, twice, varied = (_pushed(model)[0] for model in (experiment.nominal, double, experiment.varied))
    return compare(
        "what it takes to accelerate the bodies",
        experiment.value(variation.parameter),
        twice - once,
        varied - once + (twice - once),
    )


def _payload(variation: Payload, experiment: Experiment) -> str | None:
    load, body = experiment.value(variation.parameter), object_id(experiment.nominal, "body", variation.body)
    before, data = _pushed(experiment.nominal)
    place = data.xpos[body] + data.xmat[body].reshape(3, 3) @ np.array(variation.at)
    needed = _of_mass(experiment.nominal, data, body, place)
    return compare("what it takes to accelerate the load", load, needed, _pushed(experiment.varied)[0] - before)


def _centre(variation: CentreOfMass, experiment: Experiment) -> str | None:
    model, body = experiment.nominal, object_id(experiment.nominal, "body", variation.body)
    before, data = _pushed(model)
    way = data.xmat[body].reshape(3, 3)[:, variation.axis] * experiment.value(variation.parameter)
    here, there = (_of_mass(model, data, body, data.xipos[body] + step) for step in (np.zeros(3), way))
    moved = model.body_mass[body] * (there - here)
    if not way.any():
        return None
    return compare("the moment of the body's weight", 1.0, moved, _pushed(experiment.varied)[0] - before)


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
    return compare("the weight upon the joints", experiment.value(variation.parameter), before, after)


def _weight(model: mujoco.MjModel) -> Array:
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return np.array(data.qfrc_bias)


# contacts


def _friction(variation: Friction, experiment: Experiment) -> str | None:
    """Every contact keeps its friction (another geom's counts) or changes by the ratio; some change."""
    model, ratio = experiment.nominal, experiment.value(variation.parameter)
    varied = set(object_ids(model, "geom", variation.geoms))
    seen: dict[tuple[int, int], tuple[float, float]] = {}
    of_nominal, of_varied = mujoco.MjData(model), mujoco.MjData(experiment.varied)
    for pose in experiment.poses.touching:
        after = _held(experiment.varied, of_varied, pose)
        for pair, friction in _held(model, of_nominal, pose).items():
            if varied & set(pair) and pair in after:
                seen.setdefault(pair, (friction, after[pair]))
    if not seen:
        return f"nothing that it varies touched anything with friction in {CONTACT_STEPS} steps of random play"
    changed = False
    for pair, (before, after_) in seen.items():
        right = abs(after_ - max(ratio * before, mujoco.mjMINMU)) <= CLOSE * max(ratio, 1.0) * before
        changed |= right
        if not right and abs(after_ - before) > CLOSE * before:
            names = " on ".join(label(model, "geom", geom) for geom in pair)
            return (
                f"the friction of {names} changes by the ratio {after_ / before:.4g} instead of {ratio:.4g}, as that "
                "of the other geom counts from there on: vary both, or give the varied one a higher priority"
            )
    if changed:
        return None
    names = " on ".join(label(model, "geom", geom) for geom in next(iter(seen)))
    return f"the friction of {names} does not change, as that of the other geom counts: vary that one"


def _held(model: mujoco.MjModel, data: mujoco.MjData, pose: Pose) -> dict[tuple[int, int], float]:
    """Sliding friction of each pair of geoms that touch with any."""
    found = [contact for contact in contacts(model, data, pose) if contact.dim > 1 and min(contact.geom) >= 0]
    return {(int(contact.geom[0]), int(contact.geom[1])): float(contact.friction[0]) for contact in found}


_MEASURES: dict[type, Measure] = {
    MotorStrength: strength,
    WeakMotor: weak,
    JointFault: fault,
    JointDamping: _damping,
    BodyMass: _mass,
    Payload: _payload,
    CentreOfMass: _centre,
    Gravity: _gravity,
    Friction: _friction,
}
