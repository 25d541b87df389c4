import pytest
import torch

from metarl.rl.networks import LOG_STD_MAX, LOG_STD_MIN, RecurrentActorCritic


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_sequence_equals_its_steps_one_by_one(cell):
    torch.manual_seed(0)
    network = RecurrentActorCritic(cell, inputs=5, obs_size=3, action_size=2, hidden=8)
    inputs, obs = torch.randn(6, 4, 5), torch.randn(6, 4, 3)
    state = torch.randn(4, network.state_size)
    mean, value, last = network(inputs, obs, state)
    for t in range(6):
        step_mean, step_value, state = network(inputs[t : t + 1], obs[t : t + 1], state)
        torch.testing.assert_close(step_mean[0], mean[t])
        torch.testing.assert_close(step_value[0], value[t])
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_heads_see_the_observation_itself(cell):
    """RNN+S: with the memory's input held fixed, the observation still moves the action."""
    torch.manual_seed(0)
    network = RecurrentActorCritic(cell, inputs=5, obs_size=3, action_size=2, hidden=8)
    inputs, state = torch.randn(1, 1, 5), torch.zeros(1, network.state_size)
    first, _, _ = network(inputs, torch.zeros(1, 1, 3), state)
    second, _, _ = network(inputs, torch.ones(1, 1, 3), state)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("raw", [-1e9, -5.1, 0.0, 3.0, 1e9])
def test_the_log_standard_deviation_is_clamped(raw):
    network = RecurrentActorCritic("gru", inputs=5, obs_size=3, action_size=2, hidden=8)
    torch.nn.init.constant_(network.raw_log_std, raw)
    assert network.log_std.min() >= LOG_STD_MIN
    assert network.log_std.max() <= LOG_STD_MAX
