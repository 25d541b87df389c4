"""A page for each robot, made of its families: picture, what it observes, what varies and how far, headroom."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path

from PIL import Image

import metarl
from metarl.core.errors import UserError
from metarl.core.registry import make_family
from metarl.envs import FAMILIES
from metarl.sim.family import Family
from metarl.sim.mujoco.mujoco_env import compile_spec

ROBOTS = ("half-cheetah", "ant", "humanoid", "walker", "hopper", "point", "quadruped", "arm")
SIZE = (480, 320)


def of_robot(name: str) -> str:
    """The robot of a family."""
    return next(robot for robot in ROBOTS if name.startswith(robot))


def pages(place: Path, families_page: str) -> Iterator[tuple[Path, str]]:
    """File and Markdown of each robot's page, and of their list; pictures are drawn where this machine can."""
    measured = dict(re.findall(r"^\| ([\w-]+) \| ((?:\d|none|not).*?) \|$", families_page, flags=re.M))
    rows = ["# Robots", "", "| robot | moves by | families |", "|---|---|---|"]
    for robot, names in groupby(sorted(FAMILIES, key=lambda name: ROBOTS.index(of_robot(name))), of_robot):
        families = {name: make_family(name) for name in names}
        first = next(iter(families.values()))
        model = compile_spec(first.spec())
        rows.append(f"| [{robot}]({robot}.md) | {model.nu} actuators | {', '.join(families)} |")
        picture = place / f"{robot}.webp"
        with suppress(UserError):  # a machine that cannot draw makes pages without pictures
            draw(first, picture)
        lines = [f"# {robot}", ""]
        lines += [f"![{robot}]({picture.name})", ""] if picture.exists() else []
        lines += [
            f"{model.nu} actuators, {model.nv} degrees of freedom, {float(model.body_mass.sum()):.3g} kg; a control "
            f"step is {first.control_step:g} s, an episode {first.episode_steps} of them.",
            "",
        ]
        for name, family in families.items():
            lines += section(name, family, measured.get(name, "not measured |  |  | "))
        yield place / f"{robot}.md", "\n".join(lines)
    toc = ["", "```{toctree}", ":hidden:", "", *ROBOTS, "```", ""]
    yield place / "index.md", "\n".join([*rows, *toc])


def section(name: str, family: Family, measured: str) -> list[str]:
    """What a family says of itself."""
    definition = (inspect.getdoc(type(family)) or "").strip()
    headroom, memoryless, oracle, each = (cell.strip() for cell in measured.split("|"))
    known = f"{headroom} (memoryless {memoryless}, oracle {oracle}; {each})" if oracle else headroom
    lines = [f"## {name}", "", definition, "", f"Headroom: {known}.", ""]
    lines += ["| task parameter | unit | train, test | ood | nominal |", "|---|---|---|---|---|"]
    for key, own in family.space.parameters.items():
        ood = "" if own.ood is None else own.ood.describe()
        lines.append(
            f"| {key} | {own.unit} | {own.train.describe()} | {ood} | {'' if own.nominal is None else own.nominal} |"
        )
    lines += ["", "| observes | size | unit | elements |", "|---|---|---|---|"]
    for part in family.observation:
        lines.append(f"| {part.name} | {part.size} | {part.unit} | {', '.join(part.elements)} |")
    return [*lines, ""]


def draw(family: Family, path: Path) -> None:
    """The robot as an episode begins."""
    if path.exists():
        return
    with metarl.make(family, num_worlds=1) as env:
        env.begin(family.space.fixed("test", 1), key=0)
        cameras = env.cameras([0], SIZE)
        picture = cameras.draw()[0]
        cameras.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, quality=80)
