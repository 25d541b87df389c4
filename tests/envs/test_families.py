"""What every family must satisfy, the package's own and plug-ins alike."""

import numpy as np
import pytest
import torch
from families import ALL_FAMILIES

from metarl.registry import make_family
from metarl.sim.trials import TrialEnv, compile_spec

STEPS = 5


@pytest.fixture(scope="module", params=ALL_FAMILIES)
def env(request):
    return TrialEnv(make_family(request.param), 3, episodes_per_trial=1, threads=1)


def draw(env, seed=0, split="train"):
    return env.family.space.sample(split, env.num_worlds, np.random.default_rng(seed))


def actions(env, n=STEPS):
    return 2 * torch.rand(n, env.num_worlds, env.action_size, generator=torch.Generator().manual_seed(0)) - 1


def trial(env, key=0, seed=0):
    first = env.begin(draw(env, seed), key)
    return first, [env.step(action) for action in actions(env)]


def test_observations_and_rewards_are_finite_and_of_the_promised_shape(env):
    first, steps = trial(env)
    for obs in (first, *(step.obs for step in steps), *(step.final_obs for step in steps)):
        assert obs.shape == (3, env.observation_size)
        assert obs.dtype == torch.float32
        assert torch.isfinite(obs).all()
    for step in steps:
        assert step.reward.shape == (3,)
        assert torch.isfinite(step.reward).all()
        assert not step.diverged.any()


def test_the_reward_is_the_sum_of_its_terms(env):
    for step in trial(env)[1]:
        assert all(term.shape == (3,) and term.dtype == torch.float64 for term in step.reward_terms.values())
        assert torch.equal(step.reward, torch.stack(list(step.reward_terms.values())).sum(0).float())


def test_the_same_key_gives_the_same_trajectory(env):
    (first, steps), (again, repeated) = trial(env), trial(env)
    assert torch.equal(first, again)
    for a, b in zip(steps, repeated, strict=True):
        assert torch.equal(a.obs, b.obs)
        assert torch.equal(a.reward, b.reward)


def test_another_environment_gives_the_same_trajectory(env):
    other = TrialEnv(env.family, 3, episodes_per_trial=1, threads=2)
    (first, steps), (again, repeated) = trial(env), trial(other)
    assert torch.equal(first, again)
    assert all(torch.equal(a.obs, b.obs) for a, b in zip(steps, repeated, strict=True))
    assert all(torch.equal(a.reward, b.reward) for a, b in zip(steps, repeated, strict=True))


def test_initial_states_differ_between_worlds_and_keys(env):
    starts = torch.cat((env.begin(draw(env), 0), env.begin(draw(env), 1)))
    assert len(starts.unique(dim=0)) == 6


def test_an_observation_does_not_change_afterwards(env):
    first = env.begin(draw(env), 0)
    kept, copies = [first], [first.clone()]
    for action in actions(env):
        kept.append(env.step(action).obs)
        copies.append(kept[-1].clone())
    assert all(torch.equal(obs, copy) for obs, copy in zip(kept, copies, strict=True))
    assert len({obs.data_ptr() for obs in kept}) == len(kept)


def test_the_first_observation_does_not_hold_the_task(env):
    assert torch.equal(env.begin(draw(env, seed=0), 0), env.begin(draw(env, seed=1), 0))


def test_every_split_runs(env):
    for split in env.family.space.splits:
        env.begin(draw(env, split=split), 0)
        assert torch.isfinite(env.step(actions(env)[0]).reward).all()


def test_the_task_matters(env):
    """Two different tasks, everything else equal, are rewarded differently within a few steps."""
    nominal = env.family.space.nominal(3)
    returns = []
    for tasks in (nominal, draw(env, seed=3), draw(env, seed=4)):
        env.begin(tasks, 0)
        returns.append(sum(env.step(action).reward for action in actions(env)))
    assert len(torch.stack(returns).unique()) > 3


@pytest.mark.parametrize("name", ALL_FAMILIES)
def test_the_control_step_is_a_multiple_of_the_timestep(name):
    family = make_family(name)
    model = compile_spec(family.spec())
    assert family.num_substeps(model) * model.opt.timestep == pytest.approx(family.control_step, abs=1e-12)


@pytest.mark.parametrize("name", ALL_FAMILIES)
def test_the_camera_and_the_parameters_of_the_variations_exist(name):
    family = make_family(name)
    model = compile_spec(family.spec())
    assert family.camera is None or model.camera(family.camera).id >= 0
    assert {name for variation in family.variations for name in variation.parameters} <= set(family.space.parameters)
