"""A process killed or a disk full at any moment of a save or a resumption: nothing that was whole is lost."""

import errno
import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from tiny import config, digests, killed_at

from metarl.api import evaluate
from metarl.core.errors import UserError
from metarl.core.files import remove_leftovers, write_atomic, write_json
from metarl.core.tasks import Tasks, save_tasks
from metarl.reports.build import write_report
from metarl.run import checkpoint, folder
from metarl.run.run import Run
from metarl.run.sessions import resume, train
from metarl.run.tune import _write_best

STATE = {"policy/w": torch.arange(6.0)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two iterations, which tests copy."""
    path = tmp_path_factory.mktemp("faults") / "run"
    train(config(), path)
    return path


@pytest.fixture
def run(finished, tmp_path):
    return Run(shutil.copytree(finished, tmp_path / "run"))


def full_disk(monkeypatch, call="fsync"):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)


def save(path, iteration):
    checkpoint.save(path, STATE, iteration=iteration, total_steps=iteration, elapsed=1.0)


def test_a_save_killed_at_any_event_leaves_the_last_checkpoint(tmp_path):
    number, alive = 0, True
    while alive:
        number += 1
        place = tmp_path / str(number)
        place.mkdir()
        save(place, 1)
        alive = killed_at(number, lambda place=place: save(place, 2))
        state, manifest = checkpoint.load(checkpoint.find(place))
        assert manifest.iteration in (1, 2)
        assert torch.equal(state["policy/w"], STATE["policy/w"])
        checkpoint.remove_incomplete(place)
        remove_leftovers(place)
        assert all(path in checkpoint.existing(place) for path in place.iterdir()), "nothing is left lying about"
        save(place, 3)
    print(f"a save has {number - 1} events of the file system")
    assert number > 10


def test_a_save_of_the_same_iteration_killed_at_any_event_leaves_one(tmp_path):
    number, alive = 0, True
    while alive:
        number += 1
        place = tmp_path / str(number)
        place.mkdir()
        save(place, 1)
        alive = killed_at(number, lambda place=place: save(place, 1))
        checkpoint.remove_incomplete(place)
        assert checkpoint.load(checkpoint.find(place))[1].iteration == 1


def test_a_resumption_killed_at_any_event_is_resumed_again(finished, tmp_path):
    number, alive = 0, True
    while alive:
        number += 1
        run = Run(shutil.copytree(finished, tmp_path / str(number)))
        longer = replace(run.config(), total_steps=400)
        alive = killed_at(number, lambda run=run, longer=longer: folder.note_resumption(run, ["resume"], longer, 2))
        assert run.provenance()["command"] == "metarl train"
        assert run.config().total_steps in (160, 400)
        folder.clean(run)
        assert not [path for path in run.path.iterdir() if path.name.endswith(".partial")]
    print(f"a resumption has {number - 1} events of the file system")
    assert number > 5


def test_a_new_file_killed_at_any_event_is_whole_or_not_there(tmp_path):
    number, alive = 0, True
    while alive:
        number += 1
        path = tmp_path / f"{number}.json"
        alive = killed_at(number, lambda path=path: write_json(path, {"a": list(range(1000))}))
        assert not path.exists() or json.loads(path.read_text())["a"][-1] == 999


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, call, old):
    path = tmp_path / "file.txt"
    if old is not None:
        path.write_text(old)
    with monkeypatch.context() as patch:
        full_disk(patch, call)
        with pytest.raises(UserError, match=r"^cannot write .*file\.txt: No space left on device$"):
            write_atomic(path, "new")
    assert [path.name for path in tmp_path.iterdir()] == ([] if old is None else ["file.txt"])
    assert old is None or path.read_text() == old
    write_atomic(path, "new")
    assert path.read_text() == "new"


def written(run, place):
    """Every site that writes a file of its own, by what it is called."""
    record = evaluate(run, num_tasks=2)
    return {
        "an evaluation": lambda: run.write_evaluation(record),
        "a report": lambda: write_report([run], place / "report.html", []),
        "a tuned configuration": lambda: _write_best(place / "best.toml", config(), ["head"]),
        "a task list": lambda: save_tasks(place / "tasks.json", "toy", Tasks.from_rows([{"a": 1.0}])),
        "a new run": lambda: folder.create(place / "new", config(), ["train"]),
        "a checkpoint": lambda: save(run.checkpoints, 3),
        "a resumption": lambda: resume(run, total_steps=400),
    }


def test_a_full_disk_is_one_sentence_and_leaves_nothing_at_every_site(run, tmp_path, monkeypatch):
    place = tmp_path / "place"
    place.mkdir()
    for name, write in written(run, place).items():
        before = digests(tmp_path)
        with monkeypatch.context() as patch:
            full_disk(patch)
            with pytest.raises(UserError, match="No space left on device") as caught:
                write()
        assert "\n" not in str(caught.value), name
        assert digests(tmp_path) == before, name
    assert not (place / "new").exists()


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text('{"command": "met')])
def test_a_run_without_its_provenance_resumes(run, damage):
    damage(run.path / "run.json")
    again = resume(run, total_steps=240)
    assert again.manifest().iteration == 3
    assert again.provenance()["resumed"][0]["after_iteration"] == 2


def test_a_refused_resumption_writes_nothing(run):
    before = digests(run.path)
    with folder.locked(run.path), pytest.raises(UserError, match="is in use"):
        resume(run, total_steps=400)
    with pytest.raises(UserError, match="unknown checkpoint"):
        resume(run, which="iteration-000009")
    with pytest.raises(UserError, match="has trained for 160 already"):
        resume(run, total_steps=80)
    assert digests(run.path) == before


def test_what_a_kill_left_is_removed_on_resumption(run):
    dead = 2**22 + 1  # beyond the largest process number
    stale = [
        run.checkpoints / ".iteration-000003.partial" / "tensors.safetensors",
        run.checkpoints / "iteration-000004" / "tensors.safetensors",
        run.path / f".run.json-{dead}-x0a1b2c3d.partial",
        run.path / "eval" / f".x.json-{dead}-x0a1b2c3d.partial",
        run.path / "videos" / f".adaptation-{dead}.part.mp4",
    ]
    mine = [run.path / f".run.json-{os.getpid()}-x0a1b2c3d.partial", run.checkpoints / "iteration-mine" / "notes.txt"]
    for path in [*stale, *mine]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    resume(run, total_steps=240)
    assert not any(path.exists() for path in stale)
    assert not any(path.parent.exists() for path in stale[:2])
    assert all(path.exists() for path in mine), "of a process that lives, or of the user"
