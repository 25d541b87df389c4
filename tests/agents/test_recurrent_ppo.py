"""Recurrent PPO: the data is as sb3-contrib itself would have it on the trial environment."""

import dataclasses
import sys

import numpy as np
import pytest
import torch
from families import Rail
from sb3_contrib.common.recurrent.buffers import RecurrentRolloutBuffer
from stable_baselines3.common.callbacks import CallbackList

from metarl.agents.baseline_configs import RecurrentPPOConfig
from metarl.agents.recurrent_ppo import RecurrentPPO, join, split
from metarl.cli.main import main
from metarl.core import seeding
from metarl.run.collect import collect
from metarl.sim.adapters.stable_baselines3 import TrialVecEnv
from metarl.sim.mujoco.mujoco_env import MujocoEnv

SMALL = RecurrentPPOConfig(hidden_size=8, batch_size=12, num_epochs=2)
WORLDS, STEPS = 3, 8


def make(trial=None, **changes):
    """Carts that fall off at 0.05 m; two episodes of 4 steps are a trial."""
    env = MujocoEnv(Rail(), WORLDS, episodes_per_trial=2, threads=1, trial=trial)
    learner = RecurrentPPO(dataclasses.replace(SMALL, **changes), env.info, seeding.generator(0, "init"))

    def played(number):
        tasks = env.family.space.sample("train", WORLDS, seeding.rng(0, "tasks", number))
        return lambda policy: collect(env, policy, tasks, seeding.key(0, "collect", number), record=learner.record)

    return learner, played


def train(learner, trial, numbers):
    return [learner.update(trial(n)(learner.behaviour), seeding.generator(0, "update", n), 0.5) for n in numbers][-1]


class Normalised(TrialVecEnv):
    """The adapter's trial environment, its numbers scaled as the learner scales them (SB3's users: VecNormalize)."""

    def __init__(self, env, sample, learner):
        super().__init__(env, sample)
        self.learner = learner

    def _seen(self, obs, step):
        return self.learner.policy.obs_norm(torch.from_numpy(super()._seen(obs, step))).numpy()

    def step_wait(self):
        obs, reward, ended, infos = super().step_wait()
        return obs, reward / self.learner.return_norm.std.float().numpy(), ended, infos


def test_the_buffer_is_what_sb3_contrib_would_have_collected_on_the_trial_environment():
    learner, trial = make(initial_std=2.0)
    train(learner, trial, range(3))
    model, env = learner.model, MujocoEnv(Rail(), WORLDS, episodes_per_trial=2, threads=1)
    envs = Normalised(env, lambda rng: env.family.space.sample("train", WORLDS, rng), learner)
    first = envs.reset()
    tasks, key = env.tasks, int(env._keys[0])
    # our collector, on the same tasks and from the same states
    other = MujocoEnv(Rail(), WORLDS, episodes_per_trial=2, threads=1)
    segment = collect(other, learner.policy, tasks, key, record=learner.record)
    assert bool(segment.terminated[:-1].any())
    assert not bool(segment.terminated[-1].all())
    played, plain = iter(segment.action), model.policy.forward

    def forward(seen, states, start):
        action = next(played)
        _, value, _, after = plain(seen, states, start, deterministic=True)
        return action, value, model.policy.evaluate_actions(seen, action, states, start)[1], after

    shape = (STEPS, 1, WORLDS, 8)
    theirs = RecurrentRolloutBuffer(
        STEPS, model.observation_space, model.action_space, shape, "cpu", 0.9, 0.97, n_envs=WORLDS
    )
    model._last_obs, model._last_episode_starts = first, np.ones(WORLDS, dtype=bool)
    model._last_lstm_states = split(torch.zeros(WORLDS, 32))
    model._update_info_buffer = lambda infos, dones: None
    callback = CallbackList([])
    callback.init_callback(model)
    model.policy.forward = forward
    model.collect_rollouts(envs, callback, theirs, STEPS)
    del model.policy.forward
    ours = learner.fill_buffer(segment)
    states = ("hidden_states_pi", "cell_states_pi", "hidden_states_vf", "cell_states_vf")
    for name in ("observations", "actions", "values", "log_probs", *states):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=3e-6, err_msg=name)
    # the last observation of a trial carries the flag there; here its episode goes on, or a fall has ended it
    np.testing.assert_allclose(ours.rewards[:-1], theirs.rewards[:-1], atol=3e-6)
    assert not theirs.episode_starts[1:].any()


@pytest.mark.parametrize("trial", ["steps", "falls"])
def test_a_fall_forfeits_what_follows_where_it_is_to(trial):
    learner, played = make(trial, initial_std=2.0)
    train(learner, played, range(3))
    segments = (played(number)(learner.policy) for number in range(3, 60))
    segment = next(segment for segment in segments if bool(segment.terminated[:-1].any()))
    fell = segment.terminated
    buffer = learner.fill_buffer(segment)
    reward, value = buffer.rewards, buffer.values
    earned = reward + 0.97 * np.concatenate((value[1:], np.zeros((1, WORLDS)))) - value
    cut = fell.numpy() if trial == "falls" else np.zeros_like(fell.numpy())
    expected, following = np.zeros_like(reward), np.zeros(WORLDS)
    after = learner.policy.value(segment.final_obs[-1], segment.final_state).numpy() * ~fell[-1].numpy()
    earned[-1] += 0.97 * after
    for t in reversed(range(STEPS)):
        lost = np.where(cut[t], reward[t] - value[t], earned[t])
        expected[t] = following = lost + 0.97 * 0.9 * following * ~cut[t]
    np.testing.assert_allclose(buffer.advantages, expected, atol=1e-5)
    np.testing.assert_allclose(buffer.returns, expected + value, atol=1e-5)


def test_the_flag_that_is_left_out_of_the_buffer_changes_nothing():
    """Empty memories are as good as memories emptied."""
    learner, trial = make()
    buffer = learner.fill_buffer(trial(0)(learner.policy))
    found = []
    for start in (0.0, 1.0):
        buffer.episode_starts[:] = 0.0
        buffer.episode_starts[0] = start
        np.random.seed(0)
        batch = next(buffer.get(STEPS * WORLDS))
        buffer.generator_ready = False
        buffer = learner.fill_buffer(trial(0)(learner.policy))
        found.append(
            learner.model.policy.evaluate_actions(
                batch.observations, batch.actions, batch.lstm_states, batch.episode_starts
            )[1]
        )
    torch.testing.assert_close(found[0], found[1])


def test_memory_lasts_for_the_trial_and_the_policy_is_fed_what_rl2_is_fed():
    learner, trial = make(initial_std=2.0)
    segment = trial(0)(learner.policy)
    inputs = learner.policy.inputs(segment)
    assert inputs.shape == (STEPS, WORLDS, 2 + 1 + 2)
    assert inputs[0, :, 2:].tolist() == [[0.0, 0.0, 1.0]] * WORLDS
    assert torch.equal(inputs[1:, :, 2], segment.action[:-1, :, 0].clamp(-1, 1))
    assert torch.equal(inputs[1:, :, 3], segment.reward[:-1])
    assert torch.equal(inputs[:, :, 4], segment.episode_start.float())
    memory = segment.extras["memory"]
    assert not bool(memory[0].any())
    assert bool(memory[1:].any(dim=-1).all())
    assert torch.equal(join(split(memory[3])), memory[3])


def test_the_probability_ratio_is_one_at_the_first_gradient_step():
    learner, trial = make(num_epochs=1, batch_size=1000)
    for number in range(3):
        metrics = train(learner, trial, [number])
        assert abs(metrics["train/approx_kl"]) < 1e-6
        assert metrics["train/clip_fraction"] == 0.0


def test_without_the_package_it_says_what_to_install(monkeypatch, capsys, tmp_path):
    for name in [name for name in sys.modules if name.split(".")[0] == "sb3_contrib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    monkeypatch.delitem(sys.modules, "metarl.agents.recurrent_ppo")
    assert main(["train", "recurrent-ppo", "point-goal", "--output", str(tmp_path / "run")]) == 2
    assert "pip install 'sb3-contrib" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    with pytest.raises(SystemExit) as stopped:
        main(["train", "recurrent-ppo", "--help"])
    assert stopped.value.code == 0
