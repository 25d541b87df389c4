"""Policies that never trained, and what `eval` and `video` are told to look at."""

import re
from pathlib import Path

import pytest
import torch
from families import Rail
from robots import info_of

from metarl.cli.eval import EvalOptions
from metarl.cli.video import VideoOptions
from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.rl.policy import Policy
from metarl.rl.scripted import UNTRAINED, RandomPolicy, ZeroPolicy
from metarl.run import subject
from metarl.run.collect import collect
from metarl.run.evaluate import evaluate
from metarl.run.records import Origin
from metarl.run.subject import subject_of, trained
from metarl.sim.mujoco.mujoco_env import MujocoEnv


def play(policy, num_worlds, seed=0, deterministic=True):
    """A trial of two episodes of the toy's tasks."""
    env = MujocoEnv(Rail(), num_worlds, episodes_per_trial=2, threads=1)
    tasks = Rail.space.fixed("test", num_worlds)
    return collect(env, policy, tasks, seeding.key(seed, "test"), deterministic=deterministic)


@pytest.mark.parametrize("kind", UNTRAINED.values())
def test_they_fulfil_the_protocol_of_policies(kind):
    policy = kind(info_of(7, 3))
    assert isinstance(policy, Policy)
    action, _ = policy.act(torch.zeros(5, 7), policy.initial_state(5), torch.zeros(5, policy.noise_size))
    assert (action.shape, action.dtype) == ((5, 3), torch.float32)


def test_zero_does_nothing():
    assert not play(ZeroPolicy(info_of(2, 1)), 3).action.any()


def test_random_is_uniform_and_of_the_noise_alone():
    first, again, other = (play(RandomPolicy(info_of(2, 1)), 4, seed).action for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not (first == other).any()
    assert torch.equal(first, play(RandomPolicy(info_of(2, 1)), 4, deterministic=False).action)
    policy, noise = RandomPolicy(info_of(1, 2)), seeding.normal(0, torch.arange(100), 0, 100, 2, "cpu")
    drawn = torch.stack(
        [policy.act(torch.zeros(100, 1), policy.initial_state(100), row)[0] for row in noise]
    )  # 20,000 numbers: their mean is known to 0.004, their variance to 0.002
    assert drawn.abs().max() <= 1.0
    assert abs(float(drawn.mean())) < 0.02
    assert float(drawn.var()) == pytest.approx(1 / 3, abs=0.01)
    assert len(drawn.unique()) > 19_000


def test_a_world_s_draws_do_not_depend_on_how_many_there_are():
    """So that a video of four tasks shows the first four of an evaluation of a hundred."""
    policy = RandomPolicy(info_of(2, 1))
    returns = [evaluate(policy, Rail(), Rail.space.fixed("test", n), 2, threads=1).returns for n in (4, 9)]
    assert (returns[0] == returns[1][:4]).all()


def test_a_look_is_described():
    look = subject_of(Path("point-goal"), "random", None)
    assert look.origin.title("4 test tasks") == "random on point-goal: 4 test tasks, untrained"
    assert (look.episodes, look.run, look.policy.info.action_size) == (2, None, 2)
    assert look.origin == Origin(agent="random", family="point-goal", adapts=False)


def test_a_family_or_a_run_in_the_other_s_place_is_explained(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"^point-goal is a family, not a run folder: add --agent zero or --agent rand"):
        trained(Path("point-goal"))
    with pytest.raises(UserError, match=r"^robot.py:Robot is a family, not a run folder"):
        trained(Path("robot.py:Robot"))
    with pytest.raises(UserError, match=r"is not a run folder: it has no config.toml"):
        trained(tmp_path)
    (tmp_path / "config.toml").touch()
    with pytest.raises(UserError, match=re.escape(f"{tmp_path} is a run folder, which has an agent of its own: leave")):
        subject_of(tmp_path, "zero", None)
    monkeypatch.setattr(subject, "_is_run", lambda path: True)
    assert subject_of(Path("point-goal"), "zero", None).run is None, "a run folder may have the name of a family"


@pytest.mark.parametrize(
    ("options", "given", "sentence"),
    [
        (EvalOptions, {"checkpoint": "iteration-000001"}, "--agent zero never trained and takes no --checkpoint"),
        (VideoOptions, {"checkpoint": "iteration-000001"}, "--agent zero never trained and takes no --checkpoint"),
        (EvalOptions, {"stochastic": True}, "--agent zero never trained and takes no --stochastic"),
    ],
)
def test_options_of_trained_agents_are_refused(options, given, sentence):
    with pytest.raises(UserError, match=sentence):
        options(Path("point-goal"), agent="zero", **given)
    with pytest.raises(UserError, match=r"unknown agent without training 'zreo' \(did you mean 'zero'\?\)"):
        options(Path("point-goal"), agent="zreo")


def test_the_options_offer_what_there_is():
    for agent in UNTRAINED:
        assert EvalOptions(Path("point-goal"), agent=agent).agent == agent
    with pytest.raises(UserError, match=f"available: {', '.join(sorted(UNTRAINED))}$"):
        EvalOptions(Path("point-goal"), agent="none")
