"""A robot of another package, plugged in: dm_control's finger turns a body one way or the other.

    pip install --no-deps dm-control                                  # 56 MB, of which only an MJCF file is read
    metarl check examples/plug_in_finger.py:FingerTurn
    metarl video examples/plug_in_finger.py:FingerTurn --agent random --output videos/look.mp4
    metarl train rl2 examples/plug_in_finger.py:FingerTurn --seed 1 --total-steps 1_000_000 --output runs/finger
    metarl video runs/finger --output videos/finger.mp4

Which way is rewarded, and how stiff the body's bearing is, the finger has to find out by pushing it.
"""

from importlib.util import find_spec
from pathlib import Path

import mujoco
import torch

from metarl.core.errors import UserError
from metarl.core.info import Part
from metarl.core.tasks import Choice, LogUniform, Parameter, TaskSpace, Uniform
from metarl.sim.family import MujocoFamily
from metarl.sim.variations import JointDamping

FAST = 5.0  # [rad/s]: turning faster than this earns no more


class FingerTurn(MujocoFamily):
    """Turn a body in the unknown direction that is rewarded: r = d·clip(ω/5, −1, 1) − 0.02 |a|²."""

    space = TaskSpace(
        {
            "direction": Parameter(Choice((-1.0, 1.0)), unit="1", help="+1 or -1: sense of rotation that is rewarded"),
            "damping": Parameter(
                LogUniform(0.5, 2.0), ood=Uniform(2.0, 4.0), unit="1", nominal=1.0, help="of the bearing, ratio"
            ),
        }
    )
    control_step = 0.02  # [s]
    episode_steps = 100
    observation = (
        Part("joint_position", 2, "rad", ("proximal", "distal")),
        Part("body_heading", 2, "1", ("sine", "cosine")),
        Part("joint_velocity", 3, "rad/s", ("proximal", "distal", "hinge")),
    )
    variations = (JointDamping("damping", ("hinge",)),)
    camera = "cam1"

    def spec(self) -> mujoco.MjSpec:
        """dm_control's model, unchanged."""
        package = find_spec("dm_control")  # found, not imported: its dependencies are not needed
        if package is None or package.origin is None:
            raise UserError("the finger is a model of dm_control: pip install --no-deps dm-control")
        return mujoco.MjSpec.from_file(str(Path(package.origin).parent / "suite" / "finger.xml"))

    def reset(self, physics, worlds, tasks, random):
        """The fingertip just below the body, both turned by up to 0.3 rad."""
        start = torch.tensor([0.9, 0.0, 0.0])  # [rad]: proximal and distal joint of the finger, hinge of the body
        physics.bind("qpos")[worlds] += start + random.uniform(-0.3, 0.3, 3)

    def observe(self, physics, tasks):
        """Angles of the finger's joints, sine and cosine of the body's, velocities of all three."""
        finger, body = physics.bind("qpos").split_with_sizes((2, 1), dim=1)
        heading = torch.cat((body.sin(), body.cos()), dim=1)
        return {"joint_position": finger, "body_heading": heading, "joint_velocity": physics.bind("qvel")}

    def reward(self, physics, before, action, tasks):
        """Terms `turn` and `control`."""
        speed = physics.bind("qvel")[:, 2] / FAST
        return {"turn": tasks["direction"] * speed.clamp(-1.0, 1.0), "control": -0.02 * action.square().sum(dim=1)}
