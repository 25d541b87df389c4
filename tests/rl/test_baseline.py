import numpy as np
import torch

from metarl.rl.baseline import features, fit


def batch(tasks=3, size=200):
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn(tasks, size, 4, generator=generator, dtype=torch.float64)
    age = torch.arange(size).expand(tasks, -1) % 50
    return obs, age, torch.randn(tasks, size, generator=generator, dtype=torch.float64)


def test_the_features_are_those_of_the_lineage():
    obs = torch.tensor([[[2.0, -30.0]]])
    assert torch.equal(
        features(obs, torch.tensor([[50]])), torch.tensor([[[2.0, -10.0, 4.0, 100.0, 0.5, 0.25, 0.125, 1.0]]])
    )


def test_the_fit_is_numpys_least_squares_task_by_task():
    obs, age, target = batch()
    inputs = features(obs, age)
    coefficients = fit(inputs, target, torch.ones_like(target))
    for task in range(3):
        x = inputs[task].numpy()
        ridged = np.concatenate((x, np.sqrt(1e-5) * np.eye(x.shape[1])))
        expected = np.linalg.lstsq(ridged, np.concatenate((target[task].numpy(), np.zeros(x.shape[1]))))[0]
        np.testing.assert_allclose(coefficients[task].numpy(), expected, rtol=1e-7, atol=1e-9)


def test_padding_has_no_weight():
    obs, age, target = batch()
    inputs, weight = features(obs, age), torch.ones_like(target)
    weight[:, 150:] = 0.0
    coefficients = fit(inputs, target, weight)
    torch.testing.assert_close(coefficients, fit(inputs[:, :150], target[:, :150], weight[:, :150]))


def test_a_singular_batch_gets_a_finite_answer():
    """One constant observation: the ridge decides."""
    obs, age, target = torch.ones(1, 5, 2), torch.zeros(1, 5, dtype=torch.long), torch.arange(5.0)[None]
    inputs = features(obs, age)
    coefficients = fit(inputs, target, torch.ones_like(target))
    torch.testing.assert_close((inputs[0] @ coefficients[0])[0], torch.tensor(2.0), rtol=1e-4, atol=1e-4)


def test_a_task_that_overflows_harms_no_other():
    obs, age, target = batch()
    inputs, weight = features(obs, age), torch.ones_like(target)
    poisoned = target.clone()
    poisoned[1, 0] = float("inf")
    coefficients, clean = fit(inputs, poisoned, weight), fit(inputs, target, weight)
    assert torch.equal(coefficients[1], torch.zeros_like(coefficients[1]))
    assert torch.equal(coefficients[[0, 2]], clean[[0, 2]])
