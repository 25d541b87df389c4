"""The policies that come with metarl: they load by name, do what they were recorded to do, and are left alone."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest

from metarl.cli.main import main
from metarl.core.errors import UserError
from metarl.rl.state import policy_alone
from metarl.run import checkpoint, pretrained, run as module
from metarl.run.evaluate import evaluate
from metarl.run.pretrained import MAX_BYTES, describe_pretrained, pretrained_names, recorded_evaluation
from metarl.run.run import Run
from metarl.run.statistics import mean_interval
from metarl.run.train import Training

ROOT = Path(__file__).parents[2]
NAMES = pretrained_names()


def digests(folder):
    """Every file under a folder, with what is in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", NAMES)
def test_it_reproduces_its_recorded_return(name):
    """A recorded evaluation anew: where the machine is the same, every return is; elsewhere, their mean agrees.

    An untrained policy, or one whose observations are normalised otherwise, is far outside the interval.
    """
    recorded = recorded_evaluation(name, "repeat")
    assert recorded.tasks.rows() == recorded_evaluation(name).tasks.rows()[: len(recorded.tasks)]
    run = Run.open(f"pretrained:{name}")
    again = evaluate(
        run.policy(),
        run.family(),
        recorded.tasks,
        recorded.returns.shape[1],
        seed=recorded.seed,
        deterministic=recorded.deterministic,
        threads=1,
        origin=run.origin(),
    ).returns
    mean, low, high = mean_interval(recorded.returns[:, -1])
    assert recorded.summary.adaptation_curve[-1] == (mean, low, high)
    assert low <= float(again[:, -1].mean()) <= high


@pytest.mark.parametrize("name", NAMES)
def test_it_is_called_what_it_was_measured_as(name):
    """A film or a table that calls a policy without memory an adapting one shows nothing."""
    run, recorded = Run.open(f"pretrained:{name}"), recorded_evaluation(name)
    assert run.origin().role == recorded.role
    assert (run.info.adapts, run.info.samples_first) == (run.policy().info.adapts, run.policy().info.samples_first)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small_and_holds_a_policy_alone(name):
    run = Run.open(f"pretrained:{name}")
    (path,) = checkpoint.existing(run.checkpoints)
    tasks = sum(len(json.dumps(one.to_json()["tasks"], indent=1)) for one in run.evaluations)  # by their parameters
    assert sum(file.stat().st_size for file in run.path.rglob("*.json")) - tasks < 100_000
    assert sum(file.stat().st_size for file in path.iterdir()) <= MAX_BYTES
    state, _ = checkpoint.load(path)
    assert policy_alone(state) == state
    recorded, config = recorded_evaluation(name), run.config()
    assert (recorded.agent, recorded.family) == (config.agent, config.family)
    assert (recorded.split, len(recorded.tasks)) == ("test", 100)


def test_there_is_one_and_the_list_names_it(capsys):
    assert NAMES
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for entry in describe_pretrained():
        assert f"pretrained:{entry['name']}: {entry['agent']} on {entry['family']}, return" in printed
    readme = (ROOT / "experiments" / "pretrained" / "README.md").read_text()
    assert all(f"| `{name}` |" in readme for name in NAMES), "python experiments/pretrain.py rewrites it"


def test_an_evaluation_leaves_the_package_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    subject, before = f"pretrained:{NAMES[0]}", digests(Run.open(f"pretrained:{NAMES[0]}").path)
    small = ["--num-tasks", "2", "--episodes", "1", "--json", "result.json"]
    assert main(["eval", subject, *small]) == 0
    assert digests(Run.open(f"pretrained:{NAMES[0]}").path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert "wrote" in capsys.readouterr().out


def test_an_unknown_name_is_told_the_nearest(capsys):
    wrong = NAMES[0][:-1]
    for verb in ("eval", "video"):
        assert main([verb, f"pretrained:{wrong}"]) == 2
        assert f"unknown pretrained policy '{wrong}' (did you mean '{NAMES[0]}'?)" in capsys.readouterr().err


def test_no_training_goes_on_from_it(capsys):
    assert main(["resume", f"pretrained:{NAMES[0]}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"metarl: pretrained:{NAMES[0]} is a policy alone") and error.count("\n") == 1


TINY = ["point-goal", "--episode-steps", "5", "--total-steps", "1", "--num-worlds", "2", "--threads", "1"]


@pytest.mark.parametrize(
    ("agent", "options"),
    [("rl2", []), ("maml-trpo", ["--episodes-per-trial", "6"]), ("pearl", ["--initial-steps", "10000"])],
)
def test_the_tool_makes_one_of_a_run(agent, options, tmp_path, monkeypatch, capsys):
    """Of every algorithm: its policy alone acts as the whole learner's does."""
    assert main(["train", agent, *TINY, *options, "--output", str(tmp_path / "run")]) == 0
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    import pretrain

    monkeypatch.setattr(pretrain, "RECORDED", {"test.json": 2})
    monkeypatch.setattr(pretrain, "ROOT", tmp_path / "made")
    for place in (module, pretrained):
        monkeypatch.setattr(place, "pretrained_root", lambda: tmp_path / "made")
    pretrain.pretrain(Run(tmp_path / "run"), "tiny")
    assert str(tmp_path) not in (tmp_path / "made" / "tiny" / "run.json").read_text()
    training = Training(Run(tmp_path / "run"), Run(tmp_path / "run").config())
    training.restore()
    alone = Run.open("pretrained:tiny")
    tasks, origin = training.family.space.fixed("test", 3), alone.origin()
    policies = (training.learner.policy, alone.policy())
    results = [evaluate(p, training.family, tasks, 2, threads=1, origin=origin).returns for p in policies]
    assert (results[0] == results[1]).all()
    assert "after" in origin.title("")
    shutil.copytree(tmp_path / "made" / "tiny", tmp_path / "copy")
    if agent != "maml-trpo":  # whose learner is its policy
        assert main(["resume", str(tmp_path / "copy")]) == 2
        assert "does not fit this run's configuration" in capsys.readouterr().err
    monkeypatch.setattr(pretrain, "MAX_BYTES", 10)
    with pytest.raises(UserError, match="those that come with metarl may take 10"):
        pretrain.pretrain(Run(tmp_path / "run"), "tiny")
    sys.modules.pop("pretrain")
