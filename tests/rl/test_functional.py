import torch
from torch import nn
from torch.func import vmap

from metarl.rl.functional import FlatModule
from metarl.rl.networks import GaussianMlp


def test_reading_and_writing_are_inverse():
    torch.manual_seed(0)
    one, other = (FlatModule(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))) for _ in range(2))
    other.write(one.read())
    assert torch.equal(one.read(), other.read())
    x = torch.randn(5, 3)
    assert torch.equal(one.module(x), other.module(x))
    assert torch.equal(one(one.read(), x), one.module(x))
    one.read().zero_()  # a copy
    assert one.read().abs().sum() > 0


def test_a_vector_per_task_is_a_module_per_task():
    torch.manual_seed(0)
    flat = FlatModule(GaussianMlp(3, 2, hidden=8, std=0.5))
    vectors, obs = 0.3 * torch.randn(4, flat.size), torch.randn(4, 7, 3)
    mean, log_std = vmap(flat)(vectors, obs)
    for task in range(4):
        flat.write(vectors[task])
        expected_mean, expected_log_std = flat.module(obs[task])
        torch.testing.assert_close(mean[task], expected_mean)
        torch.testing.assert_close(log_std[task], expected_log_std)
    each_mean, each_log_std = flat.module.forward_each(flat.named(vectors), obs[:, 0])
    torch.testing.assert_close(each_mean, mean[:, 0])
    torch.testing.assert_close(each_log_std, log_std)


def test_a_module_without_parameters_has_an_empty_vector():
    assert FlatModule(nn.Tanh()).read().shape == (0,)
