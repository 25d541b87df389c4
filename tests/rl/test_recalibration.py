"""Deviations of beliefs: right after experience, and as they were in policies from before."""

import pytest
import torch

from metarl.rl.recalibration import LEVEL, REACH, Recalibration


def experience(number, generator):
    """Two beliefs: one too sure of itself where it is unsure, and too unsure where it is sure; one right."""
    log_std = torch.rand(50, number, 2, generator=generator) * 4.0 - 3.5
    true = log_std.clone()
    true[..., 0] = torch.where(log_std[..., 0] > -1.5, log_std[..., 0] + 0.7, log_std[..., 0] - 0.9)
    return torch.randn(log_std.shape, generator=generator) * true.exp(), log_std


def coverage(module, error, log_std):
    inside = (error.abs() <= REACH * module(log_std).exp()).float()
    sure = log_std < -1.5
    return [float(inside[..., i][where[..., i]].mean()) for i in (0, 1) for where in (sure, ~sure)]


def test_after_experience_nine_tenths_of_the_intervals_hold_the_truth():
    module, generator = Recalibration(2), torch.Generator().manual_seed(0)
    raw = coverage(module, *experience(400, generator))
    assert raw == pytest.approx([1.0, 0.58, LEVEL, LEVEL], abs=0.02), "as they come"
    module.fit(*experience(400, generator))
    assert coverage(module, *experience(400, generator)) == pytest.approx([LEVEL] * 4, abs=0.03)
    assert module.log_factor[1].abs().max() < 0.1, "what is right stays as it is"


def test_a_trial_has_one_vote_and_few_trials_have_none():
    """Of 20 trials one is unsure for long, and right; two are sure at times, and wrong."""
    log_std, error = torch.full((50, 20, 1), -4.0), torch.full((50, 20, 1), 1e-9)
    log_std[0], error[0] = 0.0, 9.0
    log_std[:, 7], error[1:, 7] = 0.0, 0.1
    log_std[2, :2], error[2, :2] = -2.0, 9.0
    module = Recalibration(1)
    module.fit(error, log_std)
    assert 1.69 < float(module.log_factor[0, 4]) < 1.9, "19 of 20 were 9 off: the interval must reach so far"
    assert module.log_factor[0, 1:4].tolist() == [0.0, 0.0, 0.0], "of two trials nothing is learnt"


def test_deviations_of_a_policy_from_before_are_what_they_were():
    module, log_std = Recalibration(3), torch.randn(7, 3)
    torch.nn.init.ones_(module.log_factor)
    module.load_state_dict({})
    assert torch.equal(module(log_std), log_std)
