"""Robots of MuJoCo Menagerie, from the optional package mujoco-menagerie."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import mujoco

from metarl.core.errors import UserError, unknown_name


def menagerie(robot: str, entry: str | None = None) -> mujoco.MjSpec:
    """The model of a robot, as `menagerie("unitree_go1")`, to edit and return from `MujocoFamily.spec`.

    `entry` is one of the robot's XML files without the ending (`go1`); None for its scene, with floor and lights.
    Fetched once into `~/.cache/mujoco_menagerie`, or read from the checkout of mujoco_menagerie that MENAGERIE_ROOT
    names. Raises `UserError` where the package, the robot or the entry is missing.
    """
    try:
        package: Any = import_module("mujoco_menagerie")
    except ImportError:
        raise UserError(
            f"the robot '{robot}' needs the package mujoco-menagerie: pip install mujoco-menagerie"
        ) from None
    if robot not in package.names():
        raise unknown_name("robot of mujoco-menagerie", robot, package.names())
    try:
        return package.get(robot).spec(entry)
    except (package.MenagerieError, OSError, ValueError) as error:  # not there, cannot be fetched, does not parse
        raise UserError(f"the robot '{robot}' of mujoco-menagerie: {' '.join(str(error).split())}") from None
