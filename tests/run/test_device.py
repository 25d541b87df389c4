"""One device for a run: its defaults, files of before, and runs that move from a GPU to the CPU and back."""

from pathlib import Path

import pytest
import torch
from as_on_a_gpu import needs_cuda, on_a_gpu
from families import Rail

import metarl
from metarl.agents.configs import RL2Config
from metarl.agents.rl2 import RL2
from metarl.bench.learners import learning
from metarl.bench.worlds import Place, stepping
from metarl.cli.parsing import parse_training
from metarl.core import seeding
from metarl.core.config import configure, load_config, to_toml
from metarl.core.errors import UserError
from metarl.run.collect import Stepper
from metarl.run.metrics import rollout_metrics
from metarl.run.run import env_options
from metarl.sim.make import make_env
from metarl.sim.mujoco.mujoco_env import MujocoEnv

RAIL = f"{Path(__file__).parent.parent}/families.py:Rail"
SMALL = {"num_worlds": 4, "segment_steps": 4, "hidden_size": 8, "validation_tasks": 2, "staggered": True}


def test_worlds_on_a_gpu_have_defaults_of_their_own_unless_told():
    words = ["rl2", "half-cheetah-vel", "--device", "cuda", "--num-worlds", "64"]
    for made in (
        configure("rl2", "half-cheetah-vel", {"device": "cuda", "num_worlds": 64}),
        parse_training(words).training,
    ):
        assert (made.num_worlds, made.staggered, made.learner.segment_steps) == (64, True, 50)
        assert made.learner.minibatch_chunks == 512
        assert env_options(made)["device"] == "cuda" and env_options(made)["physics"] is None
    for on in ({}, {"device": "cuda", "physics": "mujoco"}, {"physics": "warp"}):
        made = configure("rl2", "half-cheetah-vel", on)
        assert (made.num_worlds, made.staggered, made.learner.segment_steps) == (64, True, 100)
        assert env_options(made)["device"] == "cpu"


def test_what_a_file_lacks_is_as_by_default_on_its_device(tmp_path):
    file = tmp_path / "part.toml"
    whole = 'agent = "rl2"\nfamily = "quadruped-vel"\nnum_worlds = 64\n'
    for text, device in ((whole + 'device = "cuda"\n', {}), (whole, {"device": "cuda"})):
        file.write_text(text + "[learner]\nhidden_size = 32\n")
        words = ["--config", str(file), *(word for name, value in device.items() for word in (f"--{name}", value))]
        for made in (configure("rl2", "quadruped-vel", device, file), parse_training(words).training):
            assert (made.device, made.num_worlds, made.total_steps) == ("cuda", 64, 20_000_000)
            assert (made.learner.hidden_size, made.learner.segment_steps, made.learner.mirror) == (32, 50, False)
    file.write_text(to_toml(configure("rl2", "quadruped-vel", {})))
    made = configure("rl2", "quadruped-vel", {"device": "cuda"}, file)
    assert (made.num_worlds, made.learner.segment_steps, made.learner.mirror) == (64, 100, True)  # what it says


def test_a_learner_s_own_device_is_read_as_one_of_its_updates(tmp_path):
    """As version 0.2 wrote it: worlds stayed on the CPU."""
    text = 'agent = "pearl"\nfamily = "half-cheetah-vel"\n[learner]\ndevice = "{}"\n'
    for device, physics in (("cpu", ""), ("cuda", "mujoco")):
        (tmp_path / "old.toml").write_text(text.format(device))
        config = load_config(tmp_path / "old.toml")
        assert (config.device, config.physics) == (device, physics)


def test_only_segments_can_be_staggered(tmp_path):
    with pytest.raises(UserError, match="staggered = True: maml-trpo updates after whole trials"):
        metarl.train("maml-trpo", RAIL, output=tmp_path / "run", staggered=True)
    small = {"num_worlds": 2, "hidden_size": 8, "total_steps": 1, "validation_tasks": 0}
    whole = metarl.train("rl2", RAIL, output=tmp_path / "whole", segment_steps=0, **small)
    assert whole.config().staggered, "the learner's default, of no effect"
    assert whole.manifest().total_steps == 2 * whole.info.trial_steps


def test_returns_of_staggered_worlds_are_of_whole_trials():
    env, numbers = MujocoEnv(Rail(edge=9.0), 2, episodes_per_trial=2, threads=1), torch.zeros(2, dtype=torch.long)
    learner = RL2(RL2Config(hidden_size=8, segment_steps=4), env.info, seeding.generator(0, "init"))
    tasks = Rail.space.fixed("train", 2)
    clock, go_on = torch.tensor([0, 4]), lambda: (tasks, numbers)
    stepper = Stepper(env, learner.policy, tasks, 0, task_number=numbers, next_tasks=go_on, clock=clock)
    segments, completed = [], []
    for _ in range(3):
        segments.append(stepper.segment(learner.policy, 4))
        completed.append(stepper.completed.tolist())
    assert completed == [[False, False], [True, False], [True, True]]
    rewards = torch.stack([segment.reward.double().sum(dim=0) for segment in segments])
    expected = torch.stack((rewards[:2, 0], rewards[1:, 1]))
    torch.testing.assert_close(stepper.returns, expected)
    assert rollout_metrics(segments[-1], stepper.returns)["rollout/return_last"] == pytest.approx(expected[:, 1].mean())


@pytest.mark.parametrize("agent", ["rl2", "rma"])
def test_a_run_moves_from_a_gpu_to_the_cpu_and_back(tmp_path, agent):
    """It resumes, is evaluated and goes on; what the GPU's ways leave in a checkpoint is what the CPU's do."""
    with on_a_gpu():
        run = metarl.train(agent, RAIL, output=tmp_path / "run", physics="warp", total_steps=64, **SMALL)
    learnt = metarl.load(run).state_dict()
    assert metarl.evaluate(run, num_tasks=3).returns.shape == (3, 2)
    run = metarl.resume(run, total_steps=96, physics="mujoco")
    assert (run.config().physics, run.train_steps) == ("mujoco", 96)
    assert any(not torch.equal(value, learnt[name]) for name, value in metarl.load(run).state_dict().items())
    with on_a_gpu():
        run = metarl.resume(run, total_steps=128, physics="warp")
    assert run.train_steps == 128
    assert metarl.evaluate(run, num_tasks=3, physics="warp").num_diverged == 0


@needs_cuda
@pytest.mark.parametrize("agent", ["rl2", "varibad", "rma", "pearl", "maml-trpo", "ppo-oracle", "sac"])
def test_every_learner_trains_on_cuda_and_moves_to_the_cpu(tmp_path, agent):
    small = {
        "rl2": SMALL | {"chunk_steps": 4, "minibatch_chunks": 2},
        "varibad": {"num_worlds": 4},
        "rma": SMALL | {"chunk_steps": 4, "batch_size": 8},
        "pearl": {"num_worlds": 4, "num_updates": 90, "initial_steps": 20, "train_tasks": 4},
        "maml-trpo": {"num_worlds": 4, "shots": 1, "episodes_per_trial": 2},
        "sac": {"num_worlds": 4, "initial_steps": 20, "num_updates": 5},
    }
    run = metarl.train(agent, RAIL, output=tmp_path / "run", device="cuda", total_steps=240, **small.get(agent, {}))
    steps = run.train_steps
    assert metarl.evaluate(run, num_tasks=3).num_diverged == 0
    assert metarl.evaluate(run, num_tasks=3, device="cuda").num_diverged == 0
    assert metarl.resume(run, total_steps=steps + 1, device="cpu").train_steps > steps


@needs_cuda
def test_control_steps_are_captured_on_cuda():
    env = make_env(Rail(edge=0.01), 4, device="cuda")
    learner = RL2(RL2Config(hidden_size=8, segment_steps=4), env.info, seeding.generator(0, "init"), "cuda")
    tasks, numbers = Rail.space.fixed("train", 4), torch.zeros(4, dtype=torch.long)
    stepper = Stepper(env, learner.policy, tasks, 0, task_number=numbers, next_tasks=lambda: (tasks, numbers))
    for number in range(4):
        segment = stepper.segment(learner.policy, 4, learner.record, every=learner.kept_every)
        learner.update(segment, seeding.generator(0, "update", number), 0.0)
    (rollout,) = stepper._rollouts.values()
    assert rollout._replay.replays


def test_bench_measures_worlds_and_learners_as_on_a_gpu():
    place = Place(physics="warp")
    small = {"hidden_size": 8, "segment_steps": 4, "chunk_steps": 4, "staggered": True}
    with on_a_gpu():
        work = stepping(Rail(), 4, place) | learning("RL² LSTM 128", RAIL, 4, place, **small)
        done = {name: contender() for name, contender in work.items()}
    assert {name: each.steps for name, each in done.items()} == {
        "bare mujoco_warp": 4 * Rail.episode_steps,
        "TrialEnv, random actions": 4 * Rail.episode_steps,
        "RL² LSTM 128: collection": 16,
        "RL² LSTM 128: training iteration": 16,
    }
    assert set(done["RL² LSTM 128: training iteration"].times) == {"collect", "update"}
