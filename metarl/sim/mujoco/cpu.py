"""Physics on the CPU: MuJoCo's own thread pool (`mujoco.batch`) behind torch views of its arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import mujoco
import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from mujoco.batch import Batch, SimulationError
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.machine import num_cpus
from metarl.sim.mujoco.physics import BODY_FORCES, START_FIELDS, Counts, Dropped, require_bindable

_STATE_FIELDS = frozenset(
    {"time", "qpos", "qvel", "act", "history", "qacc_warmstart", "ctrl", "qfrc_applied", "xfrc_applied", "eq_active"}
    | {"mocap_pos", "mocap_quat", "userdata", "plugin_state", "plastic"}
)
_BAD = [
    int(mujoco.mjtWarning.mjWARN_BADQPOS),
    int(mujoco.mjtWarning.mjWARN_BADQVEL),
    int(mujoco.mjtWarning.mjWARN_BADQACC),
    int(mujoco.mjtWarning.mjWARN_BADCTRL),
]
_NUMBER = 1  # second column of a warning counter: how often it was raised


class CpuPhysics:
    """`mujoco.batch.Batch` as a `Physics`: results are bit-identical for any number of threads."""

    device = torch.device("cpu")
    dtype = torch.float64
    seconds_to_compile = 0.0

    def __init__(
        self,
        model: mujoco.MjModel,
        num_worlds: int,
        threads: int = 0,
        device: str | torch.device | None = None,
        counts: Callable[[], Counts] | None = None,
    ) -> None:
        """`threads` = 0 takes one per CPU; sizes are MuJoCo's own. `UserError` for a `device` other than the CPU."""
        if device is not None and torch.device(device) != self.device:
            raise UserError(f"the physics 'mujoco' works on the device 'cpu', not on '{device}'")
        _silence_log()
        self.model = model
        self.num_worlds = num_worlds
        self._batch = Batch(model, num_worlds, threads or num_cpus())
        self._state: np.ndarray = self._batch.state
        self._bad: np.ndarray = self._batch.warning[:, min(_BAD) : max(_BAD) + 1, _NUMBER]
        self._failed = np.zeros(num_worlds, np.bool_)
        self._raised = False
        self._bound: dict[tuple[str, bool], Tensor] = {}
        self._stage = int(mujoco.mjtStage.mjSTAGE_NONE)
        self._derives = False
        self._start: np.ndarray | None = None
        self._start_may_vary = False

    def bind(self, field: str, *, fresh: bool = True, at_start: bool = True) -> Tensor:
        """See `Physics.bind`; `UserError` for the fields that stepping does not compute.

        `at_start` saves nothing here, where only the worlds that restart are worked on.
        """
        found = self._bound.get((field, fresh))
        return self._bind(field, fresh) if found is None else found

    def _bind(self, field: str, fresh: bool) -> Tensor:
        require_bindable(self.model, field)
        if fresh and field not in _STATE_FIELDS | BODY_FORCES:
            self._stage = int(mujoco.mjtStage.mjSTAGE_VEL)
        known = self._bound.get((field, not fresh))
        view = self._bound[field, fresh] = _view(self._batch.bind(field)) if known is None else known
        if known is None and field not in _STATE_FIELDS:  # zero until first computed
            self._derives = True
            self._batch.forward()
        return view

    def expand(self, field: str) -> Tensor:
        """See `Physics.expand`."""
        self._start_may_vary |= field in START_FIELDS
        return _view(self._batch.expand(field))

    def covering(self, mask: Bool[Tensor, "N"]) -> Int64[Tensor, "n"]:
        """The worlds of `mask`."""
        return torch.from_numpy(np.flatnonzero(mask.numpy()))

    def set_const(self, mask: Bool[Tensor, "N"]) -> None:
        """See `Physics.set_const`; `UserError` where MuJoCo refuses the changed model."""
        try:
            self._batch.set_const(mask.numpy())
        except SimulationError as error:  # a body compiled as simple, say: its centre of mass cannot move
            raise UserError(f"MuJoCo refuses the varied model: {error}") from None

    def reset(self, mask: Bool[Tensor, "N"]) -> None:
        """See `Physics.reset`."""
        self._reset(np.flatnonzero(mask.numpy()))

    def _reset(self, worlds: np.ndarray) -> None:
        if not len(worlds):
            return
        if self._start is not None and not self._start_may_vary:
            self._state[worlds] = self._start  # a tenth of the time of MuJoCo's own, which restarts after falls need
        else:
            self._batch.reset(worlds, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
            self._start = self._state[worlds[0]].copy()
        self._batch.warning[worlds] = 0
        if self._raised:
            self._failed[worlds] = False
            self._raised = bool(self._failed.any())

    def restart(self, mask: Bool[Tensor, "N"], write: Callable[[Int64[Tensor, "n"]], None]) -> None:
        """See `Physics.restart`."""
        worlds = np.flatnonzero(mask.numpy())
        if len(worlds):
            self._reset(worlds)
            write(torch.from_numpy(worlds))
            self.forward(mask)

    def step(self, num_substeps: int) -> None:
        """See `Physics.step`. A world in which MuJoCo raises keeps its state and counts as diverged."""
        try:
            self._batch.step(nstep=num_substeps, stage=self._stage)
        except SimulationError as error:
            self._failed[np.asarray(error.ids, np.int64)] = self._raised = True

    def forward(self, mask: Bool[Tensor, "N"]) -> None:
        """See `Physics.forward`."""
        if self._derives:  # all stages: a field that one leaves out would hold another world's value (see mujoco.batch)
            self._batch.forward(mask.numpy())

    def diverged(self) -> Bool[Tensor, "N"] | None:
        """See `Physics.diverged`."""
        # The counters only ever matter once: a world that has diverged is reset before it steps again.
        if not (self._raised or self._bad.any()):
            return None
        return torch.from_numpy(self._failed | self._bad.any(axis=1))

    def dropped(self) -> Dropped:
        """Nothing: MuJoCo makes room."""
        return Dropped()

    def get_state(self) -> Float64[Tensor, "N S"]:
        """See `Physics.get_state`."""
        return torch.from_numpy(self._state.copy())

    def set_state(self, state: Float64[Tensor, "N S"]) -> None:
        """See `Physics.set_state`."""
        self._state[:] = state.numpy()
        self._batch.warning[:] = 0
        self._failed[:] = self._raised = False
        if self._derives:
            self._batch.forward()

    def model_of(self, world: int) -> mujoco.MjModel:
        """See `Physics.model_of`."""
        return self._batch.get_model(world)

    def data_of(self, world: int, data: mujoco.MjData | None = None) -> mujoco.MjData:
        """See `Physics.data_of`."""
        if data is None:
            data = mujoco.MjData(self.model_of(world))
        self._batch.get_data(world, data)
        mujoco.mj_forward(data.model, data)
        return data


def _silence_log() -> None:
    """Keep MuJoCo from printing, and writing MUJOCO_LOG.TXT, at each divergence: `diverged` reports them."""
    config = mujoco.MjLogConfig.get()
    config.logto_console = config.logto_file = False
    mujoco.MjLogConfig.set(config)


def _view(array: np.ndarray) -> Tensor:
    """The array's memory as a tensor, without a copy."""
    with warnings.catch_warnings():  # torch warns that it cannot enforce NumPy's read-only flag
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
