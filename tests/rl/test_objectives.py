import math

import torch
from torch.distributions import Independent, Normal

from metarl.rl.objectives import approximate_kl, clipped_surrogate, gaussian_entropy, gaussian_log_prob


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
