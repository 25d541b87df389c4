"""What goes wrong in a step: noted on the device, world by world, and raised when it is next asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.tasks import Tasks

_UNREAD_STEPS = 64
"""Rewards that are kept unread on the CPU: one look at many costs less than many looks."""


class RewardError(UserError):
    """A reward is not finite; the message names the term and the task."""


@dataclass(frozen=True)
class Dropped:
    """What went amiss in control steps of single worlds, in number of those."""

    lost: int = 0
    """Steps in which contacts or constraints found no room: bodies may have passed through each other."""
    limited: int = 0
    """Steps in which the solver stopped at its limit of iterations, short of its tolerance."""


class Faults:
    """The first fault of each world since `check`: which term or element, its value, and the task it happened on."""

    def __init__(self, num_worlds: int, device: torch.device) -> None:
        # A code is k for the k-th term of the reward from 1, and -k for the k-th element of an observation.
        self._code = torch.zeros(num_worlds, dtype=torch.long, device=device)
        self._value = torch.zeros(num_worlds, dtype=torch.float64, device=device)
        self._tasks: Tasks | None = None
        self._names: Sequence[str] = ()
        self._unread: list[tuple[Tensor, Tensor, Tasks]] = []

    def reward(
        self, names: Sequence[str], rows: Float[Tensor, "M N"], reward: Float32[Tensor, "N"], tasks: Tasks, looks: bool
    ) -> None:
        """Note rewards that are not finite. `rows` are the terms called `names`; `looks`: see `TrialEnv`."""
        self._names = names
        self._unread.append((rows, reward, tasks))
        if not looks or len(self._unread) == _UNREAD_STEPS:
            self._read(looks)

    def _read(self, looks: bool) -> None:
        """Note which term made a reward not finite, or their sum where each term is finite."""
        unread, self._unread = self._unread, []
        if looks and np.isfinite([reward.numpy() for _, reward, _ in unread]).all():
            return
        for rows, reward, tasks in unread:
            rows = torch.cat((rows, reward[None].to(rows.dtype)))
            term = rows.float().isfinite().long().argmin(dim=0, keepdim=True)
            self._note(~reward.isfinite(), 1 + term[0], rows.gather(0, term)[0], tasks)

    def observation(self, obs: Float32[Tensor, "N S"], mask: Bool[Tensor, "N"], tasks: Tasks, looks: bool) -> None:
        """Note observations of the worlds of `mask` that are not finite."""
        finite = obs.isfinite()
        if not (looks and finite.numpy().all()):
            element = finite.long().argmin(dim=1, keepdim=True)
            value = obs.gather(1, element)[:, 0]
            self._note(mask & ~value.isfinite(), -1 - element[:, 0], value, tasks)

    def _note(self, bad: Bool[Tensor, "N"], code: Int64[Tensor, "N"], value: Float[Tensor, "N"], tasks: Tasks) -> None:
        bad = bad & (self._code == 0)
        self._code = torch.where(bad, code, self._code)
        self._value = torch.where(bad, value.double(), self._value)
        self._tasks = chosen(bad, tasks, self._tasks or tasks)

    def check(self) -> None:
        """Raise what was noted, and forget it; waits for the device."""
        self._read(self._code.device.type == "cpu")
        codes = self._code.cpu().numpy()
        if not codes.any():
            return
        world = int(np.flatnonzero(codes)[0])
        code, value = int(codes[world]), self._value[world].item()
        assert self._tasks is not None
        task = self._tasks.rows()[world]
        self._code.zero_()
        if code < 0:
            raise UserError(f"element {-code - 1} of the first observation is {value} for the task {task}")
        if code > len(self._names):
            raise RewardError(f"the sum of the reward terms is {value} for the task {task}")
        beyond = ", too large for float32" if math.isfinite(value) else ""
        raise RewardError(f"reward term '{self._names[code - 1]}' is {value} for the task {task}{beyond}")


def chosen(mask: Bool[Tensor, "N"], one: Tasks, other: Tasks) -> Tasks:
    """The tasks of `one` in the worlds of `mask`, of `other` elsewhere."""
    values = {}
    for name, value in one.values.items():
        values[name] = torch.where(mask if value.dim() == 1 else mask[:, None], value, other[name])
    return Tasks(values)
