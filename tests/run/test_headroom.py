"""Headroom, what is recovered of it, and when a budget is too small to tell."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from metarl.run.headroom import Headroom, Recovered, gained, headroom, recovered, still_rising, two_level


def seeds(rng, mean, num_seeds, by_seed=0.0, by_task=0.0, noise=1.0, num_tasks=60):
    """Returns with a spread of seeds, of tasks (the same for every call), and of neither."""
    task = np.random.default_rng(99).normal(0.0, by_task or 1e-12, num_tasks)
    seed = rng.normal(0.0, by_seed or 1e-12, (num_seeds, 1))
    return mean + task + seed + rng.normal(0.0, noise, (num_seeds, num_tasks))


def test_headroom_is_paired_by_task():
    """Tasks differ by hundreds, the oracle is 10 ahead on each: its interval must not see the spread."""
    rng = np.random.default_rng(0)
    low, high = (seeds(rng, mean, 2, by_task=200.0, noise=0.1) for mean in (100.0, 110.0))
    found = headroom(low, high)
    assert found.value == pytest.approx((10.0, 10.0, 10.0), abs=0.2) and found.measured
    assert found.share.value == pytest.approx(found.value.value / high.mean())
    assert found.memoryless == pytest.approx(low.mean(axis=1))


def test_the_spread_of_seeds_is_in_the_interval():
    rng = np.random.default_rng(1)
    low, high = (seeds(rng, mean, 6, by_seed=8.0) for mean in (0.0, 10.0))
    own = [group.mean(axis=1).std() / np.sqrt(6) for group in (low, high)]
    found, half = headroom(low, high), 1.96 * np.hypot(*own)
    assert found.value.high - found.value.low == pytest.approx(2 * half, rel=0.1)
    single = headroom(low[:1], high[:1])
    assert single.value.high - single.value.low < 1.5, "one seed knows nothing of others"


def test_the_interval_covers_the_truth_about_as_often_as_it_says(monkeypatch):
    """120 experiments of 8 seeds each; by eight seeds a bootstrap's interval is somewhat too narrow: 90 to 95 %."""
    monkeypatch.setattr("metarl.run.headroom.RESAMPLES", 400)
    covered = 0
    for number in range(120):
        rng = np.random.default_rng(number)
        groups = [seeds(rng, mean, 8, by_seed=4.0, num_tasks=20) for mean in (7.0, 0.0, 10.0)]
        low, high = recovered(*groups).value[1:]
        covered += low <= 0.7 <= high
    assert 0.84 * 120 <= covered <= 0.99 * 120


def test_recovered_is_the_share_and_its_interval_that_of_the_ratio():
    rng = np.random.default_rng(3)
    low, own, high = (seeds(rng, mean, 3, by_task=50.0) for mean in (100.0, 180.0, 200.0))
    found = recovered(own, low, high)
    ratio = (own.mean() - low.mean()) / (high.mean() - low.mean())
    assert found.value.value == pytest.approx(ratio) and found.value.low < ratio < found.value.high
    assert np.mean(found.by_seed) == pytest.approx(ratio) and len(found.by_seed) == 3
    assert recovered(high, low, high).value == pytest.approx((1.0, 1.0, 1.0), abs=0.02)
    assert recovered(low, low, high).value == pytest.approx((0.0, 0.0, 0.0), abs=0.02)
    assert recovered(own - 1000.0, low, high).value.value < -8.0, "worse than knowing nothing is less than nothing"


def test_without_a_measured_headroom_nothing_is_recovered():
    rng = np.random.default_rng(4)
    low, high = (seeds(rng, mean, 3, by_seed=20.0) for mean in (100.0, 101.0))
    assert not headroom(low, high).measured
    assert recovered(high, low, high) == Recovered(tuple(high.mean(axis=1)), (), None)


def test_returns_below_zero_have_a_share_of_their_size():
    low, high = np.full((1, 4), -30.0), np.full((1, 4), -20.0)
    assert headroom(low, high).share.value == pytest.approx(0.5)


def test_other_tasks_are_refused_and_json_gives_back_the_same():
    with pytest.raises(ValueError, match="same tasks"):
        two_level([np.zeros((2, 3)), np.zeros((2, 4))], lambda x, y: x - y)
    rng = np.random.default_rng(5)
    low, own, high = (seeds(rng, mean, 2) for mean in (0.0, 5.0, 10.0))
    for found, kind in ((headroom(low, high), Headroom), (recovered(own, low, high), Recovered)):
        assert kind.from_json(json.loads(json.dumps(asdict(found)))) == found


def test_a_share_of_next_to_nothing_says_nothing():
    """Two policies that stand still have returns of -0.02 and -0.01, after trainings that gained 5."""
    room = headroom(np.full((1, 3), -0.02), np.full((1, 3), -0.01))
    curve = np.append(np.full(5, -5.0), np.full(95, -0.01))
    assert room.measured and room.share.value == pytest.approx(1.0)
    assert gained(curve) == pytest.approx(4.99) and not room.tells(gained(curve))
    assert room.tells(0.1), "a tenth of a training that gained no more"
    assert headroom(np.full((1, 3), 97.0), np.full((1, 3), 100.0)).tells(90.0), "a small share is what it says"


@pytest.mark.parametrize(
    ("curve", "least", "most"),
    [
        (np.linspace(0.0, 10.0, 100), 0.18, 0.22),  # a straight line
        (np.append(np.linspace(0.0, 10.0, 50), np.full(50, 10.0)), 0.0, 0.01),  # arrived halfway
        (10.0 - 10.0 * np.exp(-np.arange(100) / 20.0), 0.005, 0.03),
        (np.append(np.linspace(-50.0, -20.0, 50), np.linspace(-20.0, -30.0, 50)), 0.0, 0.0),  # falls again
        (np.linspace(5.0, 0.0, 100), 0.0, 0.0),  # never learnt
        (np.append(np.linspace(5.0, 0.0, 80), np.linspace(0.0, 1.0, 20)), np.inf, np.inf),  # nor up to now
        (np.random.default_rng(0).normal(size=100), 0.0, 0.0),  # nothing to learn
        (np.arange(4.0), 0.2, 1.0),  # hardly an iteration
    ],
)
def test_a_curve_that_still_rises(curve, least, most):
    assert least <= still_rising(curve) <= most
    assert least <= still_rising(curve * 3.0 - 700.0) <= most, "neither scale nor sign matter"
    assert still_rising(curve, 1e6) < 1e-3, "a rise of little beside what is to be measured"
