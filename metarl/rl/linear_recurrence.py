"""A linear recurrent memory: diagonal, complex, and computed for all steps at once (LRU: Orvieto et al. 2023).

x_t = λ ⊙ x_{t−1} + γ ⊙ (B u_t), y_t = Re(C x_t) + D ⊙ u_t (arXiv:2303.06349, eq. 4 to 7), in blocks with a normalised
residual around each. Since no step depends on the last one's output but by a constant factor, sequences of whole trials
take a number of passes that grows with the logarithm of their length (Lu et al. 2023, arXiv:2303.03982).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from metarl.rl.cells import StepCell

_BLOCKS = 2
_SLOWEST, _FASTEST = 0.999, 0.8  # |λ| at the start: memories of about 1000 to 5 steps
_MOST_PHASE = math.pi / 10  # of λ at the start


def scan(rate: Complex[Tensor, "S"], x: Complex[Tensor, "T *N S"]) -> Complex[Tensor, "T *N S"]:
    """h_t = rate ⊙ h_{t−1} + x_t from h_{−1} = 0, by doubling: log₂ T passes over all steps. Without gradient."""
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
        of_x = scan(rate.conj(), gradients[0].flip(0)).flip(0)
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
        # |λ|² uniform in its range, so that no scale of time is favoured (the paper's lemma 3.2).
        squared = _FASTEST**2 + (_SLOWEST**2 - _FASTEST**2) * torch.rand(width)
        self.log_decay = nn.Parameter((-0.5 * squared.log()).log())
        self.log_phase = nn.Parameter((_MOST_PHASE * torch.rand(width) + 1e-4).log())
        self.into = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(2 * width, width, bias=False)
        self.skip = nn.Parameter(torch.randn(width))
        self.gate = nn.Linear(width, 2 * width)

    def drive(self, u: Float[Tensor, "*B H"]) -> tuple[Complex[Tensor, "H"], Tensor, Tensor, Tensor]:
        """λ, what drives the recurrence by its real and imaginary part, and the normalised input."""
        decay = self.log_decay.exp()
        rate = torch.polar((-decay).exp(), self.log_phase.exp())
        gain = (-torch.expm1(-2.0 * decay)).sqrt()  # √(1 − |λ|²): states of about the inputs' size, whatever λ
        normed = self.norm(u)
        real, imaginary = self.into(normed).chunk(2, dim=-1)
        return rate, gain * real, gain * imaginary, normed

    def read(
        self, u: Float[Tensor, "*B H"], normed: Float[Tensor, "*B H"], x: Float[Tensor, "*B H2"]
    ) -> Float[Tensor, "*B H"]:
        """The block's output, by its state's real and imaginary parts."""
        y = self.out(x) + self.skip * normed
        value, gate = self.gate(nn.functional.gelu(y)).chunk(2, dim=-1)
        output: Tensor = u + value * gate.sigmoid()
        return output


class Lru(StepCell):
    """Two blocks; of each it carries the H complex numbers, as their real and their imaginary parts."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(hidden, 2 * _BLOCKS * hidden)
        self.encode = nn.Linear(inputs, hidden)
        self.blocks = nn.ModuleList(LruBlock(hidden) for _ in range(_BLOCKS))
        self.norm = nn.LayerNorm(hidden)

    def step(
        self, inputs: Float[Tensor, "N I"], carried: Float[Tensor, "N C"]
    ) -> tuple[Float[Tensor, "N H"], Float[Tensor, "N C"]]:
        """See `StepCell.step`; in real numbers, as an exported policy has no others."""
        u, after = self.encode(inputs), []
        for block, before in zip(self.blocks, carried.chunk(_BLOCKS, dim=-1), strict=True):
            assert isinstance(block, LruBlock)
            rate, driven, turned, normed = block.drive(u)
            real, imaginary = before.chunk(2, dim=-1)
            driven = driven + rate.real * real - rate.imag * imaginary
            turned = turned + rate.real * imaginary + rate.imag * real
            after.append(torch.cat((driven, turned), dim=-1))
            u = block.read(u, normed, after[-1])
        return torch.tanh(self.norm(u)), torch.cat(after, dim=-1)

    def sequence(
        self, inputs: Float[Tensor, "T N I"], state: Float[Tensor, "N S"]
    ) -> tuple[Float[Tensor, "T N H"], Float[Tensor, "N S"]]:
        """All steps at once."""
        u, after = self.encode(inputs), []
        parts = state[:, self.hidden :].chunk(2 * _BLOCKS, dim=-1)
        for block, real, imaginary in zip(self.blocks, parts[::2], parts[1::2], strict=True):
            assert isinstance(block, LruBlock)
            rate, *drive, normed = block.drive(u)
            driven = torch.complex(*drive)
            first = torch.addcmul(driven[:1], rate, torch.complex(real, imaginary))
            x = linear_recurrence(rate, torch.cat((first, driven[1:])))
            u = block.read(u, normed, torch.cat((x.real, x.imag), dim=-1))
            after += [x[-1].real, x[-1].imag]
        outputs = torch.tanh(self.norm(u))
        return outputs, torch.cat((outputs[-1], *after), dim=-1)
