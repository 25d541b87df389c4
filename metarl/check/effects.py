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
from metarl.check.experiment import CLOSE, Array, Experiment, compare, friction
from metarl.check.tested import CheckError, Tested
from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.tasks import Tasks
from metarl.sim.mujoco.physics import make_physics
from metarl.sim.variation import Variation, called, dofs, label, object_id, object_ids
from metarl.sim.variations import (
    Armature,
    BodyMass,
    CentreOfMass,
    Friction,
    Gravity,
    GravityTilt,
    JointDamping,
    JointFault,
    MotorStrength,
    Payload,
    Variator,
    WeakMotor,
)

_DRAWS = 4  # tasks of each split
_SPEEDS = (0.1, 1.0, 10.0, -0.1, -1.0, -10.0)  # [m/s, rad/s]

Measure = Callable[[Any, Experiment], str | None]
"""Of a variation and an experiment with it: what is wrong, in a clause, or None."""


def ratios(tested: Tested) -> str | None:
    """Each variation changes its quantity by the ratio it says.

    Measured by forces on the family's own model; there is no experiment for other kinds of variations.
    """
    for problem in effect_problems(tested):
        raise CheckError(problem)
    kinds = not_measured(tested)
    return f"not measured: {', '.join(kinds)}" if kinds else None


def effect_problems(tested: Tested) -> Iterator[str]:
    """One sentence for each variation whose quantity does not change as its tasks say."""
    space = tested.family.space
    splits = [space.sample(split, _DRAWS, seeding.rng(0, "check/effects")) for split in space.splits]
    tasks = Tasks.from_rows([row for split in splits for row in split.rows()])
    for variation in tested.family.variations:
        measure = _measure(variation)
        if measure is None:
            continue
        kind = called(variation)
        physics = make_physics("mujoco", tested.model, len(tasks), 1)
        try:
            Variator(physics, (variation,)).apply(tasks)
        except UserError as error:
            yield f"{kind} cannot be applied: {error}"
            continue
        for world, task in enumerate(tasks.rows()):
            problem = measure(variation, Experiment(tested.model, physics.model_of(world), task, tested))
            if problem is not None:
                read = ", ".join(f"{name} = {task[name]}" for name in variation.parameters)
                yield f"{kind}: {problem} (at {read})"
                break


def not_measured(tested: Tested) -> list[str]:
    """Kinds of variations that `effect_problems` has no experiment for."""
    return sorted({type(variation).__name__ for variation in tested.family.variations if _measure(variation) is None})


def _measure(variation: Variation) -> Measure | None:
    return next((measure for kind, measure in _MEASURES.items() if isinstance(variation, kind)), None)


# joints and bodies


def _damping(variation: JointDamping, experiment: Experiment) -> str | None:
    index = list(dofs(experiment.nominal, object_ids(experiment.nominal, "joint", variation.joints)))
    before, after = (_damped(model)[:, index] for model in experiment.models)
    return compare("what damps the joints", experiment.value(variation.parameter), before, after)


def _damped(model: mujoco.MjModel) -> Array:
    """Damping forces of all degrees of freedom, at several speeds either way."""
    data, forces = mujoco.MjData(model), []
    for speed in _SPEEDS:
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
    own, ratio = twice - once, experiment.value(variation.parameter)
    return compare("what it takes to accelerate the bodies", ratio, own, varied - once + own)


def _armature(variation: Armature, experiment: Experiment) -> str | None:
    bare = copy.copy(experiment.nominal)
    for field in variation.fields:
        kept = getattr(bare, field)
        kept[:] = 0.0
    mujoco.mj_setConst(bare, mujoco.MjData(bare))
    index = list(dofs(bare, object_ids(bare, "joint", variation.joints)))
    without, once, varied = (_pushed(model)[0][index] for model in (bare, *experiment.models))
    ratio = experiment.value(variation.parameter)
    return compare("what it takes to accelerate the rotors", ratio, once - without, varied - without)


def _payload(variation: Payload, experiment: Experiment) -> str | None:
    load, body = experiment.value(variation.parameter), object_id(experiment.nominal, "body", variation.body)
    before, data = _pushed(experiment.nominal)
    at = np.array(variation.at)
    at[: len(variation.aside)] += [experiment.value(name) for name in variation.aside]
    place = data.xpos[body] + data.xmat[body].reshape(3, 3) @ at
    needed = _of_mass(experiment.nominal, data, body, place)
    return compare("what it takes to accelerate the load", load, needed, _pushed(experiment.varied)[0] - before)


def _centre(variation: CentreOfMass, experiment: Experiment) -> str | None:
    model, way = experiment.nominal, experiment.value(variation.parameter)
    body, (before, data) = object_id(model, "body", variation.body), _pushed(model)
    there = data.xipos[body] + way * data.xmat[body].reshape(3, 3)[:, variation.axis]
    moved = _of_mass(model, data, body, there) - _of_mass(model, data, body, data.xipos[body])
    if way == 0.0:
        return None
    after = _pushed(experiment.varied)[0] - before
    return compare("the moment of the body's weight", 1.0, model.body_mass[body] * moved, after)


_PULL = (3.0, 4.0, -9.81)  # [m/s²]: gravity that every slide and hinge feels


def _pushed(model: mujoco.MjModel) -> tuple[Array, mujoco.MjData]:
    """Forces that accelerate each degree of freedom by `_acceleration`, from rest against `_PULL`; and the state."""
    model = copy.copy(model)
    model.opt.gravity[:] = _PULL
    data, force = mujoco.MjData(model), np.zeros(model.nv)
    mujoco.mj_fwdPosition(model, data)
    mujoco.mj_fwdVelocity(model, data)
    mujoco.mj_mulM(model, data, force, _acceleration(model))
    return force + data.qfrc_bias, data


def _acceleration(model: mujoco.MjModel) -> Array:
    """Another one of each degree of freedom: 1, 2, ..."""
    return 1.0 + np.arange(model.nv, dtype=np.float64)


def _of_mass(model: mujoco.MjModel, data: mujoco.MjData, body: int, place: Array) -> Array:
    """What 1 kg at a place of a body adds to the forces of `_pushed`."""
    jacobian = np.zeros((3, model.nv))
    mujoco.mj_jac(model, data, jacobian, None, place, body)
    return np.asarray(jacobian.T @ (jacobian @ _acceleration(model) - np.array(_PULL)))


def _gravity(variation: Gravity, experiment: Experiment) -> str | None:
    states = [mujoco.MjData(model) for model in experiment.models]
    for model, data in zip(experiment.models, states, strict=True):
        mujoco.mj_forward(model, data)
    return compare("the weight upon the joints", experiment.value(variation.parameter), *(d.qfrc_bias for d in states))


def _tilt(variation: GravityTilt, experiment: Experiment) -> str | None:
    nominal, varied = experiment.models
    angle, (x, y, z) = experiment.value(variation.parameter), nominal.opt.gravity
    sine, cosine = np.sin(angle), np.cos(angle)
    expected = np.array([x * cosine + z * sine, y, z * cosine - x * sine])
    return compare("the tilted gravity", 1.0, expected, varied.opt.gravity)


def _friction(variation: Friction, experiment: Experiment) -> str | None:
    """Every contact keeps its friction (another geom's counts) or changes by the ratio; some change."""
    model, ratio, problem = experiment.nominal, experiment.value(variation.parameter), ""
    varied, changed = set(object_ids(model, "geom", variation.geoms)), False
    for pose in experiment.tested.touching:
        before, after = (friction(each, pose) for each in experiment.models)
        for pair in [pair for pair in before if pair in after and varied & set(pair)]:
            one, other = before[pair], after[pair]
            what = f"the friction of {' on '.join(label(model, 'geom', geom) for geom in pair)}"
            if abs(other - max(ratio * one, mujoco.mjMINMU)) <= CLOSE * max(ratio, 1.0) * one:
                changed = True
            elif abs(other - one) > CLOSE * one:
                return (
                    f"{what} changes by the ratio {other / one:.4g} instead of {ratio:.4g}, as that of the other geom "
                    "counts from there on: vary both, or give the varied one a higher priority"
                )
            problem = problem or f"{what} does not change, as that of the other geom counts: vary that one"
    nothing = "nothing that it varies touched anything with friction in random play"
    return None if changed else problem or nothing


_MEASURES: dict[type, Measure] = {
    MotorStrength: strength,
    WeakMotor: weak,
    JointFault: fault,
    JointDamping: _damping,
    BodyMass: _mass,
    Armature: _armature,
    Payload: _payload,
    CentreOfMass: _centre,
    Gravity: _gravity,
    GravityTilt: _tilt,
    Friction: _friction,
}
