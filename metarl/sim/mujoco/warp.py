"""Physics on a GPU: mujoco_warp's worlds behind torch views of Warp's arrays; on a CPU it runs the same kernels.

Every world is worked on, whatever a mask says, and what belongs to the others is put back: nothing waits for a device.
"""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from metarl.core.graphs import looks
from metarl.sim.mujoco.physics import BODY_FORCES, START_FIELDS, WITHOUT_FORCES, Counts, Dropped, require_bindable
from metarl.sim.mujoco.warp_device import Runner, chosen_device
from metarl.sim.mujoco.warp_model import WorldModel, supported

_COMPONENTS = {
    name: getattr(mujoco.mjtState, f"mjSTATE_{bit}")
    for name, bit in (
        *((name, name.upper()) for name in ("time", "qpos", "qvel", "act", "history")),
        ("qacc_warmstart", "WARMSTART"),
        *((name, name.upper()) for name in ("ctrl", "qfrc_applied", "xfrc_applied", "eq_active")),
        *((name, name.upper()) for name in ("mocap_pos", "mocap_quat", "userdata", "plastic")),
    )
}
"""Fields of the state and MuJoCo's bits for them; in the order of the bits they are `mjSTATE_INTEGRATION`."""
_APPLIED = frozenset({"qfrc_applied", "xfrc_applied", "eq_active"})
"""Those that nothing but a caller changes: they need no reset until they are bound or set."""
_STEERED = _APPLIED - {"eq_active"} | {"time", "ctrl", "history", "qacc_warmstart", "userdata"}
"""Those that nothing of the stages of position and velocity depends on."""
_SPLIT = frozenset(int(getattr(mjw.IntegratorType, name)) for name in ("EULER", "IMPLICITFAST", "IMPLICIT"))
"""Integrators that evaluate the forces once in a step."""
_WATCHED = ("qpos", "qvel", "ctrl", "qacc_warmstart")
"""Those that MuJoCo watches; the last is the acceleration of the step."""
_LARGEST = 1e10  # mjMAXVAL: MuJoCo takes a state beyond it for diverged
_LIMITS = int(mjw.OverflowType.ITERATIONS | mjw.OverflowType.LS_ITERATIONS)


class WarpPhysics:
    """`mujoco_warp` as a `Physics`, in float32, on CUDA or on Warp's CPU device."""

    dtype = torch.float32

    def __init__(
        self,
        model: mujoco.MjModel,
        num_worlds: int,
        threads: int = 0,
        device: str | torch.device | None = None,
        counts: Callable[[], Counts] | None = None,
    ) -> None:
        """`threads` has no meaning here; `counts` tells how many contacts and constraints a world needs room for.

        Raises `UserError` for a device that is not there, and for what mujoco_warp cannot simulate.
        """
        self.device = chosen_device(device)
        self.model = supported(model)
        self.num_worlds = num_worlds
        self._all = torch.arange(num_worlds, device=self.device)
        self._run = Runner(self.device)
        room = None if counts is None else counts()
        with self._run.here():
            self._models = WorldModel(self.model, num_worlds)
            self._data = mjw.make_data(
                self.model,
                num_worlds,
                nconmax=None if room is None else room.contacts,
                njmax=None if room is None else room.constraints,
            )
        by_bit = sorted(_COMPONENTS, key=lambda name: int(_COMPONENTS[name]))
        sizes = {name: mujoco.mj_stateSize(self.model, int(_COMPONENTS[name])) for name in by_bit}
        self._state = {name: self._view(name) for name in by_bit if sizes[name]}
        self._sizes = [sizes[name] for name in self._state]
        self._start = self._initial_state()
        self._written = set(self._state) - _APPLIED
        self._starts_differ = False
        # A world's derived fields stay when another world restarts: what is bound is apart from what mujoco_warp has.
        self._derived: dict[str, Tensor] = {}
        self._present: dict[str, Tensor] = {}
        self._fresh = self._forces_at_start = False
        # What a step finds done where nothing was written since: its stages of position and velocity.
        self._ahead: tuple[int, ...] | None = None
        self._splits = self.model.opt.integrator in _SPLIT
        self._rows: list[Tensor] = [wp.to_torch(getattr(self._data, name)) for name in ("ne", "nf", "nl", "nefc")]
        self._every = torch.ones(num_worlds, dtype=torch.bool, device=self.device)
        self._sound = self._every.clone()
        self._overflow: Tensor = wp.to_torch(self._data.overflow)
        self._kinds = torch.tensor([~_LIMITS, _LIMITS], dtype=torch.int32, device=self.device)
        self._dropped = torch.zeros(num_worlds, 2, dtype=torch.long, device=self.device)
        with self._run.compiling(), self._run.here():
            self._rehearse()

    @property
    def seconds_to_compile(self) -> float:
        """See `Physics`; those in Warp's cache are loaded only."""
        return self._run.seconds

    def _view(self, field: str) -> Tensor:
        """The field's memory as a tensor, in the shape of MuJoCo's own field."""
        view: Tensor = wp.to_torch(getattr(self._data, field))
        return view.view(self.num_worlds, *np.shape(getattr(mujoco.MjData(self.model), field)))

    def _initial_state(self) -> dict[str, Tensor]:
        """Of every world, as MuJoCo resets it."""
        row = np.empty(mujoco.mj_stateSize(self.model, int(mujoco.mjtState.mjSTATE_INTEGRATION)))
        mujoco.mj_getState(self.model, mujoco.MjData(self.model), row, int(mujoco.mjtState.mjSTATE_INTEGRATION))
        pieces = torch.split(torch.from_numpy(row).to(self.device), self._sizes)
        return {
            name: piece.to(live.dtype).view(live.shape[1:]).repeat(self.num_worlds, *[1] * (live.dim() - 1))
            for (name, live), piece in zip(self._state.items(), pieces, strict=True)
        }

    def _rehearse(self) -> None:
        """Meet every kernel of a step, and begin anew."""
        mjw.step(self._models.device, self._data)
        for name, live in self._state.items():
            live.copy_(self._start[name])
        self._overflow.zero_()

    def bind(self, field: str, *, fresh: bool = True, at_start: bool = True) -> Tensor:
        """See `Physics.bind`."""
        if field in self._state:
            self._written.add(field)
            return self._state[field]
        known = self._derived.get(field)
        if at_start and not self._forces_at_start and self._needs_forces(field):
            self._forces_at_start, self._ahead = True, None
            self._run.forget()
        if known is None:
            require_bindable(self.model, field)
            self._derive(self._every, forces=True)
            self._present[field] = self._view(field)
            known = self._derived[field] = self._present[field].clone()
        if fresh and not self._fresh and field not in BODY_FORCES:
            self._fresh = True
            self._run.forget()
        return known

    def _needs_forces(self, field: str) -> bool:
        """Whether it depends on accelerations, or may."""
        if field == "sensordata":
            return bool((self.model.sensor_needstage == mujoco.mjtStage.mjSTAGE_ACC).any())
        return field not in WITHOUT_FORCES

    def expand(self, field: str) -> Tensor:
        """See `Physics.expand`."""
        self._starts_differ |= field in START_FIELDS
        self._run.forget()
        with self._run.here():
            return self._models.expand(field)

    def covering(self, mask: Bool[Tensor, "N"]) -> Int64[Tensor, "n"]:
        """All worlds."""
        return self._all

    def set_const(self, mask: Bool[Tensor, "N"]) -> None:
        """See `Physics.set_const`."""
        outputs = self._models.outputs
        before = {name: value.clone() for name, value in outputs.items()}
        self._ahead = None
        self._run("set_const", self._set_const)
        if self._models.moves_static_geoms:
            places = (wp.to_torch(getattr(self._data, name)) for name in ("xpos", "xquat", "geom_xpos", "geom_xmat"))
            self._models.place_static_geoms(*places)
        for name, value in outputs.items():
            _keep(mask, value, before[name])

    def _set_const(self) -> None:
        mjw.set_const(self._models.device, self._data)

    def reset(self, mask: Bool[Tensor, "N"]) -> None:
        """See `Physics.reset`."""
        self._sound |= mask
        for name in self._written:
            live = self._state[name]
            _keep(mask, live, live.clone(), self._first(name))

    def _first(self, name: str) -> Tensor:
        """Where a field of the state begins, in every world."""
        if self._starts_differ and name == "qpos":
            return self._models.present("qpos0")
        if self._starts_differ and name.startswith("mocap_"):
            bodies = np.flatnonzero(self.model.body_mocapid >= 0)
            bodies = bodies[np.argsort(self.model.body_mocapid[bodies])].tolist()
            return self._models.present(name.replace("mocap", "body"))[:, bodies]
        return self._start[name]

    def restart(self, mask: Bool[Tensor, "N"], write: Callable[[Int64[Tensor, "n"]], None]) -> None:
        """See `Physics.restart`."""
        live = [self._state[name] for name in sorted(self._written)]
        before = [torch.empty_like(each) for each in live]
        torch._foreach_copy_(before, live)  # in one kernel
        torch._foreach_copy_(live, [self._first(name) for name in sorted(self._written)])
        self._sound |= mask
        write(self._all)
        for each, value in zip(live, before, strict=True):
            _keep(mask, each, value)
        self.forward(mask)

    def step(self, num_substeps: int) -> None:
        """See `Physics.step`."""
        ahead = self._splits and num_substeps > 1 and self._ahead == self._versions()
        self._ahead = None
        self._run(f"step {num_substeps} {ahead}", lambda: self._step(num_substeps, ahead))
        if self._derived:
            torch._foreach_copy_(list(self._derived.values()), list(self._present.values()))
        state = torch.cat([self._state[name] for name in _WATCHED if name in self._state], dim=1)
        largest = torch.linalg.vector_norm(state, ord=torch.inf, dim=1)
        self._sound &= largest <= _LARGEST  # not a number is not at most anything
        self._dropped += (self._overflow[:, None] & self._kinds) != 0
        self._overflow.zero_()

    def _step(self, num_substeps: int, ahead: bool) -> None:
        model, data = self._models.device, self._data
        if ahead:
            mjw.step2(model, data)
        for _ in range(num_substeps - ahead):
            mjw.step(model, data)
        if self._fresh:
            mjw.fwd_position(model, data)
            mjw.sensor_pos(model, data)
            mjw.fwd_velocity(model, data)
            mjw.sensor_vel(model, data)

    def plain_step(self, num_substeps: int) -> None:
        """mujoco_warp's own step and nothing else, for measurements: what is bound is not kept up with it."""
        self._ahead = None
        self._run(f"plain {num_substeps}", lambda: self._plain_step(num_substeps))

    def _plain_step(self, num_substeps: int) -> None:
        for _ in range(num_substeps):
            mjw.step(self._models.device, self._data)

    def forward(self, mask: Bool[Tensor, "N"]) -> None:
        """See `Physics.forward`."""
        if self._derived:
            self._derive(mask, self._forces_at_start)
            for name, value in self._derived.items():
                _keep(mask, value, value, self._present[name])
            self._ahead = self._versions()

    def _versions(self) -> tuple[int, ...]:
        """How often each tensor was written to on which the stages of position and velocity depend."""
        state = [live for name, live in self._state.items() if name not in _STEERED]
        return tuple(live._version for live in (*state, *self._models.written))

    def _derive(self, mask: Bool[Tensor, "N"], forces: bool) -> None:
        """What follows from the state: in every world, but with `forces` and accelerations only in those of `mask`.

        A world without constraints is solved at once: those of the others are hidden from the solver meanwhile.
        """
        self._run("place", self._place)
        if not forces:
            return
        kept = [rows.clone() for rows in self._rows]
        torch._foreach_mul_(self._rows, [mask.int()] * len(kept))
        self._run("force", self._force)
        torch._foreach_copy_(self._rows, kept)

    def _place(self) -> None:
        model, data = self._models.device, self._data
        mjw.fwd_position(model, data)
        data.sensordata.zero_()
        mjw.sensor_pos(model, data)
        mjw.fwd_velocity(model, data)
        mjw.sensor_vel(model, data)

    def _force(self) -> None:
        model, data = self._models.device, self._data
        mjw.fwd_actuation(model, data)
        mjw.fwd_acceleration(model, data)
        mjw.solve(model, data)
        mjw.sensor_acc(model, data)

    def diverged(self) -> Bool[Tensor, "N"] | None:
        """See `Physics.diverged`. MuJoCo's rule, as mujoco_warp has none: a number that is none, or beyond 1e10."""
        if looks(self.device) and self._sound.all():
            return None
        return ~self._sound

    def dropped(self) -> Dropped:
        """See `Physics.dropped`."""
        lost, limited = self._dropped.sum(dim=0).tolist()
        self._dropped.zero_()
        return Dropped(lost, limited)

    def get_state(self) -> Float32[Tensor, "N S"]:
        """See `Physics.get_state`."""
        return torch.cat([live.reshape(self.num_worlds, -1).to(self.dtype) for live in self._state.values()], dim=1)

    def set_state(self, state: Float[Tensor, "N S"]) -> None:
        """See `Physics.set_state`."""
        for live, piece in zip(self._state.values(), torch.split(state, self._sizes, dim=1), strict=True):
            live.copy_(piece.reshape(live.shape))
        self._written = set(self._state)
        self._sound.fill_(True)
        self.forward(self._every)

    def model_of(self, world: int) -> mujoco.MjModel:
        """See `Physics.model_of`."""
        return self._models.of_world(world)

    def data_of(self, world: int, data: mujoco.MjData | None = None) -> mujoco.MjData:
        """See `Physics.data_of`; what is derived is derived by MuJoCo, in float64."""
        if data is None:
            data = mujoco.MjData(self.model_of(world))
        pieces = [live[world].reshape(-1).cpu().double().numpy() for live in self._state.values()]
        mujoco.mj_setState(data.model, data, np.concatenate(pieces), int(mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_forward(data.model, data)
        return data


def _keep(mask: Bool[Tensor, "N"], live: Tensor, before: Tensor, after: Tensor | None = None) -> None:
    """Write `after`, or what is there, into the worlds of `mask`, and what was there `before` into the others."""
    chosen = mask.view(-1, *[1] * (live.dim() - 1))
    torch.where(chosen, live if after is None else after, before, out=live)
