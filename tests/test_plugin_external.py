"""Environments with a simulator of their own, through the command line."""

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import imageio_ffmpeg
import pytest
from waiting import has_lines, wait_for

from metarl.cli.main import main
from metarl.run.records import EvaluationRecord
from metarl.sim.external.metaworld_suite import benchmark

ROOT = Path(__file__).parent.parent
TINY = ["--num-worlds", "8", "--chunk-steps", "5", "--hidden-size", "16", "--total-steps", "960", "--threads", "1"]
ZERO = ["--agent", "zero", "--split", "ood"]
SMALL = ["--grid", "2", "--width", "96", "--height", "64", "--episodes", "1"]
CART = f"{ROOT}/tests/external_family.py:CartGoal"


def run(*words):
    """Exit code of a command."""
    try:
        return main([str(word) for word in words])
    except SystemExit as error:
        return error.code


def test_an_environment_with_a_simulator_of_its_own_is_trained_evaluated_filmed_and_listed(tmp_path, capsys):
    assert run("train", "rl2", CART, "--output", tmp_path / "run", *TINY, "--threads", "2") == 0
    assert run("eval", tmp_path / "run", "--num-tasks", "5", "--split", "ood", "--json", tmp_path / "out.json") == 0
    assert len(json.loads((tmp_path / "out.json").read_text())["returns"]) == 5
    assert run("video", tmp_path / "run", *SMALL, "--output", tmp_path / "cart.mp4") == 0
    frames, _ = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "cart.mp4"))
    assert frames == 6 + 2 * 5 - 1, "six steps, and half a second where the episode begins and ends"
    assert run("eval", CART, "--agent", "zero", "--num-tasks", "3") == 0
    assert run("list", CART) == 0
    assert "goal: where to" in capsys.readouterr().out


def test_training_does_not_depend_on_the_number_of_processes(tmp_path):
    for threads in ("1", "2"):
        words = ("train", "rl2", CART, *TINY, "--seed", "4", "--output", tmp_path / threads)
        assert run(*words, "--threads", threads) == 0
    weights = [next((tmp_path / threads).glob("checkpoints/*/*.safetensors")).read_bytes() for threads in ("1", "2")]
    assert weights[0] == weights[1]


def test_a_run_ends_with_its_last_checkpoint_intact_where_a_worker_dies(tmp_path, capsys):
    """After 60 steps of each of its worlds, five iterations."""
    doomed = CART.replace("CartGoal", "Doomed")
    assert run("train", "rl2", doomed, "--output", tmp_path / "run", *TINY, "--total-steps", "9600") == 2
    error = capsys.readouterr().err
    assert re.fullmatch(
        r"metarl: .*/tests/carts.py:LateKilled lost its process to SIGKILL "
        r"\(world 0, task \{'goal': .*\}, seed \d+, step 1 of episode 1\)\n",
        error,
    )
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 5
    assert run("eval", tmp_path / "run", "--num-tasks", "2", "--json", tmp_path / "out.json") == 0
    assert json.loads((tmp_path / "out.json").read_text())["train_steps"] == 5 * 8 * 12
    assert run("resume", tmp_path / "run") == 2, "it goes on, and meets its fate again"
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 10


def test_ctrl_c_is_for_the_training_and_not_for_its_workers(tmp_path):
    words = ["train", "rl2", CART, *TINY, "--total-steps", "960000", "--output", str(tmp_path / "run")]
    command = [sys.executable, "-m", "metarl.cli.main", *words]
    training = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    wait_for(has_lines(tmp_path / "run" / "metrics.jsonl"), training)
    os.killpg(training.pid, signal.SIGINT)  # as Ctrl-C does
    said, _ = training.communicate()
    assert training.returncode == 130, said.decode()
    assert b"continue with: metarl resume" in said


def test_an_environment_is_checked_from_outside(capsys):
    assert run("check", CART) == 0
    printed = capsys.readouterr().out
    assert printed.endswith("CartGoal: 16 of 17 checks passed, 1 not checked\n")
    assert "2 observations, 1 actions; Python 3." in printed


@pytest.mark.parametrize(
    ("family", "line"),
    [
        ("Indifferent", "FAILED  every task parameter matters: the task parameter 'goal' changes neither observations"),
        ("Unrepeatable", "FAILED  the same seed gives the same trajectory: the same seed gives another observation"),
        ("Invisible", "--      a picture can be drawn (not checked: "),
        (
            "Told",
            "FAILED  the task is not told where an episode begins, nor by one element later: the first observation",
        ),
        (
            "ToldLater",
            "FAILED  the task is not told where an episode begins, nor by one element later: element 2 tells",
        ),
        ("Doomed", "FAILED  observation and reward stay finite in random play: "),
    ],
)
def test_what_is_wrong_with_an_environment_is_found(family, line, capsys):
    assert run("check", CART.replace("CartGoal", family)) == (2 if line.startswith("FAILED") else 0)
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    ("slip", "sentence"),
    [
        (
            "environment = None",
            "environment = None must be a string: a Gymnasium id, module:function or path/to/file.py",
        ),
        ("python = 3", "python = 3 must be the path of an interpreter, or None"),
        ("time_limit = 0", "time_limit = 0 must be a positive number (float) of seconds"),
        ("episode_steps = 2.5", "episode_steps = 2.5 must be a whole number"),
        ("space = None", "space = None must be a TaskSpace"),
    ],
)
def test_a_slip_in_an_external_family_is_one_sentence(slip, sentence, tmp_path, capsys):
    (tmp_path / "own.py").write_text(f"import sys\nsys.path.append({str(ROOT / 'tests')!r})\n")
    with (tmp_path / "own.py").open("a") as file:
        file.write(f"from external_family import CartGoal\nclass Own(CartGoal):\n    {slip}\n")
    assert run("list", f"{tmp_path}/own.py:Own") == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert len(captured.err.splitlines()) == 1


STAND_IN_SUITE = """
import gymnasium, numpy as np
from types import SimpleNamespace

class Robot(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (39,), np.float64)

    def __init__(self, render_mode, camera_name, width, height):
        self.model = SimpleNamespace(vis=SimpleNamespace(quality=SimpleNamespace()))

    def set_task(self, task):
        assert task.env_name == self.kind
        self.goal, self.steps = task.goal, 0

    def reset(self, seed=None, options=None):
        return np.zeros(39), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(39), self.goal, False, self.steps == 500, {"success": float(self.steps == 7 and self.goal > 25)}

def suite(train, test, seed):
    assert seed == 1
    classes = {kind: type(kind, (Robot,), {"kind": kind}) for kind in (*train, *test)}
    def tasks(kinds, first):
        return [SimpleNamespace(env_name=k, goal=float(first + v)) for k in kinds for v in range(50)]
    found = SimpleNamespace(train_tasks=tasks(train, 0), test_tasks=tasks(test, 50 if train == test else 0))
    found.train_classes, found.test_classes = {k: classes[k] for k in train}, {k: classes[k] for k in test}
    return found

def ML1(name, seed):
    return suite([name], [name], seed)

def ML10(seed):
    return suite([f"train-{k}" for k in range(10)], [f"test-{k}" for k in range(5)], seed)
"""
"""Meta-World in its words, for machines without it: a reward is the variation's number, and those above 25 succeed."""


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A Python of its own that has the stand-in."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    benchmark.cache_clear()
    place = tmp_path / "metarl" / "metaworld"
    venv.create(place, with_pip=False, symlinks=True)
    (site,) = place.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    (site / "metaworld.py").write_text(STAND_IN_SUITE)
    yield tmp_path
    benchmark.cache_clear()


def test_meta_world_by_name_returns_and_success_by_a_hand_count(suite):
    """Of every kind held out as many tasks as of the others; each is its own, over all episodes of a trial."""
    assert run("eval", "metaworld:ML10", *ZERO, "--num-tasks", "20", "--json", suite / "out.json") == 0
    content = json.loads((suite / "out.json").read_text())
    kinds = [task["kind"] for task in content["tasks"]]
    assert set(kinds) == {10, 11, 12, 13, 14}
    for task, returns, success in zip(*(content[key] for key in ("tasks", "returns", "success")), strict=True):
        assert returns == [500 * task["variation"]] * 2
        assert success == [task["variation"] > 25] * 2
    record = EvaluationRecord.read(suite / "out.json")
    assert record.success is not None and record.success.tolist() == content["success"]


def test_other_goals_of_ml1_are_its_test_tasks(suite):
    assert run("eval", "metaworld:ML1-reach", *ZERO, "--num-tasks", "3", "--json", suite / "out.json") == 0
    content = json.loads((suite / "out.json").read_text())
    assert all(task["variation"] >= 50 for task in content["tasks"])
    assert content["returns"] == [[500 * task["variation"]] * 2 for task in content["tasks"]]


def test_meta_worlds_names_and_its_python_are_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    benchmark.cache_clear()
    assert run("eval", "metaworld:ML10", *ZERO) == 2
    assert f"python3 -m venv {tmp_path}/metarl/metaworld && " in capsys.readouterr().err
    assert run("eval", "metaworld:ML11", *ZERO) == 2
    assert "unknown benchmark 'metaworld:ML11': there are metaworld:ML1-TASK" in capsys.readouterr().err


def test_the_benchmark_is_for_mujoco(capsys):
    assert run("bench", "--families", CART, "--seconds", "0.1") == 2
    assert "has a simulator of its own" in capsys.readouterr().err
