"""The contract between the batched environments and whatever simulates their worlds."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import mujoco
from jaxtyping import Bool, Float64, Int64
from torch import Tensor


@runtime_checkable
class Physics(Protocol):
    """`num_worlds` simulations of one model, stepped together.

    Tensors from `bind` and `expand` are live: they are fetched once and read or written in place.
    """

    model: mujoco.MjModel
    num_worlds: int

    def bind(self, field: str, *, fresh: bool = True) -> Tensor:
        """Live tensor (N, ...) over an MjData field.

        State fields (qpos, qvel, ctrl, ...) are writable. Derived ones are read-only. After `forward` they are all
        current. After `step` those of position and velocity (xpos, cvel, most sensors) are current where one of
        them is bound `fresh`, which costs about half a substep; else they are as before the step's last substep, as
        with `mj_step`. Those of acceleration (qacc, actuator_force, cfrc_ext, force sensors) always are.
        """
        ...

    def expand(self, field: str) -> Tensor:
        """Live tensor (N, ...) of an MjModel field (or `opt.<name>`), one value per world."""
        ...

    def set_const(self, worlds: Int64[Tensor, "n"]) -> None:
        """Recompute what MuJoCo derives from masses, inertias and the like, after `expand`ed fields changed."""
        ...

    def reset(self, worlds: Int64[Tensor, "n"]) -> None:
        """Back to the model's initial state, with no memory of the past (warm starts, warnings)."""
        ...

    def step(self, num_substeps: int) -> None:
        """Advance every world by `num_substeps` physics steps with the present `ctrl`."""
        ...

    def forward(self, worlds: Int64[Tensor, "n"]) -> None:
        """Recompute derived fields from the present state."""
        ...

    def diverged(self) -> Bool[Tensor, "N"]:
        """Worlds whose physics went bad since their last `reset`.

        Read from MuJoCo's warning counters: it resets a diverged state silently, so the state itself looks finite.
        """
        ...

    def get_state(self) -> Float64[Tensor, "N S"]:
        """Copy of the complete integration state of every world."""
        ...

    def set_state(self, state: Float64[Tensor, "N S"]) -> None:
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
