"""Soft actor-critic's losses, against torch's distributions and by hand."""

import pytest
import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from metarl.rl.networks import TwinCritic
from metarl.rl.sac import actor_loss, critic_loss, follow, soft_target, squashed_sample, temperature_loss


def test_the_log_density_is_that_of_a_squashed_gaussian():
    mean, log_std, noise = torch.randn(3, 8, 2, dtype=torch.float64)
    action, log_prob = squashed_sample(mean, log_std, noise)
    squashed = TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), [TanhTransform()])
    torch.testing.assert_close(log_prob, squashed.log_prob(action), rtol=1e-6, atol=1e-6)


def test_the_density_is_finite_where_tanh_saturates():
    action, log_prob = squashed_sample(torch.tensor([[40.0]]), torch.zeros(1, 1), torch.ones(1, 1))
    assert action.item() == 1.0
    assert log_prob.isfinite().all()


def test_targets_take_the_smaller_critic_and_end_at_a_fall():
    value = torch.tensor([[1.0, 5.0], [3.0, 2.0]])
    target = soft_target(
        torch.tensor([10.0, 20.0]), torch.tensor([0.9, 0.0]), value, torch.tensor([-1.0, -1.0]), torch.tensor(0.5)
    )
    assert target.tolist() == pytest.approx([10.0 + 0.9 * (1.0 + 0.5), 20.0])


def test_losses_by_hand():
    value = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    assert critic_loss(value, torch.tensor([1.0, 1.0])).item() == pytest.approx((0 + 1 + 1 + 9) / 2)
    assert actor_loss(value, torch.tensor([1.0, 3.0]), torch.tensor(2.0)).item() == pytest.approx((2 - 0 + 6 - 2) / 2)


@pytest.mark.parametrize(("log_prob", "grows"), [(3.0, True), (1.0, False)])
def test_the_temperature_grows_where_the_policy_is_too_certain(log_prob, grows):
    log_temperature = torch.zeros((), requires_grad=True)
    temperature_loss(log_temperature, torch.tensor([log_prob]), -2.0).backward()
    assert (log_temperature.grad.item() < 0) == grows


def test_targets_follow_slowly():
    target, source = [torch.zeros(2)], [torch.ones(2)]
    follow(target, source, 0.25)
    follow(target, source, 0.25)
    assert target[0].tolist() == [0.4375, 0.4375]


def test_the_batched_critics_are_two_networks():
    critic, x = TwinCritic(3, 8, 2), torch.randn(5, 3)
    for i, value in enumerate(critic(x)):
        y = x
        for number, (weight, bias) in enumerate(zip(critic.weights, critic.biases, strict=True)):
            y = y @ weight[i] + bias[i]
            y = y if number == 2 else y.relu()
        torch.testing.assert_close(value, y[:, 0])
    assert not torch.equal(*critic(x))


def test_frozen_critics_pass_gradients_to_their_inputs_only():
    critic, x = TwinCritic(3, 8, 2), torch.randn(5, 3, requires_grad=True)
    critic(x, frozen=True).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in critic.parameters())
