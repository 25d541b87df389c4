"""`metarl bench`: speed of environments and training, against bare physics."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from metarl.cli.parsing import parse
from metarl.core.parameters import Checked, number, require


@dataclass(frozen=True)
class BenchOptions(Checked):
    """Speed of environments and training, as ratios to bare physics measured in the same run."""

    families: tuple[str, ...] = (
        "half-cheetah-body",
        "ant-body",
        "humanoid-dir",
        "quadruped-body",
        "quadruped-terrain",
    )
    """Families to step; collection and training are measured on half-cheetah-body."""
    worlds: tuple[int, ...] = ()
    """Batch sizes, 64 and 256 unless told, with --device cuda 4096; the families are stepped with the largest."""
    seconds: float = number(3.0, above=0, most=3600)
    """Time per measurement [s]; each is repeated in turns and the median taken."""
    threads: int = number(0, least=0, most=1024)
    """Threads of the physics; 0 for one per CPU."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where policies, updates and worlds are."""
    physics: Literal["", "mujoco", "warp"] = ""
    """What moves the worlds, and is measured bare; by default mujoco on the cpu and warp on cuda."""
    disturbances: str = ""
    """A TOML file of what a real robot adds to the families that are stepped: see docs/disturbances.md."""
    json: Path | None = None
    """Also write the figures to this file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        sound = all(1 <= count <= 65536 for count in self.worlds)
        require(self, "worlds", sound, "counts, each in [1, 65536]")


def run(words: list[str]) -> int:
    """Measure, and print."""
    options = parse(BenchOptions, "bench", words)
    from metarl.bench.bench import print_benchmark, run_benchmark
    from metarl.bench.worlds import Place
    from metarl.core.config import disturbances_text
    from metarl.core.files import write_json
    from metarl.run.logs import console, provenance

    worlds = options.worlds or ((4096,) if options.device == "cuda" else (64, 256))
    place = Place(options.threads, options.device, options.physics)
    rows = run_benchmark(options.families, worlds, options.seconds, place, disturbances_text(options.disturbances))
    print_benchmark(rows, console())
    if options.json is not None:
        write_json(options.json, provenance(["bench", *words]) | {"rows": [asdict(row) for row in rows]})
    return 0
