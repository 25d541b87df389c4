"""The contract every learner of the table fulfils, with its default configuration."""

import math

import pytest
import torch

from metarl.agents import LEARNERS
from metarl.core import seeding
from metarl.core.config import train_defaults
from metarl.core.registry import learner_class, learner_config_class
from metarl.envs.half_cheetah import HalfCheetahDir
from metarl.rl.learner import Learner, Policy, Signalling
from metarl.run.collect import collect
from metarl.sim.mujoco.mujoco_env import MujocoEnv

pytestmark = pytest.mark.parametrize("name", LEARNERS)


class Short(HalfCheetahDir):
    episode_steps = 10


def env_of(name, episodes=0):
    """A trial has as many episodes as the learner asks for."""
    asked = train_defaults(learner_config_class(name)).get("episodes_per_trial", 2)
    return MujocoEnv(Short(), 4, episodes_per_trial=episodes or asked, threads=1)


def make(name, env):
    return learner_class(name)(
        learner_config_class(name)(), env.observation_size, env.action_size, seeding.generator(0, "init")
    )


def train(learner, env, numbers):
    for number in numbers:
        tasks = env.family.space.sample("train", 4, seeding.rng(0, "tasks", number))
        metrics = learner.train_step(
            lambda policy, t=tasks, n=number: collect(env, policy, t, seeding.generator(0, "collect", n)),
            seeding.generator(0, "update", number),
            progress=0.1,
        )
    return metrics


def evaluate(learner, env, seed=0):
    tasks = env.family.space.fixed("test", 4)
    return collect(env, learner.policy, tasks, seeding.generator(seed, "evaluate"), deterministic=True)


def test_it_follows_the_protocols_and_reports_finite_numbers(name):
    env = env_of(name)
    learner = make(name, env)
    assert isinstance(learner, Learner)
    assert isinstance(learner.policy, Policy)
    assert all(math.isfinite(value) for value in train(learner, env, [0]).values())


def test_what_a_policy_signals_is_a_row_of_numbers_per_world_that_the_trial_changes(name):
    env = env_of(name)
    policy = make(name, env).policy
    if not isinstance(policy, Signalling):
        assert name not in ("rl2", "maml-trpo", "pearl")
        return
    before = policy.signal(policy.begin(4, seeding.generator(0, "evaluate")))
    after = policy.signal(evaluate(make(name, env), env).final_belief)
    assert before.keys() == after.keys() and before
    for key, value in after.items():
        assert value.shape == before[key].shape and len(value) == 4 and bool(torch.isfinite(value).all())
        assert not torch.equal(value, before[key])


def test_the_same_seed_gives_the_same_learner(name):
    states = []
    for _ in range(2):
        env = env_of(name)
        learner = make(name, env)
        train(learner, env, [0, 1])
        states.append(learner.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_a_restored_learner_goes_on_as_if_never_stopped(name):
    env = env_of(name)
    learner, restored = make(name, env), make(name, env)
    train(learner, env, [0])
    restored.load_state_dict(learner.state_dict())
    train(learner, env, [1])
    train(restored, env, [1])
    assert all(torch.equal(value, restored.state_dict()[key]) for key, value in learner.state_dict().items())


def test_evaluation_is_deterministic_and_takes_any_number_of_episodes(name):
    learner = make(name, env_of(name))
    first, second = (evaluate(learner, env_of(name, episodes=3)) for _ in range(2))
    assert torch.equal(first.reward, second.reward)
    assert first.episode_returns(3).shape == (4, 3)


def test_state_dict_is_a_copy(name):
    """Training on must not change a state that is being saved."""
    env = env_of(name)
    learner = make(name, env)
    train(learner, env, [0])
    state = learner.state_dict()
    before = {key: value.clone() for key, value in state.items()}
    train(learner, env, [1])
    assert all(torch.equal(value, state[key]) for key, value in before.items())
