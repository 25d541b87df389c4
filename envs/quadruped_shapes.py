"""Quadrupeds that must adapt to what they carry, and to legs that are not their own. See quadruped.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from jaxtyping import Float, Int64
from torch import Tensor

from metarl.core.mirror import signed
from metarl.core.seeding import WorldRandom
from metarl.core.tasks import Parameter, Tasks, TaskSpace, Uniform
from metarl.envs.quadruped import FOOT_DEPTH, LEGS, LOWEST_TRUNK, OTHER_SIDE, SYMMETRY, Quadruped, to_trunk
from metarl.sim.mujoco.physics import Physics
from metarl.sim.variations import GravityTilt, LinkLength, Payload

THIGH = CALF = 0.213  # [m]
HIP_ANGLE = 0.9  # [rad] of thigh and shank from the vertical, standing


class BlindQuadruped(Quadruped):
    """A quadruped that does not observe its previous action.

    Servo targets beside joint angles would tell in one step what the servos hold, so that no memory is needed.
    """

    observation = tuple(part for part in Quadruped.observation if part.name != "previous_action")

    def observe(self, physics: Physics, tasks: Tasks) -> Mapping[str, Float[Tensor, "N size"]]:
        """The declared parts."""
        seen = super().observe(physics, tasks)
        return {part.name: seen[part.name] for part in self.observation}


class QuadrupedLoad(BlindQuadruped):
    """Follow the command under an unknown load, anywhere on the back, on an unknown slope (32 elements, no action).

    Ours, after RMA (Kumar et al. 2021, arXiv:2107.04034). The slope rises along x and is flat ground under a gravity
    that is turned, which pictures do not show; `gravity` is where that points, as a robot's sensor feels it.
    """

    space = TaskSpace(
        {
            "load": Parameter(
                Uniform(0.0, 10.0), ood=Uniform(10.0, 13.0), unit="kg", nominal=0.0, help="on the back", graded=True
            ),
            "load_x": Parameter(Uniform(-0.15, 0.15), unit="m", nominal=0.0, help="place of the load, forward"),
            "load_y": Parameter(Uniform(-0.12, 0.12), unit="m", nominal=0.0, help="place of the load, to the left"),
            "slope": Parameter(
                Uniform(-0.26, 0.26),
                ood=Uniform(0.26, 0.35),
                unit="rad",
                nominal=0.0,
                help="rise of the ground",
            ),
        }
    )
    variations = (Payload("load", "trunk", at=(0.0, 0.0, 0.08), aside=("load_x", "load_y")), GravityTilt("slope"))
    sensed = ("slope",)
    mirror = replace(SYMMETRY, parameters={"load_y": signed(-1)})

    def proprioception(self, physics: Physics) -> dict[str, Float[Tensor, "N size"]]:
        """With the gravity of the slope."""
        qpos = physics.bind("qpos")
        gravity = physics.expand("opt.gravity").to(qpos.dtype)
        direction = gravity / gravity.norm(dim=1, keepdim=True)
        return {**super().proprioception(physics), "gravity": to_trunk(qpos, direction)}


class QuadrupedLimbs(BlindQuadruped):
    """Follow the command on legs of unknown lengths, each its own: thighs and shanks × U(0.75, 1.25) (no action seen).

    Ours; MetaLoco (Zargarbashi et al. 2024, arXiv:2407.17502) finds memory critical where bodies differ. The terms that
    want an even trot are left out of the reward; heights in it are those of the robot's own legs.
    """

    space = TaskSpace(
        {
            name: Parameter(
                Uniform(0.75, 1.25, len(LEGS)),
                ood=Uniform(1.25, 1.4, len(LEGS)),
                unit="1",
                nominal=[1.0] * len(LEGS),
                help=f"length of each {link}, ratio: {', '.join(LEGS)}",
            )
            for name, link in (("thigh", "thigh"), ("calf", "shank"))
        }
    )
    variations = tuple(LinkLength(name, tuple(f"{leg}_{name}" for leg in LEGS)) for name in ("thigh", "calf"))
    mirror = replace(SYMMETRY, parameters={"thigh": OTHER_SIDE, "calf": OTHER_SIDE})
    gait_terms = False

    def reset(self, physics: Physics, worlds: Int64[Tensor, "n"], tasks: Tasks, random: WorldRandom) -> None:
        """As all, at the height of the longest leg."""
        super().reset(physics, worlds, tasks, random)
        physics.bind("qpos")[worlds, 2] += _depth(tasks).amax(dim=1) - FOOT_DEPTH

    def stance(self, tasks: Tasks) -> tuple[float | Float[Tensor, "N 4"], float | Float[Tensor, "N"]]:
        """That of legs of these lengths; the trunk's that of their mean."""
        depth = _depth(tasks)
        return depth, LOWEST_TRUNK + depth.mean(dim=1) - FOOT_DEPTH


def _depth(tasks: Tasks) -> Float[Tensor, "N 4"]:
    """How deep each foot is below the trunk, standing [m]."""
    return (THIGH * tasks["thigh"] + CALF * tasks["calf"]) * math.cos(HIP_ANGLE)
