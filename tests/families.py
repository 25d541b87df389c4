"""Toys the tests share: a family whose episodes end when its cart leaves the rail, and a bench of simple machines."""

import mujoco
import torch

from metarl.core.info import Part
from metarl.core.registry import family_names
from metarl.core.tasks import Parameter, Tasks, TaskSpace, Uniform
from metarl.sim.family import MujocoFamily

ALL_FAMILIES = family_names()

RAIL = """<mujoco><option timestep="0.01" gravity="0 0 0"/>
<worldbody><body name="cart"><joint name="x" type="slide" axis="1 0 0"/><geom size="0.1" mass="1"/></body></worldbody>
<actuator><motor name="push" joint="x" gear="100" ctrlrange="{}"/></actuator></mujoco>"""

BENCH = """<mujoco><option timestep="0.005"/>
<worldbody>
  <geom name="floor" type="plane" size="9 9 1" friction="0.4"/>
  <body name="box" pos="3 0 0.05"><freejoint name="free"/>
    <geom name="box" type="box" size="0.2 0.2 0.05" mass="2" friction="0.4"/></body>
  <body name="upper" pos="0 0 3"><joint name="shoulder" axis="0 1 0" damping="0.3"/>
    <geom name="upper" type="capsule" fromto="0 0 0 0 0 -0.5" size="0.05" mass="1"/>
    <body name="lower" pos="0 0 -0.5"><joint name="elbow" axis="0 1 0" damping="0.2"/>
      <geom name="lower" type="capsule" fromto="0 0 0 0 0 -0.5" size="0.05" mass="1"/></body></body>
</worldbody>
<tendon><fixed name="spare"><joint joint="elbow" coef="1"/></fixed>
  <fixed name="cable"><joint joint="shoulder" coef="1"/><joint joint="elbow" coef="1"/></fixed></tendon>
<actuator>
  <motor name="shoulder" joint="shoulder" gear="5" ctrlrange="-1 1"/>
  <motor name="elbow" joint="elbow" gear="3" ctrlrange="-1 1"/>
  <motor name="cable" tendon="cable" ctrlrange="-1 1" forcerange="-0.5 0.5"/>
  <position name="servo" joint="elbow" kp="10" ctrlrange="-1 1"/>
</actuator></mujoco>"""
"""A sliding box, and a double pendulum; the cable's tendon has the index of the shoulder joint."""


class Rail(MujocoFamily):
    """A cart on a rail, pushed at up to 100 m/s²; r = −|x − goal| − |a|. It falls off past `edge`.

    Pushed fully from its start, within 0.01 m of zero, it is at 0.03, 0.10, 0.21, 0.36 m after 1, 2, 3, 4 steps.
    """

    space = TaskSpace({"goal": Parameter(Uniform(-1.0, 1.0), unit="m", ood=Uniform(2.0, 3.0), nominal=0.0)})
    observation = (Part("position", 1, "m"), Part("velocity", 1, "m/s"))
    control_step, episode_steps = 0.02, 4

    def __init__(self, edge=0.05, ctrlrange="-1 1"):
        self.edge, self.ctrlrange = edge, ctrlrange

    def spec(self):
        return mujoco.MjSpec.from_string(RAIL.format(self.ctrlrange))

    def reset(self, physics, worlds, tasks, random):
        physics.bind("qpos")[worlds] = random.uniform(-0.01, 0.01, 1)

    def observe(self, physics, tasks):
        return {"position": physics.bind("qpos"), "velocity": physics.bind("qvel")}

    def reward(self, physics, before, action, tasks):
        return {"goal": -(physics.bind("qpos")[:, 0] - tasks["goal"]).abs(), "effort": -action[:, 0].abs()}

    def terminated(self, physics, tasks):
        return physics.bind("qpos")[:, 0] > self.edge


def only(num_worlds, *worlds):
    """A mask of the given worlds; of all without any."""
    mask = torch.zeros(num_worlds, dtype=torch.bool)
    mask[list(worlds) or slice(None)] = True
    return mask


def columns(**values):
    """Tasks from one list per parameter."""
    return Tasks({name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()})
