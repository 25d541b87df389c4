"""`metarl bench`: speed of environments and training, against bare physics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metarl.cli.parsing import parse
from metarl.core.config import require


@dataclass(frozen=True)
class BenchOptions:
    """Speed of environments and training, as ratios to bare physics measured in the same run."""

    families: tuple[str, ...] = (
        "half-cheetah-body",
        "ant-body",
        "humanoid-dir",
        "quadruped-body",
        "quadruped-terrain",
    )
    """Families to step; collection and training are measured on half-cheetah-body."""
    worlds: tuple[int, ...] = (64, 256)
    """Batch sizes; the families are stepped with the largest."""
    seconds: float = 3.0
    """Time per measurement [s]; each is repeated in turns and the median taken."""
    threads: int = 0
    """Threads of the physics; 0 for one per CPU."""
    json: Path | None = None
    """Also write the figures to this file."""

    def __post_init__(self) -> None:
        require(
            self,
            "worlds",
            len(self.worlds) > 0 and min(self.worlds, default=0) >= 1,
            "one or more counts, each at least 1",
        )
        require(self, "seconds", 0 < self.seconds <= 3600, "in (0, 3600]")
        require(self, "threads", 0 <= self.threads <= 1024, "in [0, 1024]")


def run(words: list[str]) -> int:
    """Measure, and print."""
    options = parse(BenchOptions, "bench", words)
    from metarl.bench.bench import print_benchmark, run_benchmark, to_json
    from metarl.core.files import write_json
    from metarl.run.logs import console, provenance

    rows = run_benchmark(options.families, options.worlds, options.seconds, options.threads)
    print_benchmark(rows, console())
    if options.json is not None:
        write_json(options.json, provenance(["bench", *words]) | {"rows": to_json(rows)})
    return 0
