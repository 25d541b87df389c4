"""A cart and a body adrift with whatever disturbances a test wants, or with all of them."""

import mujoco
from families import Rail

from metarl.core.info import Part
from metarl.core.tasks import Parameter, TaskSpace, Uniform
from metarl.sim.altered import Altered
from metarl.sim.disturbances import (
    ActionLatency,
    Drift,
    EncoderOffset,
    Fault,
    Force,
    ImuTilt,
    Kick,
    Redrawn,
    Sensor,
)
from metarl.sim.variations import BodyMass, MotorStrength


class Cart(Rail):
    """The rail's cart with a strength, a mass and a number to play with."""

    space = TaskSpace(
        {
            "goal": Parameter(Uniform(-1.0, 1.0), "m", ood=Uniform(2.0, 3.0), nominal=0.0),
            "late": Parameter(Uniform(0.0, 0.06), "s", nominal=0.0),
            "strength": Parameter(Uniform(0.0, 1.0), "1", nominal=1.0),
            "mass": Parameter(Uniform(1.0, 3.0), "1", nominal=1.0),
        }
    )
    variations = (MotorStrength("strength"), BodyMass("mass"))
    episode_steps = 50

    def __init__(self, *disturbances, edge=1e9):
        super().__init__(edge=edge)
        self.disturbances = disturbances


FLOATER = """<mujoco><option timestep="0.01" gravity="0 0 0"/>
<worldbody><body name="hull"><freejoint/><geom size="0.1" mass="2"/>
  <body name="arm"><joint name="arm" axis="0 0 1" damping="0.1"/>
    <geom size="0.05" pos="0.3 0 0" mass="0.01"/></body></body>
</worldbody>
<actuator><position name="arm" joint="arm" kp="1" ctrlrange="-1 1"/></actuator></mujoco>"""


class Floater(Cart):
    """A body adrift that has an arm and knows where it is."""

    observation = (Part("place", 3, "m"), Part("joint_position", 1, "rad", ("arm",)))
    variations = ()

    def spec(self):
        return mujoco.MjSpec.from_string(FLOATER)

    def reset(self, physics, worlds, tasks, random):
        physics.bind("qpos")[worlds, :2] = random.uniform(-0.01, 0.01, 2)

    def observe(self, physics, tasks):
        return {"place": physics.bind("qpos")[:, :3], "joint_position": physics.bind("qpos")[:, 7:]}


EVERYTHING = (
    ActionLatency(Uniform(0.0, 0.05), jitter=0.01, lost=0.1),
    Sensor("position", noise=0.01, bias=Uniform(-0.1, 0.1), latency="late", lost=0.1),
    Fault(("strength",), onset=Uniform(0.02, 0.2), duration=Uniform(0.05, 0.1)),
    Redrawn(("goal",), every=Uniform(0.05, 0.1)),
    Drift(("mass",), to=2.0, seconds=0.5, every=0.1),
    Altered(BodyMass("load"), Uniform(1.0, 2.0), onset=Uniform(0.02, 0.2), duration=0.3),
    Altered(MotorStrength("battery"), Uniform(0.5, 1.0), over=1.0),
)


class Everywhere(Floater):
    disturbances = (
        *(EncoderOffset(offset=Uniform(-0.1, 0.1)), ImuTilt("late", parts=("place",)), Kick(0.1, Uniform(0.02, 0.1))),
        *(
            Force("hull", "strength", axis=0, onset=0.1),
            Redrawn(("strength", "mass"), every=0.5, of="distance"),
            *EVERYTHING[2:4],
        ),
        *(Sensor("place", noise=0.01, latency=0.03, lost=0.2), ActionLatency(0.01, jitter=0.01, lost=0.1)),
    )

    def __init__(self):
        Rail.__init__(self, edge=0.5)
