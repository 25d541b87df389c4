import torch

from metarl.rl.returns import discounted_return, gae


def test_gae_matches_a_hand_computed_case():
    """Two steps, γ = 0.9, λ = 0.5: δ₁ = 2 + 0.9·3 − 1 = 3.7, δ₀ = 1 + 0.9·1 − 0.5 = 1.4, A₀ = 1.4 + 0.45·3.7."""
    reward = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    value = torch.tensor([[0.5], [1.0]], dtype=torch.float64)
    next_value = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    advantage = gae(reward, torch.full_like(reward, 0.9), value, next_value, lam=0.5)
    torch.testing.assert_close(advantage, torch.tensor([[1.4 + 0.45 * 3.7], [3.7]], dtype=torch.float64))


def test_gae_with_lambda_one_is_the_return_minus_the_value():
    torch.manual_seed(0)
    reward, value = torch.randn(30, 4, dtype=torch.float64), torch.randn(30, 4, dtype=torch.float64)
    last = torch.randn(4, dtype=torch.float64)
    discount = torch.full_like(reward, 0.95)
    advantage = gae(reward, discount, value, torch.cat((value[1:], last[None])), lam=1.0)
    powers = 0.95 ** torch.arange(30, dtype=torch.float64)
    target = (powers[:, None] * reward).sum(0) + 0.95**30 * last
    torch.testing.assert_close(advantage[0] + value[0], target)


def test_gae_with_lambda_zero_is_the_temporal_difference():
    torch.manual_seed(0)
    reward, value, next_value = torch.randn(3, 10, 2).unbind(0)
    discount = torch.full_like(reward, 0.9)
    torch.testing.assert_close(
        gae(reward, discount, value, next_value, lam=0.0), reward + discount * next_value - value
    )


def test_a_zero_discount_cuts_bootstrap_and_trace():
    reward, value = torch.ones(4, 1), torch.zeros(4, 1)
    discount = torch.tensor([[0.9], [0.0], [0.9], [0.9]])
    advantage = gae(reward, discount, value, torch.full((4, 1), 100.0), lam=1.0)
    assert advantage[1].item() == 1.0
    torch.testing.assert_close(advantage[0], torch.tensor([1.0 + 0.9 * 100.0 + 0.9 * 1.0]))


def test_discounted_return_accumulates_the_past():
    running = discounted_return(torch.tensor([[1.0], [2.0], [3.0]]), gamma=0.5)
    torch.testing.assert_close(running, torch.tensor([[1.0], [2.5], [4.25]]))
