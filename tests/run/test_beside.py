"""What is told of a training while it runs: evaluations beside it, TensorBoard, trackers."""

import sys
import types

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import metarl
from metarl.core.errors import UserError
from metarl.run.beside import validated, validation_tasks
from metarl.run.track import Tracker

SMALL = {"num_worlds": 4, "episode_steps": 10, "total_steps": 400, "checkpoint_minutes": 1e9, "validation_tasks": 2}


class Wandb(types.ModuleType):
    """A stand-in for the module: keeps what it is told."""

    def __init__(self):
        super().__init__("wandb")
        self.inits, self.logs, self.finished = [], [], 0

    def init(self, **options):
        self.inits.append(options)
        return self

    def log(self, numbers, step):
        self.logs.append((step, numbers))

    def finish(self):
        self.finished += 1

    @staticmethod
    def Image(pixels):  # noqa: N802
        return pixels.shape


@pytest.fixture
def wandb(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", made := Wandb())
    return made


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same training twice: with an evaluation whenever one is over and a tracker, and without."""
    folder, tracker = tmp_path_factory.mktemp("runs"), Wandb()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "wandb", tracker)
        options = {"evaluate_every": 1e-9, "track": "wandb"}
        evaluated = metarl.train("rl2", "point-goal", output=folder / "evaluated", **options, **SMALL)
        plain = metarl.train("rl2", "point-goal", output=folder / "plain", **SMALL)
    return evaluated, plain, tracker


def test_what_is_learned_is_the_same_bit_for_bit(runs):
    evaluated, plain, _ = runs
    tensors = [next(run.checkpoints.glob("*/tensors.safetensors")).read_bytes() for run in (evaluated, plain)]
    assert tensors[0] == tensors[1]


def test_the_curve_is_that_of_the_policy_as_it_was_on_tasks_of_no_training(runs):
    evaluated, _, _ = runs
    first = next(row for row in evaluated.metrics if "evaluation/total_steps" in row)
    assert first["evaluation/total_steps"] == evaluated.metrics[0]["total_steps"]
    config, family = evaluated.config(), evaluated.family()
    begun = metarl.train(
        "rl2", "point-goal", output=evaluated.path.parent / "first", **SMALL, callback=lambda metrics: False
    )
    tasks = validation_tasks(family, config, 2)
    returns = validated(begun.policy(), family, config, tasks).returns.mean(axis=0)
    assert [first["evaluation/return_1"], first["evaluation/return_2"]] == returns.tolist()
    assert not set(tasks.ids) & set(family.space.fixed("test", 100).ids)


def test_tensorboard_has_the_curve_and_pictures(runs):
    evaluated, plain, _ = runs
    board = EventAccumulator(str(evaluated.path / "tensorboard")).Reload()
    steps = [event.step for event in board.Scalars("evaluation/return_2")]
    assert steps[0] == evaluated.metrics[0]["total_steps"] and steps == sorted(set(steps))
    pictures = board.Images("evaluation/pictures")
    assert [event.step for event in pictures] == steps
    assert (pictures[0].width, pictures[0].height) == (6 * 256, 2 * 144)
    assert "evaluation/return_2" not in EventAccumulator(str(plain.path / "tensorboard")).Reload().Tags()["scalars"]


def test_a_tracker_is_told_what_is_logged_by_those_that_ask_for_it(runs, wandb):
    run, _, tracker = runs
    assert [step for step, _ in tracker.logs] == [row["total_steps"] for row in run.metrics]
    assert tracker.logs[0][1]["rollout/return_last"] == run.metrics[0]["rollout/return_last"]
    assert any(numbers.get("evaluation/pictures") == (288, 1536, 3) for _, numbers in tracker.logs)
    assert len(tracker.inits) == tracker.finished == 1
    assert tracker.inits[0]["name"] == "evaluated" and tracker.inits[0]["config"]["family"] == "point-goal"
    Tracker("wandb", run)  # as when it goes on
    assert wandb.inits[0]["id"] == tracker.inits[0]["id"] and wandb.logs == []


def test_a_tracker_that_fails_does_not_end_the_training(tmp_path, wandb, monkeypatch):
    def fail(numbers, step):
        raise OSError("nobody answers")

    monkeypatch.setattr(wandb, "log", fail)
    with pytest.warns(UserWarning, match="wandb is told no more: nobody answers"):
        run = metarl.train("rl2", "point-goal", output=tmp_path / "run", track="wandb", **SMALL)
    assert run.metrics[-1]["total_steps"] >= 400


@pytest.mark.parametrize(("name", "message"), [("wandb", "pip install wandb"), ("wandbb", "did you mean 'wandb'")])
def test_a_tracker_that_is_not_there_is_one_sentence(tmp_path, monkeypatch, name, message):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=message):
        metarl.train("rl2", "point-goal", output=tmp_path / "run", track=name, **SMALL)
    assert not (tmp_path / "run").exists()
