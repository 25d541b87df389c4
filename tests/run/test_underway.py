"""Trainings whose trials run on from iteration to iteration go on bit for bit, in the midst of trials."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from metarl.core.config import configure
from metarl.core.errors import UserError
from metarl.run import checkpoint
from metarl.run.run import Run
from metarl.run.sessions import resume, started, train
from metarl.run.underway import Clocks

CART = f"{Path(__file__).parents[1]}/external_family.py:CartGoal"
SMALL = {"hidden_size": 8, "num_epochs": 1, "minibatch_chunks": 4, "chunk_steps": 5, "segment_steps": 10}
WORLDS, TRIAL, PLACES = 5, 40, 4


def config(family, iterations=9, agent="rl2", **changes):
    """Iterations of ten steps of five worlds, at four places of trials of 2 x 20 steps; a checkpoint after each."""
    values = {
        "num_worlds": WORLDS,
        "episode_steps": TRIAL // 2,
        "episodes_per_trial": 2,
        "staggered": True,
        "threads": 1,
    }
    values |= {"seed": 3, "validation_tasks": 0, "checkpoint_minutes": 0.0, "total_steps": iterations * 10 * WORLDS}
    known = {name: value for name, value in SMALL.items() if agent == "rl2" or name != "minibatch_chunks"}
    return configure(agent, family, values | known | changes)


def stop_after(iterations):
    left = iter(range(iterations - 1))
    return [lambda _: next(left, None) is not None]


def tensors(path):
    return checkpoint.load(checkpoint.find(Run(path).checkpoints))[0]


def metrics(path):
    rows = Run(path).metrics
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


@pytest.mark.parametrize("steps", [0, 1, 7, 8, 9, 40])
@pytest.mark.parametrize("begun", [[0, 3, 5], [0, 0, 0], [2, 4, 6], [1, 1, 0]])
def test_clocks_know_where_worlds_are_and_whose_tasks_they_have(begun, steps):
    """Counted step by step, trials of eight steps."""
    begun = torch.tensor(begun)
    step, trial, turn, whole = begun.clone(), *(torch.zeros(3, dtype=torch.long) for _ in range(3))
    turns = 0
    for _ in range(steps):
        step += 1
        over = step == 8
        turns += bool(over.any())
        whole += over & ((begun == 0) | (trial > 0))
        trial += over
        turn, step = torch.where(over, turns, turn), step.masked_fill(over, 0)
    clocks = Clocks(begun, 8, steps)
    assert clocks.turns() == turns
    found = clocks.step, clocks.trial, clocks.turn(), clocks.whole
    assert [one.tolist() for one in found] == [one.tolist() for one in (step, trial, turn, whole)]


# Faults and commands that come in mid-trial, ground that differs, sensors that mislead, and a simulator of its own.
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("quadruped-faults", {}),
        ("quadruped-command-wide", {"shards": 2, "cell": "gru"}),
        ("quadruped-hidden-actuation", {"cell": "transformer", "window": 4}),
        ("half-cheetah-terrain", {"curriculum": "difficulty", "cell": "memory"}),
        (CART, {"cell": "lru"}),
        ("quadruped-signs", {"mirror": True}),
        (
            "quadruped-signs",
            {"agent": "rma", "mirror": True, "student_share": 0.5, "batch_size": 25, "student_size": 8},
        ),
    ],
)
def test_a_training_that_was_stopped_in_mid_trial_is_one_that_was_not(tmp_path, family, changes):
    train(config(family, **changes), tmp_path / "whole")
    train(config(family, **changes), tmp_path / "run", callbacks=stop_after(1))
    for iterations in (2, 3, 1):
        resume(tmp_path / "run", callbacks=stop_after(iterations))
    resume(tmp_path / "run")
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "run")
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    assert whole["underway/actions"].shape[:2] == (TRIAL, WORLDS), "of a trial, however long the training"
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "run")


def test_what_was_collected_and_not_learnt_from_is_collected_again(tmp_path):
    seldom = config("point-goal", checkpoint_minutes=1e6)  # once: where it ends
    with started(tmp_path / "run", seldom, []) as training:
        update = training.learner.update

        def fails(*given):
            if training.iteration == 5:
                raise UserError("no more")
            return update(*given)

        training.learner.update = fails
        with pytest.raises(UserError, match="no more"):
            training.execute(Console(quiet=True))
    assert Run(tmp_path / "run").manifest().iteration == 5
    resume(tmp_path / "run")
    train(config("point-goal"), tmp_path / "whole")
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "run")
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def rewritten(path, change):
    """Change a run's newest checkpoint, its checksum with it."""
    found = checkpoint.find(Run(path).checkpoints)
    state, manifest = checkpoint.load(found)
    change(state)
    facts = {"iteration": manifest.iteration, "total_steps": manifest.total_steps, "elapsed": manifest.elapsed}
    checkpoint.save(Run(path).checkpoints, state, **facts)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("actions", lambda value: value[:-1]),
        ("actions", lambda value: value[:, :, 1:]),
        ("actions", lambda value: value[0]),
        ("begun", lambda value: -value),
        ("begun", lambda value: value.float()),
        ("state/1", lambda value: value[1:]),
        ("returns", None),
    ],
)
def test_trials_under_way_of_other_worlds_are_refused(tmp_path, name, change):
    path = tmp_path / "run"
    train(config("point-goal", 2), path)

    def damage(state):
        value = state.pop(f"underway/{name}")
        if change is not None:
            state[f"underway/{name}"] = change(value).contiguous()

    rewritten(path, damage)
    with pytest.raises(UserError, match=r"iteration-000002 does not fit this run's configuration: .*trials under way"):
        resume(path, total_steps=200)


def test_a_checkpoint_from_before_there_were_any_begins_new_trials(tmp_path):
    path = tmp_path / "run"
    train(config("point-goal", 2), path)
    rewritten(path, lambda state: [state.pop(name) for name in list(state) if name.startswith("underway/")])
    assert resume(path, total_steps=4 * 10 * WORLDS).manifest().iteration == 4
    assert "underway/actions" in tensors(path)
