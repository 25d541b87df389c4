"""Where the worlds are in their episodes, what is drawn there, and how large their disturbances are.

What goes from one step to the next is written in place, here and wherever disturbances have a state: a step that is
captured and replayed (`core.graphs`) finds it where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from metarl.core.distributions import Distribution
from metarl.core.errors import UserError
from metarl.core.info import Part
from metarl.core.seeding import WorldRandom
from metarl.core.tasks import Tasks
from metarl.sim.disturbances import Disturbance, EachWorld, Magnitude, OfPart, bounds, drawn
from metarl.sim.family import Family
from metarl.sim.mujoco.physics import Physics

D = TypeVar("D", bound=Disturbance)
_APART = 0x64697374  # `dist`: keeps draws of disturbances apart from those of `reset`
_PURPOSES = 32  # of one disturbance, at most
_LONG = 1e9  # control steps: longer than any episode


class Episode:
    """The state that all disturbances of a batch of worlds share."""

    def __init__(
        self,
        family: Family,
        num_worlds: int,
        device: torch.device,
        dtype: torch.dtype,
        observation: Sequence[Part],
        physics: Physics | None = None,
        num_substeps: int = 1,
    ) -> None:
        """`observation` has the parts that are seen; without a `physics` nothing but they and commands is disturbed."""
        self.family, self._physics, self.num_substeps = family, physics, num_substeps
        self.num_worlds, self.device, self.dtype = num_worlds, device, dtype
        self.age: Int64[Tensor, "N"] = torch.zeros(self.num_worlds, dtype=torch.long, device=self.device)
        """Control steps since the episode began."""
        self.begun: Bool[Tensor, "N"] | None = None
        """Worlds whose episode has just begun; None after a step."""
        self.tasks = family.space.nominal(self.num_worlds).to(self.device, self.dtype)
        """Present values of the worlds' task parameters."""
        parts = {part.name: part for part in observation}
        self._magnitudes: dict[tuple[int, str], Magnitude] = {}
        self._sizes: dict[tuple[int, str], int] = {}
        for i, one in enumerate(family.disturbances):
            for name, magnitude in one.magnitudes().items():
                self._magnitudes[i, name], self._sizes[i, name] = magnitude, one.size(name, parts)
        self._drawn = [
            (i, name, magnitude)
            for (i, name), magnitude in self._magnitudes.items()
            if name in family.disturbances[i].shown and isinstance(magnitude, Distribution)
        ]
        self._purposes = [[field.name for field in fields(one)] for one in family.disturbances]
        self._values: dict[tuple[int, str], Tensor] = {}
        self._random = WorldRandom(0, self.age, self.age, self.dtype)
        for (i, name), magnitude in self._magnitudes.items():
            if not isinstance(magnitude, str):
                fixed = _fixed(magnitude, self.num_worlds).to(self.device, self.dtype)
                self._values[i, name] = fixed.expand(-1, self._sizes[i, name]).clone()

    @property
    def physics(self) -> Physics:
        """What moves the worlds."""
        assert self._physics is not None
        return self._physics

    def all(self, kind: type[D]) -> Iterator[tuple[int, D]]:
        """The disturbances of one kind, each with its number."""
        return ((i, one) for i, one in enumerate(self.family.disturbances) if isinstance(one, kind))

    def begin(
        self,
        keys: Int64[Tensor, "N"],
        streams: Int64[Tensor, "N"],
        episodes: Int64[Tensor, "N"],
        mask: Bool[Tensor, "N"],
        tasks: Tasks,
    ) -> None:
        """Begin an episode in the worlds of `mask`; in the others everything is drawn again, and is the same."""
        self.put(tasks)
        self.age.masked_fill_(mask, 0)
        self.begun = mask
        self._random.become(WorldRandom(keys + _APART, streams, episodes, self.dtype))
        for (i, name), magnitude in self._magnitudes.items():
            if isinstance(magnitude, Distribution):
                unit = self.random(i, name).uniform(0.0, 1.0, self._sizes[i, name])
                self._values[i, name].copy_(drawn(magnitude, unit))

    def put(self, tasks: Tasks) -> None:
        """Set the present tasks."""
        for name, value in self.tasks.values.items():
            value.copy_(tasks[name])

    def go_on(self) -> None:
        """A step has been taken."""
        self.age.add_(1)
        self.begun = None

    def random(self, number: int, purpose: str, count: Int64[Tensor, "N"] | None = None) -> WorldRandom:
        """Draws of one disturbance for a purpose, a field of its or `+` and one more; see `WorldRandom.within`."""
        place = self._purposes[number].index(purpose.lstrip("+")) + (_PURPOSES // 2 if purpose.startswith("+") else 0)
        return self._random.within(number * _PURPOSES + place, count)

    def value(self, number: int, name: str) -> Float[Tensor, "N size"]:
        """Present value of a disturbance's magnitude."""
        magnitude = self._magnitudes[number, name]
        if not isinstance(magnitude, str):
            return self._values[number, name]
        value = self.tasks[magnitude]
        value = value if value.dim() > 1 else value[:, None]
        return value.expand(-1, self._sizes[number, name])

    def redrawn(self, number: int, name: str, count: Int64[Tensor, "N"]) -> Float[Tensor, "N 1"]:
        """A magnitude of which a distribution is drawn from anew for each `count`."""
        magnitude = self._magnitudes[number, name]
        if not isinstance(magnitude, Distribution):
            return self.value(number, name)
        return drawn(magnitude, self.random(number, name, count).uniform(0.0, 1.0, 1))

    def is_zero(self, number: int, name: str) -> bool:
        """The magnitude is zero whatever happens."""
        magnitude = self._magnitudes[number, name]
        return isinstance(magnitude, float | int) and magnitude == 0

    def drawn_parts(self) -> list[Part]:
        """What `drawn` says."""
        found = []
        for i, name, _ in self._drawn:
            one = self.family.disturbances[i]
            owner = one.part if isinstance(one, OfPart) else getattr(one, "label", type(one).__name__)
            found.append(Part(f"{owner}_{name}", self._sizes[i, name], "1", help="its draw, from -1 to 1"))
        return found

    def drawn(self) -> list[Tensor]:
        """Present values of what is drawn for each episode and may be told, from -1 to 1, (N, size) each."""
        found = []
        for i, name, magnitude in self._drawn:
            low, high = bounds(magnitude, self.family.space)
            found.append(2.0 * (self.value(i, name) - low) / ((high - low) or 1.0) - 1.0)
        return found

    def steps(self, seconds: Float[Tensor, "N"]) -> Int64[Tensor, "N"]:
        """A time in control steps."""
        return (seconds / self.family.control_step).round().clamp(0.0, _LONG).long()


def _fixed(magnitude: float | Distribution | EachWorld, num_worlds: int) -> Float[Tensor, "N 1"]:
    """What is known of a magnitude ahead of any episode: zero of one that is drawn."""
    if isinstance(magnitude, EachWorld):
        if len(magnitude.values) != num_worlds:
            raise UserError(f"a disturbance has {len(magnitude.values)} values for {num_worlds} worlds")
        return torch.tensor(magnitude.values, dtype=torch.float64)[:, None]
    known = 0.0 if isinstance(magnitude, Distribution) else float(magnitude)
    return torch.full((num_worlds, 1), known, dtype=torch.float64)


class Timer:
    """Fires again and again, after a time that is a magnitude of a disturbance and drawn anew each time."""

    def __init__(self, episode: Episode, number: int, name: str) -> None:
        self._episode, self._number, self._name = episode, number, name
        self._due = torch.zeros_like(episode.age)
        self.count: Int64[Tensor, "N"] = torch.zeros_like(episode.age)
        """How often it has fired in the episode."""

    def begin(self, mask: Bool[Tensor, "N"]) -> None:
        """Start it in the worlds of `mask`."""
        self.count.masked_fill_(mask, 0)
        self._due.copy_(torch.where(mask, self._next(), self._due))

    def tick(self) -> Bool[Tensor, "N"]:
        """Worlds in which it fires now."""
        fired = self._episode.age >= self._due
        self.count.add_(fired)
        self._due.add_(torch.where(fired, self._next(), 0))
        return fired

    def _next(self) -> Int64[Tensor, "N"]:
        return self._episode.steps(self._episode.redrawn(self._number, self._name, self.count)[:, 0]).clamp(min=1)
