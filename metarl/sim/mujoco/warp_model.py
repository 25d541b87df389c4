"""A model in mujoco_warp with fields of its own per world; what mujoco_warp cannot simulate is refused by name."""

from __future__ import annotations

import copy
import sys
from functools import cache
from operator import attrgetter

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp
from torch import Tensor

from metarl.core.errors import UserError
from metarl.sim.rotations import axes_of

_ON_THE_CPU = "keep its worlds on the CPU with --physics mujoco"
_PLACES = frozenset({"geom_pos", "geom_quat", "body_pos", "body_quat"})


def supported(model: mujoco.MjModel) -> mujoco.MjModel:
    """The model, or a copy with a solver that mujoco_warp has, which is said on standard error."""
    if model.opt.solver == int(mujoco.mjtSolver.mjSOL_PGS):
        model = copy.copy(model)
        model.opt.solver = int(mujoco.mjtSolver.mjSOL_NEWTON)
        _say("mujoco_warp has no PGS solver: the model's constraints are solved by Newton's method")
    return model


@cache
def _say(line: str) -> None:
    """Once."""
    print(line, file=sys.stderr)


class WorldModel:
    """mujoco_warp's model, of which fields get one value per world as they are asked for."""

    def __init__(self, model: mujoco.MjModel, num_worlds: int) -> None:
        """`UserError` for a feature that mujoco_warp does not have."""
        self._host, self._num_worlds = model, num_worlds
        if model.opt.integrator == int(mujoco.mjtIntegrator.mjINT_DISCRETE):
            raise UserError(f"worlds of mujoco_warp have no integrator 'discrete' here: {_ON_THE_CPU}")
        if model.opt.enableflags & int(mujoco.mjtEnableBit.mjENBL_SLEEP):
            raise UserError(f"worlds of mujoco_warp do not sleep here: disable the flag `sleep`, or {_ON_THE_CPU}")
        try:
            self.device = mjw.put_model(model)
        except (NotImplementedError, ValueError) as error:
            raise UserError(f"mujoco_warp cannot simulate this model: {error} {_ON_THE_CPU}") from None
        self.device.opt.warn_overflow = 0  # counted instead of printed by a kernel
        self.device.opt.deterministic = torch.are_deterministic_algorithms_enabled()
        self._live: dict[str, Tensor] = {}
        self._fields: set[str] = set()
        static = (model.body_weldid[model.geom_bodyid] == 0) & (
            model.body_mocapid[model.body_rootid][model.geom_bodyid] < 0
        )
        self._static = np.flatnonzero(static)

    @property
    def outputs(self) -> dict[str, Tensor]:
        """What `set_const` computes, for every world; empty where no field calls for it."""
        if not any(name.startswith("opt.") or name in mujoco.MjModel._setconst_inputs for name in self._fields):
            return {}
        names = [name for name in sorted(mujoco.MjModel._setconst_outputs) if self._per_world(name)]
        return {name: self._one_per_world(name) for name in names}

    def expand(self, field: str) -> Tensor:
        """Live tensor (N, ...) in the shape of MuJoCo's own field; `UserError` for one that all worlds share."""
        shape = np.shape(attrgetter(field)(self._host))
        if 0 in shape:
            return torch.zeros(self._num_worlds, *shape, device=wp.device_to_torch(wp.get_device()))
        if not self._per_world(field):
            raise UserError(f"mujoco_warp has one '{field}' for all worlds, which differ in it here: {_ON_THE_CPU}")
        self._fields.add(field)
        live = self._one_per_world(field)
        _ = self.outputs
        return live.view(self._num_worlds, *shape)

    @property
    def written(self) -> tuple[Tensor, ...]:
        """Fields that worlds have their own values of."""
        return tuple(self._live.values())

    def _per_world(self, field: str) -> bool:
        owner, name = self._owner(field)
        array = getattr(owner, name, None)
        return isinstance(array, wp.array) and bool(array.size) and getattr(array, "_is_batched", False)

    def _owner(self, field: str) -> tuple[object, str]:
        return (self.device.opt, field[4:]) if field.startswith("opt.") else (self.device, field)

    def _one_per_world(self, field: str) -> Tensor:
        """The field's array replaced by one with a row per world; an array of one row is shared by all."""
        if field not in self._live:
            owner, name = self._owner(field)
            shared = getattr(owner, name)
            rows = wp.to_torch(shared)[:1].repeat(self._num_worlds, *[1] * (wp.to_torch(shared).dim() - 1))
            array = wp.from_torch(rows, dtype=shared.dtype)
            array._is_batched = True
            setattr(owner, name, array)
            self._live[field] = rows
        return self._live[field]

    @property
    def moves_static_geoms(self) -> bool:
        """Geoms of the world body may be at another place in each world."""
        return bool(len(self._static)) and not _PLACES.isdisjoint(self._fields)

    def place_static_geoms(self, xpos: Tensor, xquat: Tensor, geom_xpos: Tensor, geom_xmat: Tensor) -> None:
        """Write the places of geoms that cannot move: mujoco_warp computes them once, of the pristine model."""
        bodies = self._host.geom_bodyid[self._static]
        for geom, body in zip(self._static.tolist(), bodies.tolist(), strict=True):
            turn = axes_of(xquat[:, body])
            place, own = self.present("geom_pos")[:, geom], axes_of(self.present("geom_quat")[:, geom])
            geom_xpos[:, geom] = xpos[:, body] + (turn @ place[:, :, None])[:, :, 0]
            geom_xmat[:, geom] = turn @ own

    def present(self, field: str) -> Tensor:
        """A field as it is now: a row per world, or one for all."""
        rows: Tensor = wp.to_torch(getattr(self.device, field))
        return rows

    def of_world(self, world: int) -> mujoco.MjModel:
        """MuJoCo's model of one world; what it derives from changed masses is derived anew, in float64."""
        model = copy.copy(self._host)
        for field in self._fields:
            value = self._live[field][world].cpu().numpy()
            attrgetter(field)(model)[...] = value.reshape(np.shape(attrgetter(field)(model)))
        if self.outputs:
            mujoco.mj_setConst(model, mujoco.MjData(model))
        return model
