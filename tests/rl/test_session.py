"""Sessions: a policy stepped by hand does what it does in an environment, and a wrong word is one sentence."""

import numpy as np
import pytest
import torch
from robots import info_of

from metarl.agents.configs import RL2Config
from metarl.agents.rl2_policy import RL2Policy
from metarl.core.errors import UserError
from metarl.rl.policy import NoState
from metarl.rl.scripted import RandomPolicy
from metarl.rl.state import load_state, select_rows, state_tensors


@pytest.fixture
def policy():
    torch.manual_seed(0)
    return RL2Policy(RL2Config(hidden_size=8), info_of(3, 2))


def test_one_robot_is_stepped_with_arrays_and_without_a_leading_dimension(policy):
    session = policy.session()
    actions = []
    for t in range(6):
        action = session.act(np.full(3, 0.1 * t))
        assert isinstance(action, np.ndarray) and action.shape == (2,) and np.abs(action).max() <= 1.0
        session.observe(1.0, np.zeros(3), terminated=t == 3)
        if t == 3:
            session.new_episode()
        actions.append(action)
    other = policy.session(1)
    assert isinstance(other.act(torch.zeros(1, 3)), torch.Tensor)
    assert not np.array_equal(actions[0], actions[1])


def test_a_session_repeats_with_its_seed_and_draws_only_if_asked(policy):
    def play(**words):
        session = policy.session(2, **words)
        return [session.act(np.ones((2, 3))) for _ in range(70)]  # more than one block of noise

    assert np.array_equal(play(seed=1, deterministic=False), play(seed=1, deterministic=False))
    assert not np.array_equal(play(seed=1, deterministic=False), play(seed=2, deterministic=False))
    assert np.array_equal(play(seed=1), play(seed=2))


def test_a_new_task_forgets_and_a_new_episode_does_not(policy):
    session = policy.session(2)
    for _ in range(3):
        session.act(np.ones((2, 3)))
        session.observe([1.0, 2.0], np.ones((2, 3)))
    session.new_episode([True, False])
    assert session.state.episode_start.tolist() == [1.0, 0.0] and bool(session.state.memory.any(dim=1).all())
    session.new_task(np.array([False, True]))
    assert bool(session.state.memory[0].any()) and not bool(session.state.memory[1].any())
    session.new_task()
    fresh = policy.initial_state(2)
    assert all(torch.equal(x, y) for x, y in zip(session.state, fresh, strict=True))


@pytest.mark.parametrize(
    ("do", "said"),
    [
        (lambda s: s.act(np.zeros((2, 4))), r"the observation has shape \(2, 4\): it must be \(2, 3\)"),
        (lambda s: s.act(np.zeros(3)), r"the observation has shape \(3,\): it must be \(2, 3\)"),
        (lambda s: s.act([[0.0, 0.0, np.nan]] * 2), "the observation is not finite"),
        (lambda s: s.observe(1.0, np.zeros((2, 3))), "observe tells what an action led to: call act first"),
        (lambda s: (s.act(np.zeros((2, 3))), s.observe(1.0, np.zeros((2, 3)))), r"the reward has shape \(\): it must"),
        (lambda s: s.new_task([True]), r"worlds has shape \(1,\): it must be \(2,\)"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(policy, do, said):
    with pytest.raises(UserError, match=said):
        do(policy.session(2))


def test_no_world_is_refused(policy):
    with pytest.raises(UserError, match="num_worlds = 0 is out of range"):
        policy.session(0)


def test_a_state_is_stored_and_taken_up_again(policy):
    session = policy.session(2)
    session.act(np.ones((2, 3)))
    tensors = state_tensors(session.state)
    again = load_state(policy, tensors)
    assert all(torch.equal(x, y) for x, y in zip(session.state, again, strict=True))
    with pytest.raises(ValueError, match=r"the state's cell is torch.float32 \(2, 4\), not \(2, 8\)"):
        load_state(policy, tensors | {"cell": torch.zeros(2, 4)})
    with pytest.raises(ValueError, match=r"do not match: \['cell'\]"):
        load_state(policy, {name: value for name, value in tensors.items() if name != "cell"})
    empty = RandomPolicy(info_of(3, 2))
    assert load_state(empty, state_tensors(empty.initial_state(2))) == NoState()


def test_rows_are_chosen_world_by_world(policy):
    one, other = policy.initial_state(2), policy.initial_state(2)._replace(memory=torch.ones(2, 8))
    assert select_rows(torch.tensor([True, False]), one, other).memory[:, 0].tolist() == [0.0, 1.0]
