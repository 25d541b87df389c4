import pytest
import torch

from metarl.rl.parallel import ShardedGradient


def loss_of(weight, data):
    def loss(index):
        value = (data[index] * weight).square().mean()
        return value, value[None]

    return loss


@pytest.mark.parametrize("size", [2, 7, 64])
def test_shards_sum_to_the_gradient_of_the_whole_minibatch(size):
    torch.manual_seed(0)
    weight = torch.randn(3, dtype=torch.float64, requires_grad=True)
    data = torch.randn(100, 3, dtype=torch.float64)
    index = torch.randperm(100)[:size]
    whole, _ = loss_of(weight, data)(index)
    (expected,) = torch.autograd.grad(whole, [weight])
    (gradient,), diagnostics = ShardedGradient(2)(loss_of(weight, data), [weight], index)
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(diagnostics, whole.detach()[None])


def test_the_number_of_threads_changes_no_bit():
    torch.manual_seed(0)
    weight, data = torch.randn(300, requires_grad=True), torch.randn(1000, 300)
    results = [
        ShardedGradient(2, threads)(loss_of(weight, data), [weight], torch.arange(1000))[0][0] for threads in (1, 2, 4)
    ]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
