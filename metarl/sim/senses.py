"""What sensors make of what a family observes: offsets, tilt, bias, latency, noise and lost samples."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.sim.disturbances import EncoderOffset, ImuTilt, Sensor, bounds
from metarl.sim.episode import Episode


class Senses:
    """Sensors, with what they remember."""

    def __init__(self, episode: Episode) -> None:
        self._episode = episode
        self._sensors = list(episode.all(Sensor))
        self._past: dict[int, Tensor] = {}
        self._last: dict[int, Tensor] = {}

    def sense(self, seen: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See `Disturber.sense`."""
        episode, sensed = self._episode, dict(seen)
        for i, encoder in episode.all(EncoderOffset):
            sensed[encoder.part] = sensed[encoder.part] + episode.value(i, "offset")
        for i, tilt in episode.all(ImuTilt):
            angles = episode.value(i, "angle")
            for part in tilt.parts:
                sensed[part] = _turned(sensed[part], angles)
        for i, sensor in self._sensors:
            sensed[sensor.part] = self._one(i, sensed[sensor.part])
        return sensed

    def _one(self, i: int, value: Float[Tensor, "N size"]) -> Float[Tensor, "N size"]:
        """What sensor `i` makes of its part."""
        episode = self._episode
        if not episode.is_zero(i, "bias"):
            value = value + episode.value(i, "bias")
        if not episode.is_zero(i, "latency"):
            value = self._late(i, value)
        if not episode.is_zero(i, "noise"):
            noise = episode.random(i, "+noise", episode.age).normal(0.0, 1.0, value.shape[1])
            value = value + noise * episode.value(i, "noise")
        if not episode.is_zero(i, "lost"):
            luck = episode.random(i, "+lost", episode.age).uniform(0.0, 1.0, 1)
            fresh = (luck >= episode.value(i, "lost")) | (episode.age == 0)[:, None]
            last = self._last.get(i, value)
            if episode.begun is not None:  # only they are asked for, and the others have seen this step's already
                fresh = fresh & episode.begun[:, None]
            value = torch.where(fresh, value, last)
            self._last[i] = _kept(self._last.get(i), value)
        return value

    def _late(self, i: int, value: Float[Tensor, "N size"]) -> Float[Tensor, "N size"]:
        """A part as it was a while ago."""
        episode, past = self._episode, self._past.get(i)
        sensor = episode.family.disturbances[i]
        assert isinstance(sensor, Sensor)
        step = episode.family.control_step
        longest = math.ceil(bounds(sensor.latency, episode.family.space)[1] / step - 1e-9)
        if past is None:
            now = value[:, None].repeat(1, longest + 2, 1)
        elif episode.begun is not None:
            now = torch.where(episode.begun[:, None, None], value[:, None], past)
        else:
            now = torch.cat((value[:, None], past[:, :-1]), dim=1)
        past = self._past[i] = _kept(past, now)
        late = (episode.value(i, "latency") / step).clamp(0.0, longest)
        whole = late.floor()
        at = whole.long()[:, :, None].expand(-1, -1, value.shape[1])
        one, other = past.gather(1, at)[:, 0], past.gather(1, at + 1)[:, 0]
        return torch.lerp(one, other, late - whole)


def _kept(place: Tensor | None, value: Tensor) -> Tensor:
    """The value, written to where it has its place; a copy the first time."""
    return value.clone() if place is None else place.copy_(value)


def _turned(vector: Float[Tensor, "N 3"], angles: Float[Tensor, "N 2"]) -> Float[Tensor, "N 3"]:
    """A vector in a frame that is rolled about x, then pitched about y."""
    x, y, z = vector.unbind(dim=1)
    (roll, pitch), (roll_cos, pitch_cos) = angles.sin().unbind(dim=1), angles.cos().unbind(dim=1)
    y, z = roll_cos * y + roll * z, roll_cos * z - roll * y
    return torch.stack((pitch_cos * x - pitch * z, y, pitch_cos * z + pitch * x), dim=1)
