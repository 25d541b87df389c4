"""`metarl new`: a family of tasks for a robot of the user's, from its model alone."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import mujoco

from metarl.check.check import Finding, check_family
from metarl.core.errors import UserError
from metarl.core.files import write_atomic
from metarl.sim.declarations import make
from metarl.sim.family import Family, MujocoFamily
from metarl.sim.mujoco.menagerie import menagerie
from metarl.sim.mujoco.mjcf.scan import load
from metarl.sim.mujoco.mujoco_env import compile_spec
from metarl.sim.mujoco.physics import make_physics
from metarl.sim.variation import Variator
from metarl.sketch.robot import Robot, look_at
from metarl.sketch.text import Draft, text

_MENAGERIE = "menagerie:"
_ROUNDS = 4  # drafts, each without what the one before showed to have no effect
_NEVER_FALLS = "terminated was never true"
_STARTS_FALLEN = "terminated is already true"
_IDLE = re.compile(r"'(payload|mass|friction|strength|damping)'")


@dataclass(frozen=True)
class NewFamily:
    """What `metarl new` has written."""

    path: Path
    """The Python file."""
    name: str
    """The family in it, as `my_robot.py:MyRobot`."""
    robot: Robot
    """What was found in the model."""
    findings: tuple[Finding, ...]
    """What `metarl check` says of the family."""


def new(robot: str | Path, output: str | Path | None = None, *, folder: str | Path | None = None) -> NewFamily:
    """Write a family of tasks for a robot: a Python file that passes `metarl check`, trains, and is edited from there.

    Motors become position servos about the home pose. The robot observes its joints and, where it moves freely, an IMU;
    it is rewarded for an unknown speed or, where its base is fixed, for bringing its tip to an unknown place. Its body
    differs from task to task, by ranges that follow from its masses.

    Args:
        robot: A MJCF file, or `menagerie:NAME` for a robot of MuJoCo Menagerie.
        output: The file to write, `my_robot.py`; by default named after the model, where you are.
        folder: The folder in which the files that the model refers to may lie, instead of its own.

    Raises:
        UserError: The model is broken or has nothing to drive, or the file exists already.
    """
    spec, stem, source = _model(str(robot), folder)
    path = Path(f"{re.sub(r'[^0-9a-zA-Z_]', '_', stem).lower()}.py" if output is None else output)
    if path.suffix != ".py":
        raise UserError(f"a family is a Python file: {path} must end in .py")
    if path.exists():
        raise UserError(f"{path} exists already: name another file by --output, or move it away")
    words = [word for word in re.split(r"[^0-9a-zA-Z]+", path.stem) if word]
    name = "".join(word[0].upper() + word[1:] for word in words)
    name = name if name[:1].isalpha() else f"Robot{name}"
    beside = (
        "" if str(robot).startswith(_MENAGERIE) else os.path.relpath(os.path.realpath(robot), path.absolute().parent)
    )
    model = "mujoco.MjSpec.from_file(str(MODEL))" if beside else f'menagerie("{stem}")'
    findings: list[Finding] = []
    draft = Draft(look_at(spec), name, path.name, source, model, beside)
    for _ in range(_ROUNDS):
        family = _family(draft, path)
        following = _without_refused(draft, family)
        if following == draft:
            findings = check_family(family)
            following = _repaired(draft, findings)
        if following == draft:
            break
        draft = following
    write_atomic(path, text(draft))
    return NewFamily(path, f"{path}:{name}", draft.robot, tuple(findings))


def _model(robot: str, folder: str | Path | None) -> tuple[mujoco.MjSpec, str, str]:
    """The model, its name, and what the family says of its origin."""
    if robot.startswith(_MENAGERIE):
        name = robot.removeprefix(_MENAGERIE)
        return menagerie(name), name, f"{name} of MuJoCo Menagerie"
    return load(robot, folder), Path(robot).stem, Path(robot).name


def _family(draft: Draft, path: Path) -> Family:
    """The drafted family, made without a file."""
    module = ModuleType(f"metarl_new_{path.stem}")
    module.__file__ = str(path.absolute())
    sys.modules[module.__name__] = module
    exec(compile(text(draft), str(path), "exec"), vars(module))
    return make(draft.name, vars(module)[draft.name])


def _without_refused(draft: Draft, family: Family) -> Draft:
    """Leave out what this model does not allow to vary."""
    assert isinstance(family, MujocoFamily)
    model, tasks, refused = compile_spec(family.spec()), family.space.fixed("train", 2), set[str]()
    for variation in family.variations:
        try:
            Variator(make_physics("mujoco", model, 2, 1), (variation,)).apply(tasks)
        except UserError:
            refused |= set(variation.parameters)
    return dataclasses.replace(draft, without=tuple(sorted({*draft.without, *refused})))


def _repaired(draft: Draft, findings: list[Finding]) -> Draft:
    """Leave out what `check` shows to have no effect on this robot."""
    problems = [finding.problem for finding in findings if finding.problem is not None]
    idle = {name for problem in problems for name in _IDLE.findall(problem)}
    falls = draft.falls and not any(_NEVER_FALLS in p or _STARTS_FALLEN in p for p in problems)
    return dataclasses.replace(draft, falls=falls, without=tuple(sorted({*draft.without, *idle})))
