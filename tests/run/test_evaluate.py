import numpy as np
import pytest
import torch

from metarl.run.evaluate import Evaluation, mean_interval
from metarl.tasks import Tasks
from metarl.types import Rollout


def test_the_interval_of_a_gaussian_sample_is_the_textbook_s():
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    mean, low, high = mean_interval(values)
    half = 1.96 * values.std() / 20.0
    assert mean == pytest.approx(values.mean())
    assert low == pytest.approx(mean - half, abs=0.03)
    assert high == pytest.approx(mean + half, abs=0.03)
    assert mean_interval(values) == (mean, low, high)


def test_the_delta_s_interval_is_paired_by_task():
    """Tasks differ by hundreds, the gain is 10 on each: the interval of the difference must not see the spread."""
    first = torch.linspace(-500, 500, 50, dtype=torch.float64)
    returns = torch.stack((first, first + 10.0), dim=1)
    evaluation = Evaluation(Tasks({"goal": first}), returns, num_diverged=0)
    assert evaluation.adaptation_delta() == pytest.approx((10.0, 10.0, 10.0))
    assert evaluation.curve()[0][2] - evaluation.curve()[0][1] > 100.0


def rollout(reward, episode_start):
    """A rollout of which only reward and episode starts matter."""
    reward, start = torch.tensor(reward).T.contiguous(), torch.tensor(episode_start).T.contiguous()
    obs, flags = torch.zeros(*reward.shape, 1), torch.zeros_like(start)
    return Rollout(obs, obs, obs, reward, flags, flags, flags, start, torch.arange(reward.shape[1]), {}, None)


def test_episode_returns_count_whole_episodes_whenever_they_end():
    """World 0 runs two episodes of three steps; world 1 falls after one, then after two, and has a third to spare."""
    reward = [[1.0, 1.0, 1.0, 2.0, 2.0, 2.0], [5.0, 1.0, 1.0, 9.0, 9.0, 9.0]]
    starts = [[True, False, False, True, False, False], [True, True, False, True, False, False]]
    expected = torch.tensor([[3.0, 6.0], [5.0, 2.0]], dtype=torch.float64)
    assert torch.equal(rollout(reward, starts).episode_returns(2), expected)
