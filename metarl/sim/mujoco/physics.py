"""The contract between the batched environments and whatever simulates their worlds, and the back ends by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import mujoco
import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from metarl.core.errors import UserError, unknown_name
from metarl.sim.faults import Dropped as Dropped

PHYSICS = {"mujoco": "metarl.sim.mujoco.cpu:CpuPhysics", "warp": "metarl.sim.mujoco.warp:WarpPhysics"}
"""Back ends by name, as `module:Class`. A class is made with (model, num_worlds, threads, device, counts)."""
START_FIELDS = frozenset({"qpos0", "body_pos", "body_quat", "eq_active0"})
"""Model fields that decide the state after a reset (of a mocap body, its place): worlds may begin differently."""
BODY_FORCES = frozenset({"cfrc_ext", "cfrc_int", "cacc"})
"""Computed in a step only for a model with one of the sensors below (`mj_rnePostConstraint`)."""
_FORCE_SENSORS = [
    int(mujoco.mjtSensor.mjSENS_FORCE),
    int(mujoco.mjtSensor.mjSENS_TORQUE),
    int(mujoco.mjtSensor.mjSENS_ACCELEROMETER),
    int(mujoco.mjtSensor.mjSENS_FRAMELINACC),
    int(mujoco.mjtSensor.mjSENS_FRAMEANGACC),
]
WITHOUT_FORCES = frozenset(
    [f"{kind}{what}" for kind in ("x", "xi", "geom_x", "site_x", "cam_x") for what in ("pos", "mat")]
    + ["xquat", "xanchor", "xaxis", "subtree_com", "cdof", "cinert", "cvel", "actuator_length", "actuator_velocity"]
    + ["ten_length", "ten_velocity", "qM"]
)
"""Derived fields that follow from positions and velocities."""
_NOT_COMPUTED = frozenset({"subtree_linvel", "subtree_angmom", "energy"})


def require_bindable(model: mujoco.MjModel, field: str) -> None:
    """`UserError` for a derived field that stepping does not compute: it would bind, and hold what is not so."""
    if field in _NOT_COMPUTED:
        raise UserError(f"MuJoCo does not compute '{field}' when it steps: use a sensor of the model instead")
    if field in BODY_FORCES and not np.isin(model.sensor_type, _FORCE_SENSORS).any():
        raise UserError(
            f"MuJoCo computes '{field}' only for a model with a force, torque or accelerometer sensor: add one"
        )


@dataclass(frozen=True)
class Counts:
    """Room that a back end of fixed sizes keeps for each world."""

    contacts: int
    constraints: int
    """Rows of the solver: several per contact, one per joint at its limit or with dry friction."""


@runtime_checkable
class Physics(Protocol):
    """`num_worlds` simulations of one model, stepped together on one device.

    Tensors from `bind` and `expand` are live: they are fetched once and read or written in place. Masks have one
    element per world. A back end on a device never waits for it: it works on all worlds and keeps those of the mask.
    """

    model: mujoco.MjModel
    num_worlds: int
    device: torch.device
    dtype: torch.dtype
    """Number type of states and of everything derived from them."""
    seconds_to_compile: float
    """What it has taken to load and compile kernels [s]."""

    def bind(self, field: str, *, fresh: bool = True, at_start: bool = True) -> Tensor:
        """Live tensor (N, ...) over an MjData field.

        State fields (qpos, qvel, ctrl, ...) are writable. Derived ones are read-only. After `forward` they are all
        current. After `step` those of position and velocity (xpos, cvel, most sensors) are current where one of
        them is bound `fresh`, which costs about half a substep; else they are as before the step's last substep, as
        with `mj_step`. Those of acceleration (qacc, actuator_force, cfrc_ext, force sensors) always are. One that
        nobody reads between a restart and the next step is bound with `at_start` False: a back end on a device then
        leaves out the forces of restarted worlds, and of acceleration it holds anything there.
        """
        ...

    def expand(self, field: str) -> Tensor:
        """Live tensor (N, ...) of an MjModel field (or `opt.<name>`), one value per world."""
        ...

    def covering(self, mask: Bool[Tensor, "N"]) -> Int64[Tensor, "n"]:
        """Worlds, in ascending order, to write where those of `mask` are to be written, at least these.

        On the CPU exactly these. All worlds on a device that would have to be waited for.
        """
        ...

    def set_const(self, mask: Bool[Tensor, "N"]) -> None:
        """Recompute what MuJoCo derives from masses, inertias and the like, after fields of `expand` changed."""
        ...

    def reset(self, mask: Bool[Tensor, "N"]) -> None:
        """Back to the model's initial state, with no memory of the past (warm starts, warnings)."""
        ...

    def restart(self, mask: Bool[Tensor, "N"], write: Callable[[Int64[Tensor, "n"]], None]) -> None:
        """Reset the worlds of `mask`, let `write(worlds)` change their state, and recompute what is derived from it.

        `write` is given the worlds that `covering` names; what it writes into others is undone.
        """
        ...

    def step(self, num_substeps: int) -> None:
        """Advance every world by `num_substeps` physics steps with the present `ctrl`."""
        ...

    def forward(self, mask: Bool[Tensor, "N"]) -> None:
        """Recompute derived fields from the present state."""
        ...

    def diverged(self) -> Bool[Tensor, "N"] | None:
        """Worlds whose physics went bad since their last `reset`; None where that is known to be none.

        Read from MuJoCo's warning counters: it resets a diverged state silently, so the state itself looks finite.
        """
        ...

    def dropped(self) -> Dropped:
        """What has gone amiss since the last call; waits for the device."""
        ...

    def get_state(self) -> Float[Tensor, "N S"]:
        """Copy of the complete integration state of every world."""
        ...

    def set_state(self, state: Float[Tensor, "N S"]) -> None:
        """Continue exactly from a state of `get_state`."""
        ...

    def model_of(self, world: int) -> mujoco.MjModel:
        """One world's own model, with its per-world fields, for rendering."""
        ...

    def data_of(self, world: int, data: mujoco.MjData | None = None) -> mujoco.MjData:
        """One world's state, with everything derived from it, for rendering.

        Written into `data` where given: made once with `MjData(model_of(world))`, it spares a copy of the model.
        """
        ...


def make_physics(
    name: str,
    model: mujoco.MjModel,
    num_worlds: int,
    threads: int = 0,
    device: str | None = None,
    counts: Callable[[], Counts] | None = None,
) -> Physics:
    """Worlds of a model in the back end `name`, on its own kind of device unless told.

    `counts` is asked by a back end of fixed sizes how much room a world needs. Raises `UserError` for a back end that
    does not exist or is not installed, or a device it does not work on.
    """
    if name not in PHYSICS:
        raise unknown_name("physics", name, PHYSICS)
    module, _, attribute = PHYSICS[name].partition(":")
    try:
        back_end = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("warp", "mujoco_warp"):
            raise
        raise UserError(f"the physics '{name}' needs the package mujoco-warp: pip install mujoco-warp") from None
    made: Physics = back_end(model, num_worlds, threads, device, counts)
    return made
