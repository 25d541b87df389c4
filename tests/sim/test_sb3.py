"""The Stable-Baselines3 adapter: its episodes are those of the environment beneath."""

import gymnasium
import numpy as np
import pytest
import torch
from families import Rail
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from metarl.sim.adapters.stable_baselines3 import EpisodeVecEnv, TrialVecEnv
from metarl.sim.mujoco.mujoco_env import MujocoEnv

PUSH, STAY = np.ones((2, 1), np.float32), np.zeros((2, 1), np.float32)


def make(num_worlds=2, drawn=None, edge=0.05):
    """Two carts; `drawn` collects the tasks of every trial."""
    family = Rail(edge)

    def sample(rng):
        tasks = family.space.sample("train", num_worlds, rng)
        if drawn is not None:
            drawn.append(tasks["goal"].tolist())
        return tasks

    return EpisodeVecEnv(MujocoEnv(family, num_worlds, episodes_per_trial=2, threads=1), sample, seed=5)


def test_spaces_and_types_are_sb3s():
    envs = make()
    obs = envs.reset()
    assert envs.num_envs == 2
    assert envs.observation_space.shape == (2,)
    assert envs.action_space.low.tolist() == [-1.0]
    next_obs, reward, ended, infos = envs.step(STAY)
    assert obs.shape == next_obs.shape == (2, 2)
    assert obs.dtype == next_obs.dtype == reward.dtype == np.float32
    assert ended.dtype == bool
    assert infos == [{}, {}]


def test_a_fall_is_terminal_and_its_last_observation_is_kept():
    """Pushed fully, a cart is past the edge (0.05 m) after its second step."""
    envs = make()
    envs.reset()
    action = np.array([[1.0], [0.0]], np.float32)
    envs.step(action)
    obs, _, ended, infos = envs.step(action)
    assert ended.tolist() == [True, False]
    assert infos[0]["TimeLimit.truncated"] is False
    assert infos[0]["terminal_observation"][0] > 0.05
    assert abs(obs[0, 0]) <= 0.01  # already the next episode's first
    assert infos[1] == {}


def test_a_time_limit_is_not_terminal():
    envs = make()
    envs.reset()
    for _ in range(3):
        assert not envs.step(STAY)[2].any()
    _, _, ended, infos = envs.step(STAY)
    assert ended.all()
    assert [info["TimeLimit.truncated"] for info in infos] == [True, True]
    assert all(np.isfinite(info["terminal_observation"]).all() for info in infos)


def test_tasks_change_between_trials_and_come_from_the_seed():
    first, second = [], []
    for drawn in (first, second):
        envs = make(drawn=drawn)
        envs.reset()
        for _ in range(17):  # two trials of two episodes of four steps, and a step of the third
            envs.step(STAY)
    assert len(first) == 3
    assert first == second
    assert len({tuple(tasks) for tasks in first}) == 3


def test_seeding_begins_the_draws_anew():
    envs = make()
    start = envs.reset()
    envs.step(PUSH)
    again = envs.reset()
    assert not np.array_equal(start, again)
    assert envs.seed(5) == [5, 5]
    assert np.array_equal(envs.reset(), start)


def test_the_rewards_are_the_environments():
    envs, env = make(edge=10.0), MujocoEnv(Rail(edge=10.0), 2, episodes_per_trial=2, threads=1)
    obs = envs.reset()
    qpos = envs._env.physics.get_state().clone()
    env.begin(envs._env.tasks, key=0)
    env.physics.set_state(qpos)
    for action in (PUSH, STAY, -PUSH):
        obs, reward, _, _ = envs.step(action)
        step = env.step(torch.from_numpy(action))
        assert np.array_equal(reward, step.reward.numpy())
    assert np.array_equal(obs, step.obs.numpy())


def test_worlds_have_no_attributes_or_methods_of_their_own():
    envs = make()
    assert envs.get_attr("render_mode") == [None, None]
    assert envs.env_is_wrapped(VecMonitor, indices=[0]) == [False]
    with pytest.raises(AttributeError, match="no attribute 'goal'"):
        envs.set_attr("goal", 1.0)
    with pytest.raises(AttributeError, match="no method 'push'"):
        envs.env_method("push")


def test_ppo_learns_under_sb3s_wrappers():
    """The nearer to the (hidden) goals around zero and the less it pushes, the better: it learns to brake."""
    envs = VecNormalize(VecMonitor(make(8, edge=10.0)), norm_reward=True)
    model = PPO("MlpPolicy", envs, n_steps=32, batch_size=64, seed=0, device="cpu", learning_rate=3e-3)

    def mean_reward():
        obs, rewards = envs.reset(), []
        for _ in range(80):
            obs, *_ = envs.step(model.predict(obs)[0])
            rewards.append(envs.get_original_reward().mean())
        return np.mean(rewards)

    before = mean_reward()
    model.learn(5_000)
    assert mean_reward() > before + 0.05


# the task made visible, and trials as episodes


def test_the_visible_task_follows_the_observation():
    family, drawn = Rail(edge=10.0), []

    def sample(rng):
        drawn.append(family.space.sample("train", 2, rng))
        return drawn[-1]

    envs = EpisodeVecEnv(MujocoEnv(family, 2, episodes_per_trial=2, task_visible=True, threads=1), sample)
    obs = envs.reset()
    assert envs.observation_space.shape == (3,)
    for _ in range(10):
        assert obs[:, 2].tolist() == drawn[-1]["goal"].float().tolist()
        obs, *_ = envs.step(STAY)
    assert len(drawn) == 2


def trials(num_worlds=2, edge=0.05):
    family = Rail(edge)
    env = MujocoEnv(family, num_worlds, episodes_per_trial=2, threads=1)
    return TrialVecEnv(env, lambda rng: family.space.sample("train", num_worlds, rng), seed=5)


def test_a_trial_is_one_episode_in_which_falls_are_told():
    """Two episodes of four steps, and a fall at the second step of the cart that is pushed."""
    envs = trials()
    obs = envs.reset()
    assert obs.shape == (2, 2 + 1 + 2)
    assert obs[:, 2:].tolist() == [[0.0, 0.0, 1.0]] * 2
    action, starts = np.array([[1.0], [0.5]], np.float32) * [[1.0], [0.0]], []
    for t in range(8):
        obs, reward, ended, infos = envs.step(action)
        if t < 7:
            assert not ended.any()
            assert infos == [{}, {}]
            assert obs[:, 2].tolist() == [1.0, 0.0]
            assert obs[:, 3].tolist() == reward.tolist()
            starts.append(obs[:, 4].tolist())
    assert starts == [[0, 0], [1, 0], [0, 0], [1, 1], [0, 0], [1, 0], [0, 0]]
    assert ended.all()
    assert [info["TimeLimit.truncated"] for info in infos] == [True, True]
    assert infos[0]["terminal_observation"].shape == (5,)
    assert obs[:, 2:].tolist() == [[0.0, 0.0, 1.0]] * 2


def test_a_batch_equals_sb3s_own_vector_of_single_environments():
    """DummyVecEnv of one-world environments on the same tasks, from the same states, with the same actions."""
    batch = make(3, edge=10.0)
    batch.reset()
    states, tasks = batch._env.physics.get_state(), batch._env.tasks

    class Single(gymnasium.Env):
        def __init__(self, world):
            self.world = world
            self.env = MujocoEnv(Rail(edge=10.0), 1, episodes_per_trial=1, threads=1)
            self.observation_space, self.action_space = batch.observation_space, batch.action_space

        def reset(self, *, seed=None, options=None):
            obs = self.env.begin(tasks.select(torch.tensor([self.world])), key=0)
            self.env.physics.set_state(states[self.world : self.world + 1])
            return obs[0].numpy(), {}

        def step(self, action):
            step = self.env.step(torch.from_numpy(action)[None])
            end = bool(step.truncated[0])
            return step.final_obs[0].numpy(), float(step.reward[0]), bool(step.terminated[0]), end, {}

    singles = DummyVecEnv([lambda world=world: Single(world) for world in range(3)])
    singles.reset()
    rng = np.random.default_rng(0)
    for t in range(4):
        action = rng.uniform(-1, 1, (3, 1)).astype(np.float32)
        ours, theirs = batch.step(action), singles.step(action)
        assert np.array_equal(ours[1], theirs[1])
        assert np.array_equal(ours[2], theirs[2])
        if t < 3:
            assert np.array_equal(ours[0], theirs[0])
    for mine, other in zip(ours[3], theirs[3], strict=True):
        assert np.array_equal(mine["terminal_observation"], other["terminal_observation"])
        assert mine["TimeLimit.truncated"] == other["TimeLimit.truncated"]


def test_sac_learns_a_few_thousand_steps():
    small = {"net_arch": [32]}
    model = SAC("MlpPolicy", make(8), learning_starts=80, batch_size=32, seed=0, device="cpu", policy_kwargs=small)
    before = [parameter.clone() for parameter in model.actor.parameters()]
    model.learn(2_000)
    assert model.num_timesteps == 2_000
    assert model.replay_buffer.size() == 250
    moved = [not torch.equal(a, b) for a, b in zip(before, model.actor.parameters(), strict=True)]
    assert all(moved)


def test_recurrent_ppo_learns_a_few_thousand_steps_of_trials():
    envs = VecMonitor(trials(4, edge=10.0))
    small = {"lstm_hidden_size": 16, "net_arch": [16]}
    model = RecurrentPPO("MlpLstmPolicy", envs, n_steps=64, batch_size=128, seed=0, device="cpu", policy_kwargs=small)
    before = [parameter.clone() for parameter in model.policy.lstm_actor.parameters()]
    model.learn(2_048)
    assert model.num_timesteps == 2_048
    assert {info["l"] for info in model.ep_info_buffer} == {8}  # whole trials, two episodes of four steps
    moved = [not torch.equal(a, b) for a, b in zip(before, model.policy.lstm_actor.parameters(), strict=True)]
    assert all(moved)
