"""Every memory cell: acting step by step is what training sees, an empty state is zeros, gradients reach back."""

import pytest
import torch

from metarl.rl.cells import Cut, Gru, Lstm

INPUTS, HIDDEN, T, N = 5, 8, 12, 3


CELLS = {
    "gru": lambda: Gru(INPUTS, HIDDEN),
    "lstm": lambda: Lstm(INPUTS, HIDDEN),
    "cut": lambda: Cut(Lstm(INPUTS, HIDDEN), T),
}
ALL = pytest.mark.parametrize("name", CELLS)


def made(name):
    torch.manual_seed(0)
    return CELLS[name]()


@torch.no_grad()
def steps(cell, inputs, state):
    """Outputs and last state, as a policy acts."""
    step, outputs = cell.acting(), []
    output, carried = state[:, : cell.hidden], state[:, cell.hidden :]
    for now in inputs:
        output, carried = step(torch.cat((now, output), dim=1), carried)
        outputs.append(output)
        carried = carried.clone()  # a step may write into what it was given
    return torch.stack(outputs), torch.cat((output, carried), dim=1)


@ALL
def test_a_sequence_is_its_steps_from_an_empty_memory_and_from_any_other(name):
    cell, inputs = made(name), torch.randn(2 * T, N, INPUTS)
    expected, last = steps(cell, inputs, torch.zeros(N, cell.state_size))
    with torch.no_grad():
        first, middle = cell.sequence(inputs[:T], torch.zeros(N, cell.state_size))
        second, end = cell.sequence(inputs[T:], middle)
    torch.testing.assert_close(torch.cat((first, second)), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(end, last, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(end[:, :HIDDEN], second[-1])
    assert middle.shape == (N, cell.state_size)


@ALL
def test_an_output_depends_on_all_inputs_before_it_and_on_none_after(name):
    cell, inputs = made(name), torch.randn(T, N, INPUTS, requires_grad=True)
    outputs, _ = cell.sequence(inputs, torch.zeros(N, cell.state_size))
    (gradient,) = torch.autograd.grad(outputs[7, 1].square().sum(), inputs)
    assert bool((gradient[:8, 1] != 0).any(dim=1).all())
    assert not gradient[8:].any()
    assert not gradient[:, [0, 2]].any(), "worlds are apart"


@ALL
def test_every_parameter_takes_part(name):
    cell, inputs = made(name), torch.randn(T, N, INPUTS)
    outputs, _ = cell.sequence(inputs, torch.zeros(N, cell.state_size))
    outputs.square().sum().backward()
    idle = [name for name, parameter in cell.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert idle == []


def test_a_cut_memory_is_as_new_every_so_many_steps():
    torch.manual_seed(0)
    whole, inputs = Lstm(INPUTS, HIDDEN), torch.randn(8, N, INPUTS)
    outputs, last = steps(Cut(whole, 4), inputs, torch.zeros(N, 2 * HIDDEN + 1))
    for part in (0, 4):
        expected, _ = steps(whole, inputs[part : part + 4], torch.zeros(N, 2 * HIDDEN))
        torch.testing.assert_close(outputs[part : part + 4], expected)
    assert bool((last[:, -1] == 4).all())
