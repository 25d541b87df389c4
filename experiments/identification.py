"""How well `metarl identify` finds the task of a simulated robot, beside mujoco.sysid on the same logs.

    python experiments/identification.py metarl --logs 20
    python experiments/identification.py mujoco.sysid --logs 20
    python experiments/identification.py mujoco.sysid-told --logs 20       # told the true states

Each log is 8 s of noisy squats of a quadruped with a payload of 1.7 kg, motors at 0.78 and 2.2 times the dry friction
of its joints (0.22 N·m). What was found is written to experiments/results/identify/, and summed up.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch

import metarl
from metarl.core.files import write_json
from metarl.core.registry import make_family
from metarl.core.tasks import Tasks
from metarl.run.logs import provenance
from metarl.sim.family import MujocoFamily
from metarl.sim.mujoco.physics import Physics
from metarl.sysid import cutting
from metarl.sysid.identify import unknowns_of
from metarl.sysid.log import Log
from metarl.sysid.plant import Plant
from metarl.sysid.simulated import simulated_log

FAMILY = "quadruped-body+joint_friction"
TRUTH = {"payload": 1.7, "strength": 0.78, "joint_friction": 2.2}
RESULTS = Path(__file__).parent / "results" / "identify"
SECONDS = 8.0
_PIECES = 9  # that mujoco.sysid plays, of as many seconds in all as ours

Found = Mapping[str, tuple[float, float, float]]
"""By parameter: value, lower and upper end of its 95 % interval."""


def by_metarl(family: MujocoFamily, log: Log) -> Found:
    """`metarl.identify` as a user would call it, but for one first guess and one thread."""
    found = metarl.identify(FAMILY, log, parameters=list(TRUTH), starts=1, threads=1)
    return {one.unknown.name: (one.value, one.low, one.high) for one in found.estimates}


class Recorded(Plant):
    """A plant that keeps the states it goes through."""

    states: list[tuple[np.ndarray, np.ndarray]]

    def _sense(self, physics: Physics, tasks: Tasks) -> np.ndarray:
        kept = physics.bind("qpos").numpy().copy(), physics.bind("qvel").numpy().copy()
        self.states = [*getattr(self, "states", []), kept]
        return super()._sense(physics, tasks)


def true_states(family: MujocoFamily, log: Log) -> tuple[np.ndarray, np.ndarray]:
    """Positions and speeds at every row of a simulated log, which its robot cannot measure."""
    plant = Recorded(family, log.period, threads=1)
    row = family.space.nominal(1).values
    tasks = Tasks({name: torch.full_like(own, TRUTH.get(name, float(own))) for name, own in row.items()})
    start = plant.on_its_feet(plant.rest[None], np.zeros((1, plant.model.nv)))
    plant.states = []
    plant.play(tasks, *start, cutting.commands_of(plant, log, FAMILY)[None, :-1])
    return tuple(np.concatenate(each) for each in zip(*plant.states, strict=True))  # type: ignore[return-value]


def by_mujoco(family: MujocoFamily, log: Log, told: bool = False) -> Found:
    """mujoco.sysid on pieces of 0.4 s, each of which starts where encoders, gyroscope and gravity say, or as `told`."""
    from mujoco import sysid

    options = cutting.Options(tuple(TRUTH), shot=0.4, settle=0.0, max_shots=_PIECES, threads=1)
    plant, log, period = cutting.plant_of(family, FAMILY, log, options)
    seen, commands = log.matrix(plant.names), cutting.commands_of(plant, log, FAMILY)
    noise = cutting.typical_noise(plant, seen)
    shots = cutting.shots_of(plant, log, seen, commands, noise, period, options)
    spec = _with_sensors(family.spec())
    model, pieces = spec.compile(), []
    sensors = [model.sensor(number).name for number in range(model.nsensor)]
    zero = np.zeros(len(plant.names))  # of a log's angles, which are counted from where the robot stands
    zero[[name.startswith("joint_position") for name in plant.names]] = plant.rest[7:]
    columns = [i for one in sensors for i, name in enumerate(plant.names) if name == one or name.split(".")[0] == one]
    step = model.opt.timestep
    states = true_states(family, log)
    for qpos, qvel, measured, command in zip(shots.qpos, shots.qvel, shots.measured, shots.command, strict=True):
        if told:
            row = int(np.argmax((seen == measured[0]).sum(axis=1)))
            qpos, qvel = (each[row] for each in states)
        rows = np.arange(1, len(measured)) * period
        ticks = np.arange(len(command) * plant.substeps) * step
        state = sysid.create_initial_state(model, qpos, qvel)
        held = sysid.TimeSeries.from_control_names(ticks, np.repeat(command, plant.substeps, axis=0), model)
        pieces.append((state, held, sysid.TimeSeries.from_names(rows, (measured + zero)[1:, columns], model, sensors)))
    starts, controls, readings = (list(each) for each in zip(*pieces, strict=True))
    labels = [f"piece {number}" for number in range(len(pieces))]
    sequences = sysid.ModelSequences("quadruped", spec, labels, starts, controls, readings)
    parameters = sysid.ParameterDict()
    for one in unknowns_of(family, tuple(TRUTH)):
        parameters.add(sysid.Parameter(one.name, one.expected, one.low, one.high, modifier=_MODIFIERS[one.name]))
    parameters.move_off_bounds()  # its own advice: it stalls at a bound
    residual = sysid.build_residual_fn(models_sequences=[sequences], n_threads=1)
    with contextlib.redirect_stdout(None):  # it prints tables
        found, result = sysid.optimize(parameters, residual, optimizer="scipy", verbose=False)
    left, *_ = residual(result.x, found)
    _, wide = sysid.calculate_intervals(left, result.jac)
    return {n: (float(v), float(v - w), float(v + w)) for n, v, w in zip(TRUTH, result.x, wide, strict=True)}


def _with_sensors(spec: mujoco.MjSpec) -> mujoco.MjSpec:
    """The model with the sensors that the log has, and a load on its back."""
    trunk = spec.body("trunk")
    trunk.add_site(name="imu")
    trunk.add_body(name="load", pos=[0.0, 0.0, 0.1]).explicitinertial = True
    _load(spec, 0.0)
    for sensor in list(spec.sensors):
        spec.delete(sensor)
    for kind, name in (("GYRO", "gyro"), ("ACCELEROMETER", "acc")):
        spec.add_sensor(
            name=name, type=getattr(mujoco.mjtSensor, f"mjSENS_{kind}"), objtype=mujoco.mjtObj.mjOBJ_SITE, objname="imu"
        )
    for kind, name in (("JOINTPOS", "joint_position"), ("JOINTVEL", "joint_velocity")):
        for joint in spec.joints:
            if joint.type == mujoco.mjtJoint.mjJNT_HINGE:
                spec.add_sensor(
                    name=f"{name}.{joint.name}",
                    type=getattr(mujoco.mjtSensor, f"mjSENS_{kind}"),
                    objtype=mujoco.mjtObj.mjOBJ_JOINT,
                    objname=joint.name,
                )
    return spec


def _load(spec: mujoco.MjSpec, mass: float) -> None:
    load = spec.body("load")
    load.mass, load.inertia = mass + 1e-6, [1e-9] * 3


def _payload(spec: mujoco.MjSpec, parameter: Any) -> None:
    _load(spec, float(parameter.value[0]))


def _strength(spec: mujoco.MjSpec, parameter: Any) -> None:
    ratio = float(parameter.value[0])
    for motor in spec.actuators:
        own = PRISTINE.actuator(motor.name)
        motor.gainprm, motor.biasprm, motor.forcerange = (
            own.gainprm * ratio,
            own.biasprm * ratio,
            own.forcerange * ratio,
        )


def _joint_friction(spec: mujoco.MjSpec, parameter: Any) -> None:
    for joint in spec.joints:
        if joint.type == mujoco.mjtJoint.mjJNT_HINGE:
            joint.frictionloss = 0.1 * float(parameter.value[0])


_MODIFIERS = {"payload": _payload, "strength": _strength, "joint_friction": _joint_friction}
PRISTINE = make_family(FAMILY).spec().compile()  # type: ignore[union-attr]
_ENGINES: Mapping[str, Callable[[MujocoFamily, Log], Found]] = {
    "metarl": by_metarl,
    "mujoco.sysid": by_mujoco,
    "mujoco.sysid-told": functools.partial(by_mujoco, told=True),
}


def summary(rows: list[Mapping[str, Any]]) -> str:
    """A line of Markdown for each parameter: errors, and how many intervals hold the truth."""
    lines = [f"{len(rows)} logs, {np.mean([row['cpu_seconds'] for row in rows]):.1f} s of CPU time each", ""]
    lines += [
        "| parameter | truth | mean | error, typical and largest | width | intervals that hold it |",
        "|---|---|---|---|---|---|",
    ]
    for name, truth in TRUTH.items():
        value, low, high = np.array([row["found"][name] for row in rows]).T
        error, held = np.abs(value / truth - 1.0), (low <= truth) & (truth <= high)
        lines.append(
            f"| {name} | {truth:g} | {value.mean():.3f} | {np.median(error):.1%}, {error.max():.1%} | "
            f"{np.median(high - low) / truth:.1%} | {held.sum()} of {len(rows)} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Identify, one log after the other, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=list(_ENGINES))
    parser.add_argument("--logs", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    family = make_family(FAMILY)
    assert isinstance(family, MujocoFamily)
    rows: list[Mapping[str, Any]] = []
    for seed in range(given.logs):
        log = simulated_log(family, TRUTH, seconds=SECONDS, seed=seed)
        begun = time.process_time()
        found = _ENGINES[given.engine](family, log)
        rows.append({"seed": seed, "found": found, "cpu_seconds": time.process_time() - begun})
        text = {"truth": TRUTH, "seconds": SECONDS, "logs": rows, **provenance(sys.argv)}
        write_json(given.output / f"{given.engine}.json", text)
        print(seed, {name: tuple(round(x, 3) for x in ends) for name, ends in found.items()}, flush=True)
    print(summary(rows))


if __name__ == "__main__":
    main()
