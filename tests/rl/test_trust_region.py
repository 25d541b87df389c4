import math

import pytest
import torch
from as_on_a_gpu import on_a_gpu

from metarl.rl.trust_region import conjugate_gradient, line_search, longest_step


def positive_definite(size=12):
    root = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return root @ root.T + 0.1 * torch.eye(size, dtype=torch.float64)


def test_conjugate_gradient_solves_what_torch_solves():
    matrix, b = positive_definite(), torch.linspace(-1, 2, 12, dtype=torch.float64)
    solution = conjugate_gradient(lambda v: matrix @ v, b, iterations=40)
    torch.testing.assert_close(solution, torch.linalg.solve(matrix, b), rtol=1e-5, atol=1e-6)


def test_conjugate_gradient_begins_at_zero():
    """Its first iterate is along b, as long as the curvature there allows: the same in every call."""
    matrix, b = positive_definite(), torch.linspace(-1, 2, 12, dtype=torch.float64)
    once = conjugate_gradient(lambda v: matrix @ v, b, iterations=1)
    torch.testing.assert_close(once, b * (b @ b) / (b @ matrix @ b))
    assert torch.equal(once, conjugate_gradient(lambda v: matrix @ v, b, iterations=1))
    assert torch.equal(conjugate_gradient(lambda v: matrix @ v, 0 * b, iterations=5), 0 * b)


def test_the_longest_step_is_on_the_edge_of_the_trust_region_and_downhill():
    matrix, gradient = positive_definite(), torch.linspace(-1, 2, 12, dtype=torch.float64)
    step = longest_step(lambda v: matrix @ v, gradient, max_kl=0.02, iterations=40)
    assert float(step @ matrix @ step / 2) == pytest.approx(0.02, rel=1e-4)
    natural = -torch.linalg.solve(matrix, gradient)
    assert float(torch.nn.functional.cosine_similarity(step, natural, dim=0)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("gradient", [[math.nan, 1.0], [math.inf, 1.0], [0.0, 0.0]])
def test_there_is_no_step_without_a_direction(gradient):
    assert longest_step(lambda v: v, torch.tensor(gradient), max_kl=0.01, iterations=5) is None


def test_there_is_no_step_along_negative_curvature():
    assert longest_step(lambda v: -v, torch.ones(2), max_kl=0.01, iterations=5) is None


def bowl(parameters):
    """Loss (x − 1)², divergence x²/2."""
    x = float(parameters[0])
    return (x - 1.0) ** 2, x * x / 2.0


def test_the_search_takes_the_longest_step_that_is_allowed():
    start, step = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    found = line_search(start, step, bowl, loss=1.0, max_kl=0.25)
    assert found.share == pytest.approx(0.8**2)  # 1 and 0.8 have divergences of 0.5 and 0.32
    assert float(found.parameters) == found.share
    assert (found.loss, found.kl) == bowl(found.parameters)


@pytest.mark.parametrize(
    "evaluate",
    [
        lambda x: (1.0, 0.0),  # no improvement
        lambda x: (0.0, 1.0),  # beyond the trust region
        lambda x: (math.nan, 0.0),
        lambda x: (0.0, math.nan),
    ],
    ids=["loss", "kl", "nan-loss", "nan-kl"],
)
def test_a_search_in_which_every_trial_is_rejected_returns_the_very_parameters(evaluate):
    start = torch.tensor([0.1, 0.7]) / 3
    before = start.clone()
    found = line_search(start, torch.ones(2), evaluate, loss=1.0, max_kl=0.01)
    assert found.parameters is start
    assert torch.equal(start, before)
    assert (found.share, found.kl) == (0.0, 0.0)


def test_as_on_a_gpu_the_iterations_that_remain_change_nothing():
    matrix = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    with on_a_gpu():
        solution = conjugate_gradient(lambda v: matrix @ v, torch.tensor([3.0, 4.0]), 10)  # eight more than it needs
    torch.testing.assert_close(solution, torch.tensor([1.0, 1.0]))
