"""Several processes that train one policy: the same to the bit, whatever their number, however uneven their shares."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from of_ranks import ANY_ORDER, CASES, config, environment, folder, in_processes, learned, trained

from metarl.api import evaluate
from metarl.cli.main import main
from metarl.run import evaluate as evaluator, ranks
from metarl.run.records import EvaluationRecord


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("alone")


@pytest.fixture(scope="module")
def alone(place):
    return trained(place, CASES)


def test_two_processes_train_every_learner_to_the_same_bit_as_one(place, alone, tmp_path):
    found = in_processes(2, tmp_path, [*CASES, ANY_ORDER])
    assert found.pop(ANY_ORDER) != alone["rl2"], "this sum depends on the number of processes"
    assert found == alone
    for name, value in learned(place, "rl2").items():
        torch.testing.assert_close(learned(tmp_path, ANY_ORDER)[name], value, rtol=1e-3, atol=1e-5)


UNEVEN = {"num_worlds": 5, "shards": 5, "hidden_size": 64}
"""A task each for five pieces, and gradients long enough to be added in stretches."""


@pytest.mark.slow
def test_three_and_four_processes_do_as_well_with_five_tasks(tmp_path):
    cases = [case for case in CASES if case != "pearl prototypes"]
    alone = trained(tmp_path / "1", cases, **UNEVEN)
    for size in (2, 3, 4):
        assert in_processes(size, tmp_path / str(size), cases, **UNEVEN) == alone, size


def test_processes_that_come_to_differ_are_stopped_in_a_sentence(tmp_path):
    """By a learner that moves its policy by the number of its process."""
    agent = f"{Path(__file__).parents[1] / 'short_family.py'}:Astray"
    words = [sys.executable, "-m", "metarl", "train", agent, config("rl2").family, "--num-worlds", "2"]
    words += ["--total-steps", "4000", "--validation-tasks", "0", "--output", str(tmp_path / "run")]
    (meeting := tmp_path / "meeting").mkdir()
    started = [subprocess.Popen(words, env=environment(meeting, number, 2)) for number in range(2)]
    assert [process.wait() for process in started] == [0, 0], "the launcher says it"
    told = (meeting / "ending").read_text()
    assert told == (
        "2 processes 0 and 1 differ in their policies' parameters, which had to be the same: they cannot train together"
    )
    assert folder(tmp_path, "run").exists()


def test_versions_configurations_and_code_are_what_processes_must_have_in_common(monkeypatch, tmp_path):
    code = tmp_path / "own.py"
    code.write_text("# one")

    def of(seed=0):
        return ranks._fingerprint(replace(config("rl2"), seed=seed, family=f"{code}:Own"))

    first = of()
    assert of() == first != of(seed=1)
    code.write_text("# another")
    assert of() != first
    code.write_text("# one")
    monkeypatch.setattr(ranks, "versions", lambda: {"torch": "0"})
    assert of() != first


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("10.0.0.7", True)])
def test_a_meeting_that_others_can_reach_is_warned_of(host, warned, capsys):
    ranks._warn_if_open(host)
    said = capsys.readouterr().err
    assert warned == ("asks nobody for a password" in said) == (host in said)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_long_list_of_tasks_is_evaluated_alike_by_any_number_of_processes(processes, tmp_path, monkeypatch):
    options = {"num_tasks": 300, "episodes": 1, "split": "test"}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    words = ["eval", "point-goal", "--agent", "random", *words, "--json", str(tmp_path / "eval.json")]
    assert main([*words, "--processes", str(processes)]) == 0
    monkeypatch.setattr(evaluator, "_BLOCK", 1000)
    whole = evaluate("point-goal", agent="random", deterministic=False, **options)
    found = EvaluationRecord.from_json(json.loads((tmp_path / "eval.json").read_text()))
    assert found.returns.tolist() == whole.returns.tolist()
    assert found.reward_by_step.tolist() == whole.reward_by_step.tolist()
