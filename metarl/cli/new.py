"""`metarl new`: write a family of tasks for a robot of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metarl.cli.parsing import parse


@dataclass(frozen=True)
class NewOptions:
    """Write a family for your robot: a Python file that passes `metarl check`, trains, and is yours to edit."""

    robot: tyro.conf.Positional[str]
    """A MJCF file, or menagerie:NAME for a robot of MuJoCo Menagerie."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None
    """The Python file to write; named after the model by default."""
    folder: Path | None = None
    """The folder in which the files that the model refers to may lie, instead of its own."""


def run(words: list[str]) -> int:
    """Write the family and print what `metarl check` says of it; 2 where it finds a problem."""
    options = parse(NewOptions, "new", words)
    from metarl.check.check import verdict
    from metarl.sketch.sketch import new

    made = new(options.robot, options.output, folder=options.folder)
    robot = made.robot
    moves = {"free": "moves freely", "rail": "runs in a plane", "fixed": "stands fixed"}[robot.kind]
    print(
        f"{options.robot}: {robot.mass:.3g} kg, {moves}; {len(robot.servos)} servos, {len(robot.kept)} other actuators"
    )
    for line in verdict(made.name, list(made.findings)):
        if not line.startswith(("ok", "--")):
            print(line)
    print(f"wrote {made.path}; next: metarl video {made.name} --agent random --output videos/look.mp4")
    return 2 if any(finding.problem is not None for finding in made.findings) else 0
