"""A disk that is full at any moment: one sentence, and nothing that was whole is lost."""

import errno
import os
import resource
import shutil

import pytest
import torch
from tiny import FULL, assert_goes_on, config, digests, events_of, few, forked, full_from, no_space

from metarl.api import evaluate
from metarl.core.errors import UserError
from metarl.core.files import write_atomic
from metarl.core.tasks import Tasks, save_tasks
from metarl.reports.build import write_report
from metarl.run import checkpoint, folder
from metarl.run.run import Run
from metarl.run.sessions import resume, train
from metarl.run.tune import _write_best


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two iterations, which tests copy."""
    path = tmp_path_factory.mktemp("faults") / "run"
    train(config(), path)
    return path


@pytest.fixture
def run(finished, tmp_path):
    return Run(shutil.copytree(finished, tmp_path / "run"))


def save(path, iteration):
    checkpoint.save(path, {"policy/w": torch.ones(6)}, iteration=iteration, total_steps=iteration, elapsed=1.0)


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, call, old):
    path = tmp_path / "file.txt"
    if old is not None:
        path.write_text(old)
    with monkeypatch.context() as patch:
        patch.setattr(
            os, call, lambda *_, **__: (_ for _ in ()).throw(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        )
        with pytest.raises(UserError, match=r"^cannot write .*file\.txt: No space left on device$"):
            write_atomic(path, "new")
    assert [path.name for path in tmp_path.iterdir()] == ([] if old is None else ["file.txt"])
    assert old is None or path.read_text() == old
    write_atomic(path, "new")
    assert path.read_text() == "new"


def written(run, place, record):
    """Every site that writes a file of its own, by what it is called."""
    return {
        "an evaluation": lambda: run.write_evaluation(record),
        "a report": lambda: write_report([run], place / "report.html", []),
        "a tuned configuration": lambda: _write_best(place / "best.toml", config(), ["head"]),
        "a task list": lambda: save_tasks(place / "tasks.json", "toy", Tasks.from_rows([{"a": 1.0}])),
        "a new run": lambda: folder.create(place / "new", config(), ["train"]),
        "a checkpoint": lambda: save(run.checkpoints, 3),
        "a resumption": lambda: resume(run, total_steps=400),
    }


def test_a_full_disk_is_one_sentence_and_leaves_nothing_at_every_site(run, tmp_path, monkeypatch, figure):
    place = tmp_path / "place"
    place.mkdir()
    sites = written(run, place, evaluate(run, num_tasks=2))
    for name, write in sites.items():
        before = digests(tmp_path)
        with no_space(monkeypatch), pytest.raises(UserError, match="No space left on device") as caught:
            write()
        assert "\n" not in str(caught.value), name
        assert digests(tmp_path) == before, name
    assert not (place / "new").exists()
    figure(f"disk full, noticed by fsync: one sentence and nothing changed at {len(sites)} of {len(sites)} sites")


def assert_told(ended, reason, number):
    code, said = ended
    assert (code, said.count("\n")) == (2, 0), (number, ended)
    assert reason in said, number


def test_a_disk_full_from_any_event_on_costs_no_checkpoint(stopped, tmp_path, figure):
    """Resuming, training an iteration and saving it; once there is space again, the run goes on bit for bit."""
    path, whole = stopped
    counted = shutil.copytree(path, tmp_path / "count")
    points = range(1, events_of(lambda: resume(counted)) + 1)
    chosen, spared = few(points, 4), 0
    for number in chosen:
        run = shutil.copytree(path, tmp_path / str(number))
        ended = full_from(number, lambda run=run: resume(run))
        if ended.code == 0:  # all that was left to do was to remove files, which needs no space
            spared += 1
        else:
            assert_told(ended, "No space left on device", number)
        assert_goes_on(run, whole)
    assert spared <= 3
    agent = Run(path).config().agent
    figure(f"disk full from {len(chosen)} of {len(points)} events on, {agent}: all told, all go on")


def test_a_file_that_may_not_grow_costs_no_checkpoint(stopped, tmp_path, figure):
    """The kernel cuts writes off in the middle (RLIMIT_FSIZE), at sizes up to that of the largest file."""
    path, whole = stopped
    largest = max(file.stat().st_size for file in path.rglob("*") if file.is_file())
    sizes = few([0, 1, 100, *range(500, largest, max(1, largest // 15))], 2)
    for size in sizes:
        run = shutil.copytree(path, tmp_path / str(size))

        def limited(run=run, size=size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            resume(run)

        ended = forked(limited)
        if ended.code:
            assert_told(ended, "File too large", size)
        assert_goes_on(run, whole)
    figure(f"writes cut off at {len(sizes)} sizes, {Run(path).config().agent}: all told, all go on")


@pytest.mark.skipif(not FULL, reason="fsync alone is tried: make faults")
def test_every_site_that_writes_is_told_at_every_event(finished, tmp_path, figure):
    count, record = 0, evaluate(finished, num_tasks=2)
    names = [name for name in written(Run(finished), tmp_path, record) if name != "a resumption"]  # has its own test
    for name in names:
        number, code = 0, 2
        while code == 2:
            number += 1
            here = tmp_path / name.replace(" ", "-") / str(number)
            run = Run(shutil.copytree(finished, here / "run"))
            (here / "place").mkdir()
            write = written(run, here / "place", record)[name]
            ended = full_from(number, write)
            code = ended.code
            if code == 2:
                assert_told(ended, "No space left on device", (name, number))
                checkpoint.load(checkpoint.find(run.checkpoints))
                write()
        assert code == 0, (name, number, ended)
        count += number - 1
    figure(f"disk full at every event of {len(names)} sites: {count} of {count} told, and written afterwards")


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
