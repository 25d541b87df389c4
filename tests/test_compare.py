"""experiments/compare.py: what it runs, what it leaves alone, and that a kill loses nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import wait_for

from metarl.cli.main import main
from metarl.core.config import configure, to_toml
from metarl.run import checkpoint

COMPARE = Path(__file__).parent.parent / "experiments" / "compare.py"
CONFIG = """
seeds = [1]
families = ["point-goal"]
[agents.ppo]
total_steps = 100
[agents.rl2]
total_steps = 1600
num_worlds = 4
checkpoint_minutes = 0.0
"""
TRAIN = ["--seed", "1", "--threads", "1", "--max-minutes", "0.0", "--total-steps"]
RL2 = [*TRAIN, "1600", "--num-worlds", "4", "--checkpoint-minutes", "0.0"]


@pytest.fixture
def place(tmp_path):
    """A comparison of two runs, one of which is recorded already."""
    (tmp_path / "compare.toml").write_text(CONFIG)
    done = tmp_path / "results" / "point-goal-ppo-s1"
    done.mkdir(parents=True)
    (done / "run.json").write_text("{}")
    fields = {"seed": 1, "threads": 1, "max_minutes": 0.0, "total_steps": 100}
    (done / "config.toml").write_text(to_toml(configure("ppo", "point-goal", fields)))
    return tmp_path


def compare(place, *options, stdout=subprocess.PIPE):
    words = [sys.executable, COMPARE, "compare.toml", "--runs", "runs", "--results", "results", *options]
    return subprocess.Popen(words, cwd=place, stdout=stdout, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def compare_here(place, monkeypatch):
    """The script's own `main`, in this process."""
    monkeypatch.syspath_prepend(str(COMPARE.parent))
    monkeypatch.chdir(place)
    from compare import main as compare_main

    return lambda *options: compare_main(["compare.toml", "--runs", "runs", "--results", "results", *options])


@pytest.mark.slow
def test_a_killed_comparison_goes_on_and_ends_as_if_nothing_had_happened(place):
    run, result = place / "runs" / "point-goal-rl2-s1", place / "results" / "point-goal-rl2-s1"
    process = compare(place)
    wait_for(lambda: checkpoint.existing(run / "checkpoints"), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    reached = checkpoint.load(checkpoint.find(run / "checkpoints"))[1].iteration
    assert reached < 10, "it was over before it was killed"

    process = compare(place)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "1/1 point-goal-rl2-s1: done" in out  # the other one was recorded already

    assert main(["train", "rl2", "point-goal", *RL2, "--output", str(place / "whole")]) == 0
    found, whole = (checkpoint.load(checkpoint.find(path / "checkpoints"))[1] for path in (run, place / "whole"))
    assert (found.iteration, found.sha256) == (whole.iteration, whole.sha256)
    assert len(list((result / "eval").glob("*.json"))) == 4  # test and ood, mean and sampled actions
    assert json.loads((result / "run.json").read_text())["resumed"][0]["after_iteration"] >= reached


def test_the_list_says_what_is_done_and_what_is_missing(compare_here, capsys):
    assert compare_here("--list") == 0
    assert capsys.readouterr().out.split() == ["done", "point-goal-ppo-s1", "missing", "point-goal-rl2-s1"]


def test_a_list_that_nobody_reads_to_its_end_ends_without_a_word(place):
    reads, writes = os.pipe()
    os.close(reads)
    process = compare(place, "--list", stdout=writes)
    os.close(writes)
    assert process.communicate()[1] == ""
    assert process.returncode == 141


def test_how_many_trainings_run_at_a_time_is_said_in_the_file_or_by_jobs(compare_here, place, capsys):
    import compare

    (place / "compare.toml").write_text("processes = 3" + CONFIG)
    where = place / "compare.toml", place / "runs", place / "results"
    assert compare.load(*where).jobs == 3
    assert compare.load(*where, jobs=2).jobs == 2
    assert compare_here("--jobs", "0") == 2
    assert "0 trainings at a time: it must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["compare", "adaptation", "headroom", "settings", "families", "ablations", "updates", "gradients"]
)
def test_what_is_recorded_is_of_the_settings_that_its_file_says(name, tmp_path, monkeypatch, capsys):
    """A default that changes must not make the recorded comparisons those of other settings."""
    monkeypatch.syspath_prepend(str(COMPARE.parent))
    from compare import main as compare_main

    results = COMPARE.parent / "results" / (name if name in ("ablations", "updates", "gradients") else "compare")
    file = COMPARE.parent / f"{name}.toml"
    assert compare_main([str(file), "--runs", str(tmp_path), "--results", str(results), "--list"]) == 0
    assert "done" in capsys.readouterr().out.split()


def test_what_was_recorded_with_other_settings_is_not_taken_for_done(place, compare_here, capsys):
    (place / "compare.toml").write_text(CONFIG.replace("total_steps = 100\n", "total_steps = 200\n"))
    assert compare_here() == 2
    said = capsys.readouterr().err
    assert "results/point-goal-ppo-s1 is of other settings (total_steps is 100, not 200)" in said
    assert "delete it to run it anew" in said


def test_what_was_recorded_before_there_was_an_option_is_of_what_it_was_then(place, compare_here, capsys):
    """RL² without mirror images, when nobody could ask for them, is not RL² with them."""
    record = place / "results" / "point-goal-rl2-s1"
    record.mkdir()
    (record / "run.json").write_text("{}")
    fields = {"seed": 1, "threads": 1, "max_minutes": 0.0, "total_steps": 1600, "num_worlds": 4}
    text = to_toml(configure("rl2", "point-goal", fields | {"checkpoint_minutes": 0.0}))
    (record / "config.toml").write_text(text)
    assert compare_here("--list") == 0
    (record / "config.toml").write_text(text.replace("estimator_size = 128\n", ""))
    assert compare_here("--list") == 0, "it acts and learns to act as ever"
    (record / "config.toml").write_text(text.replace("mirror = true\n", ""))
    assert compare_here("--list") == 2
    assert "results/point-goal-rl2-s1 is of other settings (mirror is False, not True)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (CONFIG.replace("point-goal", "point-gaol"), "'point-gaol'"),
        (CONFIG.replace("agents.rl2", "agents.rl3"), "'rl3'"),
        (CONFIG.replace("seeds", "seed"), "'seed'"),
        (CONFIG.replace("[1]", "[]"), "seeds must be a list of whole numbers, and name at least one"),
        (CONFIG.replace("[1]", "5"), "seeds must be a list of whole numbers, and name at least one"),
        (CONFIG + "seeds = 5", "agents.rl2: seeds must be a list of whole numbers, and name at least one"),
        (
            CONFIG + 'families = ["point-gaol"]',
            "unknown family 'point-gaol' (did you mean 'point-goal'?)",
        ),
        (CONFIG + "[agents.rl2.point-gaol]", "unknown family 'point-gaol'"),
        (
            CONFIG + '[agents.rl2.point-goal]\nagent = "ppo"',
            "agents.rl2.point-goal: agent stands in [agents.rl2] alone",
        ),
        (CONFIG.replace("[1]", "[1"), "compare.toml"),
    ],
)
def test_a_mistake_is_named_before_anything_runs(place, compare_here, capsys, changed, said):
    (place / "compare.toml").write_text(changed)
    assert compare_here() == 2
    assert said in capsys.readouterr().err
    assert not (place / "runs").exists()


def test_an_agent_may_be_there_with_several_settings_or_on_some_families_alone(compare_here, place, capsys):
    elsewhere = '[agents.sac]\nfamilies = ["point-goal-sparse"]\n'
    (place / "compare.toml").write_text(CONFIG + elsewhere + '[agents.ppo-history]\nagent = "ppo"\nhistory = 4\n')
    import compare
    import comparison

    runs = compare.load(place / "compare.toml", place / "runs", place / "results").runs
    assert [run.name for run in runs] == ["point-goal-ppo-s1", "point-goal-rl2-s1", "point-goal-ppo-history-s1"]
    assert (runs[-1].settings["agent"], runs[-1].settings["history"]) == ("ppo", 4)
    folder = place / "compare" / runs[-1].name
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('agent = "ppo"\nfamily = "point-goal"\nseed = 1\n')
    assert comparison.label(compare.Run(folder)) == "ppo-history"


def test_an_agent_may_have_seeds_of_its_own_on_one_family_others_and_first_seeds_come_first(place):
    import compare

    own = "[agents.sac]\nseeds = [2]\n[agents.sac.point-goal-sparse]\nseeds = [1, 3]\n"
    text = CONFIG.replace('["point-goal"]', '["point-goal", "point-goal-sparse"]').replace(
        "[agents.rl2]", own + "[agents.rl2]"
    )
    (place / "compare.toml").write_text(text)
    runs = compare.load(place / "compare.toml", place / "runs", place / "results").runs
    assert [(run.family, run.seed) for run in runs if run.label == "sac"] == [
        ("point-goal-sparse", 1),
        ("point-goal", 2),
        ("point-goal-sparse", 3),
    ]
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    assert {run.seed for run in runs if run.label == "ppo"} == {1}
