"""A process killed at any moment of a save or a resumption: nothing that was whole is lost."""

import gc
import json
import os
import random
import shutil
import signal
import time

import pytest
import torch
from tiny import FULL, META, assert_goes_on, config, events_of, few, killed_at, stop_after, tensors, well

from metarl.core.files import remove_leftovers, write_json
from metarl.run import checkpoint
from metarl.run.run import Run
from metarl.run.sessions import resume, train

STATE = {"policy/w": torch.arange(6.0)}


def save(path, iteration):
    checkpoint.save(path, STATE, iteration=iteration, total_steps=iteration, elapsed=1.0)


@pytest.mark.parametrize("second", [2, 1], ids=["the next iteration", "the same iteration"])
def test_a_save_killed_at_any_event_leaves_a_whole_checkpoint(tmp_path, figure, second):
    save(tmp_path / "0", 1)
    shutil.copytree(tmp_path / "0", tmp_path / "count")
    points = range(1, events_of(lambda: save(tmp_path / "count", second)) + 1)
    for number in points:
        place = shutil.copytree(tmp_path / "0", tmp_path / str(number))
        assert killed_at(number, lambda place=place: save(place, second)).code == -signal.SIGKILL
        checkpoint.remove_incomplete(place)
        state, manifest = checkpoint.load(checkpoint.find(place))
        assert manifest.iteration in (1, second)
        assert torch.equal(state["policy/w"], STATE["policy/w"])
        remove_leftovers(place)
        assert all(path in checkpoint.existing(place) for path in place.iterdir()), "nothing is left lying about"
        save(place, 3)
    assert len(points) > 10
    figure(f"kill -9 at every event of a save: {len(points)} of {len(points)} leave a whole checkpoint")


def test_a_new_file_killed_at_any_event_is_whole_or_not_there(tmp_path):
    number, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        number += 1
        path = tmp_path / f"{number}.json"
        code, _ = killed_at(number, lambda path=path: write_json(path, {"a": list(range(1000))}))
        assert not path.exists() or json.loads(path.read_text())["a"][-1] == 999
    assert code == 0 and number > 4


def test_a_resumption_killed_at_any_event_goes_on_bit_for_bit(stopped, tmp_path, figure):
    path, whole = stopped
    counted = shutil.copytree(path, tmp_path / "count")
    points = range(1, events_of(lambda: resume(counted)) + 1)
    assert len(points) >= 20
    chosen = few(points, 4)
    for number in chosen:
        run = shutil.copytree(path, tmp_path / str(number))
        assert killed_at(number, lambda run=run: resume(run)).code == -signal.SIGKILL
        assert_goes_on(run, whole)
    agent = Run(path).config().agent
    figure(f"kill -9 at {len(chosen)} of {len(points)} events of resuming, training and saving, {agent}: all go on")


def report_saves(pipe):
    """Have every checkpoint of this process told once it is complete."""
    save = checkpoint.save

    def told(*words, **named):
        save(*words, **named)
        os.write(pipe, b"%d\n" % named["iteration"])

    checkpoint.save = told


@pytest.mark.skipif(not FULL, reason="its moments are of the clock: make faults")
@pytest.mark.parametrize("agent", META)
def test_a_training_killed_at_50_random_moments_goes_on_bit_for_bit(tmp_path, agent, figure):
    """Never a checkpoint older than the last that was complete; at the end as if it had never been killed."""
    path, many, draw = tmp_path / "run", 10**6, random.Random(0)
    well(lambda: train(config(many, agent), path, callbacks=stop_after(1)))
    reached = 1
    for _ in range(50):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            gc.freeze()
            report_saves(writing)
            resume(path)
            os._exit(1)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            first = [pipe.readline() for _ in range(draw.randrange(3))]
            time.sleep(draw.uniform(0.0, 0.3))
            os.kill(child, signal.SIGKILL)
            reached = max([reached, *map(int, first + pipe.read().split())])
        os.waitpid(child, 0)
        checkpoint.remove_incomplete(Run(path).checkpoints)
        assert tensors(path)[0] >= reached
    reached = tensors(path)[0] + 1
    assert reached > 20, "it got somewhere between the kills"
    well(lambda: resume(path, callbacks=stop_after(1)))
    well(lambda: train(config(many, agent), tmp_path / "whole", callbacks=stop_after(reached)))
    assert tensors(path) == tensors(tmp_path / "whole")
    figure(f"kill -9 at random moments, {agent}: 50 of 50 go on, bit for bit to iteration {reached}")
