"""What goes wrong in a step: noted on the device, world by world, and raised when it is next asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
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
    """The first fault of each world since `check`: what it earned or observed then, and the task it happened on.

    On a device a step only marks the worlds with one and keeps the numbers of the others up to date; what was wrong
    with them is worked out where it is asked for.
    """

    def __init__(self, num_worlds: int, device: torch.device) -> None:
        self._mark = torch.zeros(num_worlds, device=device)  # not a number from a fault on
        self._zero = torch.zeros((), device=device)
        self._rows = torch.zeros(0, num_worlds, device=device)  # both as of the first fault, or of the last step
        self._obs = torch.zeros(num_worlds, 0, device=device)
        self._tasks: Tasks | None = None
        self._names: Sequence[str] = ()
        self._unread: list[tuple[Tensor, Tensor, Tasks]] = []

    def on(self, tasks: Tasks) -> None:
        """Take note of the tasks that the worlds are on from now."""
        self._tasks = chosen(self._noted, self._tasks or tasks, tasks)

    @property
    def _noted(self) -> Bool[Tensor, "N"]:
        return self._mark != self._mark

    def reward(
        self, names: Sequence[str], rows: Float[Tensor, "M N"], reward: Float32[Tensor, "N"], tasks: Tasks, looks: bool
    ) -> None:
        """Note rewards that are not finite. `rows` are the terms called `names`; `looks`: see `TrialEnv`."""
        self._names = names
        if not looks:
            self._note_reward(rows, reward)
            return
        self._unread.append((rows, reward, tasks))
        if len(self._unread) == _UNREAD_STEPS:
            self._read()

    def _read(self) -> None:
        unread, self._unread = self._unread, []
        if not np.isfinite([reward.numpy() for _, reward, _ in unread]).all():
            for rows, reward, tasks in unread:
                self.on(tasks)
                self._note_reward(rows, reward)

    def _note_reward(self, rows: Float[Tensor, "M N"], reward: Float32[Tensor, "N"]) -> None:
        if self._rows.shape != rows.shape:
            self._rows = torch.zeros_like(rows)
        torch.where(self._noted, self._rows, rows, out=self._rows)
        self._mark.addcmul_(reward, self._zero)

    def observation(self, obs: Float32[Tensor, "N S"], mask: Bool[Tensor, "N"], looks: bool) -> None:
        """Note observations of the worlds of `mask` that are not finite."""
        if looks and np.isfinite(obs.numpy()).all():
            return
        if self._obs.shape != obs.shape:
            self._obs = torch.zeros_like(obs)
        torch.where(self._noted[:, None], self._obs, obs, out=self._obs)
        largest = torch.linalg.vector_norm(obs, ord=torch.inf, dim=1)
        self._mark.addcmul_(torch.where(mask, largest, 0.0), self._zero)

    def check(self) -> None:
        """Raise what was noted, and forget it; waits for the device."""
        self._read()
        worlds = np.flatnonzero(np.isnan(self._mark.cpu().numpy()))
        if not len(worlds):
            return
        world = int(worlds[0])
        assert self._tasks is not None
        task = self._tasks.rows()[world]
        terms, obs = (kept.clone() for kept in (self._rows[:, world], self._obs[world]))
        for kept in (self._mark, self._rows, self._obs):
            kept.zero_()
        found = torch.cat((terms, terms.sum()[None]))
        finite = found.float().isfinite()
        if finite.all():
            element = int(obs.isfinite().long().argmin())
            value = obs[element].item()
            raise UserError(f"element {element} of the first observation is {value} for the task {task}")
        term = int(finite.long().argmin())
        value = found[term].item()
        if term == len(self._names):
            value = found[term].float().item()
            raise RewardError(f"the sum of the reward terms is {value} for the task {task}")
        beyond = ", too large for float32" if math.isfinite(value) else ""
        raise RewardError(f"reward term '{self._names[term]}' is {value} for the task {task}{beyond}")


def chosen(mask: Bool[Tensor, "N"], one: Tasks, other: Tasks) -> Tasks:
    """The tasks of `one` in the worlds of `mask`, of `other` elsewhere."""
    values = {}
    for name, value in one.values.items():
        values[name] = torch.where(mask if value.dim() == 1 else mask[:, None], value, other[name])
    return Tasks(values)
