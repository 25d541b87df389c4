"""Training, stopping and resuming, on trials short enough for a test."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from waiting import has_lines, wait_for

from metarl.agents.configs import RL2Config
from metarl.core.config import TrainConfig
from metarl.core.errors import UserError
from metarl.run import checkpoint, folder
from metarl.run.logs import MetricsFile, console
from metarl.run.metrics import together
from metarl.run.run import Run
from metarl.run.train import Training

FAMILY = f"{os.path.dirname(__file__)}/../short_family.py:ShortDir"


def config(segment_steps=0, **changes):
    learner = RL2Config(cell="lstm", hidden_size=16, chunk_steps=5, minibatch_chunks=16, num_epochs=1)
    values = {"seed": 3, "total_steps": 6 * 8 * 20, "num_worlds": 8, "threads": 1}
    return TrainConfig("rl2", FAMILY, replace(learner, segment_steps=segment_steps), **(values | changes))


def metrics_of(run):
    """Metrics without the times, which differ from run to run."""
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


def final_state(run):
    return checkpoint.load(checkpoint.find(run.checkpoints))[0]


def train(path, **changes):
    run = folder.create(path, config(**changes), ["train"])
    Training(run, run.config()).execute(console())
    return run


@pytest.mark.parametrize("segment_steps", [0, 5])
def test_resume_after_n_iterations_is_bit_identical_to_never_stopping(tmp_path, segment_steps):
    """Also with four updates in the course of each trial."""
    whole = train(tmp_path / "whole", segment_steps=segment_steps)
    stopped = folder.create(tmp_path / "stopped", config(segment_steps), ["train"])
    first = Training(stopped, stopped.config())
    terminate_in_iteration(first, 2)
    first.execute(console())
    assert first.iteration == 2
    second = Training(stopped, stopped.config())
    second.restore()
    outcome = second.execute(console())
    assert outcome.finished
    assert metrics_of(stopped) == metrics_of(whole)
    assert len(metrics_of(whole)) == 6
    assert {row["train/gradient_steps"] for row in metrics_of(whole)} == {4.0 if segment_steps else 2.0}
    for name, value in final_state(whole).items():
        assert torch.equal(value, final_state(stopped)[name]), name


def test_an_iteration_whose_updates_are_several_says_what_they_say_together():
    first = {
        "rollout/return_last": 1.0,
        "rollout/diverged": 2.0,
        "time/update": 0.5,
        "train/kl": 0.1,
        "physics/lost": 0.2,
    }
    last = {"rollout/return_last": 3.0, "rollout/diverged": 1.0, "time/update": 0.25, "train/kl": 0.3}
    found = together([first | {"train/gradient_steps": 8.0}, last | {"train/gradient_steps": 8.0}])
    assert found == pytest.approx(
        {
            "rollout/return_last": 3.0,
            "rollout/diverged": 3.0,
            "time/update": 0.75,
            "train/kl": 0.2,
            "physics/lost": 0.1,
            "train/gradient_steps": 16.0,
        }
    )


def test_what_fails_in_the_course_of_a_trial_leaves_the_checkpoint_that_is_there(tmp_path):
    """An iteration of which two updates are made and two are not is none to go on from."""
    run = folder.create(tmp_path / "run", config(segment_steps=5), ["train"])
    training = Training(run, run.config())
    collect, calls = training.collect, []

    def failing(part=0):
        calls.append(part)
        if calls == [0, 1, 2, 3, 0, 1, 2]:
            raise UserError("the plug is pulled")
        return collect(part)

    training.collect = failing
    with pytest.raises(UserError, match="the plug is pulled"):
        training.execute(console())
    assert not checkpoint.existing(run.checkpoints)


def terminate_in_iteration(training, iterations):
    """Send this process SIGTERM in the course of an iteration, as a scheduler would."""
    iterate = training._iterate

    def iterate_and_signal():
        if training.iteration + 1 == iterations:
            os.kill(os.getpid(), signal.SIGTERM)
        return iterate()

    training._iterate = iterate_and_signal


def test_metrics_written_after_the_checkpoint_are_dropped_on_resume(tmp_path):
    run = train(tmp_path / "run", total_steps=2 * 8 * 20)
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 3, "total_steps": 480}\n{"iteration": 4, "tot')
    training = Training(run, run.config())
    training.restore()
    training.execute(console())
    assert [line["iteration"] for line in metrics_of(run)] == [1, 2]


def test_the_run_folder_says_how_it_came_about(tmp_path):
    run = train(tmp_path / "run", total_steps=1)
    content = json.loads((run.path / "run.json").read_text())
    assert content["command"] == "metarl train"
    assert content["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert {"system", "cpu", "num_cpus"} <= content["machine"].keys()
    assert run.config() == config(total_steps=1)
    assert list((run.path / "tensorboard").glob("events.*"))
    assert len(metrics_of(run)) == 1


def test_a_folder_in_use_is_not_overwritten(tmp_path):
    (tmp_path / "precious").write_text("data")
    with pytest.raises(UserError, match="exists and is not empty"):
        folder.create(tmp_path, config(), [])
    assert (tmp_path / "precious").read_text() == "data"


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    run = train(tmp_path / "run", total_steps=1)
    text = (run.path / "config.toml").read_text().replace("hidden_size = 16", "hidden_size = 32")
    (run.path / "config.toml").write_text(text)
    with pytest.raises(checkpoint.CheckpointError, match="does not fit this run's configuration") as caught:
        run.policy()
    assert "\n" not in str(caught.value)


def test_max_minutes_stops_saves_and_reports(tmp_path):
    run = folder.create(tmp_path / "run", config(), ["train"])
    training = Training(run, run.config())
    outcome = training.execute(console(), max_minutes=1e-9)
    assert (outcome.iteration, outcome.finished, outcome.signal) == (1, False, None)
    assert checkpoint.find(run.checkpoints).name == "iteration-000001"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_prints_the_resume_command(tmp_path, number, code):
    words = ["train", "rl2", FAMILY, "--output", str(tmp_path / "run"), "--total-steps", "100000000"]
    options = ["--num-worlds", "8", "--chunk-steps", "5", "--threads", "1"]
    command = [sys.executable, "-m", "metarl.cli.main", *words, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(has_lines(tmp_path / "run" / "metrics.jsonl"), process)
    process.send_signal(number)
    output, _ = process.communicate()
    assert process.returncode == code, output
    assert f"continue with: metarl resume {tmp_path / 'run'}" in output
    assert f"{number.name}: finishing iteration" in output
    assert "Traceback" not in output
    checkpoint.load(checkpoint.find(tmp_path / "run" / "checkpoints"))


def test_resuming_keeps_the_tensorboard_curve(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = folder.create(tmp_path / "run", config(), ["train"])
    first = Training(run, run.config())
    terminate_in_iteration(first, 2)
    first.execute(console())
    second = Training(run, run.config())
    second.restore()
    second.execute(console())
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("rollout/return_last")] == [160 * k for k in range(1, 7)]


def test_a_full_disk_under_the_metrics_is_one_sentence(tmp_path, monkeypatch):
    run = folder.create(tmp_path / "run", config(), ["train"])
    training = Training(run, run.config())

    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        close = flush

    log = MetricsFile(run.path)
    log._file.close()
    log._file = Full()
    monkeypatch.setattr("metarl.run.books.MetricsFile", lambda *_: log)
    with pytest.raises(UserError, match=r"cannot write .*metrics.jsonl: No space left"):
        training.execute(console())


def test_damaged_metrics_are_not_overwritten(tmp_path):
    run = train(tmp_path / "run", total_steps=1)
    (run.path / "metrics.jsonl").write_text("not json\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        MetricsFile(run.path, 1)
    assert (run.path / "metrics.jsonl").read_text() == "not json\n"


def test_a_reader_that_goes_away_stops_the_run_with_everything_saved(tmp_path):
    """`metarl train ... | head -1`."""
    words = ["train", "rl2", FAMILY, "--output", str(tmp_path / "run"), "--total-steps", "100000000"]
    command = [sys.executable, "-u", "-m", "metarl.cli.main", *words, "--num-worlds", "8", "--chunk-steps", "5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "training rl2" in process.stdout.readline()
        process.stdout.close()
        assert process.wait() == 141
        assert "Traceback" not in process.stderr.read()
    checkpoint.load(checkpoint.find(tmp_path / "run" / "checkpoints"))


def test_a_run_stopped_before_its_first_checkpoint_begins_again(tmp_path):
    whole = train(tmp_path / "whole", total_steps=320)
    run = folder.create(tmp_path / "stopped", config(total_steps=320), ["train"])
    training = Training(run, run.config())
    training.restore()
    training.execute(console())
    assert metrics_of(run) == metrics_of(whole)


def test_a_mistake_after_some_iterations_keeps_them(tmp_path):
    run = folder.create(tmp_path / "run", config(), ["train"])
    training = Training(run, run.config())
    iterate = training._iterate

    def fail_in_the_third():
        if training.iteration == 2:
            raise UserError("reward term 'x' is nan")
        return iterate()

    training._iterate = fail_in_the_third
    with pytest.raises(UserError, match="reward term"):
        training.execute(console())
    assert checkpoint.find(run.checkpoints).name == "iteration-000002"


def test_a_run_in_use_is_refused(tmp_path):
    run = train(tmp_path / "run", total_steps=1)
    with folder.locked(run.path), pytest.raises(UserError, match="is in use"), folder.locked(run.path):
        pass
    with folder.locked(run.path):
        pass


def test_what_is_told_after_each_iteration_may_end_the_training(tmp_path):
    run = folder.create(tmp_path / "run", config(), ["train"])
    training, told = Training(run, run.config()), []

    def until_the_third(metrics):
        told.append(metrics["rollout/return_last"])
        return len(told) < 3

    outcome = training.execute(console(), callbacks=[until_the_third])
    assert (outcome.iteration, outcome.finished, outcome.signal) == (3, False, None)
    assert told == [line["rollout/return_last"] for line in metrics_of(run)]
    assert checkpoint.find(run.checkpoints).name == "iteration-000003"


def test_a_damaged_resume_sets_nothing_aside(tmp_path):
    run = train(tmp_path / "run", checkpoint_minutes=0.0, total_steps=320)
    (run.path / "metrics.jsonl").write_bytes(b"\xff\xfe not text\n")
    training = Training(run, run.config())
    training.restore("iteration-000001")
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        training.execute(console())
    assert checkpoint.find(run.checkpoints).name == "iteration-000002"


def test_a_curriculum_widens_the_range_and_leaves_the_rest_of_the_draws(tmp_path):
    """Over the velocity of the half-cheetah, for 10 iterations: the whole range from the sixth on."""
    changes = {"family": "half-cheetah-vel", "total_steps": 10 * 8 * 400, "curriculum": "velocity"}
    training = Training(Run(tmp_path), replace(config(), **changes))
    plain = Training(Run(tmp_path), replace(config(), **changes | {"curriculum": ""}))
    assert training.num_iterations == 10
    fastest = [float(training.sample_tasks(number)["velocity"].max()) for number in range(10)]
    for number in range(10):
        opened = min(1.0, 0.1 + 0.9 * number / 5)
        expected = opened * plain.sample_tasks(number)["velocity"]
        torch.testing.assert_close(training.sample_tasks(number)["velocity"], expected)
    assert fastest[0] <= 0.3
    assert max(fastest[5:]) > 2.0


def test_a_curriculum_over_an_unknown_parameter_is_refused_before_training(tmp_path):
    changes = {"family": "half-cheetah-vel", "curriculum": "velocty"}
    with pytest.raises(UserError, match=r"unknown task parameter 'velocty' .did you mean 'velocity'"):
        Training(Run(tmp_path), replace(config(), **changes))


def test_a_fixed_list_of_training_tasks_is_the_same_in_every_run(tmp_path):
    changes = {"family": "half-cheetah-vel", "train_tasks": 5, "total_steps": 20 * 8 * 400}
    drawn = set()
    for seed in (3, 4):
        training = Training(Run(tmp_path), replace(config(), seed=seed, **changes))
        drawn |= {value for number in range(20) for value in training.sample_tasks(number)["velocity"].tolist()}
    assert drawn == set(training.family.space.fixed("train", 5)["velocity"].tolist())


def test_a_list_and_a_curriculum_exclude_each_other():
    with pytest.raises(UserError, match="train_tasks = 5 is out of range: it must be 0 with a curriculum"):
        replace(config(), train_tasks=5, curriculum="velocity")
