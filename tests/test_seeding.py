import math

import pytest
import torch
from as_on_a_gpu import needs_cuda
from hypothesis import given, strategies as st

from metarl.core.seeding import WorldRandom, generator, key, next_key, normal, rng, root

KEYS = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, "a", 0, 1), (0, "a", 1, 0)]


@pytest.mark.parametrize("key", KEYS)
def test_the_same_key_gives_the_same_draws(key):
    assert rng(*key).random(4).tolist() == rng(*key).random(4).tolist()
    assert torch.equal(torch.rand(4, generator=generator(*key)), torch.rand(4, generator=generator(*key)))


def test_every_key_has_a_stream_of_its_own():
    assert len({rng(*key).random() for key in KEYS}) == len(KEYS)
    assert len({torch.rand((), generator=generator(*key)).item() for key in KEYS}) == len(KEYS)


def test_streams_ignore_and_leave_the_global_state():
    torch.manual_seed(0)
    first, state = torch.rand(3, generator=generator(0, "a")), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(first, torch.rand(3, generator=generator(0, "a")))
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state())


def worlds(n, key=3, episode=0):
    return WorldRandom(key, torch.arange(n), torch.full((n,), episode))


def splitmix(state):
    """SplitMix64's next output and state, in Python integers."""
    state = (state + 0x9E3779B97F4A7C15) % 2**64
    return finalise(state), state


def finalise(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


@given(st.integers(0, 2**62 - 1), st.integers(0, 65535), st.integers(0, 1000))
def test_uniform_is_splitmix64(key, world, episode):
    draws = WorldRandom(key, torch.tensor([world]), torch.tensor([episode])).uniform(0.0, 1.0, 3)
    state = finalise((world * 0x9E3779B97F4A7C15 + key) % 2**64)
    state = finalise((state + episode * 0x9E3779B97F4A7C15) % 2**64)
    for draw in draws[0].tolist():
        bits, state = splitmix(state)
        assert draw == (bits >> 11) * 2.0**-53


def kolmogorov_smirnov(draws, cdf):
    """Largest distance of the empirical from the given distribution, times √n: 1.63 is exceeded once in 100."""
    x = cdf(draws.sort().values)
    steps = torch.arange(len(x) + 1, dtype=torch.float64) / len(x)
    return max((x - steps[:-1]).max(), (steps[1:] - x).max()).item() * math.sqrt(len(x))


@pytest.mark.parametrize("axis", ["worlds", "episodes", "draws", "keys"])
def test_uniform_is_uniform_along_every_axis(axis):
    n, zero = 4096, torch.zeros(4096, dtype=torch.long)
    if axis == "worlds":
        draws = WorldRandom(0, torch.arange(n), zero).uniform(0.0, 1.0, 1)[:, 0]
    elif axis == "episodes":
        draws = WorldRandom(0, zero, torch.arange(n)).uniform(0.0, 1.0, 1)[:, 0]
    elif axis == "draws":
        draws = worlds(1).uniform(0.0, 1.0, n)[0]
    else:
        draws = torch.cat([worlds(1, key=key).uniform(0.0, 1.0, 1)[0] for key in range(n // 4)])
    assert kolmogorov_smirnov(draws, lambda x: x) < 1.63
    correlation = torch.corrcoef(torch.stack((draws[1:], draws[:-1])))[0, 1]
    assert abs(correlation) < 4 / math.sqrt(len(draws))


def test_uniform_scales_to_its_interval():
    draws = worlds(4096).uniform(-2.0, 4.0, 2)
    assert draws.min() >= -2.0
    assert draws.max() < 4.0
    assert abs(draws.mean() - 1.0) < 0.1
    assert abs(draws.var() - 3.0) < 0.1


def test_normal_is_normal():
    draws = worlds(4096).normal(2.0, 3.0, 2)
    assert abs(draws.mean() - 2.0) < 4 * 3.0 / math.sqrt(8192)
    assert abs(draws.std() - 3.0) < 4 * 3.0 / math.sqrt(2 * 8192)
    assert kolmogorov_smirnov((draws.flatten() - 2.0) / 3.0, torch.special.ndtr) < 1.63
    assert abs(torch.corrcoef(draws.T)[0, 1]) < 4 / math.sqrt(4096)


def test_a_world_draws_the_same_alone_as_among_others():
    every, alone = worlds(8), WorldRandom(3, torch.tensor([3]), torch.tensor([0]))
    for _ in range(2):
        assert torch.equal(every.uniform(0.0, 1.0, 5)[3], alone.uniform(0.0, 1.0, 5)[0])
        assert torch.equal(every.normal(0.0, 1.0, 5)[3], alone.normal(0.0, 1.0, 5)[0])


def test_successive_calls_continue_the_stream():
    random = worlds(4)
    parts = torch.cat((random.uniform(0.0, 1.0, 2), random.uniform(0.0, 1.0, 3)), dim=1)
    assert torch.equal(parts, worlds(4).uniform(0.0, 1.0, 5))
    assert parts.unique().numel() == parts.numel()


def test_worlds_episodes_and_keys_draw_differently():
    draws = torch.cat([worlds(16, key, episode).uniform(0.0, 1.0, 2) for key in range(3) for episode in range(3)])
    assert draws.unique().numel() == draws.numel()


def test_normal_draws_are_standard_normal_and_independent():
    draws = normal(3, torch.arange(50), 10, 40, 6, "cpu").double()
    assert kolmogorov_smirnov(draws.flatten(), torch.special.ndtr) < 1.63
    correlation = torch.corrcoef(draws.reshape(-1, 6).T) - torch.eye(6)
    assert correlation.abs().max() < 4 / (50 * 40) ** 0.5
    assert abs(torch.corrcoef(torch.stack((draws[1:].flatten(), draws[:-1].flatten())))[0, 1]) < 0.04


def test_a_key_is_the_first_draw_of_its_stream():
    assert key(3, "a", 1) == int(torch.randint(2**62, (), generator=generator(3, "a", 1)))


def test_each_world_may_have_a_key_of_its_own():
    """As the worlds of rolling trials do: each trial's key follows from the one before."""
    numbers, zero = torch.arange(3), torch.zeros(3, dtype=torch.long)
    keys = torch.tensor([3, 7, 3])
    mixed = WorldRandom(keys, numbers, zero).uniform(0.0, 1.0, 4)
    for world, own in enumerate(keys.tolist()):
        assert torch.equal(mixed[world], WorldRandom(own, numbers, zero).uniform(0.0, 1.0, 4)[world])
    chain = [keys]
    for _ in range(3):
        chain.append(next_key(chain[-1]))
    assert len(torch.cat(chain).unique()) == 8
    assert torch.equal(chain[1][0], chain[1][2])


def test_draws_take_the_precision_of_the_physics_and_are_otherwise_the_same():
    """Also on a device: the numbers are those of the CPU."""
    for draw in ("uniform", "normal"):
        wide, narrow = (
            getattr(WorldRandom(3, torch.arange(5), torch.ones(5).long(), dtype), draw)(-1.0, 2.0, 7)
            for dtype in (torch.float64, torch.float32)
        )
        assert torch.equal(wide.float(), narrow)


# noise of actions


def test_noise_is_box_muller_on_splitmix64():
    """Against the same in Python's integers and floats, for odd and even elements, far steps and large keys."""
    key, streams, golden = 2**61 + 5, [0, 3, 2**40], 0x9E3779B97F4A7C15
    drawn = normal(key, torch.tensor(streams), 10_000, 2, 5, "cpu")
    assert (drawn.shape, drawn.dtype) == ((2, 3, 5), torch.float32)
    for t, n, element in [(0, 0, 0), (1, 1, 3), (1, 2, 4), (0, 2, 1)]:
        state = finalise((finalise((streams[n] * golden + key) % 2**64) + 0x6E6F697365) % 2**64)
        state = finalise((state + (10_000 + t) * golden) % 2**64)
        bits = finalise((state + (element // 2 + 1) * golden) % 2**64)
        radius = math.sqrt(-2.0 * math.log(((bits >> 32) + 0.5) / 2**32))
        angle = 2.0 * math.pi * (bits % 2**32) / 2**32
        expected = radius * (math.sin(angle) if element % 2 else math.cos(angle))
        assert drawn[t, n, element].item() == pytest.approx(expected, rel=1e-6)


def test_noise_depends_on_key_stream_step_and_element_alone():
    streams = torch.tensor([5, 2, 9, 4])
    every = normal(1, streams, 0, 12, 6, "cpu")
    assert torch.equal(torch.cat([normal(1, streams, step, 4, 6, "cpu") for step in (0, 4, 8)]), every)
    assert torch.equal(normal(1, streams[2:3], 7, 1, 6, "cpu")[0, 0], every[7, 2])
    assert torch.equal(normal(1, streams, 0, 12, 3, "cpu"), every[:, :, :3])
    others = torch.stack((every, normal(2, streams, 0, 12, 6, "cpu"), normal(1, streams + 100, 0, 12, 6, "cpu")))
    assert len(others.unique()) == others.numel()


@pytest.mark.parametrize("axis", ["steps", "streams", "elements"])
def test_noise_is_normal_along_every_axis(axis):
    shape = {"steps": (1, 8192, 1), "streams": (8192, 1, 1), "elements": (1, 1, 8192)}[axis]
    draws = normal(3, torch.arange(shape[0]), 0, shape[1], shape[2], "cpu").flatten().double()
    assert abs(draws.mean()) < 4 / math.sqrt(8192)
    assert abs(draws.std() - 1.0) < 4 / math.sqrt(2 * 8192)
    assert abs((draws**4).mean() - 3.0) < 4 * math.sqrt(96 / 8192)
    assert kolmogorov_smirnov(draws, torch.special.ndtr) < 1.63
    for lag in (1, 2):
        assert abs(torch.corrcoef(torch.stack((draws[lag:], draws[:-lag])))[0, 1]) < 4 / math.sqrt(8192)


def test_numbers_worked_out_ahead_are_those_drawn_one_by_one():
    """Enough of them, too few, and none; a family draws as it likes."""
    keys, streams, episodes = torch.tensor([5, 6, 7]), torch.tensor([2, 0, 9]), torch.tensor([0, 3, 1])
    plain = WorldRandom(keys, streams, episodes)
    expected = plain.uniform(-1.0, 2.0, 4), plain.normal(0.5, 2.0, 3), plain.uniform(0.0, 1.0, 2)
    for ahead in (0, 3, 8, 12, 20):
        random = WorldRandom.rooted(root(keys, streams), episodes, torch.float64, ahead)
        drawn = random.uniform(-1.0, 2.0, 4), random.normal(0.5, 2.0, 3), random.uniform(0.0, 1.0, 2)
        assert all(map(torch.equal, drawn, expected))
        assert random.used == 12
        others = [source.within(3).uniform(0.0, 1.0, 2) for source in (plain, random)]
        assert torch.equal(*others)


@needs_cuda
def test_draws_on_cuda_are_those_of_the_cpu():
    worlds, episodes = torch.arange(100), torch.arange(100) % 7
    one, other = (WorldRandom(5, worlds.to(on), episodes.to(on)).uniform(-1.0, 1.0, 9) for on in ("cpu", "cuda"))
    assert torch.equal(one, other.cpu())
    assert torch.equal(next_key(root(3, worlds)), next_key(root(3, worlds.cuda())).cpu())
