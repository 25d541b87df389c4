import torch

from metarl.rl.normalize import RunningNorm


def test_batches_merge_into_the_statistics_of_all_data():
    torch.manual_seed(0)
    data = torch.randn(1000, 3, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.1]) + torch.tensor([0.0, 100.0, -3.0])
    norm = RunningNorm(3)
    for batch in data.split([1, 9, 490, 500]):
        norm.update(batch)
    torch.testing.assert_close(norm.mean, data.mean(0))
    torch.testing.assert_close(norm.var, data.var(0, unbiased=False))


def test_it_is_the_identity_before_any_data_and_clips_outliers():
    norm = RunningNorm(2)
    torch.testing.assert_close(norm(torch.tensor([[1.0, -2.0]])), torch.tensor([[1.0, -2.0]]))
    assert norm(torch.tensor([[1e6, -1e6]])).tolist() == [[10.0, -10.0]]


def test_a_constant_element_stays_finite():
    norm = RunningNorm(1)
    norm.update(torch.full((50, 1), 7.0))
    assert norm(torch.full((1, 1), 7.0)).tolist() == [[0.0]]


def test_scalars_of_any_leading_shape():
    norm = RunningNorm()
    norm.update(torch.arange(12.0).reshape(3, 4))
    assert norm.mean.item() == 5.5
