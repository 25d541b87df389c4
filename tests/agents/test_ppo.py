"""The PPO baselines: the data is as SB3 itself would have it, and the oracle knows what the baseline cannot."""

import dataclasses

import numpy as np
import pytest
import torch
from families import Rail
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.vec_env import DummyVecEnv

from metarl.agents.baseline_configs import PPOConfig, PPOOracleConfig, RecurrentPPOConfig
from metarl.agents.ppo_baseline import PPO
from metarl.agents.sb3 import global_streams
from metarl.api import evaluate
from metarl.core import seeding
from metarl.core.config import TrainConfig
from metarl.core.errors import UserError
from metarl.run import folder
from metarl.run.collect import collect
from metarl.run.logs import console
from metarl.run.train import Training
from metarl.sim.mujoco.mujoco_env import MujocoEnv

SMALL = PPOConfig(hidden_size=16, batch_size=16, num_epochs=2)


def make(config=SMALL, worlds=3):
    """Carts that fall off at 0.05 m; episodes of 4 steps, two in a trial."""
    env = MujocoEnv(Rail(), worlds, episodes_per_trial=2, threads=1)
    learner = PPO(config, env.info, seeding.generator(0, "init"))

    def trial(number):
        tasks = env.family.space.sample("train", worlds, seeding.rng(0, "tasks", number))
        return lambda policy: collect(env, policy, tasks, seeding.key(0, "collect", number), record=learner.record)

    return learner, trial


def train(learner, trial, numbers):
    return [learner.update(trial(n)(learner.behaviour), seeding.generator(0, "update", n), 0.5) for n in numbers][-1]


class Recorded(DummyVecEnv):
    """A trial as an SB3 environment that plays it back, whatever the actions are."""

    def __init__(self, model, obs, final_obs, reward, segment):
        self.num_envs, self.t = obs.shape[1], 0
        self.observation_space, self.action_space = model.observation_space, model.action_space
        self.obs, self.final_obs, self.reward, self.segment = obs, final_obs, reward, segment

    def step(self, actions):
        t, self.t = self.t, self.t + 1
        assert np.array_equal(actions, self.segment.action[t].clamp(-1, 1).numpy())
        ended = self.segment.ended[t].numpy()
        infos = [{} for _ in ended]
        for world in ended.nonzero()[0]:
            infos[world] = {
                "terminal_observation": self.final_obs[t, world].numpy(),
                "TimeLimit.truncated": bool(self.segment.truncated[t, world]),
            }
        following = self.obs[self.t] if self.t < len(self.obs) else self.final_obs[t]
        return following.numpy(), self.reward[t].numpy().copy(), ended, infos


def collected_by_sb3(learner, segment):
    """What SB3's own `collect_rollouts` makes of the trial."""
    model, norm = learner.model, learner.policy.obs_norm
    obs, final_obs = norm(segment.obs), norm(segment.final_obs)
    env = Recorded(model, obs, final_obs, segment.reward / learner.return_norm.std.float(), segment)
    played = iter(segment.action)

    def forward(seen):
        action = next(played)
        return action, *model.policy.evaluate_actions(seen, action)[:2]

    steps, worlds = segment.reward.shape
    spaces, rates = (model.observation_space, model.action_space), {"gamma": 0.97, "gae_lambda": 0.9}
    buffer = RolloutBuffer(steps, *spaces, "cpu", n_envs=worlds, **rates)
    model._last_obs, model._last_episode_starts = obs[0].numpy(), np.ones(worlds, dtype=bool)
    model._update_info_buffer = lambda infos, dones: None
    callback = CallbackList([])
    callback.init_callback(model)
    model.policy.forward = forward
    model.collect_rollouts(env, callback, buffer, steps)
    return buffer


def test_the_buffer_is_what_sb3_itself_would_have_collected():
    learner, trial = make(dataclasses.replace(SMALL, initial_std=2.0), worlds=8)
    train(learner, trial, range(3))  # the normalisers have seen data
    segment = trial(3)(learner.policy)
    inner = segment.ended[:-1]
    assert bool((segment.terminated[:-1] & inner).any())
    assert bool((segment.truncated[:-1] & inner).any())
    assert bool((segment.action.abs() > 1).any())
    ours, theirs = learner.fill_buffer(segment), collected_by_sb3(learner, segment)
    assert ours.full
    names = ("observations", "actions", "rewards", "episode_starts", "values", "log_probs", "advantages", "returns")
    for name in names:
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=2e-6, err_msg=name)


def test_the_probability_ratio_is_one_at_the_first_gradient_step():
    """The actor's noise is drawn by us, its density is SB3's: of one epoch of one minibatch, nothing is clipped."""
    learner, trial = make(dataclasses.replace(SMALL, num_epochs=1, batch_size=1000))
    for number in range(3):
        metrics = train(learner, trial, [number])
        assert abs(metrics["train/approx_kl"]) < 1e-6
        assert metrics["train/clip_fraction"] == 0.0


def test_sb3s_draws_come_from_our_generator_and_leave_the_global_streams_alone():
    def draw(seed):
        with global_streams(torch.Generator().manual_seed(seed)):
            return float(torch.rand(())), float(np.random.rand())

    torch.manual_seed(1)
    np.random.seed(1)
    expected = float(torch.rand(())), float(np.random.rand())
    torch.manual_seed(1)
    np.random.seed(1)
    assert draw(5) == draw(5) != draw(6)
    assert (float(torch.rand(())), float(np.random.rand())) == expected


def test_the_learning_rate_falls_with_the_progress():
    learner, trial = make(dataclasses.replace(SMALL, learning_rate=1e-3, final_learning_rate=2e-4))
    for progress, rate in ((0.0, 1e-3), (0.5, 6e-4), (1.0, 2e-4)):
        metrics = learner.update(trial(0)(learner.behaviour), seeding.generator(0, "update"), progress)
        assert metrics["train/learning_rate"] == pytest.approx(rate)


def test_a_gradient_that_is_not_finite_is_an_error_and_loses_nothing():
    learner, trial = make()
    train(learner, trial, [0])
    before = learner.state_dict()

    def broken(policy):
        segment = trial(1)(policy)
        return dataclasses.replace(segment, reward=segment.reward * float("nan"))

    with pytest.raises(UserError, match="not finite; try a lower learning_rate"):
        learner.update(broken(learner.policy), seeding.generator(0, "update", 1), 0.5)
    assert all(torch.equal(value, learner.state_dict()[name]) for name, value in before.items())


# ------------------------------------------------------------------------------------------------ against the oracle


def point_goal(path, agent, learner, **changes):
    values = {"num_worlds": 64, "episodes_per_trial": 1, "threads": 1, "total_steps": 64 * 20 * 30}
    run = folder.create(path, TrainConfig(agent, "point-goal", learner, **(values | changes)), ["train"])
    training = Training(run, run.config())
    training.execute(console())
    return training


def return_of(training):
    return float(evaluate(training.run, num_tasks=50).returns.mean())


def test_the_oracle_reaches_goals_that_ppo_cannot_know(tmp_path):
    """Who knows no goal does best to wait near the middle: a mean distance of 0.765 m, −15.3 over 20 steps.

    To walk from a uniform start straight to a uniform goal, 0.1 m per step and axis, costs about −5.
    """
    config = {"batch_size": 320, "learning_rate": 3e-3, "num_epochs": 4, "initial_std": 0.5}
    blind = point_goal(tmp_path / "ppo", "ppo", PPOConfig(**config))
    oracle = point_goal(tmp_path / "oracle", "ppo-oracle", PPOOracleConfig(**config))
    assert (blind.env.observation_size, oracle.env.observation_size) == (2, 4)
    assert return_of(oracle) > -9.0
    assert -19.0 < return_of(blind) < -14.0


def test_an_oracle_resumes_bit_for_bit(tmp_path):
    short = {"total_steps": 4 * 8 * 20, "num_worlds": 8}
    config = PPOOracleConfig(hidden_size=16)
    whole = point_goal(tmp_path / "whole", "ppo-oracle", config, **short)
    run = folder.create(tmp_path / "stopped", whole.config, ["train"])
    first = Training(run, run.config())
    for _ in range(2):
        first._iterate()
    first.save()
    second = Training(run, run.config())
    second.restore()
    assert second.iteration == 2
    second.execute(console())
    expected = whole.learner.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in second.learner.state_dict().items())


# ------------------------------------------------------------------------------------------------- observation history


def test_a_history_is_of_its_episode_alone_and_the_update_sees_what_the_policy_saw():
    learner, trial = make(dataclasses.replace(SMALL, history=3))
    policy = learner.policy
    segment = trial(0)(policy)
    obs, start = segment.obs, segment.episode_start
    assert bool(start[1:].any()) and not bool(start.all()), "some episode ends in the middle"
    seen = policy.inputs(segment)
    for t, world in np.ndindex(*start.shape):
        frames, at = [obs[t, world]], t
        for _ in range(2):
            at -= not start[at, world]
            frames.append(obs[at, world])
        assert torch.equal(seen[t, world], torch.cat(frames)), (t, world)
    assert torch.equal(policy.final_inputs(segment)[..., :2], segment.final_obs)
    assert torch.equal(policy.final_inputs(segment)[..., 2:], seen[..., :4])
    env = MujocoEnv(Rail(), 3, episodes_per_trial=2, threads=1)
    tasks = env.family.space.sample("train", 3, seeding.rng(0, "tasks", 0))
    again = collect(env, policy, tasks, seeding.key(0, "collect", 0), deterministic=True)
    network = policy.network
    mean = network.action_net(network.mlp_extractor.forward_actor(policy.obs_norm(policy.inputs(again))))
    torch.testing.assert_close(again.action, mean.detach())


def test_a_history_trains_and_resumes():
    config = dataclasses.replace(SMALL, history=4)
    learner, trial = make(config)
    assert learner.policy.info.adapts is False
    metrics = train(learner, trial, [0, 1])
    assert metrics["train/gradient_steps"] == 2 * 2, "two epochs of two minibatches"
    other, _ = make(config)
    other.load_state_dict(learner.state_dict())
    for name, value in learner.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
    assert learner.state_dict()["policy/obs_norm.mean"].shape == (8,)
    with pytest.raises(UserError, match="history = 2"):
        RecurrentPPOConfig(history=2)


def test_without_a_history_nothing_is_kept():
    learner, trial = make()
    assert learner.policy.initial_state(3) == () and torch.equal(
        learner.policy.inputs(s := trial(0)(learner.policy)), s.obs
    )
