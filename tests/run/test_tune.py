"""Searches: what is tried, given up, counted, kept through interruptions, and written."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tomllib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from optuna.trial import TrialState
from rich.console import Console
from waiting import has_lines, wait_for

from metarl.agents import LEARNERS
from metarl.cli.main import main
from metarl.core.config import TrainConfig, load_config, train_defaults
from metarl.core.errors import UserError
from metarl.core.parameters import Between, Log, OneOf
from metarl.core.registry import learner_config_class
from metarl.run import checkpoint
from metarl.run.run import Run
from metarl.run.study import Plan, Study, declared_ranges, mended
from metarl.run.tune import Tuner

LEARNER = f"{Path(__file__).parents[1]}/steady_learner.py"
STEADY = f"{LEARNER}:Steady"
STEPS = 200


def plan(**changes):
    """Five iterations of 4 worlds and 10 steps, ten of 2 worlds; the best is near push = 0."""
    learner = learner_config_class(STEADY)(**changes)
    base = TrainConfig(STEADY, "point-goal", learner, total_steps=STEPS, num_worlds=4, threads=1)
    base = replace(base, episodes_per_trial=1, episode_steps=10)
    return Plan(base, declared_ranges(base), num_tasks=8)


def search(path, the_plan, trials):
    path.mkdir(exist_ok=True)
    made = Tuner(path, the_plan, ["tune"], Console(quiet=True))
    made.run(trials)
    return made.study


def tune(*words):
    try:
        return main(["tune", *(str(word) for word in words)])
    except SystemExit as error:
        return error.code


def started(*words):
    """The same in a process of its own."""
    command = [sys.executable, "-m", "metarl.cli.main", "tune", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def outcomes(study):
    return [(trial.state, trial.params, trial.values) for trial in study.trials]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study of ten trials in one session, and its folder."""
    path = tmp_path_factory.mktemp("study") / "whole"
    return search(path, plan(), 10), path


def test_the_default_is_first_and_the_best_is_the_highest_return(whole):
    study, path = whole
    first, trials = study.trials[0], study.trials
    assert first.params == {"push": 0.5, "laps": 2, "num_worlds": 4}
    assert len(trials) == 10
    best = max((trial for _, trial in study.complete), key=lambda trial: trial.values[0])
    assert best.params["push"] < 0.3
    assert load_config(path / "best.toml") == study.plan.configuration(best.params)
    assert best.values[0] > first.values[0]
    text = (path / "best.toml").read_text()
    assert tomllib.loads(text)["learner"].keys() == {"push", "laps", "breaks_above", "seconds"}
    assert text.startswith("# metarl tune\n# 10 trials of 200 steps: ")
    assert f"default {first.values[0]:.4g}, best (trial {trials.index(best) + 1}) {best.values[0]:.4g}" in text
    assert f"#   push 0.5 -> {best.params['push']:.4g}" in text


def test_hopeless_trials_are_given_up_by_control_steps_and_lose_their_checkpoints(whole):
    """The first four complete; later ones behind three quarters of those before do not, from 2/5 of the steps."""
    study, path = whole
    complete = []
    for number, trial in enumerate(study.trials, 1):
        run = Run(path / f"trial-{number:03d}")
        taken = [json.loads(line)["total_steps"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        if number > 4 and trial.intermediate_values[80] < np.percentile(complete, 25):
            assert trial.state == TrialState.PRUNED
            assert list(trial.intermediate_values) == taken[-1:] == [80]  # whatever num_worlds
            assert not run.checkpoints.exists()
        else:
            assert trial.state == TrialState.COMPLETE
            assert taken[-1] == STEPS
            assert checkpoint.existing(run.checkpoints)
            complete.append(trial.intermediate_values[80])
    assert 4 < len(complete) < 10


def test_intermediate_values_are_the_objective_at_each_rung(whole):
    """A learner that never learns has the value that it ends with all the way."""
    trial = whole[0].trials[0]
    assert trial.intermediate_values == dict.fromkeys((80, 120, 160), trial.values[0])


def test_a_study_in_several_sessions_is_the_study_in_one(tmp_path, whole):
    """Beyond the random trials too: the sampler begins at the same place whoever ran the trials before."""
    for trials in (1, 9, 10):
        parts = search(tmp_path / "parts", plan(), trials)
        assert len(parts.trials) == trials
    assert outcomes(parts) == outcomes(whole[0])
    assert outcomes(search(tmp_path / "parts", plan(), 10)) == outcomes(parts)


def test_another_seed_tries_something_else(tmp_path, whole):
    other = Plan(replace(plan().base, seed=1), plan().ranges, 8)
    assert search(tmp_path / "other", other, 2).trials[1].params != whole[0].trials[1].params


def test_a_killed_study_loses_and_doubles_nothing(tmp_path):
    """SIGKILL in the second trial, after two fifths of it; the trial goes on from its checkpoint, under its number."""
    config, study, uninterrupted = tmp_path / "base.toml", tmp_path / "study", tmp_path / "uninterrupted"
    head = f'agent = "{STEADY}"\nfamily = "point-goal"\nnum_worlds = 4\nepisode_steps = 10\n'
    head += "episodes_per_trial = 1\ncheckpoint_minutes = 0.0\n"
    config.write_text(f"{head}[learner]\nseconds = 0.1\n")
    words = [STEADY, "point-goal", "--config", config, "--trials", "3", "--steps", STEPS, "--num-tasks", "8"]
    words += ["--threads", "1", "--search", "push", "--output"]
    second = study / "trial-002" / "metrics.jsonl"
    with started(*words, study) as process:
        wait_for(has_lines(second, 3), process)
        process.kill()
    with (study / "journal.log").open("a") as journal:
        journal.write('{"op_code": 6, "wor')  # as if killed while writing
    with suppress(FileExistsError):  # it may have been killed while it had the lock
        os.symlink("journal.log", study / "journal.log.lock")
    assert tune(*words, study) == 0
    base = replace(load_config(config), total_steps=STEPS, threads=1)
    the_plan = Plan(base, declared_ranges(base, ("push",)), 8)
    hurried = Plan(replace(base, learner=replace(base.learner, seconds=0.0)), the_plan.ranges, 8)
    resumed, whole = Study(study, the_plan), search(uninterrupted, hurried, 3)
    assert outcomes(resumed) == outcomes(whole)
    assert [t.intermediate_values for t in resumed.trials] == [t.intermediate_values for t in whole.trials]
    assert sorted(path.name for path in study.glob("trial-*")) == ["trial-001", "trial-002", "trial-003"]
    assert [json.loads(line)["iteration"] for line in second.read_text().splitlines()] == [1, 2, 3, 4, 5]
    (entry,) = json.loads((second.parent / "run.json").read_text())["resumed"]
    assert entry["after_iteration"] >= 2


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(tmp_path):
    config = tmp_path / "base.toml"
    config.write_text(f'agent = "{STEADY}"\nfamily = "point-goal"\n[learner]\nseconds = 0.05\n')
    study = tmp_path / "study"
    words = [STEADY, "point-goal", "--config", str(config), "--output", str(study), "--threads", "1"]
    metrics = study / "trial-001" / "metrics.jsonl"
    with started(*words) as process:
        wait_for(has_lines(metrics), process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate()
    assert process.returncode == 130, output
    assert f"20 trials left; go on with: metarl tune {' '.join(words)}" in output
    assert "Traceback" not in output
    checkpoint.load(checkpoint.find(study / "trial-001" / "checkpoints"))


def test_several_trainings_at_once_are_tried_and_booked_each_once(tmp_path, whole):
    (tmp_path / "study").mkdir()
    made = Tuner(tmp_path / "study", plan(), ["tune"], Console(quiet=True))
    made.run(6, jobs=3)
    study = made.study
    assert sorted(trial.user_attrs["number"] for trial in study.trials) == [1, 2, 3, 4, 5, 6]
    alone = {str(trial.params): trial.values for trial in whole[0].trials}
    for number, trial in study.complete:
        run = Run(tmp_path / "study" / f"trial-{number:03d}")
        assert replace(run.config(), threads=1) == study.plan.configuration(trial.params)
        assert trial.values == alone.get(str(trial.params), trial.values)
    assert str(study.trials[0].params) in alone
    number, best = study.best
    assert load_config(tmp_path / "study" / "best.toml") == study.plan.configuration(best.params)
    assert f"(trial {number})" in (tmp_path / "study" / "best.toml").read_text()


def test_a_mistake_of_the_default_stops_the_others_that_run(tmp_path):
    (tmp_path / "study").mkdir()
    made = Tuner(tmp_path / "study", plan(breaks_above=0.4, seconds=0.05), ["tune"], Console(quiet=True))
    with pytest.raises(UserError, match="reward term"):
        made.run(6, jobs=2)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_several_trainings_saved_and_the_same_command_goes_on(tmp_path, number):
    config, study = tmp_path / "base.toml", tmp_path / "study"
    config.write_text(f'agent = "{STEADY}"\nfamily = "point-goal"\n[learner]\nseconds = 0.1\n')
    words = [STEADY, "point-goal", "--config", config, "--output", study, "--threads", "1", "--trials", "2"]
    words += ["--steps", "16000", "--num-tasks", "4", "--jobs", "2"]
    logs = [study / f"trial-00{trial}" / "metrics.jsonl" for trial in (1, 2)]
    with started(*words) as process:
        for log in logs:
            wait_for(has_lines(log), process)
        process.send_signal(number)
        output, _ = process.communicate()
    assert process.returncode == 128 + number, output
    assert "2 trials left; go on with: " in output and "Traceback" not in output
    reached = [checkpoint.load(checkpoint.find(log.parent / "checkpoints"))[1].iteration for log in logs]
    assert tune(*words) == 0
    for log, iteration in zip(logs, reached, strict=True):
        (entry,) = json.loads((log.parent / "run.json").read_text())["resumed"]
        assert entry["after_iteration"] == iteration > 0


def test_time_ends_a_session_in_the_midst_of_a_trial_or_the_trial_itself(tmp_path):
    (tmp_path / "study").mkdir()
    ended = Tuner(tmp_path / "study", plan(seconds=0.01), ["tune"], Console(quiet=True)).run(3, max_minutes=1e-4)
    assert ended.out_of_time
    study = search(tmp_path / "study", plan(seconds=0.01), 1)
    (trial,) = study.trials
    assert trial.state == TrialState.COMPLETE
    lines = (tmp_path / "study" / "trial-001" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 5
    short = replace(plan(), trial_minutes=1e-6)
    (trial,) = search(tmp_path / "short", short, 1).trials
    assert trial.state == TrialState.COMPLETE
    assert len((tmp_path / "short" / "trial-001" / "metrics.jsonl").read_text().splitlines()) == 1


def test_the_best_configuration_trains_as_it_did_in_its_trial(tmp_path, capsys):
    """RL²: the search's evaluations leave the training as it is, and the file holds all of its configuration."""
    base = tmp_path / "base.toml"
    learner = "[learner]\nhidden_size = 8\nchunk_steps = 10\nminibatch_chunks = 32\nnum_epochs = 2\n"
    base.write_text(f'agent = "rl2"\nfamily = "point-goal"\nnum_worlds = 4\n{learner}')
    words = ["--steps", "320", "--trials", "2", "--num-tasks", "4", "--threads", "1", "--output", tmp_path / "study"]
    assert tune("rl2", "point-goal", "--config", base, *words) == 0
    printed = capsys.readouterr().out
    assert "num_worlds: 4, outside 16 | 32 | 64" in printed
    best = tmp_path / "study" / "best.toml"
    assert f"next: metarl train --config {best} --seed 1" in printed
    number = int(printed.split("best (trial ")[1][0])
    assert main(["train", "--config", str(best), "--output", str(tmp_path / "run")]) == 0
    state = checkpoint.load(checkpoint.find(tmp_path / "run" / "checkpoints"))[0]
    in_trial = checkpoint.load(checkpoint.find(tmp_path / "study" / f"trial-00{number}" / "checkpoints"))[0]
    assert state.keys() == in_trial.keys()
    assert all(torch.equal(state[name], in_trial[name]) for name in state)


def test_a_training_that_fails_is_a_failed_trial_unless_it_is_not_for_the_configuration(tmp_path, capsys):
    study = search(tmp_path / "some", plan(push=0.1, breaks_above=0.75), 5)
    states = [trial.state for trial in study.trials]
    assert TrialState.FAIL in states
    for trial in study.trials:
        assert (trial.state == TrialState.FAIL) == (trial.params["push"] > 0.75)
    assert "failed: reward term 'push' is inf" in capsys.readouterr().out
    with pytest.raises(UserError, match="reward term"):
        search(tmp_path / "default", plan(breaks_above=0.4), 3)
    assert not Study(tmp_path / "default", plan(breaks_above=0.4)).trials
    with pytest.raises(UserError, match="reward term"):
        search(tmp_path / "all", plan(push=0.0, breaks_above=1e-6), 9)
    assert len(Study(tmp_path / "all", plan(push=0.0, breaks_above=1e-6)).trials) == 3


def test_trials_made_otherwise_are_not_mixed(tmp_path):
    search(tmp_path, plan(), 1)
    with pytest.raises(UserError, match=r"holds trials with learner.laps = 2, not 3: go on with the options it was"):
        search(tmp_path, plan(laps=3), 2)
    narrower = Plan(plan().base, plan().ranges | {"laps": Between(1, 3)}, 8)
    with pytest.raises(UserError, match=r"search.laps = '1 to 4', not '1 to 3'"):
        search(tmp_path, narrower, 2)
    assert len(search(tmp_path, Plan(replace(plan().base, threads=2), plan().ranges, 8), 2).trials) == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["rl2", "point-gaol"], "unknown family 'point-gaol' (did you mean 'point-goal'?)"),
        (["rl3", "point-goal"], "unknown agent 'rl3' (did you mean 'rl2'?)"),
        (["point-goal", "rl2"], "tune takes AGENT FAMILY, as train does: metarl tune rl2 point-goal"),
        (["rl2", "point-goal", "--search", "lerning_rate"], "(did you mean 'learning_rate'?)"),
        (["rl2", "point-goal", "--trials", "0"], "trials = 0 is out of range"),
        (["rl2", "point-goal", "--config", "no.toml"], "cannot read no.toml"),
        ([f"{LEARNER}:SteadyNoRanges", "point-goal"], "declares nothing to search: write it at the fields of NoRanges"),
        ([f"{LEARNER}:SteadyWrongName", "point-goal"], "unknown field 'pusch' (did you mean 'push'?)"),
        ([f"{LEARNER}:SteadyWrongRange", "point-goal"], "push = (0.0, 1.0) must be a Between, Log or OneOf"),
        ([f"{LEARNER}:SteadyWrongEnd", "point-goal"], "num_worlds = 0 is out of range: it must be in [1, 65536]"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(words, expected, tmp_path, capsys):
    assert tune(*words) == 2
    assert expected in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / "precious").write_text("data")
    assert tune("rl2", "point-goal", "--output", tmp_path) == 2
    assert "exists and holds no study" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_without_optuna_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    for module in ("metarl.run.tune", "metarl.run.study"):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert tune("rl2", "point-goal") == 2
    assert capsys.readouterr().err == "metarl: metarl tune needs Optuna: pip install 'optuna>=5'\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("agent", LEARNERS)
def test_our_learners_declare_ranges_that_hold_their_defaults(agent):
    config_class = learner_config_class(agent)
    base = TrainConfig(agent, "point-goal", config_class(), **train_defaults(config_class))
    the_plan = Plan(base, declared_ranges(base), 1)
    assert all(the_plan.ranges[name].contains(value) for name, value in the_plan.default().items())
    assert the_plan.configuration(the_plan.default()) == base


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (Between, (1.0, 1.0)),
        (Between, (3, 2)),
        (Between, (0.0, float("inf"))),
        (Log, (0.0, 1.0)),
        (OneOf, (1,)),
        (OneOf, (1, 1)),
    ],
)
def test_a_range_without_room_is_refused(kind, arguments):
    with pytest.raises(UserError, match="must be"):
        kind(*arguments)


def test_a_range_knows_its_values():
    assert Between(0.1, 1.0).contains(0.1)
    assert not Between(0.1, 2.0).contains("learned")
    assert not Between(0, 2).contains(True)
    assert not OneOf(0, 1).contains(False)
    assert OneOf("all", "last").contains("last")


def test_a_journal_is_mended_up_to_its_last_whole_line(tmp_path):
    journal = tmp_path / "journal.log"
    assert mended(journal) == journal
    journal.write_text('{"a": 1}\n{"b"')
    assert mended(journal).read_text() == '{"a": 1}\n'
    journal.write_text('{"b"')
    assert mended(journal).read_text() == ""
