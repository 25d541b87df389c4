"""What this process may use of the machine: CPUs, and memory."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def num_cpus() -> int:
    """CPUs that this process may run on: by its affinity, SLURM's share of the node, and a container's limit.

    Processes that torchrun started on this machine share them.
    """
    counts = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    with suppress(KeyError, ValueError):
        counts.append(int(os.environ["SLURM_CPUS_PER_TASK"]))
    with suppress(OSError, ValueError):
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        counts.append(math.ceil(int(quota) / int(period)))  # `max` is no number
    share = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, min(counts) // (int(share) if share.isdigit() else 1))


def available_memory() -> int | None:
    """Memory that is left to this process, by the machine and its container [bytes]; None where that is not known."""
    left = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        left.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    with suppress(OSError, ValueError):
        limit, used = ((_CGROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        left.append(int(limit) - int(used))
    return min(left, default=None)
