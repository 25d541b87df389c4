"""Steps that are captured and replayed are the steps: on the CPU worked with as a GPU, by Warp's kernels."""

import pytest
import torch
from as_on_a_gpu import copied, on_a_gpu
from disturbed import Everywhere
from families import Rail
from torch.utils._pytree import tree_leaves

from metarl.agents.configs import RL2Config
from metarl.agents.rl2 import RL2
from metarl.core import graphs, seeding
from metarl.run.collect import Stepper
from metarl.sim.make import make_env


def segments_of(captures, family, worlds=3, steps=4, number=4, replays=True, **words):
    with on_a_gpu(captures):
        env = make_env(family, worlds, physics="warp", threads=1)
        small = {"hidden_size": 8, "chunk_steps": 2, "num_epochs": 1, "minibatch_chunks": 4}
        config = RL2Config(segment_steps=steps, **small, **words)
        learner = RL2(config, env.info, seeding.generator(0, "init"))
        numbers = iter(range(1, 100))

        def next_tasks():
            n = next(numbers)
            return env.family.space.sample("train", worlds, seeding.rng(0, "tasks", n)), torch.full((worlds,), n)

        first = env.family.space.sample("train", worlds, seeding.rng(0, "tasks", 0))
        clock = torch.arange(worlds) % 2 * steps
        key = seeding.key(0, "collect")
        env.replayable = captures is not None
        stepper = Stepper(env, learner.policy, first, key, next_tasks=next_tasks, clock=clock)
        found = []
        for i in range(number):
            wanted = {"privileged": learner.wants_privileged, "every": learner.kept_every}
            segment = stepper.segment(learner.behaviour, steps, learner.record, **wanted)
            found.append(copied({**vars(segment), "extras": dict(segment.extras), "returns": stepper.returns}))
            learner.update(segment, seeding.generator(0, "update", i), 0.0)
        if captures:
            (rollout,) = stepper._rollouts.values()
            assert rollout._replay.replays == replays
        return found, learner.state_dict()


def same(one, other):
    return all(
        torch.equal(x, y) for x, y in zip(tree_leaves(one), tree_leaves(other), strict=True) if torch.is_tensor(x)
    )


@pytest.mark.parametrize("family", [Rail(edge=0.01)], ids=["rail"])
def test_replayed_segments_are_the_collector_s(family):
    """Falls, ends of trials at different times, other tasks, and policies that have learnt, included."""
    ordinary, settled, replayed = (segments_of(captures, family) for captures in (None, False, True))
    for others in (settled, replayed):
        for one, other in zip(ordinary[0], others[0], strict=True):
            for name, value in one.items():
                assert same(value, other[name]), name
        assert same(ordinary[1], others[1]), "the learner"
    assert torch.stack([segment["terminated"] for segment in ordinary[0]]).any()


@pytest.mark.parametrize(
    "words",
    [
        {"cell": "lru"},
        {"cell": "transformer", "window": 3},
        {"cell": "memory"},
        {"policy_head": "hyper"},
        {"policy_head": "belief"},
        {"memory_steps": 2},
        {"privileged_critic": True, "task_weight": 0.1, "estimator_size": 0},
        {"task_weight": 0.1, "estimator_size": 8},
    ],
    ids=str,
)
def test_every_option_s_steps_are_replayed_as_they_are(words):
    ordinary, replayed = (segments_of(captures, Rail(edge=0.01), number=3, **words) for captures in (None, True))
    for one, other in zip(ordinary[0], replayed[0], strict=True):
        for name, value in one.items():
            assert same(value, other[name]), name
    assert same(ordinary[1], replayed[1]), "the learner"


def test_a_capture_that_fails_is_told_of_and_done_without(monkeypatch, capsys):
    """At whatever place of the step; the segments are the same."""
    expected = segments_of(False, Rail(edge=0.01), number=2)
    record, calls = RL2.record, []

    def waits(*arguments):
        calls.append(graphs.capture())
        if graphs.capture():
            arguments[1].sum().item()
        return record(*arguments)

    monkeypatch.setattr(RL2, "record", waits)
    found = segments_of(True, Rail(edge=0.01), number=2, replays=False)
    assert sum(map(bool, calls)) == 1
    assert (
        "the control step is not captured as a CUDA graph, and slower: _local_scalar_dense" in capsys.readouterr().err
    )
    assert all(same(one[name], other[name]) for one, other in zip(expected[0], found[0], strict=True) for name in one)
    assert same(expected[1], found[1])


def test_disturbed_steps_are_replayed_too():
    """What disturbances remember lies where a captured step looks for it."""
    (ordinary, _), (replayed, _) = (segments_of(captures, Everywhere(), number=3) for captures in (None, True))
    for one, other in zip(ordinary, replayed, strict=True):
        assert same(one, other)
