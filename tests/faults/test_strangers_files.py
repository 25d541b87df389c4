"""Files from strangers: read within bounds of time and memory, refused in one sentence, and never run."""

import json
import os

import pytest
import torch

from metarl.core.config import read_toml
from metarl.core.errors import UserError
from metarl.core.files import read_json, read_text
from metarl.run import checkpoint
from metarl.run.records import EvaluationRecord
from metarl.run.run import Run

DEEP = 100_000


def refused(act, words=None):
    with pytest.raises(UserError, match=words) as caught:
        act()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def fifo(path):
    os.mkfifo(path)


def sparse(path):
    with path.open("wb") as file:
        file.truncate(2**40)


ODD = {
    "fifo": (fifo, "not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "folder": (lambda path: path.mkdir(), "not a regular file|Is a directory"),
    "1 TB": (sparse, "more than"),
    "dangling": (lambda path: path.symlink_to("nowhere"), "No such file"),
    "loop": (lambda path: path.symlink_to(path), "symbolic links"),
    "binary": (lambda path: path.write_bytes(b"\xff\xfe\x00"), "not a text in UTF-8"),
}
TEXTS = {
    "deep": '{"a": ' + "[" * DEEP + "]" * DEEP + "}",
    "digits": '{"a": ' + "9" * 5000 + "}",
    "long": '{"a": ' + "9" * 40 + "}",
    "nul": '{"a": "\0"}',
    "list": "[1]",
    "nothing": "",
    "torn": '{"a": 1',
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("read", [read_text, read_json, read_toml, EvaluationRecord.read], ids=lambda r: r.__name__)
def test_what_is_no_file_of_ours_is_refused(tmp_path, kind, read):
    make, words = ODD[kind]
    make(tmp_path / "file")
    refused(lambda: read(tmp_path / "file"), words)


@pytest.mark.parametrize("kind", TEXTS)
def test_odd_json_is_refused(tmp_path, kind):
    (tmp_path / "file").write_text(TEXTS[kind])
    refused(lambda: read_json(tmp_path / "file"), "is damaged")
    refused(lambda: EvaluationRecord.read(tmp_path / "file"))


@pytest.mark.parametrize("name", ["a\0b", "a" * 300, "\ud800"])
def test_odd_names_are_refused(tmp_path, name):
    refused(lambda: read_text(tmp_path / name))
    refused(lambda: Run.open(tmp_path / name).config())


@pytest.mark.parametrize("text", ["a = " + "[" * DEEP, "a = " + "9" * 5000, "a = '\0'", "agent ="])
def test_odd_toml_is_refused(tmp_path, text):
    (tmp_path / "config.toml").write_text(text)
    refused(lambda: Run.open(tmp_path).config_values, "not valid TOML")


@pytest.mark.parametrize("kind", ODD)
def test_tensors_that_are_no_file_of_ours_are_refused(tmp_path, kind):
    path = checkpoint.save(tmp_path, {"a": torch.ones(2)}, iteration=1, total_steps=1, elapsed=1.0)
    (path / "tensors.safetensors").unlink()
    ODD[kind][0](path / "tensors.safetensors")
    refused(lambda: checkpoint.load(path), "is damaged")


RECORD = {"split": "test", "held_out": True, "deterministic": True, "returns": [[1.0, 2.0]], "tasks": [{"a": 1.0}]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"returns": [[1.0, None]]}, "is no evaluation"),
        ({"returns": [[1.0], [1.0, 2.0]]}, "is no evaluation"),
        ({"returns": [[float("nan"), 1.0]]}, "finite"),
        ({"returns": []}, "is no evaluation"),
        ({"tasks": []}, "is no evaluation"),
        ({"tasks": [{"a": "x"}]}, "is no evaluation"),
        ({"tasks": 3}, "is no evaluation"),
        ({"split": 3}, "split must be a text"),
        ({"deterministic": 1}, "deterministic must be true or false"),
        ({"train_steps": True}, "train_steps must be a number of at least 0"),
        ({"train_steps": -5}, "train_steps must be a number of at least 0"),
        ({"train_steps": 1e30}, "train_steps must be a number of at least 0"),
        ({"train_seconds": float("inf")}, "train_seconds must be a number"),
        ({"format": 99}, "its format is 99"),
        ({"format": True}, "its format is True"),
        ({"format": 2}, "it has no 'provenance'"),
        ({"episode_steps": 10**14, "reward_by_step": {"reward": [1.0]}}, "too long"),
        ({"iqm": [1]}, "is no evaluation"),
        ({"against": {"run": "x"}}, "is no evaluation"),
    ],
    ids=str,
)
def test_an_evaluation_that_was_changed_is_refused(tmp_path, changes, words):
    (tmp_path / "x.json").write_text(json.dumps(RECORD))
    assert EvaluationRecord.read(tmp_path / "x.json").returns.tolist() == RECORD["returns"]
    (tmp_path / "x.json").write_text(json.dumps(RECORD | changes))
    refused(lambda: EvaluationRecord.read(tmp_path / "x.json"), words)


def test_reading_a_run_runs_none_of_its_code(tmp_path):
    (tmp_path / "evil.py").write_text("open('executed', 'w').close()\nclass Evil: ...\n")
    evil = f"{tmp_path}/evil.py:Evil"
    (tmp_path / "config.toml").write_text(f'agent = "{evil}"\nfamily = "{evil}"\n')
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "x.json").write_text(json.dumps(RECORD))
    (tmp_path / "metrics.jsonl").write_text('{"iteration": 1, "total_steps": 5}\n{"torn')
    run = Run.open(tmp_path)
    assert run.config_values["agent"] == evil
    assert len(run.evaluations) == 1
    assert run.metrics == [{"iteration": 1, "total_steps": 5}]
    assert (run.provenance(), run.videos, run.times(), run.train_steps) == ({}, (), {}, 0)
    assert not (tmp_path / "executed").exists()
