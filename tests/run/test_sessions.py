"""Training from Python: callbacks, runs trained further, limits of time, and the best checkpoint."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from metarl.agents.configs import RL2Config
from metarl.api import evaluate
from metarl.cli.main import main
from metarl.core import seeding
from metarl.core.config import TrainConfig
from metarl.core.errors import UserError
from metarl.run import checkpoint
from metarl.run.run import Run
from metarl.run.sessions import resume, resumed, started, train
from metarl.run.train import Training

FAMILY = f"{Path(__file__).parents[1]}/short_family.py:ShortDir"


def config(iterations=4, **changes):
    learner = RL2Config(cell="gru", hidden_size=8, chunk_steps=5, minibatch_chunks=16, num_epochs=1)
    values = {"seed": 3, "total_steps": iterations * 4 * 20, "num_worlds": 4, "threads": 1, "checkpoint_minutes": 0.0}
    return TrainConfig("rl2", FAMILY, learner, **(values | changes))


def metrics_of(run):
    rows = Run(run.path).metrics
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


def test_a_callback_is_told_the_metrics_and_may_stop(tmp_path):
    told = []
    run = train(config(), tmp_path / "run", callbacks=[told.append, lambda _: len(told) < 2])
    assert [row["rollout/return_last"] for row in told] == [row["rollout/return_last"] for row in metrics_of(run)]
    assert run.manifest().iteration == 2
    assert resume(run).manifest().iteration == 4


def test_a_run_of_before_goes_on_by_what_a_fall_forfeited_then(tmp_path):
    run = train(config(2), tmp_path / "run")
    path = run.path / "config.toml"
    assert 'trial = "falls"' in path.read_text()
    path.write_text(path.read_text().replace('trial = "falls"', 'trial = ""'))
    with resumed(run, [], total_steps=4 * 80) as training:
        assert training.env.trial == training.config.trial == "steps"
    assert resume(run, total_steps=4 * 80).config().trial == "steps"


def test_a_finished_run_is_trained_further_and_says_so(tmp_path):
    run = train(config(2), tmp_path / "run")
    shares = []

    def watched(training):
        update = training.learner.update
        training.learner.update = lambda s, g, progress: shares.append(progress) or update(s, g, progress)

    further = resume(run, total_steps=4 * 80)
    assert further.manifest().iteration == 4
    assert further.config() == replace(config(4), trial="falls"), "what a fall forfeits is kept"
    (entry,) = further.provenance()["resumed"]
    assert (entry["after_iteration"], entry["total_steps"]) == (2, 320)
    whole = train(config(4), tmp_path / "whole")
    assert [row["iteration"] for row in metrics_of(further)] == [1, 2, 3, 4]
    assert metrics_of(further)[0]["rollout/return_last"] == metrics_of(whole)[0]["rollout/return_last"]
    with started(tmp_path / "third", config(2), []) as training:
        training.iteration = 1
        watched(training)
        training._iterate()
    assert shares == [0.5], "the share of the length that the run has now"


def test_a_run_is_not_trained_to_less_than_it_has(tmp_path):
    run = train(config(2), tmp_path / "run")
    with pytest.raises(UserError, match=r"total_steps = 80: .*run has trained for 160 already"):
        resume(run, total_steps=80)
    with pytest.raises(UserError, match="is a policy alone"):
        resume("pretrained:half-cheetah-dir-rl2")


def test_resume_further_from_the_command_line(tmp_path, capsys):
    run = train(config(2), tmp_path / "run")
    assert main(["resume", str(run.path), "--total-steps", "240"]) == 0
    printed = capsys.readouterr().out
    assert "after iteration 2 of 3" in printed
    assert "240 steps in" in printed


def slowed(training, monkeypatch, seconds):
    """Each control step seems to take so long."""
    now, step = [0.0], type(training.env).step

    def slow(env, action):
        now[0] += seconds
        return step(env, action)

    monkeypatch.setattr(type(training.env), "step", slow)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])


def test_a_time_limit_ends_an_iteration_that_it_is_reached_in(tmp_path, monkeypatch):
    """Iterations of 20 control steps of 1 s: after 50 s, two are complete, and the third is given up."""
    with started(tmp_path / "run", config(validation_tasks=0), []) as training:
        slowed(training, monkeypatch, 1.0)
        outcome = training.execute(Console(quiet=True), max_minutes=50 / 60)
        assert (outcome.iteration, outcome.finished) == (2, False)
        assert outcome.out_of_time == pytest.approx(50 / 60)
        assert time.monotonic() == 50.0
    monkeypatch.undo()
    whole = train(config(), tmp_path / "whole")
    again = resume(tmp_path / "run")
    expected, found = (checkpoint.load(checkpoint.find(run.checkpoints))[0] for run in (whole, again))
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert metrics_of(again) == metrics_of(whole)


def test_the_command_line_says_which_limit_stopped_it(tmp_path, capsys):
    words = ["train", "rl2", FAMILY, "--num-worlds", "4", "--chunk-steps", "5", "--threads", "1"]
    assert main([*words, "--max-minutes", "0.000001", "--output", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "stopped by --max-minutes 1e-06 at iteration 1 of 62500: results will be below those of" in printed


# ------------------------------------------------------------------------------------------------ the best checkpoint


def test_validation_changes_nothing_of_the_training(tmp_path):
    runs = [train(config(validation_tasks=number), tmp_path / str(number)) for number in (0, 3)]
    assert metrics_of(runs[0]) == metrics_of(runs[1])
    first, second = (checkpoint.load(checkpoint.find(run.checkpoints))[0] for run in runs)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert runs[0].manifest().validation is None
    assert runs[1].manifest().validation is not None


def test_the_best_checkpoint_is_kept_beside_the_newest_and_found_by_name(tmp_path, monkeypatch):
    scores = iter([1.0, 9.0, 3.0, 2.0, 5.0])
    monkeypatch.setattr(Training, "_validation", lambda _: next(scores))
    run = train(config(5), tmp_path / "run")
    names = [path.name for path in checkpoint.existing(run.checkpoints)]
    assert names == ["iteration-000002", "iteration-000004", "iteration-000005"]
    assert checkpoint.find(run.checkpoints, "best").name == "iteration-000002"
    assert checkpoint.find(run.checkpoints).name == "iteration-000005"
    assert run.origin("best").iteration == 2
    monkeypatch.undo()
    assert main(["eval", str(run.path), "--checkpoint", "best", "--num-tasks", "2"]) == 0
    assert [record.iteration for record in Run(run.path).evaluations] == [2]
    best, newest = run.policy("best"), run.policy()
    assert any((a != b).any() for a, b in zip(best.parameters(), newest.parameters(), strict=True))


def test_without_validation_the_best_is_the_newest(tmp_path):
    run = train(config(3, validation_tasks=0), tmp_path / "run")
    assert checkpoint.find(run.checkpoints, "best") == checkpoint.find(run.checkpoints)


def test_validation_is_of_tasks_drawn_as_in_training_and_repeats(tmp_path, monkeypatch):
    asked, short = [], replace(config(validation_tasks=3), family="half-cheetah-vel", episode_steps=10)
    with started(tmp_path / "run", short, []) as one:
        evaluate = one.evaluate
        monkeypatch.setattr(one, "evaluate", lambda tasks: asked.append(tasks) or evaluate(tasks))
        assert one._validation() == one._validation()
        held_out = one.family.space.fixed("test", 1000)["velocity"].tolist()
        trained = [v for number in range(4) for v in one.sample_tasks(number)["velocity"].tolist()]
        one.save()
    drawn = one.family.space.sample("train", 3, seeding.rng(3, "validation"))["velocity"].tolist()
    assert [tasks["velocity"].tolist() for tasks in asked] == [drawn, drawn]
    assert not set(drawn) & {*held_out, *trained}


# -------------------------------------------------------------------------------------------------- what a run holds


def test_a_policy_is_loaded_without_a_simulator(tmp_path, monkeypatch):
    run = train(config(1), tmp_path / "run")
    record = evaluate(run, num_tasks=2)
    monkeypatch.setattr("metarl.sim.make.make_env", None)
    monkeypatch.setattr("metarl.run.run.make_family", None)
    assert Run.open(run.path).policy() is not None
    assert Run.open("pretrained:half-cheetah-vel-pearl").policy() is not None
    monkeypatch.undo()
    (run.path / "policy.json").unlink()
    assert Run(run.path).info == Run.open(run.path).info
    old = evaluate(Run(run.path), num_tasks=2)
    assert (old.returns == record.returns).all()


def test_records_come_back_as_they_were_written(tmp_path):
    run = train(config(1), tmp_path / "run")
    record = evaluate(run, num_tasks=3)
    path = run.write_evaluation(record)
    (read,) = run.evaluations
    assert read.source == path
    assert path.name == record.name == "test-3x2-deterministic-seed0-iteration1.json"
    assert read.origin == record.origin
    assert read.summary == record.summary
    assert read.time_to_adapt == record.time_to_adapt
    assert (read.returns == record.returns).all()
    assert read.reward_by_step == pytest.approx(record.reward_by_step)
    assert read.tasks.rows() == record.tasks.rows()
    assert read.diverged.tolist() == [0, 0, 0]
    assert read.to_json() == json.loads(path.read_text())
    assert "95 % interval" in read._repr_html_()
    assert "rl2 on" in read._repr_html_()


def test_a_report_does_not_take_the_name_of_the_users_evaluation(tmp_path, capsys):
    """`metarl eval RUN --json vel.json`, then `metarl report RUN --output vel.html`."""
    run = train(config(1), tmp_path / "run")
    assert main(["eval", str(run.path), "--num-tasks", "2", "--json", "vel.json"]) == 0
    before = Path("vel.json").read_bytes()
    assert main(["report", str(run.path), "--output", "vel.html", "--no-eval", "--no-videos"]) == 0
    assert Path("vel.json").read_bytes() == before
    assert json.loads(Path("vel-report.json").read_text())["title"].startswith("rl2 on")
    assert sorted(path.name for path in Path().iterdir() if path.is_file()) == [
        "vel-report.json",
        "vel.html",
        "vel.json",
    ]


def test_a_run_may_be_copied_and_renamed(tmp_path):
    run = train(config(2), tmp_path / "run")
    copy = Run(shutil.copytree(run.path, tmp_path / "copy"))
    assert replace(copy.config(), seed=0) == replace(run.config(), seed=0)
    assert resume(copy, total_steps=240).manifest().iteration == 3
    assert Run(run.path).manifest().iteration == 2
