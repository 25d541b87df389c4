"""Memory cells: what a recurrent policy remembers its trial by, one small class each.

A cell's state is one row of numbers per world: its last output, followed by whatever else it carries on. All zeros is
the empty memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

Step = Callable[
    [Float32[Tensor, "N IH"], Float32[Tensor, "N C"]], tuple[Float32[Tensor, "N H"], Float32[Tensor, "N C"]]
]
"""One step of acting: output and what is carried on, from [input, output before] and what was carried so far."""


@runtime_checkable
class Cell(Protocol):
    """A memory: steps for acting, whole sequences with their gradients for training, by the same parameters."""

    hidden: int
    """Length H of an output."""
    state_size: int
    """Length H + C of a state."""
    recorded: bool
    """A state is small enough to be kept of every step, so that sequences may begin anywhere within a segment."""

    def sequence(
        self, inputs: Float[Tensor, "T N I"], state: Float[Tensor, "N S"]
    ) -> tuple[Float[Tensor, "T N H"], Float[Tensor, "N S"]]:
        """Outputs of every step, and the state after the last."""
        ...

    def acting(self) -> Step:
        """A step by the present parameters, laid out for speed."""
        ...


class StepCell(nn.Module):
    """A cell that is defined by one step; its last output is no part of what the next one depends on."""

    recorded = True

    def __init__(self, hidden: int, carried: int) -> None:
        super().__init__()
        self.hidden, self.state_size = hidden, hidden + carried

    def step(
        self, inputs: Float[Tensor, "N I"], carried: Float[Tensor, "N C"]
    ) -> tuple[Float[Tensor, "N H"], Float[Tensor, "N C"]]:
        """Output, and what is carried on."""
        raise NotImplementedError

    def sequence(
        self, inputs: Float[Tensor, "T N I"], state: Float[Tensor, "N S"]
    ) -> tuple[Float[Tensor, "T N H"], Float[Tensor, "N S"]]:
        """Step by step."""
        outputs, carried = [], state[:, self.hidden :]
        for now in inputs:
            output, carried = self.step(now, carried)
            outputs.append(output)
        return torch.stack(outputs), torch.cat((outputs[-1], carried), dim=-1)

    def acting(self) -> Step:
        """The step itself."""
        return self._act

    def _act(self, inputs: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        return self.step(inputs[:, : -self.hidden], carried)


class Gru(nn.GRU):
    """torch's GRU: what it carries on is its output."""

    recorded = True

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden)
        self.hidden = self.state_size = hidden
        _initialise(self)

    def sequence(
        self, inputs: Float[Tensor, "T N I"], state: Float[Tensor, "N S"]
    ) -> tuple[Float[Tensor, "T N H"], Float[Tensor, "N S"]]:
        """See `Cell.sequence`."""
        outputs, h = self(inputs, state[None].contiguous())
        return outputs, h[0]

    def acting(self) -> Step:
        """See `Cell.acting`."""
        return PackedRnn(self, self.hidden, is_lstm=False)


class Lstm(nn.LSTM):
    """torch's LSTM: beside its output it carries its cell."""

    recorded = True

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden)
        self.hidden, self.state_size = hidden, 2 * hidden
        _initialise(self)

    def sequence(
        self, inputs: Float[Tensor, "T N I"], state: Float[Tensor, "N S"]
    ) -> tuple[Float[Tensor, "T N H"], Float[Tensor, "N S"]]:
        """See `Cell.sequence`."""
        h, c = state[None].chunk(2, dim=-1)
        outputs, (h, c) = self(inputs, (h.contiguous(), c.contiguous()))
        return outputs, torch.cat((h[0], c[0]), dim=-1)

    def acting(self) -> Step:
        """See `Cell.acting`."""
        return PackedRnn(self, self.hidden, is_lstm=True)


def _initialise(memory: nn.RNNBase) -> None:
    """Orthogonal weights, zero biases."""
    for name, parameter in memory.named_parameters():
        if name.startswith("weight"):
            nn.init.orthogonal_(parameter)
        else:
            nn.init.zeros_(parameter)


class PackedRnn:
    """A GRU's or an LSTM's weights, copied, laid out for one matrix product per step."""

    def __init__(self, memory: nn.RNNBase, hidden: int, is_lstm: bool) -> None:
        w_in, w_mem, b_in, b_mem = (parameter.detach() for parameter in memory.parameters())
        if is_lstm:  # gates input, forget, cell, output: the three that are sigmoids side by side
            gates = _gates(torch.cat((w_in, w_mem), dim=1), 4), _gates(b_in + b_mem, 4)
            weight, bias = (torch.cat((x[:2], x[3:], x[2:3])).flatten(0, 1) for x in gates)
        else:  # gates reset, update, new; of the last, input and memory enter apart
            inputs, mem = torch.zeros_like(w_in[:hidden]), torch.zeros_like(w_mem[:hidden])
            weight = torch.cat(
                (
                    torch.cat((w_in, w_mem), dim=1)[: 2 * hidden],
                    torch.cat((w_in[2 * hidden :], mem), dim=1),
                    torch.cat((inputs, w_mem[2 * hidden :]), dim=1),
                )
            )
            bias = torch.cat(((b_in + b_mem)[: 2 * hidden], b_in[2 * hidden :], b_mem[2 * hidden :]))
        self.weight, self.bias, self.is_lstm, self.hidden = weight.T.contiguous(), bias, is_lstm, hidden

    def __call__(
        self, inputs: Float32[Tensor, "N IH"], cell: Float32[Tensor, "N C"]
    ) -> tuple[Float32[Tensor, "N H"], Float32[Tensor, "N C"]]:
        """See `Step`; of a GRU the cell is empty."""
        hidden = self.hidden
        gates = torch.addmm(self.bias, inputs, self.weight)
        if self.is_lstm:
            i, f, o = gates[:, : 3 * hidden].sigmoid_().chunk(3, dim=1)
            cell = torch.addcmul(f * cell, i, gates[:, 3 * hidden :].tanh_())
            return o * cell.tanh(), cell
        reset, update = gates[:, : 2 * hidden].sigmoid_().chunk(2, dim=1)
        new = torch.addcmul(gates[:, 2 * hidden : 3 * hidden], reset, gates[:, 3 * hidden :]).tanh_()
        return torch.lerp(new, inputs[:, -hidden:], update), cell


def _gates(x: Tensor, number: int) -> Tensor:
    """(number · H, ...) as (number, H, ...)."""
    return x.reshape(number, -1, *x.shape[1:])


class Cut(nn.Module):
    """A cell whose memory is emptied every `steps` steps: it knows of a task what these can tell.

    It also carries the number of steps since then. A sequence must not reach beyond where the memory is emptied; it
    may begin there.
    """

    def __init__(self, cell: Cell, steps: int) -> None:
        super().__init__()
        self.cell: Cell = cell
        self.steps = steps
        self.hidden, self.state_size, self.recorded = cell.hidden, cell.state_size + 1, cell.recorded

    def sequence(
        self, inputs: Float[Tensor, "T N I"], state: Float[Tensor, "N S"]
    ) -> tuple[Float[Tensor, "T N H"], Float[Tensor, "N S"]]:
        """See `Cell.sequence`."""
        kept = state * (state[:, -1:] < self.steps)
        outputs, after = self.cell.sequence(inputs, kept[:, :-1])
        return outputs, torch.cat((after, kept[:, -1:] + len(inputs)), dim=-1)

    def acting(self) -> Step:
        """See `Cell.acting`."""
        return _CutStep(self.cell.acting(), self.hidden, self.steps)


class _CutStep:
    """One step of a `Cut` cell."""

    def __init__(self, step: Step, hidden: int, steps: int) -> None:
        self._step, self._hidden, self._steps = step, hidden, steps

    def __call__(self, inputs: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        kept = (carried[:, -1:] < self._steps).to(inputs.dtype)
        carried = carried * kept
        inputs = torch.cat((inputs[:, : -self._hidden], inputs[:, -self._hidden :] * kept), dim=1)
        output, after = self._step(inputs, carried[:, :-1])
        return output, torch.cat((after, carried[:, -1:] + 1.0), dim=1)
