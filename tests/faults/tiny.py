"""A training small enough to be broken many times, and processes that end at any event of the file system."""

import dataclasses
import errno
import gc
import hashlib
import io
import json
import os
import signal
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from metarl.core.config import TrainConfig
from metarl.core.errors import UserError
from metarl.core.registry import learner_config_class
from metarl.run import checkpoint
from metarl.run.run import Run
from metarl.run.sessions import resume

FULL = os.environ.get("METARL_FULL") == "1"
"""Every point of every sweep, as of `make faults`; else a few."""
FAMILY = f"{Path(__file__).parents[1]}/short_family.py:ShortDir"
META = ("rl2", "maml-trpo", "pearl") if FULL else ("rl2",)
STEPS = 4 * 2 * 10
"""Control steps of an iteration: 4 worlds' trials of 2 episodes."""
SMALL = {
    "cell": "gru",
    "hidden_size": 8,
    "encoder_size": 8,
    "latent_size": 2,
    "num_epochs": 1,
    "minibatch_chunks": 16,
    "chunk_steps": 5,
    "shots": 1,
    "prior_episodes": 1,
    "initial_steps": 0,
    "num_updates": 2,
    "meta_batch": 2,
    "batch_size": 16,
    "num_slots": 8,
    "replay_size": 200,
}


def few(points, number):
    """All points of a sweep in the full suite, else `number` of them, the first and the last among them."""
    points = list(points)
    return (
        points
        if FULL or len(points) <= number
        else [points[i * (len(points) - 1) // (number - 1)] for i in range(number)]
    )


def config(iterations=2, agent="rl2", **changes):
    """Of iterations of `STEPS` control steps, with a checkpoint after each."""
    kind = learner_config_class(agent)
    learner = kind(**{field.name: SMALL[field.name] for field in dataclasses.fields(kind) if field.name in SMALL})
    values = {"seed": 3, "total_steps": iterations * STEPS, "num_worlds": 4, "threads": 1, "checkpoint_minutes": 0.0}
    return TrainConfig(agent, FAMILY, learner, **(values | {"validation_tasks": 2} | changes))


def stop_after(iterations):
    """Callbacks of a training that end it after so many iterations."""
    left = iter(range(iterations - 1))
    return [lambda _: next(left, None) is not None]


def digests(folder):
    """Every file under a folder with what is in it, but for the lock."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    """Exit code, or minus the signal that killed it."""
    said: str
    """The mistake it was told, or a traceback."""


def signals_of_a_fresh_process():
    """Whatever this one ignores, as under nohup, or answers since another test had torch's launcher in it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def forked(act):
    """Run `act` in a process of its own: exit code 0, 2 with the words of a `UserError`, 1 with a traceback."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        gc.freeze()  # else pools of threads that only the parent has would be waited for when they are collected
        code, said = 1, ""
        try:
            os.close(reading)
            signals_of_a_fresh_process()
            act()
            code = 0
        except UserError as error:
            code, said = 2, str(error)
        except KeyboardInterrupt:
            code = 130
        except SystemExit as error:
            code = error.code
        except BaseException:
            said = traceback.format_exc()
        finally:
            os.write(writing, said.encode()[-60000:])
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    return Ended(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said)


def well(act):
    """Run `act` in a process of its own, where nothing may go wrong."""
    ended = forked(act)
    assert ended == (0, ""), ended.said


def tensors(path):
    """The newest checkpoint of a run, as its iteration and its tensors' bytes."""
    newest = checkpoint.find(Run(path).checkpoints)
    _, manifest = checkpoint.load(newest)
    return manifest.iteration, (newest / "tensors.safetensors").read_bytes()


def iterations(path):
    return [json.loads(line)["iteration"] for line in (path / "metrics.jsonl").read_text().splitlines()]


def assert_goes_on(path, whole, least=2):
    """A run that was broken off has a checkpoint no older than `least`, and ends as if it had never been."""
    assert tensors(path)[0] >= least
    well(lambda: resume(path))
    assert tensors(path) == tensors(whole)
    assert iterations(path) == iterations(whole)
    assert [file for file in path.rglob(".*") if file.name != ".lock"] == []


_TAKING = ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate")
_FREEING = ("os.remove", "os.rmdir")


def _intercept(answer):
    """Have every event of this process' file system call `answer`, told whether it takes space, ahead of it.

    Events are what opens a file to write, makes, renames or removes one; in `metarl.core.files` writes and fsyncs too.
    """

    def audit(event, words):
        if event in _TAKING or event in _FREEING:
            answer(event in _TAKING)
        elif event == "open" and not str(words[0]).startswith(("/dev", "/proc")):
            flags = words[2] if isinstance(words[2], int) else 0
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                answer(True)

    class Torn(io.BufferedWriter):
        def write(self, content):
            half = len(content) // 2
            super().write(content[:half])
            super().flush()
            answer(True)
            return super().write(content[half:])

    fsync, fdopen = os.fsync, os.fdopen

    def synced(descriptor):
        answer(True)
        fsync(descriptor)

    def opened(descriptor, mode="r", *words, **options):
        if mode == "wb":
            return Torn(io.FileIO(descriptor, "wb"))
        return fdopen(descriptor, mode, *words, **options)

    os.fsync, os.fdopen = synced, opened
    sys.addaudithook(audit)


def events_of(act):
    """How many events of the file system `act` has."""
    reading, writing = os.pipe()

    def counted():
        _intercept(lambda _: os.write(writing, b"."))
        act()

    well(counted)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        return len(pipe.read())


def killed_at(number, act):
    """Run `act` in a process that is killed ahead of its `number`th event, counted from 1."""
    left = number

    def count(_):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return forked(lambda: (_intercept(count), act()))


def full_from(number, act):
    """Run `act` in a process whose disk is full from its `number`th event on; files can be removed."""
    left = number

    def count(takes):
        nonlocal left
        left -= 1
        if left <= 0 and takes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return forked(lambda: (_intercept(count), act()))


@contextmanager
def no_space(patch):
    """A disk that is full as far as fsync notices, in this process."""

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with patch.context() as full:
        full.setattr(os, "fsync", fail)
        yield
