"""Waiting for other processes by what they do, not by the clock: only pytest's own timeout ends a wait."""

import time
from pathlib import Path


def wait_for(condition, process=None):
    """Until the condition holds; fails where the process that is to bring it about has ended before."""
    while not condition():
        assert process is None or process.poll() is None, f"it ended first, with exit code {process.returncode}"
        time.sleep(0.02)


def has_lines(path, number=1):
    """A condition: the file has so many whole lines."""
    return lambda: path.exists() and path.read_text().count("\n") >= number


def gone(pid):
    """Wait until a process has ended."""

    def running():
        try:
            return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return False

    wait_for(lambda: not running())
    return True
