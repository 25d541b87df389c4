"""What the experiments with variations share: two models of one robot, its contacts, comparison of forces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import mujoco
import numpy as np
from jaxtyping import Float

from metarl.check.tested import Pose, Tested
from metarl.core.tasks import Value

Array: TypeAlias = Float[np.ndarray, "..."]

CLOSE = 1e-5
"""Relative error of a ratio that counts as right."""


@dataclass(frozen=True)
class Experiment:
    """One variation alone, in one task: the unmodified model and the varied one."""

    nominal: mujoco.MjModel
    varied: mujoco.MjModel
    task: Mapping[str, Value]
    tested: Tested

    @property
    def models(self) -> tuple[mujoco.MjModel, mujoco.MjModel]:
        """Both, the unmodified one first."""
        return self.nominal, self.varied

    def value(self, name: str) -> float:
        """A task parameter that is one number."""
        value: Any = self.task[name]
        return float(value)


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


def friction(model: mujoco.MjModel, pose: Pose) -> dict[tuple[int, int], float]:
    """Sliding friction of each pair of geoms that touch with any, in a pose."""
    data = mujoco.MjData(model)
    data.qpos[:], data.mocap_pos[:], data.mocap_quat[:] = pose
    mujoco.mj_fwdPosition(model, data)
    touching = zip(data.contact.geom.tolist(), data.contact.dim, data.contact.friction[:, 0], strict=True)
    return {(one, other): float(held) for (one, other), dim, held in touching if dim > 1 and min(one, other) >= 0}
