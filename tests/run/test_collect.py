"""The collector: noise by counter, whole trials, and trials that run on from segment to segment."""

from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from families import Rail
from robots import info_of

from metarl.agents.configs import RL2Config
from metarl.agents.rl2 import RL2
from metarl.core import seeding
from metarl.rl.policy import PolicyModule
from metarl.run.collect import Stepper, collect, trial_steps
from metarl.run.metrics import rollout_metrics
from metarl.sim.mujoco.mujoco_env import MujocoEnv

STEPS = 8  # of a trial: two episodes of four
PLAIN = {"privileged_critic": False, "task_weight": 0.0}


class Tally(NamedTuple):
    steps: torch.Tensor
    episodes: torch.Tensor


class Counts(PolicyModule):
    """Knows how many steps and episodes of its trial it has seen; acts at random."""

    def initial_state(self, n, device="cpu"):
        return Tally(torch.zeros(n), torch.zeros(n))

    def act(self, obs, state, noise, deterministic=False):
        return noise.clamp(-1.0, 1.0), state

    def observe(self, state, transition):
        return state._replace(steps=state.steps + 1)

    def end_episode(self, state, worlds):
        return state._replace(episodes=state.episodes + worlds)


def env_of(worlds=3, edge=0.05):
    """Carts that fall off at 0.05 m."""
    return MujocoEnv(Rail(edge=edge), worlds, episodes_per_trial=2, threads=1)


def tasks_of(worlds, number=0):
    return Rail.space.sample("train", worlds, seeding.rng(0, "tasks", number))


def running_on(env, policy, key=0):
    """Trials that run on, each on tasks of the next number."""
    numbers = iter(range(1, 100))

    def next_tasks():
        number = next(numbers)
        return tasks_of(env.num_worlds, number), torch.full((env.num_worlds,), number)

    first = torch.zeros(env.num_worlds, dtype=torch.long)
    return Stepper(env, policy, tasks_of(env.num_worlds), key, task_number=first, next_tasks=next_tasks)


def test_noise_is_that_of_the_key_whatever_the_policy_and_the_block():
    env, key = env_of(), seeding.key(0, "collect")
    policy = Counts(info_of(2, 1))
    seen = torch.stack([now.noise for now in trial_steps(env, policy, tasks_of(3), key)])
    assert torch.equal(seen, seeding.normal(key, torch.arange(3), 0, STEPS, 1, "cpu"))
    streams = torch.tensor([7, 0, 5])
    other = torch.stack([now.noise for now in trial_steps(env, policy, tasks_of(3), key, streams=streams)])
    assert torch.equal(other[:, 1], seen[:, 0])


@pytest.mark.parametrize("cut", [8, 4, 3, 1])
def test_segments_put_together_are_the_trials_whatever_their_length(cut):
    """Observations, actions, rewards and states: a seam changes nothing."""
    policy = Counts(info_of(2, 1))
    whole = running_on(env_of(), policy).segment(policy, 24)
    stepper = running_on(env_of(), policy)
    parts = [stepper.segment(policy, cut) for _ in range(24 // cut)]
    for name in ("obs", "action", "reward", "terminated", "episode_start", "trial_start", "trial_end", "task_number"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)), name
    for before, after in pairwise(parts):
        assert all(torch.equal(x, y) for x, y in zip(before.final_state, after.initial_state, strict=True))
        assert torch.equal(before.next_obs, after.obs[0])
    assert bool(whole.terminated.any())


def test_a_trial_s_end_begins_the_next_one_with_an_empty_state_on_the_queued_task():
    env, policy = env_of(), Counts(info_of(2, 1))
    stepper = running_on(env, policy)
    ages = []
    for t, now in enumerate(stepper.steps(policy, 3 * STEPS)):
        ages.append(now.before.steps.tolist())
        number = t // STEPS
        assert stepper.task_number.tolist() == [number] * 3
        expected = tasks_of(3, number + (t % STEPS == STEPS - 1))["goal"]
        assert torch.equal(env.tasks["goal"], expected)
    assert ages == [[float(t % STEPS)] * 3 for t in range(3 * STEPS)]


def test_returns_are_those_of_the_last_complete_trial():
    env, policy = env_of(), Counts(info_of(2, 1))
    stepper = running_on(env, policy)
    assert not stepper.returns.any()
    first = stepper.segment(policy, STEPS)
    torch.testing.assert_close(stepper.returns, first.episode_returns(2))
    later = [stepper.segment(policy, 4) for _ in range(3)]
    by_hand = torch.cat([part.reward for part in later[:2]]).double(), torch.cat([p.ended for p in later[:2]])
    number = torch.cat((torch.zeros(1, 3), by_hand[1][:-1].double().cumsum(0)))
    expected = torch.stack([(by_hand[0] * (number == k)).sum(0) for k in range(2)], dim=1)
    torch.testing.assert_close(stepper.returns, expected)


def test_a_segment_of_a_whole_trial_is_the_trial():
    """RL² learns the same from both, tensor for tensor."""
    states = []
    for segment_steps in (0, STEPS):
        env = env_of()
        learner = RL2(
            RL2Config(**PLAIN, hidden_size=8, segment_steps=segment_steps), env.info, seeding.generator(0, "init")
        )
        key = seeding.key(0, "collect")
        if segment_steps:
            segment = running_on(env, learner.policy, key).segment(learner.behaviour, STEPS, learner.record)
        else:
            segment = collect(env, learner.behaviour, tasks_of(3), key, record=learner.record)
        learner.update(segment, seeding.generator(0, "update"), 0.0)
        states.append(learner.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_values_and_targets_do_not_depend_on_where_a_segment_is_cut():
    """Two trials at once, and in four parts of which each is bootstrapped from the seam: with λ = 0 targets agree."""
    config = RL2Config(**PLAIN, hidden_size=8, chunk_steps=4, gae_lambda=0.0, segment_steps=16)
    env = env_of()
    learner = RL2(config, env.info, seeding.generator(0, "init"))
    whole, _ = learner.prepare(running_on(env, learner.policy).segment(learner.policy, 16, learner.record))
    stepper = running_on(env_of(), learner.policy)
    parts = [learner.prepare(stepper.segment(learner.policy, 4, learner.record))[0] for _ in range(4)]
    for name in ("inputs", "obs", "action", "log_prob", "target"):
        together = torch.cat([getattr(part, name) for part in parts], dim=1)
        torch.testing.assert_close(together, getattr(whole, name), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.cat([part.memory for part in parts]), whole.memory, rtol=0, atol=1e-6)
    assert not whole.memory[:3].any() and not whole.memory[6:9].any(), "a trial begins with an empty memory"
    assert whole.memory[3:6].any()


def test_a_trial_that_begins_within_a_chunk_is_refused():
    env = env_of()
    learner = RL2(RL2Config(**PLAIN, hidden_size=8, segment_steps=6), env.info, seeding.generator(0, "init"))
    segment = running_on(env, learner.policy).segment(learner.policy, 6, learner.record)
    shifted = segment.trial_start.clone()
    shifted[1, 0] = True
    assert learner.prepare(segment)
    with pytest.raises(ValueError, match="within a chunk of 2 steps"):
        learner.prepare(type(segment)(**vars(segment) | {"trial_start": shifted}))


def test_falls_and_reward_per_step_are_told_beside_returns():
    """An episode that ends by a fall is short: its return says little."""
    env = env_of(worlds=8)
    segment = collect(env, Counts(env.info), tasks_of(8), seeding.key(0, "collect"))
    told = rollout_metrics(segment, segment.episode_returns(2))
    falls = int(segment.terminated.sum())
    assert falls > 0
    assert told["rollout/terminated"] == pytest.approx(1000 * falls / (STEPS * 8))
    assert told["rollout/reward"] == pytest.approx(float(segment.reward.mean()))
