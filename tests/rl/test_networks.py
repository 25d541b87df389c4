import pytest
import torch

from metarl.rl.cells import Gru, Lstm
from metarl.rl.networks import (
    BELIEF_LOG_STD_MIN,
    LOG_STD_MAX,
    LOG_STD_MIN,
    Generated,
    HyperHead,
    RecurrentActorCritic,
    head,
)


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


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 2), (2, 4), (3, 3), (1, 1)])
def test_a_generated_layer_is_the_one_with_the_summed_weights(inputs, outputs):
    """Narrowing and widening layers are computed in different orders."""
    torch.manual_seed(0)
    layer = Generated(3, inputs, outputs, 1.0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x, embedding = torch.randn(5, 7, inputs), torch.randn(5, 7, 3)
    weights = layer.weight.view(inputs, 3, outputs)
    weight = layer.base.weight + torch.einsum("...k,iko->...oi", embedding, weights)
    bias = layer.base.bias + embedding @ layer.bias.T
    expected = (weight @ x[..., None])[..., 0] + bias
    torch.testing.assert_close(layer(x, embedding), expected)
    torch.testing.assert_close(layer(x[0], embedding[0]), expected[0])


def test_a_hyper_head_moves_about_as_far_by_a_step_of_adam_as_a_plain_one():
    """It sums K = 32 terms that all move by Adam's step: their sum would move many times as far."""
    moved = []
    for make in (lambda: HyperHead(128, 42, 128, 12), lambda: head(128 + 42, 128, 12, 0.01)):
        torch.manual_seed(0)
        policy, features, noise = make(), torch.randn(64, 128 + 42).tanh(), torch.randn(64, 12)
        optimizer, before = torch.optim.Adam(policy.parameters(), 1e-3), policy(features).detach()
        for _ in range(4):
            optimizer.zero_grad()
            (policy(features) * noise).mean().backward()
            optimizer.step()
        moved.append((policy(features).detach() - before).norm())
    assert 0.5 < float(moved[0] / moved[1]) < 2.0


def test_a_hyper_head_begins_alike_for_every_memory_and_learns_to_tell_them_apart():
    torch.manual_seed(0)
    network = network_of(policy_head="hyper")
    obs, memories = torch.randn(1, 3).expand(6, 3), torch.randn(6, 8)
    features = torch.cat((memories, obs), dim=1)
    actions = network.actor(features)
    torch.testing.assert_close(actions, actions[:1].expand(6, 2))
    optimizer = torch.optim.Adam(network.actor.parameters(), 0.01)
    target = torch.stack((memories[:, 0], -memories[:, 1]), dim=1)
    for _ in range(200):
        loss = (network.actor(features) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.01
