"""Named random streams: every draw is keyed by (seed, stream, indices), never by thread, process or global state."""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_NOISE = 0x6E6F697365  # `noise`: keeps the draws of `normal` apart from those of `WorldRandom`
_NEXT = 0x747269616C  # `trial`
_WITHIN = 0x65766E74  # `evnt`: what is drawn in the course of an episode


def _sequence(seed: int, stream: str, indices: tuple[int, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(zlib.crc32(stream.encode()), *indices))


def rng(seed: int, stream: str, *indices: int) -> np.random.Generator:
    """NumPy generator of one stream."""
    return np.random.default_rng(_sequence(seed, stream, indices))


def generator(seed: int, stream: str, *indices: int) -> torch.Generator:
    """Torch generator (CPU) of one stream."""
    state = _sequence(seed, stream, indices).generate_state(1, np.uint32)
    return torch.Generator().manual_seed(int(state[0]))


def on_device(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """Return a generator on `device`, seeded by one draw of `generator`; on the CPU the very one."""
    if device.type == "cpu":
        return generator
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))


def key(seed: int, stream: str, *indices: int) -> int:
    """Key of a trial's counter-based draws: what `TrialEnv.begin`, `WorldRandom` and `normal` take."""
    return int(torch.randint(2**62, (), generator=generator(seed, stream, *indices)))


def _shift_right(x: Int64[Tensor, "..."], bits: int) -> Int64[Tensor, "..."]:
    """Logical shift: torch's is arithmetic on signed integers."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


_ON_CUDA = """
template <typename T> T mixed(T given) {
    unsigned long long x = given;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}
"""


@functools.cache
def _hash_on_cuda() -> Callable[[Tensor], Tensor]:
    made: Callable[[Tensor], Tensor] = torch.cuda.jiterator._create_jit_fn(_ON_CUDA)
    return made


def _hash(x: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """SplitMix64 finaliser (Steele, Lea & Flood 2014, doi:10.1145/2714064.2660195); one kernel on CUDA, not eleven."""
    if x.device.type == "cuda":
        return _hash_on_cuda()(x)
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def next_key(key: Int64[Tensor, "n"]) -> Int64[Tensor, "n"]:
    """Key of the trial that follows one of `key` in the same world."""
    return _hash(key + _NEXT)


def later_key(key: Int64[Tensor, "n"], trials: Int64[Tensor, "n"] | None) -> Int64[Tensor, "n"]:
    """Key of the trial that comes so many trials after one of `key` in the same world."""
    left = torch.zeros_like(key) if trials is None else trials.to(key.device)
    while bool((left > 0).any()):
        key, left = torch.where(left > 0, next_key(key), key), left - 1
    return key


def root(key: int | Int64[Tensor, "n"], streams: Int64[Tensor, "n"]) -> Int64[Tensor, "n"]:
    """What `WorldRandom` draws from in all episodes of a world's trial, of its key and its stream."""
    return _hash(streams * _GOLDEN + key)


@functools.cache
def _counter(first: int, size: int, device: torch.device) -> Int64[Tensor, "size"]:
    return torch.arange(first + 1, first + size + 1, device=device) * _GOLDEN


class WorldRandom:
    """Counter-based draws for a set of worlds, one independent stream per world and episode.

    What one world draws never depends on what happens in another, so a fall or a divergence in one
    leaves the rest of the batch bit-identical. Each call takes the next block of every world's stream.
    """

    def __init__(
        self,
        key: int | Int64[Tensor, "n"],
        worlds: Int64[Tensor, "n"],
        episodes: Int64[Tensor, "n"],
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """`key` may differ between worlds. Draws are on the device of `worlds`, computed in float64, then `dtype`."""
        self._begin(root(key, worlds), episodes, dtype)

    def _begin(
        self, roots: Int64[Tensor, "n"], episodes: Int64[Tensor, "n"], dtype: torch.dtype, ahead: int = 0
    ) -> None:
        self._state = _hash(torch.add(roots, episodes, alpha=_GOLDEN))
        self._used, self._dtype = 0, dtype
        self._ahead = self._block(ahead) if ahead else None

    @staticmethod
    def rooted(
        roots: Int64[Tensor, "n"], episodes: Int64[Tensor, "n"], dtype: torch.dtype, ahead: int = 0
    ) -> WorldRandom:
        """The same draws by `root`; the first `ahead` numbers are worked out at once, which is less work."""
        made = WorldRandom.__new__(WorldRandom)
        made._begin(roots, episodes, dtype, ahead)
        return made

    @property
    def used(self) -> int:
        """Numbers drawn of each world's stream so far."""
        return self._used

    def uniform(self, low: float, high: float, size: int) -> Float[Tensor, "n size"]:
        """Draws from U[low, high), shape (n, size)."""
        return (low + (high - low) * self._unit(size)).to(self._dtype)

    def normal(self, mean: float, std: float, size: int) -> Float[Tensor, "n size"]:
        """Draws from N(mean, std²), shape (n, size), by the Box-Muller transform."""
        u = self._unit(2 * size)
        radius = (-2.0 * torch.log1p(-u[:, :size])).sqrt()
        return (mean + std * radius * torch.cos(2.0 * math.pi * u[:, size:])).to(self._dtype)

    def become(self, other: WorldRandom) -> None:
        """Draw what `other` draws from now on, from memory of its own."""
        self._state.copy_(other._state)
        self._used, self._ahead = other._used, None

    def within(self, purpose: int, count: Int64[Tensor, "n"] | None = None) -> WorldRandom:
        """Draws of their own in the course of the episode: for number `count` of what `purpose` stands for.

        They are the same whenever and however often they are asked for.
        """
        made = WorldRandom.__new__(WorldRandom)
        state = _hash(self._state + (_WITHIN + purpose))
        made._state = state if count is None else _hash(state + count * _GOLDEN)
        made._used, made._dtype, made._ahead = 0, self._dtype, None
        return made

    def _unit(self, size: int) -> Float64[Tensor, "n size"]:
        first = self._used
        self._used += size
        if self._ahead is not None and self._used <= self._ahead.shape[1]:
            return self._ahead[:, first : self._used]
        return self._block(size, first)

    def _block(self, size: int, first: int = 0) -> Float64[Tensor, "n size"]:
        bits = _hash(self._state[:, None] + _counter(first, size, self._state.device))
        return _shift_right(bits, 11).double() * 2.0**-53


def normal(
    key: int, streams: Int64[Tensor, "N"], first_step: int, num_steps: int, size: int, device: torch.device | str
) -> Float32[Tensor, "T N size"]:
    """Standard normal draws for `num_steps` steps of N streams, those from `first_step` on.

    Each is a function of key, stream, step and element alone: however steps are cut into blocks, whatever stands beside
    it, and on every device (computed in float64, so that rounding hides what devices differ in).
    """
    steps = torch.arange(first_step, first_step + num_steps, device=device)
    streams = _hash(_hash(streams.to(device) * _GOLDEN + key) + _NOISE)
    pairs = torch.arange(1, (size + 1) // 2 + 1, device=device) * _GOLDEN
    bits = _hash(_hash(streams + steps[:, None] * _GOLDEN)[:, :, None] + pairs)
    # Box-Muller takes two numbers in (0, 1) of 32 bits each out of one hash, and gives two normal draws.
    radius = (-2.0 * ((_shift_right(bits, 32).double() + 0.5) * 2.0**-32).log()).sqrt()
    angle = (bits & 0xFFFFFFFF).double() * (2.0 * math.pi * 2.0**-32)
    return torch.stack((radius * angle.cos(), radius * angle.sin()), dim=3).flatten(2)[:, :, :size].float()
