"""A training goes on bit for bit, whatever the learner, the threads and Python's hashes; and it does not grow."""

import os
import subprocess
import sys

import pytest
from tiny import FULL, META, config, iterations, stop_after, tensors, well

from metarl.agents import LEARNERS
from metarl.core.config import to_toml
from metarl.run.sessions import resume, train


def elsewhere(hashes, *words):
    """The command line in a process of other hashes."""
    command = [sys.executable, "-m", "metarl.cli.main", *map(str, words)]
    done = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": str(hashes)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def on_threads(path, number):
    """Let a run's physics have other threads from here on."""
    text = (path / "config.toml").read_text()
    (path / "config.toml").write_text(text.replace("threads = 1", f"threads = {number}"))


@pytest.mark.parametrize("agent", LEARNERS if FULL else ["pearl"])
def test_a_training_in_parts_is_one_in_one_go(tmp_path, agent, figure):
    """Stopped after each iteration, and gone on with on other threads; in the full suite with other hashes too."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    train(config(4, agent), run, callbacks=stop_after(1))
    on_threads(run, 2)
    resume(run, callbacks=stop_after(1))
    well(lambda: resume(run, callbacks=stop_after(1)))
    on_threads(run, 4)
    if FULL:
        (tmp_path / "config.toml").write_text(to_toml(config(4, agent)))
        elsewhere(1, "resume", run)
        elsewhere(2, "train", "--config", tmp_path / "config.toml", "--output", whole)
    else:
        resume(run)
        train(config(4, agent), whole)
    assert tensors(run) == tensors(whole)
    assert tensors(run)[0] == 4
    assert iterations(run) == iterations(whole) == [1, 2, 3, 4]
    figure(f"resumed after each iteration on 1, 2 and 4 threads, {agent}: largest difference 0")


def resident():
    """Memory of this process [bytes]."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("agent", META)
def test_memory_does_not_grow_with_the_iterations(tmp_path, agent, figure):
    """After a quarter of them, when buffers and caches are full; in the full suite each iteration is saved."""
    number = (300 if agent == "maml-trpo" else 2000) if FULL else 24
    saving = {"checkpoint_minutes": 0.0 if FULL else 1e6, "validation_tasks": 0}

    def trained():
        sizes = []
        train(config(number, agent, **saving), tmp_path / "run", callbacks=[lambda _: sizes.append(resident())])
        (tmp_path / "grown").write_text(str(sizes[-1] - sizes[number // 4]))

    well(trained)
    grown = int((tmp_path / "grown").read_text())
    assert grown < 4 * 2**20, f"{grown:,} bytes"
    figure(f"memory over {number} iterations, {agent}: {grown / 2**20:+.1f} MiB after the first quarter")
