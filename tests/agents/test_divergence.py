"""Whatever the rewards and weights, no learner keeps a number that is not finite; a hopeless training says so."""

import dataclasses

import pytest
import torch
from families import Rail

from metarl.agents import LEARNERS
from metarl.core import seeding
from metarl.core.config import ConfigError
from metarl.core.errors import Diverged, UserError
from metarl.core.registry import learner_class, learner_config_class
from metarl.core.types import Segment
from metarl.rl.finite import Guard, all_finite
from metarl.run.collect import collect
from metarl.sim.mujoco.mujoco_env import MujocoEnv

SMALL = {
    "hidden_size": 8,
    "initial_steps": 0,
    "num_updates": 20,
    "num_epochs": 2,
    "shots": 1,
    "latent_size": 2,
    "encoder_size": 8,
    "batch_size": 16,
    "num_slots": 3,
    "minibatch_chunks": 2,
    "chunk_steps": 4,
}


def make(name, **changes):
    config_class = learner_config_class(name)
    known = {field.name for field in dataclasses.fields(config_class)}
    config = config_class(**{k: v for k, v in SMALL.items() if k in known} | changes)
    env = MujocoEnv(Rail(edge=9.0), 3, episodes_per_trial=4, threads=1)
    return env, learner_class(name)(config, env.info, seeding.generator(0, "init"))


def train(env, learner, number, poison=lambda segment: segment):
    tasks = env.family.space.sample("train", 3, seeding.rng(0, "tasks", number))
    key, numbers = seeding.key(0, "collect", number), torch.arange(3)
    wants = {"record": learner.record, "privileged": learner.wants_privileged}
    segment = collect(env, learner.behaviour, tasks, key, task_number=numbers, **wants)
    return learner.update(poison(segment), seeding.generator(0, "update", number), 0.1)


def not_finite(learner):
    """What of a learner must never be written to a checkpoint."""
    state = learner.state_dict()
    return [name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]


def with_reward(value):
    def poison(segment: Segment) -> Segment:
        reward = segment.reward.clone()
        reward[3, 1] = value
        return dataclasses.replace(segment, reward=reward)

    return poison


@pytest.mark.parametrize("value", [1e30, 3e38, -1e20])
@pytest.mark.parametrize("name", LEARNERS)
def test_one_enormous_reward_leaves_every_tensor_finite(name, value):
    env, learner = make(name)
    train(env, learner, 0)
    for number in range(1, 5):
        try:
            metrics = train(env, learner, number, with_reward(value) if number == 1 else lambda segment: segment)
            assert all(abs(value) < float("inf") for value in metrics.values())
        except Diverged as error:
            assert str(error).count("\n") == 0
        assert not_finite(learner) == []


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("pearl", {"reward_scale": float("inf")}),
        ("pearl", {"kl_weight": float("inf")}),
        ("pearl", {"policy_l2": float("inf")}),
        ("pearl", {"temperature": float("inf")}),
        ("pearl", {"belief": "prototype", "reward_scale": float("inf")}),
        ("sac", {"temperature": float("inf")}),
    ],
)
def test_an_infinite_weight_ends_the_training_in_one_sentence_with_all_finite(name, changes):
    with pytest.raises((Diverged, ConfigError, UserError), match=r"diverged|out of range"):
        env, learner = make(name, **changes)
        try:
            for number in range(3):
                train(env, learner, number)
        finally:
            assert not_finite(learner) == []


@pytest.mark.parametrize("name", LEARNERS)
def test_a_training_of_nothing_but_nan_ends_after_a_few_steps(name):
    env, learner = make(name)
    train(env, learner, 0)
    with pytest.raises(Diverged, match="diverged"):
        for number in range(1, 8):
            train(env, learner, number, lambda s: dataclasses.replace(s, reward=s.reward * float("nan")))
    kept = [name for name in not_finite(learner) if not name.startswith(("replay/", "context/"))]
    assert kept == []


@pytest.mark.parametrize("name", ["rl2", "ppo"])
def test_a_segment_of_one_step_trains(name):
    """One sample has no spread to be normalised by."""
    _, learner = make(name)
    one = MujocoEnv(Rail(edge=9.0), 1, episodes_per_trial=1, episode_steps=1, threads=1)
    for number in range(2):
        tasks = one.family.space.fixed("train", 1)
        wants = {"record": learner.record, "privileged": learner.wants_privileged}
        segment = collect(one, learner.behaviour, tasks, seeding.key(0, "collect"), **wants)
        metrics = learner.update(segment, seeding.generator(0, "update", number), 0.0)
        assert all(abs(value) < float("inf") for value in metrics.values())
    assert not_finite(learner) == []


def test_numbers_whose_squares_overflow_count_as_not_finite():
    assert all_finite([torch.ones(3), torch.full((2, 2), 1e18)])
    for bad in (float("nan"), float("inf"), 1e30):
        assert not all_finite([torch.ones(3), torch.tensor([1.0, bad])])


def test_a_few_in_a_row_end_it_and_a_sound_one_between_them_does_not():
    guard, bad = Guard("try this"), torch.tensor([float("nan")])
    for _ in range(3):
        assert not guard.passes(bad) and not guard.passes(bad) and guard.passes(torch.ones(1))
    assert guard.skipped == 6
    with pytest.raises(Diverged, match="3 update steps in a row were not finite; try this"):
        for _ in range(3):
            guard.passes(bad)
