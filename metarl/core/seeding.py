"""Named random streams: every draw is keyed by (seed, stream, indices), never by thread, process or global state."""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_NOISE = 0x6E6F697365  # keeps `normal` apart from the draws of `WorldRandom` with the same key


def _sequence(seed: int, stream: str, indices: tuple[int, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(zlib.crc32(stream.encode()), *indices))


def rng(seed: int, stream: str, *indices: int) -> np.random.Generator:
    """NumPy generator of one stream."""
    return np.random.default_rng(_sequence(seed, stream, indices))


def generator(seed: int, stream: str, *indices: int) -> torch.Generator:
    """Torch generator (CPU) of one stream."""
    state = _sequence(seed, stream, indices).generate_state(1, np.uint32)
    return torch.Generator().manual_seed(int(state[0]))


def key(seed: int, stream: str, *indices: int) -> int:
    """Key of a trial's counter-based draws: what `TrialEnv.begin`, `WorldRandom` and `normal` take."""
    return int(torch.randint(2**62, (), generator=generator(seed, stream, *indices)))


def _shift_right(x: Int64[Tensor, "..."], bits: int) -> Int64[Tensor, "..."]:
    """Logical shift: torch's is arithmetic on signed integers."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _hash(x: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """SplitMix64 finaliser (Steele, Lea & Flood 2014, doi:10.1145/2714064.2660195)."""
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


class WorldRandom:
    """Counter-based draws for a set of worlds, one independent stream per world and episode.

    What one world draws never depends on what happens in another, so a fall or a divergence in one
    leaves the rest of the batch bit-identical. Each call takes the next block of every world's stream.
    """

    def __init__(self, key: int, worlds: Int64[Tensor, "n"], episodes: Int64[Tensor, "n"]) -> None:
        self._state = _hash(_hash(worlds * _GOLDEN + key) + episodes * _GOLDEN)
        self._used = 0

    def uniform(self, low: float, high: float, size: int) -> Float64[Tensor, "n size"]:
        """Draws from U[low, high), shape (n, size)."""
        counter = torch.arange(self._used + 1, self._used + size + 1) * _GOLDEN
        self._used += size
        bits = _shift_right(_hash(self._state[:, None] + counter), 11)
        return low + (high - low) * (bits.double() * 2.0**-53)

    def normal(self, mean: float, std: float, size: int) -> Float64[Tensor, "n size"]:
        """Draws from N(mean, std²), shape (n, size), by the Box-Muller transform."""
        u = self.uniform(0.0, 1.0, 2 * size)
        radius = (-2.0 * torch.log1p(-u[:, :size])).sqrt()
        return mean + std * radius * torch.cos(2.0 * math.pi * u[:, size:])


def normal(
    key: int, streams: Int64[Tensor, "N"], first_step: int, num_steps: int, size: int, device: torch.device | str
) -> Float32[Tensor, "T N size"]:
    """Standard normal draws of (key, stream, step, element), by the Box-Muller transform of SplitMix64's counters.

    They are the same on every device, whatever the other streams are, and however the steps are cut into blocks.
    """
    world = _hash(_hash(streams.to(device) * _GOLDEN + key) + _NOISE)
    steps = torch.arange(first_step, first_step + num_steps, device=device)
    moment = _hash(world + steps[:, None] * _GOLDEN)
    pairs = torch.arange(1, (size + 1) // 2 + 1, device=device) * _GOLDEN
    bits = _hash(moment[..., None] + pairs)
    radius = (-2.0 * ((_shift_right(bits, 32).double() + 1.0) * 2.0**-32).log()).sqrt()
    angle = (2.0 * math.pi * 2.0**-32) * (bits & 0xFFFFFFFF).double()
    both = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1)
    return both.flatten(-2)[..., :size].float()
