"""Run folders that several want at once, that vanish, and that hold less than they should."""

import gc
import os
import shutil
import time

import pytest
from tiny import FULL, STEPS, config, iterations, tensors

from metarl.core.errors import UserError
from metarl.run import folder
from metarl.run.run import Run
from metarl.run.sessions import resume, train


def race(act, processes):
    """Exit codes of processes that do the same at the same moment."""
    begin, children = time.monotonic() + 0.02, []
    for _ in range(processes):
        child = os.fork()
        if child == 0:
            gc.freeze()
            try:
                while time.monotonic() < begin:
                    pass
                act()
                os._exit(0)
            except UserError:
                os._exit(3)
            except BaseException:
                os._exit(1)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.mark.parametrize("made", [False, True])
def test_of_trainings_that_start_at_once_in_one_folder_one_gets_it(tmp_path, monkeypatch, made, figure):
    monkeypatch.setattr("metarl.run.logs._git_commit", lambda: None)  # which takes longer than all the rest
    rounds = 60 if FULL else 8
    for number in range(rounds):
        path = tmp_path / str(number)
        if made:
            path.mkdir()

        def act(path=path):
            run = folder.create(path, config(), ["train"])
            with folder.locked(run.path):
                time.sleep(0.02)

        assert sorted(race(act, 4)) == [0, 3, 3, 3]
        assert Run(path).config() == config()
        assert Run(path).provenance()["command"] == "metarl train"
    figure(f"4 trainings at once into one folder: exactly one gets it in {rounds} of {rounds} rounds")


def test_of_processes_that_train_or_resume_at_once_one_does_and_the_others_are_told(tmp_path, figure):
    path, number = tmp_path / "run", 8 if FULL else 3
    train(config(1), tmp_path / "whole")
    assert sorted(race(lambda: train(config(1), path), number)) == [0] + [3] * (number - 1)
    assert tensors(path) == tensors(tmp_path / "whole")
    ended = race(lambda: resume(path, total_steps=3 * STEPS), number)
    assert set(ended) <= {0, 3} and 0 in ended, "who comes later finds it finished, or in use"
    assert tensors(path)[0] == 3
    assert iterations(path) == [1, 2, 3]
    figure(f"{number} processes that train, then resume, in one folder at once: one does, the run is whole")


def test_trainings_of_the_same_second_have_folders_of_their_own(tmp_path):
    assert race(lambda: folder.create(None, config(), ["train"]), 5) == [0] * 5
    assert len(list((tmp_path / "runs").iterdir())) == 5


def test_what_others_put_into_the_folder_stays(tmp_path):
    def put(_):
        (tmp_path / "run" / "mine.txt").write_text("precious")
        raise UserError("reward term 'x' is nan")

    with pytest.raises(UserError, match="reward term"):
        train(config(), tmp_path / "run", callbacks=[put])
    assert (tmp_path / "run" / "mine.txt").read_text() == "precious"
    run = folder.create(tmp_path / "other", config(), [])
    (run.path / "mine.txt").write_text("precious")
    folder.discard(run)
    assert [path.name for path in run.path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("vanish", [shutil.rmtree, lambda path: path.rename(path.with_name("elsewhere"))])
def test_a_folder_that_vanishes_ends_the_training_and_is_not_made_again(tmp_path, vanish):
    path = tmp_path / "run"
    with pytest.raises(UserError, match=r"run is gone: it was deleted or renamed during the training") as caught:
        train(config(5), path, callbacks=[lambda _: vanish(path) if path.exists() else None])
    assert "\n" not in str(caught.value)
    assert not path.exists()
