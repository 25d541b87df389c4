"""Replay with a ring buffer per task, in one preallocated tensor: written and sampled without loops over tasks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float32, Int64
from torch import Tensor


class TaskReplay:
    """The newest `capacity` rows of each of `num_slots` tasks."""

    def __init__(self, num_slots: int, capacity: int, width: int, device: torch.device | str = "cpu") -> None:
        self.rows = torch.zeros(num_slots, capacity, width, device=device)
        self._next = torch.zeros(num_slots, dtype=torch.long, device=device)
        self._written = torch.zeros(num_slots, dtype=torch.long, device=device)
        self._newest = torch.zeros(num_slots, dtype=torch.long, device=device)  # rows of each slot's last `add`

    @property
    def size(self) -> Int64[Tensor, "S"]:
        """Rows each slot holds."""
        return self._written.clamp(max=self.rows.shape[1])

    @property
    def num_bytes(self) -> int:
        """Memory of the whole buffer."""
        return self.rows.numel() * self.rows.element_size()

    def clear(self, slots: Int64[Tensor, "n"]) -> None:
        """Forget what `slots` hold."""
        for counter in (self._next, self._written, self._newest):
            counter[slots] = 0

    def add(self, slot: Int64[Tensor, "n"], rows: Float32[Tensor, "n W"]) -> None:
        """Append rows, each to the slot beside it, in their order; the oldest rows of a full slot go."""
        if not len(slot):
            return
        capacity, order = self.rows.shape[1], torch.argsort(slot, stable=True)
        slot, rows = slot[order], rows[order]
        count = torch.bincount(slot, minlength=len(self._next))
        rank = torch.arange(len(slot), device=slot.device) - (count.cumsum(0) - count)[slot]
        kept = rank >= count[slot] - capacity  # a place is written once, or which row stays is up to chance
        place = (self._next[slot] + rank) % capacity
        self.rows[slot[kept], place[kept]] = rows[kept]
        self._next.copy_((self._next + count) % capacity)
        self._written.add_(count)
        self._newest.copy_(torch.where(count > 0, count, self._newest))

    def sample(
        self, slots: Int64[Tensor, "*M"], batch: int, generator: torch.Generator, *, earlier: bool = False
    ) -> Float32[Tensor, "*M batch W"]:
        """`batch` rows of each slot, drawn with replacement; if `earlier`, of those before its last `add` (if any)."""
        drawn = torch.randint(2**31, (*slots.shape, batch), generator=generator, device=self.rows.device)
        capacity, width = self.rows.shape[1:]
        size = among = self.size[slots]
        if earlier:
            before = size - self._newest[slots]
            among = torch.where(before > 0, before, size)
        oldest = self._next[slots] - size
        place = (oldest[..., None] + drawn % among[..., None]) % capacity
        flat = slots[..., None] * capacity + place
        return self.rows.view(-1, width)[flat.view(-1)].view(*slots.shape, batch, width)

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of the rows that are in use, with where each slot stands."""
        used = self._written.nonzero()[:, 0]
        slots = int(used.max()) + 1 if len(used) else 0
        filled = int(self.size.max())
        return {
            "rows": self.rows[:slots, :filled].cpu().clone(),
            "next": self._next.cpu().clone(),
            "written": self._written.cpu().clone(),
            "newest": self._newest.cpu().clone(),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`; `ValueError` where it does not fit."""
        state = {"newest": torch.zeros_like(self._newest), **state}  # older checkpoints do without it
        if set(state) != {"rows", "next", "written", "newest"} or state["next"].shape != self._next.shape:
            raise ValueError("the replay buffer's tensors are missing or of another number of tasks")
        rows = state["rows"]
        if rows.dim() != 3 or rows.shape[2] != self.rows.shape[2] or rows.shape[1] > self.rows.shape[1]:
            raise ValueError(f"size mismatch for the replay buffer: {tuple(rows.shape)}")
        self.rows.zero_()
        self.rows[: rows.shape[0], : rows.shape[1]] = rows.to(self.rows.device)
        self._next.copy_(state["next"])
        self._written.copy_(state["written"])
        self._newest.copy_(state["newest"])


def slots_of(
    task_number: Int64[Tensor, "N"], owner: Int64[Tensor, "S"]
) -> tuple[Int64[Tensor, "N"], Int64[Tensor, "k"]]:
    """The slots of these tasks, which are noted in `owner`, and those of them that another task had before.

    `ValueError` where two tasks would share one.
    """
    slot = task_number % len(owner)
    if len(torch.unique(slot)) < len(torch.unique(task_number)):
        raise ValueError("two tasks share a slot")
    taken = torch.unique(slot[owner[slot] != task_number])
    owner[slot] = task_number
    return slot, taken


def picked(
    slots: Int64[Tensor, "R"], times: int, number: int, generator: torch.Generator
) -> Int64[Tensor, "times number"]:
    """Some of the slots at random, time after time; none twice at a time, unless there are fewer than `number`.

    No GPU is waited for, unless there are fewer: the draws are those of `torch.multinomial`, which waits.
    """
    odds = torch.ones(times, len(slots), device=slots.device)
    if len(slots) < number:
        return slots[torch.multinomial(odds, number, True, generator=generator)]
    return slots[odds.exponential_(generator=generator).reciprocal().topk(number).indices]
