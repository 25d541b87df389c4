"""What the experiments with variations share: two models of one robot, poses in which it touches things, comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import mujoco
import numpy as np
import torch
from jaxtyping import Float

from metarl.core import seeding
from metarl.core.tasks import Value
from metarl.sim.family import MujocoFamily
from metarl.sim.make import make_env
from metarl.sim.mujoco.mujoco_env import MujocoEnv

Array: TypeAlias = Float[np.ndarray, "..."]

Pose: TypeAlias = tuple[Array, ...]
"""`qpos`, `mocap_pos` and `mocap_quat`."""

CLOSE = 1e-5
"""Relative error of a ratio that counts as right."""
CONTACT_STEPS = 200
"""Control steps of random play in which things may touch."""
_CONTACT_WORLDS = 4


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
    def touching(self) -> list[Pose]:
        """For each pair of geoms the pose in which it was first seen to touch."""
        env, found = make_env(self.family, _CONTACT_WORLDS, threads=1), []
        assert isinstance(env, MujocoEnv)
        env.begin(self.family.space.sample("train", _CONTACT_WORLDS, seeding.rng(0, "check/touch")), key=0)
        fields = [env.physics.bind(name) for name in ("qpos", "mocap_pos", "mocap_quat")]
        model, generator = env.physics.model, seeding.generator(0, "check/touch")
        data, seen = mujoco.MjData(model), set[tuple[int, ...]]()
        for _ in range(min(CONTACT_STEPS, env.trial_steps)):
            for world in range(_CONTACT_WORLDS):
                pose = tuple(field[world].double().numpy().copy() for field in fields)
                pairs = {tuple(contact.geom.tolist()) for contact in contacts(model, data, pose)}
                if pairs - seen:
                    seen |= pairs
                    found.append(pose)
            env.step(torch.rand(_CONTACT_WORLDS, model.nu, generator=generator) * 2 - 1)
        env.close()
        return found


def contacts(model: mujoco.MjModel, data: mujoco.MjData, pose: Pose) -> list[Any]:
    """MuJoCo's contacts in a pose; `data` is overwritten."""
    data.qpos[:], data.mocap_pos[:], data.mocap_quat[:] = pose
    mujoco.mj_fwdPosition(model, data)
    return list(data.contact)


def compare(what: str, ratio: float, nominal: Array, varied: Array) -> str | None:
    """`varied` must be `ratio` times `nominal`, which must not be zero everywhere."""
    size = float(np.abs(nominal).max(initial=0.0))
    if size == 0.0:
        return f"{what} is zero on the unmodified model, so that no ratio changes it"
    error = np.abs(varied - ratio * nominal)
    if error.max() <= CLOSE * size * max(1.0, abs(ratio)):
        return None
    worst = np.unravel_index(int(error.argmax()), error.shape)
    if nominal[worst] == 0.0:
        return f"{what} becomes {varied[worst]:.4g} where it was zero"
    return f"{what} changes by the ratio {varied[worst] / nominal[worst]:.4g} instead of {ratio:.4g}"
