import math

import pytest
import torch
from torch.distributions import Independent, Normal

from metarl.rl.objectives import (
    approximate_kl,
    clipped_surrogate,
    gaussian_entropy,
    gaussian_log_prob,
    gaussian_nll,
)


def test_log_prob_and_entropy_agree_with_torch_distributions():
    torch.manual_seed(0)
    mean, log_std, action = torch.randn(5, 3), torch.randn(3), torch.randn(5, 3)
    reference = Independent(Normal(mean, log_std.exp()), 1)
    torch.testing.assert_close(gaussian_log_prob(mean, log_std, action), reference.log_prob(action))
    torch.testing.assert_close(gaussian_entropy(log_std), reference.entropy()[0])


def test_clipped_surrogate_on_the_four_corners():
    """Eq. 7: the clip binds only where it lowers the objective."""
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5])
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0])
    expected = -torch.tensor([1.2, 0.5, -1.5, -0.8]).mean()
    torch.testing.assert_close(clipped_surrogate(ratio.log(), torch.zeros(4), advantage, clip=0.2), expected)


def test_the_gradient_of_a_clipped_sample_is_zero():
    log_prob = torch.tensor([math.log(1.5)], requires_grad=True)
    clipped_surrogate(log_prob, torch.zeros(1), torch.ones(1), clip=0.2).backward()
    assert log_prob.grad is not None
    assert log_prob.grad.item() == 0.0


def test_approximate_kl_estimates_the_divergence_of_two_gaussians():
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(200_000, 1, generator=generator, dtype=torch.float64)
    zero, log_std = torch.zeros_like(sample), torch.zeros(1, dtype=torch.float64)
    old, new = gaussian_log_prob(zero, log_std, sample), gaussian_log_prob(zero + 0.3, log_std, sample)
    assert abs(approximate_kl(new, old).item() - 0.3**2 / 2) < 1e-3


def test_the_weighted_likelihood_has_its_optimum_at_mean_and_deviation():
    torch.manual_seed(0)
    target = 2.0 + 0.3 * torch.randn(4000, 1)
    mean, log_std = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([mean, log_std], 0.05)
    for _ in range(300):
        loss = gaussian_nll(mean.expand_as(target), log_std.expand_as(target), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(mean.detach()) == pytest.approx(2.0, abs=0.02)
    assert float(log_std.detach().exp()) == pytest.approx(0.3, abs=0.02)


def test_a_certain_guess_that_is_wrong_is_not_the_whole_gradient():
    """A deviation a hundred times smaller makes the gradient by the mean a hundred times larger, not ten thousand."""
    gradients = []
    for log_std in (0.0, -4.605170):
        mean = torch.zeros(1, requires_grad=True)
        gaussian_nll(mean, torch.tensor([log_std]), torch.ones(1)).backward()
        gradients.append(float(mean.grad))
    assert gradients == pytest.approx([-1.0, -100.0], rel=1e-4)
