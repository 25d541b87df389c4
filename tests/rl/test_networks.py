import pytest
import torch

from metarl.rl.cells import Gru, Lstm
from metarl.rl.networks import BELIEF_LOG_STD_MIN, LOG_STD_MAX, LOG_STD_MIN, RecurrentActorCritic


def network_of(cell=Gru, **words):
    torch.manual_seed(0)
    return RecurrentActorCritic(cell(5, 8), obs_size=3, action_size=2, **words)


@pytest.mark.parametrize("cell", [Gru, Lstm])
def test_the_heads_see_the_observation_itself(cell):
    """RNN+S: with the memory's input held fixed, the observation still moves the action."""
    network = network_of(cell)
    inputs, state = torch.randn(1, 1, 5), torch.zeros(1, network.state_size)
    first, _, _ = network(inputs, torch.zeros(1, 1, 3), state)
    second, _, _ = network(inputs, torch.ones(1, 1, 3), state)
    assert not torch.equal(first, second)


def test_privileged_numbers_move_values_and_never_actions():
    network = network_of(shown=2)
    inputs, obs, state = torch.randn(4, 3, 5), torch.randn(4, 3, 3), torch.zeros(3, 8)
    mean, value, _ = network(inputs, obs, state, torch.zeros(4, 3, 2))
    other, moved, _ = network(inputs, obs, state, torch.ones(4, 3, 2))
    assert torch.equal(mean, other)
    assert not bool((value == moved).any())


def test_a_beliefs_deviation_is_bounded_below_and_its_gradient_never_dies():
    network = network_of(believed=2)
    torch.nn.init.constant_(network.belief[2].bias, -50.0)
    _, log_std = network.beliefs(torch.randn(6, 8))
    assert log_std.shape == (6, 2)
    assert log_std.min() >= BELIEF_LOG_STD_MIN
    torch.nn.init.constant_(network.belief[2].bias, BELIEF_LOG_STD_MIN - 3.0)
    network.beliefs(torch.randn(6, 8))[1].sum().backward()
    assert bool((network.belief[2].bias.grad[2:] > 0).all())


@pytest.mark.parametrize("raw", [-1e9, -5.1, 0.0, 3.0, 1e9])
def test_the_log_standard_deviation_is_clamped(raw):
    network = network_of()
    torch.nn.init.constant_(network.raw_log_std, raw)
    assert network.log_std.min() >= LOG_STD_MIN
    assert network.log_std.max() <= LOG_STD_MAX
