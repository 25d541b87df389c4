"""Quadruped: a 13 kg robot dog with twelve servos, and what it is rewarded for. Its tasks are in quadruped_tasks.py.

Model: `assets/quadruped.xml`, our own, of the Unitree Go1's size; timestep 0.004 s, 5 substeps. It observes what such a
robot measures, and nothing more (44).

Joints and actions in the order FL, FR, RL, RR (front left to rear right), each abduction, hip, knee. Action (12), in
[-1, 1]: target angle of a joint's servo (50 N·m/rad, 1 N·m·s/rad), from the standing pose (0, 0.9, -1.8) rad to
±0.4, ±0.7, ±0.8 rad away; torque limits 23.7, 23.7, 35.55 N·m.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import mujoco
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from metarl.core.info import Part, Reflection
from metarl.core.mirror import Symmetry, side_by_side, signed
from metarl.core.seeding import WorldRandom
from metarl.core.tasks import Tasks
from metarl.sim.family import MujocoFamily, Wanted, constant_like
from metarl.sim.mujoco.physics import Physics

MODEL = Path(__file__).parent / "assets" / "quadruped.xml"
LEGS = ("FL", "FR", "RL", "RR")
MOTORS = tuple(f"{leg}_{joint}" for leg in LEGS for joint in ("abduction", "hip", "knee"))
FEET = tuple(f"{leg}_foot" for leg in LEGS)
STAND = torch.tensor([0.0, 0.9, -1.8] * 4, dtype=torch.float64)  # joint angles [rad]
REACH = torch.tensor([0.4, 0.7, 0.8] * 4, dtype=torch.float64)  # of an action of 1 [rad]
START = torch.tensor([0.29], dtype=torch.float64)  # [m] height of the trunk's centre, standing
LOWEST_TRUNK = 0.25  # [m] above the lowest foot, without crouching
FOOT_DEPTH = 0.265  # [m] of the feet below the trunk, standing
SWING_HEIGHT = 0.07  # [m] a swinging foot should be lifted
SWING_TIME = 0.25  # [s] a swinging foot should be in the air
DUTY, DUTY_SPAN = 0.6, 0.4  # share of time a foot should stand, and the span it is averaged over [s]
CONTACT = 1.0  # [N] on a foot that stands
STEADY = torch.tensor([DUTY], dtype=torch.float64)
SPEED = (0.3, 1.0)  # [m/s] of a command
TURN = (-0.5, 0.5)  # [rad/s] of a command
COMMAND = torch.tensor([[0.65, 0.0], [0.35, 0.5]], dtype=torch.float64)  # middle and half width of the two

COSTS = torch.cat(  # of squares, by term
    (
        torch.tensor([-1.0]),  # bounce: vertical velocity [s²/m²]
        torch.tensor([-0.03] * 2),  # wobble: roll and pitch rate [s²/rad²]
        torch.tensor([-2e-4] * 12),  # torque [1/(N·m)²]
        torch.tensor([-2e-4] * 12),  # shake: change of joint velocity [s²/rad²]
        -0.03 / REACH**2,  # jerk: change of the servos' targets [1/rad²], in units of the action
        torch.tensor([-0.3, -0.2, -0.05] * 4),  # pose: joint angles from standing [1/rad²]
    )
).double()

OTHER_SIDE: Reflection = ((1, 1), (0, 1), (3, 1), (2, 1))  # leg by leg: left and right
JOINTS_MIRRORED: Reflection = tuple(
    (3 * leg + joint, -1 if joint == 0 else 1) for leg, _ in OTHER_SIDE for joint in range(3)
)
_VECTOR, _PSEUDOVECTOR = signed(1, -1, 1), signed(-1, 1, -1)
_COMMAND = signed(1, -1)
SYMMETRY = Symmetry(
    action=JOINTS_MIRRORED,
    state={
        "qpos": side_by_side(_VECTOR, signed(1), _PSEUDOVECTOR, JOINTS_MIRRORED),
        "qvel": side_by_side(_VECTOR, _PSEUDOVECTOR, JOINTS_MIRRORED),
        "ctrl": JOINTS_MIRRORED,
        "userdata": side_by_side(_COMMAND, OTHER_SIDE, OTHER_SIDE),
    },
    parts={
        "gyro": _PSEUDOVECTOR,
        "gravity": _VECTOR,
        "joint_position": JOINTS_MIRRORED,
        "joint_velocity": JOINTS_MIRRORED,
        "previous_action": JOINTS_MIRRORED,
        "command": _COMMAND,
    },
)

PROPRIOCEPTION = (
    Part("gyro", 3, "rad/s", ("x", "y", "z"), "angular velocity about the trunk's own axes"),
    Part("gravity", 3, "1", ("x", "y", "z"), "its direction in the trunk's frame; (0, 0, -1) when level"),
    Part("joint_position", 12, "rad", MOTORS, "from the standing pose"),
    Part("joint_velocity", 12, "rad/s", MOTORS),
    Part("previous_action", 12, "1", MOTORS),
)


class Quadruped(MujocoFamily):
    """What all quadruped families share: follow the command, upright, smoothly, and in a gait.

    | term | reward, per step |
    |---|---|
    | velocity, turn | 2 exp(−|v − v*|²/0.25) of the horizontal velocity and exp(−(ω − ω*)²/0.25) of the turn rate |
    | bounce, wobble, lean | vertical velocity, roll and pitch rates, tilt of the trunk, squared |
    | torque, shake, jerk | joint torques, changes of joint velocity and of the action, squared |
    | pose, crouch | distance of the joints from standing; a trunk lower than 0.25 m above the lowest foot |
    | drag | horizontal speed of feet that are not lifted |
    | limp | difference of lift between diagonal feet: they swing together in a trot |
    | patter | for each landing, how much shorter than 0.25 s the foot was in the air |
    | duty | how far each foot's recent share of time on the ground is from 0.6: no leg is spared |

    The first two and most costs follow legged_gym (Rudin et al. 2022, arXiv:2109.11978), which rewards time in the air
    where ours has the last four. An episode ends when the trunk leans by more than 60° or sinks onto the feet.
    """

    control_step = 0.02
    episode_steps = 250
    camera = "track"
    mirror: ClassVar[Symmetry | None] = SYMMETRY
    reward_needs: ClassVar[Mapping[str, bool]] = {
        "the trunk's velocity": False,
        "its turn rate and tilt": True,
        "angles, velocities and torques of the joints": True,
        "contacts of the feet": True,
    }
    velocity_limit: ClassVar[Sequence[float]] = (30.1, 30.1, 20.06) * 4  # as the Go1's description has it
    gait_terms: ClassVar[bool] = True
    """Reward `limp`, `patter` and `duty`, which want an even trot; without them a robot may spare a leg."""
    observation: ClassVar[tuple[Part, ...]] = (
        *PROPRIOCEPTION,
        Part("command", 2, "m/s, rad/s", ("forward", "turn"), "velocity and turn rate, drawn anew for each episode"),
    )

    def spec(self) -> mujoco.MjSpec:
        """Our own model, on a plane."""
        return mujoco.MjSpec.from_file(str(MODEL))

    def reset(self, physics: Physics, worlds: Int64[Tensor, "n"], tasks: Tasks, random: WorldRandom) -> None:
        """Standing, with joint angles + U(-0.1, 0.1) rad and joint velocities + U(-0.1, 0.1) rad/s; a new command."""
        draw = random.uniform(-1.0, 1.0, 26)  # at once: a call costs more than a number
        qpos, memory = physics.bind("qpos"), physics.bind("userdata")
        stand, command = constant_like(STAND, qpos), constant_like(COMMAND, qpos)
        qpos[worlds, 2:3] = constant_like(START, qpos)
        qpos[worlds, 7:] = stand + 0.1 * draw[:, :12]
        physics.bind("qvel")[worlds, 6:] = 0.1 * draw[:, 12:24]
        physics.bind("ctrl")[worlds] = stand
        memory[worlds, :2] = command[0] + command[1] * draw[:, 24:]
        memory[worlds, 6:] = constant_like(STEADY, memory)

    def advance(self, physics: Physics, tasks: Tasks) -> None:
        """Remember of each foot how long it has been in the air, and its share of time on the ground of late."""
        memory, down = physics.bind("userdata"), physics.bind("sensordata", fresh=False, at_start=False) > CONTACT
        memory[:, 2:6].add_(self.control_step).mul_(~down)
        memory[:, 6:].lerp_(down.to(memory.dtype), self.control_step / DUTY_SPAN)

    def observe(self, physics: Physics, tasks: Tasks) -> Mapping[str, Float[Tensor, "N size"]]:
        """What the robot feels of itself, and the command."""
        return {**self.proprioception(physics), "command": physics.bind("userdata")[:, :2]}

    def proprioception(self, physics: Physics) -> dict[str, Float[Tensor, "N size"]]:
        """What the robot feels of itself."""
        qpos, qvel = physics.bind("qpos"), physics.bind("qvel")
        stand = constant_like(STAND, qpos)
        return {
            "gyro": qvel[:, 3:6],
            "gravity": -upward(qpos),
            "joint_position": qpos[:, 7:] - stand,
            "joint_velocity": qvel[:, 6:],
            "previous_action": (physics.bind("ctrl") - stand) / constant_like(REACH, qpos),
        }

    def command(self, physics: Physics, tasks: Tasks) -> Float[Tensor, "N 2"]:
        """Wanted forward velocity [m/s] and turn rate [rad/s]."""
        return physics.bind("userdata")[:, :2]

    def wanted(self, physics: Physics, tasks: Tasks) -> Wanted | None:
        """The command, along the trunk's heading."""
        speed, turn = self.command(physics, tasks).unbind(dim=1)
        w, x, y, z = physics.bind("qpos")[:, 3:7].unbind(dim=1)
        ahead = torch.stack((1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z)), dim=1)
        return Wanted(torch.nn.functional.normalize(ahead), speed, turn)

    def snapshot(self, physics: Physics) -> Float[Tensor, "N 40"]:
        """Servo targets, places of the feet, joint velocities, time of the feet in the air."""
        feet, joint_velocity = self._feet(physics).flatten(1), physics.bind("qvel")[:, 6:]
        return torch.cat((physics.bind("ctrl"), feet, joint_velocity, physics.bind("userdata")[:, 2:6]), dim=1)

    def reward(
        self, physics: Physics, before: Float[Tensor, "N 40"], action: Float[Tensor, "N 12"], tasks: Tasks
    ) -> Mapping[str, Float[Tensor, "N"]]:
        """The terms of the class's table, in few operations: this runs at every step of training."""
        qpos, qvel, memory = physics.bind("qpos"), physics.bind("qvel"), physics.bind("userdata")
        force, ctrl = physics.bind("actuator_force", fresh=False, at_start=False), physics.bind("ctrl")
        stand = constant_like(STAND, qpos)
        feet, up, velocity = self._feet(physics), up_in_world(qpos), to_trunk(qpos, qvel[:, :3])
        error = torch.cat((velocity[:, :2], qvel[:, 5:6]), dim=1)
        error[:, ::2] -= self.command(physics, tasks)
        error = error.square_().mul_(-4.0)
        restless = torch.cat((velocity[:, 2:], qvel[:, 3:5]), dim=1)
        effort = torch.cat((force, qvel[:, 6:] - before[:, 24:36], ctrl - before[:, :12], qpos[:, 7:] - stand), dim=1)
        squares = torch.cat((restless, effort), dim=1).square_().mul_(constant_like(COSTS, qpos))
        torque, shake, jerk, pose = squares[:, 3:].view(-1, 4, len(MOTORS)).sum(dim=2).unbind(dim=1)
        depth, lowest = self.stance(tasks)
        lift = ((feet - qpos[:, None, :3]) * up[:, None]).sum(dim=2) + depth
        low = (1.0 - lift / SWING_HEIGHT).clamp_(0.0, 1.0)
        moved = feet - before[:, 12:24].view(-1, 4, 3)
        sinking = (lowest - qpos[:, 2] + feet[:, :, 2].amin(dim=1)).clamp_(min=0.0)
        terms = {
            "velocity": 2.0 * self.closeness(error[:, 0] + error[:, 1]),
            "turn": self.closeness(error[:, 2]),
            "bounce": squares[:, 0],
            "wobble": squares[:, 1] + squares[:, 2],
            "lean": up[:, 2].square() - 1.0,
            "torque": torque,
            "shake": shake,
            "jerk": jerk,
            "pose": pose,
            "crouch": -80.0 * sinking.square_(),
            "drag": (low.square_() * torch.hypot(moved[:, :, 0], moved[:, :, 1])).sum(dim=1)
            * (-0.3 / self.control_step),
        }
        if self.gait_terms:
            hurry = (SWING_TIME - before[:, 36:]).clamp_(min=0.0) * ((before[:, 36:] > 0.0) & (memory[:, 2:6] == 0.0))
            terms |= {
                "limp": (lift[:, :2] - lift[:, 2:].flip(1)).square_().sum(dim=1) * (-0.1 / SWING_HEIGHT**2),
                "patter": -2.0 * hurry.sum(dim=1),
                "duty": -0.5 * (memory[:, 6:] - DUTY).square_().sum(dim=1),
            }
        return terms

    def stance(self, tasks: Tasks) -> tuple[float | Float[Tensor, "N 4"], float | Float[Tensor, "N"]]:
        """Of the standing robot [m]: how deep each foot is below the trunk; the trunk's least height above the feet."""
        return FOOT_DEPTH, LOWEST_TRUNK

    def closeness(self, x: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        """What an error against the command leaves of a reward of 1; `x` is −(error / 0.5)²."""
        return x.exp()

    def terminated(self, physics: Physics, tasks: Tasks) -> Bool[Tensor, "N"]:
        """Fallen: leaning by more than 60°, or the trunk less than 0.12 m above the mean of the feet."""
        qpos = physics.bind("qpos")
        height = qpos[:, 2] - self._feet(physics)[:, :, 2].mean(dim=1)
        upright = 1.0 - 2.0 * qpos[:, 4:6].square().sum(dim=1)  # the vertical part of the trunk's up
        return (upright < 0.5) | (height < 0.12)

    def _feet(self, physics: Physics) -> Float[Tensor, "N 4 3"]:
        """Places of the feet, a substep (4 ms) old."""
        return physics.bind("site_xpos", fresh=False)[:, : len(LEGS)]


_W, _X, _Y, _Z = range(3, 7)
_FACTORS = (_X, _Y, _X, _W, _W, _Y, _Z, _Z, _X, _Y, _X, _Y)
"""Elements of `qpos`: a first half and a second, whose products come in pairs: xz and wy, yz and wx, x² and y²."""
_PAIRS = torch.tensor([[-1.0, 1.0, 1.0], [1.0, -1.0, 1.0]], dtype=torch.float64)  # signs of a pair's second products
_TILT = torch.tensor([[0.0, 0.0, 1.0], [2.0, 2.0, -2.0]], dtype=torch.float64)


def upward(qpos: Float[Tensor, "N Q"]) -> Float[Tensor, "N 3"]:
    """The world's up in the trunk's frame: the last row of its rotation matrix."""
    return _tilted(qpos, 0)


def up_in_world(qpos: Float[Tensor, "N Q"]) -> Float[Tensor, "N 3"]:
    """The trunk's up in the world's frame: the last column of its rotation matrix."""
    return _tilted(qpos, 1)


@functools.cache
def _factors(device: torch.device) -> Int64[Tensor, "12"]:
    return torch.tensor(_FACTORS, device=device)


def _tilted(qpos: Float[Tensor, "N Q"], side: int) -> Float[Tensor, "N 3"]:
    """(2xz ∓ 2wy, 2yz ± 2wx, 1 − 2x² − 2y²), in few operations."""
    one, other = qpos.index_select(1, _factors(qpos.device)).tensor_split(2, dim=1)
    first, second = (one * other).tensor_split(2, dim=1)
    base, scale = constant_like(_TILT, qpos).unbind()
    return torch.addcmul(base, torch.addcmul(first, second, constant_like(_PAIRS, qpos)[side]), scale)


def to_trunk(qpos: Float[Tensor, "N Q"], vector: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """A vector of the world in the trunk's frame: v − 2w (q × v) + 2 q × (q × v)."""
    w, axis = qpos[:, 3:4], qpos[:, 4:7]
    turned: Tensor = 2.0 * torch.linalg.cross(axis, vector)
    in_trunk: Tensor = vector - w * turned + torch.linalg.cross(axis, turned)
    return in_trunk
