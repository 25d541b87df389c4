"""Statistics against values by hand, scipy, and distributions that are known."""

import numpy as np
import pytest
from scipy import stats

from metarl.run.statistics import (
    RESAMPLES,
    AdaptationTime,
    Interval,
    bootstrap_interval,
    interquartile_mean,
    mean,
    mean_interval,
    probability_of_improvement,
    time_to_adapt,
    worst_decile,
)


def array(*values):
    return np.array(values, np.float64)


# ------------------------------------------------------------------------------------------------------ over tasks


def test_the_interquartile_mean_is_that_of_the_middle_half():
    assert interquartile_mean(array(-1000, 1, 2, 3, 4, 5, 6, 1e6)) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert interquartile_mean(array(9, 0, 3)) == pytest.approx(4.0), "of three, a quarter rounded down is none"
    both = np.stack((array(0, 1, 3, 100), array(8, -5, 6, 7)))
    assert interquartile_mean(both).tolist() == [2.0, 6.5]


@pytest.mark.parametrize("n", [1, 4, 7, 100, 101])
def test_the_interquartile_mean_leaves_out_what_scipy_leaves_out(n):
    values = np.random.default_rng(n).standard_t(2, n)
    kept = np.sort(values)[n // 4 : n - n // 4]
    assert interquartile_mean(values) == pytest.approx(kept.mean())
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


@pytest.mark.parametrize(
    ("values", "expected"),
    [(array(*range(20, 0, -1)), 1.5), (array(*range(21)), 1.0), (array(5, -7, 3), -7.0), (array(2), 2.0)],
    ids=["two of 20", "three of 21", "one of 3", "one"],
)
def test_the_worst_decile_is_the_mean_of_the_lowest_tenth(values, expected):
    assert worst_decile(values) == expected


# ------------------------------------------------------------------------------------------------------- intervals


def test_the_interval_of_a_gaussian_sample_is_the_textbook_s():
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    value, low, high = mean_interval(values)
    half = 1.96 * values.std() / 20.0
    assert value == pytest.approx(values.mean())
    assert low == pytest.approx(value - half, abs=0.03)
    assert high == pytest.approx(value + half, abs=0.03)


def test_the_interval_agrees_with_scipy_s():
    values = np.random.default_rng(1).exponential(10.0, 50)
    ours = bootstrap_interval([values], interquartile_mean)
    theirs = stats.bootstrap(
        (values,),
        lambda x, axis: stats.trim_mean(x, 0.25, axis=axis),
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert ours.value == interquartile_mean(values)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.25)
    assert ours.high - ours.low > 2.0


def test_intervals_repeat_and_depend_on_the_seed_alone():
    values = np.random.default_rng(0).normal(size=30)
    np.random.seed(1)
    first = mean_interval(values, seed=3)
    np.random.seed(2)
    assert mean_interval(values, seed=3) == first
    assert mean_interval(values, seed=4) != first


def test_many_tasks_are_resampled_in_pieces_of_bounded_memory(monkeypatch):
    """The pieces draw what one piece would."""
    values = np.random.default_rng(0).normal(size=40)
    whole = mean_interval(values)
    monkeypatch.setattr("metarl.run.statistics._DRAWS_AT_ONCE", 1230)
    assert mean_interval(values) == pytest.approx(whole, abs=1e-12)


def test_the_interval_holds_the_seeds():
    """Two seeds, each alike on all tasks, differ by 100: tasks alone would give an interval of no width."""
    runs = [np.full(20, 0.0), np.full(20, 100.0)]
    assert bootstrap_interval(runs, mean) == Interval(50.0, 0.0, 100.0)
    assert bootstrap_interval([runs[0], runs[0]], mean) == Interval(0.0, 0.0, 0.0)


def test_the_interval_over_seeds_and_tasks_is_the_textbook_s():
    """Standard error of the mean of a matrix with effects of seeds and of tasks, and noise."""
    rng = np.random.default_rng(0)
    returns = rng.normal(0.0, 2.0, (12, 1)) + rng.normal(0.0, 5.0, 80) + rng.normal(0.0, 1.0, (12, 80))
    value, low, high = bootstrap_interval(list(returns), mean)
    half = 1.96 * np.hypot(returns.mean(axis=1).std() / np.sqrt(12), returns.mean(axis=0).std() / np.sqrt(80))
    assert (low - value, high - value) == pytest.approx((-half, half), rel=0.05)


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_intervals_cover_the_truth_95_times_in_a_hundred(statistic, monkeypatch):
    """60 tasks from N(0, 3²), 400 times: 0.95 ± 0.033 (3 sigma), less a small sample's bias.

    An interval of half the width would cover 0.67, one of twice the width 1.0.
    """
    monkeypatch.setattr("metarl.run.statistics.RESAMPLES", 400)
    rng = np.random.default_rng(7)
    covered = 0
    for trial in range(400):
        interval = bootstrap_interval([rng.normal(0.0, 3.0, 60)], statistic, seed=trial)
        covered += interval.low <= 0.0 <= interval.high
    assert 0.90 < covered / 400 < 0.985


def test_an_interval_of_an_evaluation_takes_two_calls():
    """Of the statistic, for all resamples at once and for the sample: 10,000 calls would take seconds."""
    shapes = []
    bootstrap_interval([np.arange(100.0)], lambda values: shapes.append(values.shape) or values.mean(axis=-1))
    assert shapes == [(RESAMPLES, 100), (100,)]


def test_what_has_no_interval_is_refused():
    for runs in ([], [array(1, 2), array()]):
        with pytest.raises(ValueError, match="needs at least one run"):
            bootstrap_interval(runs, mean)
    with pytest.raises(ValueError, match=r"the same tasks in each run, got \[2, 3\]"):
        bootstrap_interval([array(1, 2), array(1, 2, 3)], mean)


# ----------------------------------------------------------------------------------------------------- improvement


def test_a_task_is_compared_only_with_itself():
    """Tasks differ by hundreds, ours is better by 1 on each."""
    theirs = np.linspace(-500.0, 500.0, 40)
    assert probability_of_improvement([theirs + 1.0], [theirs]) == Interval(1.0, 1.0, 1.0)
    assert probability_of_improvement([theirs], [theirs + 1.0]) == Interval(0.0, 0.0, 0.0)
    assert probability_of_improvement([theirs], [theirs]) == Interval(0.5, 0.5, 0.5)


def test_the_share_of_tasks_won_has_the_interval_of_a_binomial():
    ours = np.where(np.arange(100) < 70, 1.0, -1.0)
    value, low, high = probability_of_improvement([ours], [np.zeros(100)])
    assert value == pytest.approx(0.70)
    assert (low, high) == pytest.approx(
        (stats.binom.ppf(0.025, 100, 0.7) / 100, stats.binom.ppf(0.975, 100, 0.7) / 100), abs=0.011
    )


def test_on_one_task_it_is_the_u_of_mann_and_whitney():
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(0, 6, 9).astype(float), rng.integers(0, 5, 12).astype(float)
    u = stats.mannwhitneyu(ours, theirs).statistic
    found = probability_of_improvement([ours[:, None]], [theirs[:, None]])
    assert found.value == pytest.approx(u / (9 * 12))
    assert found.low < found.value < found.high, "runs are resampled"


def test_runs_tasks_and_families_by_hand():
    """Family 1, task 1: 3 beats 2 and 1, 1 beats none and ties once: (1 + 1 + 0 + 1/2) / 4; task 2: 1. Family 2: 0."""
    ours = [array([3, 9], [1, 9]), array(0, 0, 0)]
    theirs = [array([2, 8], [1, 8]), array(1, 1, 1)]
    first = (2.5 / 4 + 1.0) / 2
    assert probability_of_improvement(ours[:1], theirs[:1]).value == pytest.approx(first)
    assert probability_of_improvement(ours, theirs).value == pytest.approx(first / 2)


def test_unlike_tasks_or_families_are_refused():
    with pytest.raises(ValueError, match="the same tasks, got 3 and 2"):
        probability_of_improvement([array(1, 2, 3)], [array(1, 2)])
    with pytest.raises(ValueError, match="the same families, got 1 and 2"):
        probability_of_improvement([array(1)], [array(1), array(2)])


# --------------------------------------------------------------------------------------------------- time to adapt


def test_a_policy_that_jumps_after_two_episodes():
    """H = 10, reward 0 for two episodes and 1 from then on: F(t) = t - 10, which reaches 9 at t = 19."""
    reward = np.repeat(array(0, 0, 1, 1), 10)
    assert time_to_adapt(reward, 10, 0.5) == AdaptationTime(1.9, 19, 9.5)


def test_a_policy_that_adapts_within_its_first_steps():
    """It loses 4, 3, 2 and 1 in the first four steps; after three it has paid 9 of 10."""
    first, last = np.full(20, 5.0), np.full(20, 5.0)
    first[:4] -= array(4, 3, 2, 1)
    assert time_to_adapt(np.concatenate((first, last)), 20) == AdaptationTime(0.15, 3, 3.0)


def test_negative_returns_count_as_what_they_gain():
    """From -20 to -10 the gap is 10, and 90 % of it is closed at -11."""
    assert time_to_adapt(array(-20, -12, -10), 1) == AdaptationTime(2.0, 2, 2.0)
    assert time_to_adapt(array(-20, -11, -10), 1) == AdaptationTime(1.0, 1, 1.0)
    shifted = np.repeat(array(0, 0, 1, 1), 10) - 100.0
    assert time_to_adapt(shifted, 10).steps == 19


def test_setting_off_from_rest_is_no_adaptation():
    """Both episodes are the same ramp from 0: nothing was learnt, although the reward of the first seconds rises."""
    ramp = np.minimum(np.arange(50) / 10.0, 1.0)
    assert time_to_adapt(np.tile(ramp, 2), 50) is None
    late = np.concatenate((ramp * 0.5, ramp * 0.5, ramp))
    assert time_to_adapt(late, 50).steps == pytest.approx(96, abs=3)


@pytest.mark.parametrize("reward", [array(3, 2), array(2, 2), array(5)], ids=["loss", "no gain", "one episode"])
def test_without_a_gain_there_is_no_time(reward):
    assert time_to_adapt(np.repeat(reward, 7), 7) is None


def test_a_curve_alone_resolves_whole_episodes():
    """Five episodes of exploration, as MAML-TRPO has: adapted after 5."""
    curve = array(1.3, -2.9, -12.6, -7.9, 2.8, 429.1, 434.3, 432.1, 435.5, 435.3)
    assert time_to_adapt(curve, 1) == AdaptationTime(5.0, 5, 5.0)


def test_a_dip_at_the_end_does_not_hide_that_it_was_there_before():
    assert time_to_adapt(array(0, 12, 10, 8), 1).steps == 1
