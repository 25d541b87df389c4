"""A linear recurrent memory: diagonal, complex, and computed for all steps at once (LRU: Orvieto et al. 2023).

x_t = λ ⊙ x_{t−1} + γ ⊙ (B u_t), y_t = Re(C x_t) + D ⊙ u_t (arXiv:2303.06349, eq. 4 to 7), in blocks with a normalised
residual around each. Since no step depends on the last one's output but by a constant factor, a GPU takes sequences of
whole trials in a number of passes that grows with the logarithm of their length (Lu et al. 2023, arXiv:2303.03982).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from metarl.rl.cells import Step

_BLOCKS = 2
_FASTEST, _SLOWEST = 5.0, 1000.0  # time constants τ at the start, in steps: |λ| = exp(−1/τ)
_MOST_PHASE = math.pi / 100  # of λ at the start


def scan(
    rate: Complex[Tensor, "S"], x: Complex[Tensor, "T *N S"], backwards: bool = False
) -> Complex[Tensor, "T *N S"]:
    """h_t = rate ⊙ h_{t−1} + x_t from h_{−1} = 0, or from the last step to the first. Without gradient.

    Step by step on a CPU, which is the least work; by doubling on a GPU, which is the fewest operations.
    """
    if x.device.type != "cpu":
        return doubled(rate, x.flip(0)).flip(0) if backwards else doubled(rate, x)
    h = x.clone(memory_format=torch.contiguous_format)
    rows = h.unbind()
    for before, now in pairwise(rows[::-1] if backwards else rows):
        now.addcmul_(rate, before)
    return h


def doubled(rate: Complex[Tensor, "S"], x: Complex[Tensor, "T *N S"]) -> Complex[Tensor, "T *N S"]:
    """`scan` by log₂ T passes over all steps."""
    stride = 1
    while stride < len(x):
        x = torch.cat((x[:stride], torch.addcmul(x[stride:], rate, x[:-stride])))
        rate, stride = rate * rate, 2 * stride
    return x


class _Scan(torch.autograd.Function):
    """`scan` with the gradient of the loop: a scan backwards in time by the conjugate rate."""

    @staticmethod
    def forward(ctx: Any, rate: Tensor, x: Tensor) -> Tensor:
        h = scan(rate, x)
        ctx.save_for_backward(rate, h)
        return h

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        rate, h = ctx.saved_tensors
        of_x = scan(rate.conj().resolve_conj(), gradients[0], backwards=True)
        of_rate = (h[:-1].conj() * of_x[1:]).flatten(0, -2).sum(dim=0)
        return of_rate, of_x


def linear_recurrence(rate: Complex[Tensor, "S"], x: Complex[Tensor, "T *N S"]) -> Complex[Tensor, "T *N S"]:
    """`scan`, to be differentiated; memory and time of its gradient are those of a few passes over the states."""
    if not torch.is_grad_enabled():
        return scan(rate, x)
    h: Tensor = _Scan.apply(rate, x)  # type: ignore[no-untyped-call]
    return h


class LruBlock(nn.Module):
    """u + GLU(y) with y the linear recurrence of the normalised u: width H, and H complex numbers of state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        # −log τ, uniform in its range: as many states for each scale of time. With |λ|² uniform (the paper's lemma
        # 3.2) half of them forget within 10 steps, and few remember an episode.
        self.log_decay = nn.Parameter(-math.log(_FASTEST) - math.log(_SLOWEST / _FASTEST) * torch.rand(width))
        self.log_phase = nn.Parameter((_MOST_PHASE * torch.rand(width) + 1e-4).log())
        self.into = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(2 * width, width, bias=False)
        nn.init.normal_(self.into.weight, std=(2 * width) ** -0.5)  # variances of B and C as the paper's
        nn.init.normal_(self.out.weight, std=width**-0.5)
        self.skip = nn.Parameter(torch.randn(width))
        self.gate = nn.Linear(width, 2 * width)

    def driving(self) -> tuple[Complex[Tensor, "H"], Float[Tensor, "H2 H"]]:
        """λ, and γB; γ = √(1 − |λ|²) makes states of about the inputs' size, whatever λ."""
        decay = self.log_decay.exp()
        gain = (-torch.expm1(-2.0 * decay)).sqrt()
        return torch.polar((-decay).exp(), self.log_phase.exp()), gain.repeat_interleave(2)[:, None] * self.into.weight

    def read(
        self, u: Float[Tensor, "*B H"], normed: Float[Tensor, "*B H"], x: Float[Tensor, "*B H2"]
    ) -> Float[Tensor, "*B H"]:
        """The block's output, by its state."""
        y = torch.addcmul(self.out(x), self.skip, normed)
        output: Tensor = u + nn.functional.glu(self.gate(nn.functional.gelu(y)), dim=-1)
        return output


class Lru(nn.Module):
    """Two blocks; of each it carries H complex numbers: each one's real part, then its imaginary part."""

    recorded = True

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden, self.state_size = hidden, hidden + 2 * _BLOCKS * hidden
        self.encode = nn.Linear(inputs, hidden)
        self.blocks = nn.ModuleList(LruBlock(hidden) for _ in range(_BLOCKS))
        self.norm = nn.LayerNorm(hidden)

    def sequence(
        self, inputs: Float[Tensor, "T N I"], state: Float[Tensor, "N S"]
    ) -> tuple[Float[Tensor, "T N H"], Float[Tensor, "N S"]]:
        """All steps at once."""
        u, after = self.encode(inputs), []
        for block, before in zip(self.blocks, state[:, self.hidden :].chunk(_BLOCKS, dim=-1), strict=True):
            assert isinstance(block, LruBlock)
            (rate, weight), normed = block.driving(), block.norm(u)
            driven = torch.view_as_complex(_pairs(nn.functional.linear(normed, weight)))
            driven[0].addcmul_(rate, torch.complex(*_pairs(before).unbind(-1)))
            x = torch.view_as_real(linear_recurrence(rate, driven)).flatten(-2)
            u = block.read(u, normed, x)
            after.append(x[-1])
        outputs = torch.tanh(self.norm(u))
        return outputs, torch.cat((outputs[-1], *after), dim=-1)

    @torch.no_grad()
    def acting(self) -> Step:
        """See `Cell.acting`."""
        return LruStep(self)


class LruStep:
    """One step of an `Lru`, whose λ and γB are computed once; in real numbers, as an exported policy has no others."""

    def __init__(self, memory: Lru) -> None:
        self._memory, self._blocks = memory, []
        for block in memory.blocks:
            assert isinstance(block, LruBlock)
            rate, weight = block.driving()
            real, imaginary = rate.real.repeat_interleave(2), torch.stack((-rate.imag, rate.imag), dim=-1).flatten()
            self._blocks.append((block, real, imaginary, weight))

    def __call__(
        self, inputs: Float[Tensor, "N IH"], carried: Float[Tensor, "N C"]
    ) -> tuple[Float[Tensor, "N H"], Float[Tensor, "N C"]]:
        """See `Step`."""
        memory, after = self._memory, []
        u = memory.encode(inputs[:, : -memory.hidden])
        for (block, real, imaginary, weight), before in zip(self._blocks, carried.chunk(_BLOCKS, dim=-1), strict=True):
            normed, swapped = block.norm(u), torch.stack(_pairs(before).unbind(-1)[::-1], dim=-1).flatten(-2)
            now = torch.addcmul(nn.functional.linear(normed, weight), real, before)
            after.append(torch.addcmul(now, imaginary, swapped))
            u = block.read(u, normed, after[-1])
        return torch.tanh(memory.norm(u)), torch.cat(after, dim=-1)


def _pairs(x: Float[Tensor, "*B H2"]) -> Float[Tensor, "*B H 2"]:
    """Complex numbers by their real and imaginary parts."""
    return x.reshape(*x.shape[:-1], x.shape[-1] // 2, 2)
