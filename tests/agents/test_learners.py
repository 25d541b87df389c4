"""The contract every learner of the table fulfils, with its default configuration, and that the check finds faults."""

import pytest
import torch

from metarl.agents import LEARNERS
from metarl.check.learner import check_learner
from metarl.core import seeding
from metarl.core.config import train_defaults
from metarl.core.registry import learner_class, learner_config_class
from metarl.envs.half_cheetah import HalfCheetahDir
from metarl.rl.learner import Learner
from metarl.rl.policy import Policy, ReadOut
from metarl.run.collect import collect
from metarl.sim.mujoco.mujoco_env import MujocoEnv

ALL = pytest.mark.parametrize("name", LEARNERS)


class Short(HalfCheetahDir):
    episode_steps = 10


def env_of(name, episodes=0):
    """A trial has as many episodes as the learner asks for."""
    asked = train_defaults(learner_config_class(name)).get("episodes_per_trial", 2)
    return MujocoEnv(Short(), 4, episodes_per_trial=episodes or asked, threads=1)


def make(name, env, seed=0):
    return learner_class(name)(learner_config_class(name)(), env.info, seeding.generator(seed, "init"))


def train(learner, env, numbers):
    for number in numbers:
        tasks = env.family.space.sample("train", 4, seeding.rng(0, "tasks", number))
        key = seeding.key(0, "collect", number)
        wants = {"record": learner.record, "privileged": learner.wants_privileged}
        segment = collect(env, learner.behaviour, tasks, key, **wants)
        metrics = learner.update(segment, seeding.generator(0, "update", number), 0.1)
    return metrics


def evaluate(learner, env, seed=0):
    tasks = env.family.space.fixed("test", 4)
    return collect(env, learner.policy, tasks, seeding.key(seed, "evaluate"), deterministic=True)


@ALL
def test_it_keeps_the_contract(name):
    findings = check_learner(name)
    assert [f"{what}: {said}" for what, right, said in findings if not right] == []
    assert len(findings) == 8


@ALL
def test_what_is_read_out_of_a_state_is_a_row_of_numbers_per_world_that_the_trial_changes(name):
    env = env_of(name)
    policy = make(name, env).policy
    if not isinstance(policy, ReadOut):
        return
    before = policy.read_out(policy.initial_state(4))
    after = policy.read_out(evaluate(make(name, env), env).final_state)
    assert before.keys() == after.keys() and before
    for key, value in after.items():
        assert value.shape == before[key].shape and len(value) == 4 and bool(torch.isfinite(value).all())
        assert not torch.equal(value, before[key])


@ALL
def test_the_same_seed_gives_the_same_learner(name):
    states = []
    for _ in range(2):
        env = env_of(name)
        learner = make(name, env)
        assert isinstance(learner, Learner) and isinstance(learner.policy, Policy)
        train(learner, env, [0, 1])
        states.append(learner.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@ALL
def test_evaluation_is_deterministic_and_takes_any_number_of_episodes(name):
    learner = make(name, env_of(name))
    first, second = (evaluate(learner, env_of(name, episodes=3)) for _ in range(2))
    assert torch.equal(first.reward, second.reward)
    assert first.episode_returns(3).shape == (4, 3)


# ------------------------------------------------------------------------------------------- what the check finds

FAULTY = """
from typing import NamedTuple
import torch
from metarl.agents.configs import RL2Config
from metarl.agents.rl2 import RL2

class Base(RL2):
    Config = RL2Config
    def __init__(self, config, info, generator, device="cpu"):
        super().__init__(RL2Config(hidden_size=8, num_epochs=1), info, generator, device)

class Sound(Base): pass

class ForgetsOptimiser(Base):
    def state_dict(self):
        return {k: v for k, v in super().state_dict().items() if not k.startswith("adam/")}

class ForgetsATensor(Base):
    def load_state_dict(self, state):
        norm = self.return_norm
        self.return_norm = type(norm)()
        super().load_state_dict(state)
        self.return_norm = norm

class CountsInSecret(Base):
    count = 0
    def update(self, segment, generator, progress):
        self.count += 1
        if self.count > 1:
            generator.manual_seed(self.count)
        return super().update(segment, generator, progress)

class SaysNaN(Base):
    def update(self, segment, generator, progress):
        return super().update(segment, generator, progress) | {"loss": float("nan")}

class SaysATensor(Base):
    def update(self, segment, generator, progress):
        return super().update(segment, generator, progress) | {"loss": torch.ones(())}

class WrongShape(Base):
    def __init__(self, *arguments, **words):
        super().__init__(*arguments, **words)
        act = self.policy.act
        self.policy.act = lambda *a: (act(*a)[0][:, :1], act(*a)[1])

class NotFinite(WrongShape):
    def __init__(self, *arguments, **words):
        Base.__init__(self, *arguments, **words)
        act = self.policy.act
        self.policy.act = lambda *a: (act(*a)[0] / 0.0, act(*a)[1])

class Odd(NamedTuple):
    memory: torch.Tensor
    generator: torch.Generator

class StateOfMore(Base):
    def __init__(self, *arguments, **words):
        super().__init__(*arguments, **words)
        self.policy.initial_state = lambda n, device="cpu": Odd(torch.zeros(n, 1), torch.Generator())

class OtherNames(Base):
    def state_dict(self):
        return {k.replace("policy/", "networks/"): v for k, v in super().state_dict().items()}
    def load_state_dict(self, state):
        super().load_state_dict({k.replace("networks/", "policy/"): v for k, v in state.items()})

class Shared(Base):
    def state_dict(self):
        return super().state_dict() | {"policy/network.raw_log_std": self.policy.network.raw_log_std.data}

class Breaks(Base):
    def update(self, segment, generator, progress):
        raise KeyError("x")
"""


@pytest.mark.parametrize(
    ("name", "what", "said"),
    [
        ("Sound", None, ""),
        ("ForgetsOptimiser", "resumption", "an optimiser's moments or a counter"),
        ("ForgetsATensor", "resumption", "load_state_dict does not bring back return_norm/count"),
        ("CountsInSecret", "resumption", "an optimiser's moments or a counter"),
        ("SaysNaN", "metrics", "the metric 'loss' is nan: it must be a finite number"),
        ("SaysATensor", "metrics", "the metric 'loss' is tensor(1.): it must be a finite number"),
        ("WrongShape", "actions", "actions of 3 worlds have shape (3, 1), not (3, 2)"),
        ("NotFinite", "actions", "actions are not finite numbers"),
        ("StateOfMore", "state", "the adaptation state's generator is a Generator, not a tensor"),
        ("OtherNames", "policy alone", "state_dict has no tensors named 'policy/...'"),
        ("Shared", "copies", "training on changes a state_dict taken before, as its policy/network.raw_log_std"),
        ("Breaks", "metrics", "it raises KeyError: 'x'"),
    ],
)
def test_the_check_finds(name, what, said, tmp_path):
    (tmp_path / "mine.py").write_text(FAULTY)
    found = {what: said for what, right, said in check_learner(f"{tmp_path}/mine.py:{name}") if not right}
    if what is None:
        assert found == {}
    else:
        assert said in found[what]
