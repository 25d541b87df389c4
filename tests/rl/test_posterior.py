"""The product of Gaussians, against its closed form."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import softplus

from metarl.rl.posterior import MIN_VARIANCE, factors, kl_to_prior, moments


def posterior(output):
    weighted, precision = factors(output)
    return moments(weighted.sum(dim=-2), precision.sum(dim=-2))


def test_a_product_has_the_closed_form_of_two_gaussians():
    mean, variance = torch.tensor([1.0, 4.0]), torch.tensor([0.5, 2.0])
    raw = variance.expm1().log()  # inverse of softplus
    got = posterior(torch.stack((mean, raw), dim=1))
    assert got[0].item() == pytest.approx((1.0 * 2.0 + 4.0 * 0.5) / (0.5 + 2.0))
    assert got[1].item() == pytest.approx(0.5 * 2.0 / (0.5 + 2.0))


def test_the_product_s_density_is_the_product_of_the_densities():
    """Up to a constant: log ratios between two points agree."""
    output = torch.randn(7, 6, dtype=torch.float64)
    mean, raw = output.chunk(2, dim=1)
    points = torch.randn(2, 3, dtype=torch.float64)
    each = Normal(mean, softplus(raw).sqrt()).log_prob(points[:, None]).sum(dim=(1, 2))
    center, variance = posterior(output)
    whole = Normal(center, variance.sqrt()).log_prob(points).sum(dim=1)
    torch.testing.assert_close(whole[0] - whole[1], each[0] - each[1])


def test_the_order_of_transitions_does_not_matter():
    output = torch.randn(3, 50, 10, dtype=torch.float64)
    shuffled = output[:, torch.randperm(50)]
    for got, expected in zip(posterior(shuffled), posterior(output), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_no_context_is_the_prior_and_variances_are_bounded_below():
    zeros = torch.zeros(2, 3)
    assert [x.tolist() for x in moments(zeros, zeros)] == [zeros.tolist(), (zeros + 1.0).tolist()]
    _, precision = factors(torch.tensor([[0.0, -200.0]]))
    assert precision.item() == pytest.approx(1.0 / MIN_VARIANCE)


def test_the_divergence_is_that_of_torch():
    mean, variance = torch.randn(4, 3), torch.rand(4, 3) + 0.1
    expected = kl_divergence(Normal(mean, variance.sqrt()), Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(kl_to_prior(mean, variance), expected)
