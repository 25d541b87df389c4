"""A training small enough to be broken many times, and what is left of it."""

import hashlib
import os
import signal
from pathlib import Path

from metarl.agents.configs import RL2Config
from metarl.core.config import TrainConfig

FAMILY = f"{Path(__file__).parents[1]}/short_family.py:ShortDir"


def config(iterations=2, **changes):
    """Of iterations of 4 worlds' trials of 20 control steps."""
    learner = RL2Config(cell="gru", hidden_size=8, chunk_steps=5, minibatch_chunks=16, num_epochs=1)
    values = {"seed": 3, "total_steps": iterations * 4 * 20, "num_worlds": 4, "threads": 1, "checkpoint_minutes": 0.0}
    return TrainConfig("rl2", FAMILY, learner, **(values | changes))


def digests(folder):
    """Every file under a folder with what is in it, but for the lock."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


EVENTS = ("open", "fsync", "replace", "mkdir", "rename", "unlink", "rmdir")
"""What a save or a resumption asks of the file system, by the names of `os`."""


def killed_at(number, act):
    """Run `act` in a process of its own that is killed ahead of its `number`th event; whether there were so many."""
    child = os.fork()
    if child == 0:
        try:
            count = 0

            def counting(call):
                def counted(*words, **options):
                    nonlocal count
                    count += 1
                    if count == number:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return call(*words, **options)

                return counted

            for name in EVENTS:
                setattr(os, name, counting(getattr(os, name)))
            act()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "it failed before it was killed"
    return os.WIFSIGNALED(status)
