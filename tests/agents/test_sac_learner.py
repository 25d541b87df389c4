"""The SAC baseline: its buffer is as SB3 itself would have it, and a resumed run is the same run."""

import dataclasses

import numpy as np
import pytest
import torch
from families import Rail

from metarl.agents.baseline_configs import SACConfig
from metarl.agents.sac_baseline import SAC
from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.tasks import Tasks
from metarl.envs.point import PointGoal
from metarl.rl.policy import NoState
from metarl.rl.state import load_policy, policy_alone
from metarl.run.collect import collect
from metarl.run.evaluate import evaluate
from metarl.sim.mujoco.mujoco_env import MujocoEnv

SMALL = SACConfig(hidden_size=16, initial_steps=24, num_updates=3, batch_size=8, replay_size=100)


def make(config=SMALL, worlds=3, family=None, episodes=2, tasks=None):
    """Carts that fall off at 0.05 m; two episodes of 4 steps are a trial."""
    env = MujocoEnv(family or Rail(), worlds, episodes_per_trial=episodes, threads=1)
    learner = SAC(config, env.info, seeding.generator(0, "init"))

    def trial(number):
        drawn = tasks or env.family.space.sample("train", worlds, seeding.rng(0, "tasks", number))
        return lambda policy: collect(env, policy, drawn, seeding.key(0, "collect", number), record=learner.record)

    return learner, trial


def train(learner, trial, numbers):
    return [learner.update(trial(n)(learner.behaviour), seeding.generator(0, "update", n), 0.5) for n in numbers][-1]


def test_the_buffer_holds_what_sb3_itself_would_have_stored():
    """Step by step through SB3's `_store_transition`, with the infos of an SB3 environment."""
    learner, trial = make()
    segment = trial(0)(learner._exploration)
    assert bool(segment.terminated[:-1].any())
    learner.store(segment)
    other, _ = make()
    model, buffer = other.model, other.model.replay_buffer
    for t, n in np.ndindex(*segment.reward.shape):
        ended, truncated = bool(segment.ended[t, n]), bool(segment.truncated[t, n])
        last = t + 1 == len(segment.obs)
        following = segment.final_obs[t, n] if last else segment.obs[t + 1, n]
        info = {"terminal_observation": segment.final_obs[t, n].numpy(), "TimeLimit.truncated": truncated}
        model._last_obs = segment.obs[t, n].numpy()[None]
        model._store_transition(
            buffer,
            segment.action[t, n].numpy()[None],
            following.numpy()[None],
            segment.reward[t, n].numpy()[None],
            np.array([ended]),
            [info if ended else {}],
        )
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        assert np.array_equal(getattr(learner.model.replay_buffer, name), getattr(buffer, name)), name
    terminal = buffer.dones * (1 - buffer.timeouts)
    assert terminal.sum() == segment.terminated.sum()


def test_steps_that_diverged_are_not_learnt_from():
    learner, trial = make()
    segment = trial(0)(learner._exploration)
    diverged = torch.zeros_like(segment.terminated)
    diverged[2, 1] = diverged[5, 0] = True
    learner.store(dataclasses.replace(segment, diverged=diverged))
    assert learner.model.replay_buffer.size() == 8 * 3 - 2


def test_the_first_steps_are_uniformly_random_and_only_fill_the_buffer():
    learner, trial = make(dataclasses.replace(SMALL, initial_steps=48))
    seen, metrics = [], []
    for number in range(3):
        seen.append(learner.behaviour)
        metrics.append(train(learner, trial, [number]))
    assert seen == [learner._exploration, learner._exploration, learner.policy]
    assert [bool(m) for m in metrics] == [False, True, True]


@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_a_restored_learner_goes_on_as_if_never_stopped(temperature):
    """With a buffer that is already written over from its beginning."""
    config = dataclasses.replace(SMALL, temperature=temperature)
    learner, trial = make(config)
    restored, _ = make(config)
    train(learner, trial, range(6))
    assert learner.model.replay_buffer.full
    restored.load_state_dict(learner.state_dict())
    train(learner, trial, [6, 7])
    train(restored, trial, [6, 7])
    expected = learner.state_dict()
    assert expected.keys() == restored.state_dict().keys()
    assert all(torch.equal(value, expected[name]) for name, value in restored.state_dict().items())
    assert ("log_temperature" in expected) == (temperature == 0.0)


def test_without_its_buffer_a_resumed_run_fills_it_anew():
    config = dataclasses.replace(SMALL, save_buffer=False)
    learner, trial = make(config)
    restored, _ = make(config)
    train(learner, trial, range(2))
    state = learner.state_dict()
    assert not [name for name in state if name.startswith("replay/")]
    restored.load_state_dict(state)
    assert restored.model.replay_buffer.size() == 0
    assert train(restored, trial, [2]) != {}


def test_what_does_not_fit_is_a_value_error():
    learner, trial = make()
    train(learner, trial, [0])
    state = learner.state_dict()
    with pytest.raises(ValueError, match="missing: replay/rewards"):
        learner.load_state_dict({name: value for name, value in state.items() if name != "replay/rewards"})
    with pytest.raises(ValueError, match="size mismatch for the replay buffer's actions"):
        learner.load_state_dict(state | {"replay/actions": torch.zeros(24, 2)})
    other, _ = make(dataclasses.replace(SMALL, hidden_size=8))
    with pytest.raises(ValueError, match="size mismatch"):
        other.load_state_dict(state)


def test_a_gradient_that_is_not_finite_is_left_out_and_then_an_error():
    learner, trial = make()
    train(learner, trial, [0])
    before = learner.state_dict()
    learner.model.replay_buffer.rewards[:] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        train(learner, trial, [1])
    after = learner.state_dict()
    learnt = [name for name in before if name.startswith(("critic/", "adam/critic"))]
    assert all(torch.equal(before[name], after[name]) for name in learnt)
    assert all(bool(torch.isfinite(value).all()) for name, value in after.items() if name != "replay/rewards")


def test_it_learns_to_walk_to_the_one_goal_there_is():
    """All tasks the same: nothing is hidden. A standing point gets about −20 times its distance of 1.2 m."""
    tasks = Tasks({"goal": torch.tensor([[0.8, -0.6]], dtype=torch.float64).repeat(10, 1)})
    config = SACConfig(hidden_size=32, initial_steps=1_000, num_updates=60, batch_size=128, learning_rate=3e-3)
    learner, trial = make(config, 10, PointGoal(), 1, tasks)
    before = float(evaluate(learner.policy, PointGoal(), tasks, 1, threads=1).returns.mean())
    train(learner, trial, range(14))
    after = float(evaluate(learner.policy, PointGoal(), tasks, 1, threads=1).returns.mean())
    assert after > before + 8.0


def test_a_checkpoint_of_version_0_1_loads_whole_and_for_acting_alone():
    """It kept all networks together, and named none of them the policy's."""
    learner, trial = make()
    train(learner, trial, range(2))
    state = learner.state_dict()
    names = {"policy/network.": "networks/actor.", "critic/": "networks/critic.", "target/": "networks/critic_target."}
    old = {}
    for name, value in state.items():
        part = next((new for new in names if name.startswith(new)), "")
        old[names[part] + name.removeprefix(part) if part else name] = value
    assert not [name for name in old if name.startswith("policy/")] and "networks/actor.mu.weight" in old
    restored, _ = make()
    restored.load_state_dict(old)
    assert all(torch.equal(value, state[name]) for name, value in restored.state_dict().items())
    other, _ = make(dataclasses.replace(SMALL, learning_rate=1e-4))
    load_policy(other.policy, policy_alone(old))
    obs, noise = torch.randn(5, 2), torch.zeros(5, 1)
    actions = [one.policy.act(obs, NoState(), noise)[0] for one in (learner, other)]
    assert torch.equal(*actions)
