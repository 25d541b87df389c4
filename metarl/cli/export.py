"""`metarl export`: a trained policy as a folder that stands by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metarl.cli.parsing import parse


@dataclass(frozen=True)
class ExportOptions:
    """Write a policy as a bundle: a folder that needs neither metarl nor torch nor a simulator.

    contract.json says what the policy observes, commands and adapts by, policy.safetensors holds its numbers, policy.h
    is the same in C99, and policy.onnx in ONNX. Each is run beside torch for 1,000 control steps with falls, new
    episodes and new tasks in them, and nothing is written where one strays by more than 1e-5.
    """

    run: Path
    """A run's folder, or pretrained:NAME."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("bundle")
    """The bundle's folder, which must be new or empty."""
    checkpoint: str | None = None
    """Its checkpoint, as iteration-000120 or best; the newest by default."""
    trust_code: bool = False
    """Run the files of code that the run names, also such as you never trained with."""


def run(words: list[str]) -> int:
    """Export, and print what was compared."""
    options = parse(ExportOptions, "export", words)
    from metarl.export.bundle import export

    made = export(options.run, options.output, checkpoint=options.checkpoint, trust_code=options.trust_code)
    played = made.played
    print(f"wrote {made.path}: {', '.join(sorted(path.name for path in made.path.iterdir()))}")
    print(
        f"compared with torch over {played.steps} control steps, {played.tasks} tasks, {played.episodes} episodes and "
        f"{played.falls} falls, the largest difference:"
    )
    for name, found in made.parity.items():
        row = found.to_json()
        microseconds = 1e6 * row["seconds_per_step"]
        print(f"  {name:<16} action {row['action']:.1e}  state {row['state']:.1e}  {microseconds:.0f} µs a step")
    for remark in made.remarks:
        print(f"note: {remark}")
    return 0
