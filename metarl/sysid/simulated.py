"""Logs of simulated robots, for tests, examples and a first try."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch

from metarl.core import seeding
from metarl.core.errors import unknown_name
from metarl.core.tasks import Tasks
from metarl.sim.family import MujocoFamily
from metarl.sysid.log import Log
from metarl.sysid.plant import Base, Plant

Motion = Literal["squat", "random"]
NOISE = {"joint_position": 1.5e-3, "joint_velocity": 0.1, "gyro": 0.02, "gravity": 5e-3, "acc": 0.15}
"""Standard deviation by part [rad, rad/s, rad/s, 1, m/s²]: encoders and an inertial sensor as of a robot dog."""
_HELD = 0.25  # [s] between two targets of the random motion
_SQUAT = (0.0, 0.18, -0.36)  # amplitudes of abduction, hip, knee [rad]
_FREQUENCY = (0.8, 1.2)  # [Hz]


def simulated_log(
    family: MujocoFamily,
    parameters: Mapping[str, float],
    *,
    motion: Motion = "squat",
    seconds: float = 8.0,
    period: float = 0.0,
    base: Base = "standing",
    noise: Mapping[str, float] = NOISE,
    seed: int = 0,
) -> Log:
    """A motion played by the unmodified robot but for some `parameters`, as its noisy sensors see it.

    `period` is the time between rows [s], a control step if 0. `squat` moves every third joint as a leg's knee, all
    legs together, so that no foot lifts or slips; `random` goes to a new target every 0.25 s.
    """
    period = period or family.control_step
    plant, rng = Plant(family, period, base, threads=1), seeding.rng(seed, "sysid/log")
    row = family.space.nominal(1)
    for name in parameters:
        if name not in row.values:
            raise unknown_name("task parameter", name, row.values)
    tasks = Tasks({k: torch.full_like(v, parameters[k]) if k in parameters else v for k, v in row.values.items()})
    time = np.arange(round(seconds / period) + 1) * period
    command = _motion(plant, motion, time, rng)
    start = plant.rest[None], np.zeros((1, plant.model.nv))
    if base == "standing" and plant.free is not None:
        start = plant.on_its_feet(*start)
    seen = plant.play(tasks, *start, command[None, :-1])[0]
    spread = np.array([noise.get(name.split(".")[0], 0.0) for name in plant.names])
    seen = seen + spread * rng.standard_normal(seen.shape)
    columns = {"time": time, **dict(zip(plant.names, seen.T, strict=True))}
    columns |= {f"target.{name}": column for name, column in zip(plant.targets, command.T, strict=True)}
    return Log(columns, f"the simulated log of {type(family).__name__}")


def _motion(plant: Plant, motion: Motion, time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    low, high = plant.model.actuator_ctrlrange.T
    rest = plant.model.key_ctrl[0] if plant.model.nkey else (low + high) / 2.0
    if motion == "random":
        held = (time / _HELD).astype(int)
        reach = 0.3 * np.minimum(high - rest, rest - low)
        return np.asarray(rest + reach * rng.uniform(-1.0, 1.0, (held[-1] + 1, len(rest)))[held])
    amplitude = np.resize(_SQUAT, len(rest))
    phase, frequency = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(*_FREQUENCY)
    together = np.sin(2.0 * np.pi * frequency * time + phase) * (1.0 - np.exp(-time))
    return np.asarray(np.clip(rest + amplitude * together[:, None], low, high))
