"""Every memory cell: acting step by step is what training sees, an empty state is zeros, gradients reach back."""

import pytest
import torch

from metarl.rl.attention import Transformer
from metarl.rl.cells import Cut, Gru, Lstm, StepCell
from metarl.rl.external_memory import ExternalMemory
from metarl.rl.linear_recurrence import Lru, LruBlock, doubled, linear_recurrence, scan

INPUTS, HIDDEN, T, N = 5, 8, 12, 3


CELLS = {
    "gru": lambda: Gru(INPUTS, HIDDEN),
    "lstm": lambda: Lstm(INPUTS, HIDDEN),
    "lru": lambda: Lru(INPUTS, HIDDEN),
    "transformer": lambda: Transformer(INPUTS, HIDDEN, window=15),
    "memory": lambda: ExternalMemory(INPUTS, HIDDEN),
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


# ------------------------------------------------------------------------------------------------- linear recurrence


@pytest.mark.parametrize("function", [scan, doubled])
@pytest.mark.parametrize("length", [1, 2, 7, 16, 33])
def test_the_scan_is_the_loop(length, function):
    """As on a CPU, and as on a GPU."""
    torch.manual_seed(0)
    rate = torch.polar(torch.tensor([0.99, 0.3, 1.0]).double(), torch.tensor([0.1, 2.0, 0.0]).double())
    x = torch.randn(length, 2, 3, dtype=torch.complex128)
    expected, h = [], torch.zeros(2, 3, dtype=torch.complex128)
    for now in x:
        h = rate * h + now
        expected.append(h)
    before = x.clone()
    torch.testing.assert_close(function(rate, x), torch.stack(expected))
    assert torch.equal(x, before)
    torch.testing.assert_close(scan(rate, x.flip(0), backwards=True), torch.stack(expected).flip(0))


def test_the_scan_s_gradient_is_the_loop_s():
    torch.manual_seed(0)
    rate = torch.polar(torch.rand(3).double(), torch.randn(3).double()).requires_grad_()
    x = torch.randn(9, 2, 3, dtype=torch.complex128, requires_grad=True)
    assert torch.autograd.gradcheck(linear_recurrence, (rate, x))


def test_an_lru_remembers_for_a_few_steps_to_a_thousand_as_much_at_each_scale():
    """A quarter of its states forget within 20 steps, and a quarter remember whole episodes, not turning far."""
    torch.manual_seed(0)
    rate = Lru(INPUTS, 256).blocks[0].driving()[0].detach()
    constant = -1.0 / rate.abs().log()
    assert float(constant.min()) >= 5.0 and float(constant.max()) <= 1001.0
    quartiles = torch.quantile(constant, torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quartiles.log(), torch.tensor([18.8, 70.7, 265.9]).log(), rtol=0, atol=0.3)
    assert float(rate.angle().min()) > 0.0 and float(rate.angle().max()) < 0.032


def test_an_lru_s_states_and_what_is_read_of_them_begin_at_the_inputs_size():
    """By noise of size 1: Re C x has size 1 too, as the variances of B and C are the paper's."""
    torch.manual_seed(0)
    block, u = LruBlock(64), torch.randn(4000, 64)
    rate, weight = block.driving()
    x = scan(rate.detach(), torch.view_as_complex((u @ weight.detach().T).unflatten(-1, (-1, 2))))[1000:]
    torch.testing.assert_close(x.abs().square().mean(), torch.tensor(1.0), rtol=0.2, atol=0)
    y = torch.view_as_real(x).flatten(-2) @ block.out.weight.detach().T
    torch.testing.assert_close(y.square().mean(), torch.tensor(1.0), rtol=0.2, atol=0)


# ------------------------------------------------------------------------------------------------------- transformer


def test_a_transformer_sees_its_window_and_nothing_older():
    """Two layers reach back twice as far, less one step."""
    torch.manual_seed(0)
    cell = Transformer(INPUTS, HIDDEN, window=4)
    inputs = torch.randn(20, 1, INPUTS, requires_grad=True)
    outputs, _ = cell.sequence(inputs, torch.zeros(1, cell.state_size))
    (gradient,) = torch.autograd.grad(outputs[15].square().sum(), inputs)
    assert (gradient[:, 0] != 0).any(dim=1).nonzero()[:, 0].tolist() == list(range(15 - 6, 16))


def test_a_transformer_s_ring_wraps_around_as_its_steps_do():
    torch.manual_seed(0)
    cell, inputs = Transformer(INPUTS, HIDDEN, window=4), torch.randn(23, N, INPUTS)
    expected, last = steps(cell, inputs, torch.zeros(N, cell.state_size))
    state, outputs = torch.zeros(N, cell.state_size), []
    with torch.no_grad():
        for part in inputs.split([3, 1, 6, 2, 11]):
            made, state = cell.sequence(part, state)
            outputs.append(made)
    torch.testing.assert_close(torch.cat(outputs), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, last, rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------------------------- external memory


def memory_of(gate, key=None):
    """With its gate's bias, and what it writes and looks for, as given."""
    torch.manual_seed(0)
    cell = ExternalMemory(INPUTS, HIDDEN)
    with torch.no_grad():
        cell.key.bias[-1] = gate
        if key is not None:
            cell.key.weight[:32] = 0.0
            cell.key.bias[:32] = key
    return cell


def table_and_usage(state):
    return state[0, -16 * 32 :].view(16, 32), state[0, -17 * 32 + 16 : -16 * 32]


@torch.no_grad()
def test_what_is_written_goes_to_the_slot_that_was_used_least():
    """With its gate shut nothing goes to where it read: the slots are filled in turn, and then what was used least."""
    cell, inputs = memory_of(gate=-1e3), torch.randn(40, 1, 1, INPUTS)
    state = torch.zeros(1, cell.state_size)
    for number, now in enumerate(inputs):
        (before, usage), state = table_and_usage(state), cell.sequence(now, state)[1]
        changed = (table_and_usage(state)[0] != before).any(dim=1).nonzero().flatten().tolist()
        assert changed == [number if number < 16 else int(usage.argmin())]


@torch.no_grad()
def test_a_slot_that_is_not_written_to_keeps_what_it_holds():
    """With its gate open nothing goes to the slot used least, which keeps all; with it half open, half."""
    filled, inputs = torch.randn(16, 32), torch.randn(1, 1, INPUTS)
    for gate, kept in ((1e3, 1.0), (0.0, 0.5)):
        cell = memory_of(gate, key=0.0)
        cell.key.weight[-1] = 0.0
        state = torch.zeros(1, cell.state_size)
        state[0, -16 * 32 :] = filled.flatten()
        table, _ = table_and_usage(cell.sequence(inputs, state)[1])
        torch.testing.assert_close(table[0], kept * filled[0])
        assert torch.equal(table[1:], filled[1:])


@torch.no_grad()
def test_a_key_finds_the_slot_that_it_was_written_to_and_a_step_does_not_read_what_it_writes():
    """The content is the key: of 16 slots the one with it is read most, from the next step on."""
    torch.manual_seed(1)
    key = torch.randn(32)
    cell = memory_of(-1e3, key)
    cell.key.weight[-2:], cell.key.bias[-2] = 0.0, 50.0  # sharp
    state, others = torch.zeros(1, cell.state_size), torch.randn(15, 32)
    state[0, -15 * 32 :] = others.flatten()  # the first slot is empty, and used least
    read = slice(3 * HIDDEN, 3 * HIDDEN + 32)
    first = cell.sequence(torch.randn(1, 1, INPUTS), state)[1]
    assert torch.equal(table_and_usage(first)[0][0], key.tanh())
    assert float((first[0, read] - key.tanh()).norm()) > 1.0
    second = cell.sequence(torch.randn(1, 1, INPUTS), first)[1]
    torch.testing.assert_close(second[0, read], key.tanh(), rtol=0, atol=1e-3)


def test_a_memory_s_sequence_is_its_steps_with_the_same_gradients():
    cell, inputs = made("memory"), torch.randn(T, N, INPUTS)
    state, found = torch.rand(N, cell.state_size), []
    for sequence in (ExternalMemory.sequence, StepCell.sequence):
        outputs, last = sequence(cell, inputs, state)
        gradients = torch.autograd.grad(outputs.square().sum(), list(cell.parameters()))
        found.append([outputs, last, *gradients])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
