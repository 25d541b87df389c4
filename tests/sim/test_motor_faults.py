"""Motors that break in one of several ways, and limbs of unequal strength: forces in a model, one world at a time."""

import mujoco
import numpy as np
import pytest
import torch
from families import columns, only

from metarl.core.errors import UserError
from metarl.sim.motor_faults import FAULTS, LimbSigns, LimbStrength, MotorFault, ServoGain
from metarl.sim.mujoco.mujoco_env import compile_spec
from metarl.sim.mujoco.physics import make_physics
from metarl.sim.variations import Variator

ARM = """<mujoco><option timestep="0.005" gravity="0 0 0"/>
<worldbody><body name="upper"><joint name="shoulder" axis="0 1 0" damping="0.1"/>
  <geom type="capsule" fromto="0 0 0 0 0 -0.5" size="0.05" mass="1"/>
  <body name="lower" pos="0 0 -0.5"><joint name="elbow" axis="0 1 0" damping="0.1"/>
    <geom type="capsule" fromto="0 0 0 0 0 -0.5" size="0.05" mass="1"/></body></body></worldbody>
<actuator>
  <position name="shoulder" joint="shoulder" kp="10" kv="1" ctrlrange="-0.5 1.5"/>
  <motor name="elbow" joint="elbow" gear="3" ctrlrange="-1 1" forcerange="-0.5 0.5"/>
</actuator></mujoco>"""
MOTORS = ("shoulder", "elbow")
FAULT = MotorFault("kind", "motor", MOTORS)


def torques(physics, world, ctrl, velocity=0.0):
    """Of both actuators at the joints, at `ctrl`."""
    model = physics.model_of(world)
    data = mujoco.MjData(model)
    data.ctrl[:], data.qvel[:] = ctrl, velocity
    mujoco.mj_forward(model, data)
    return data.qfrc_actuator.tolist()


def broken(kinds, motors, variation=FAULT):
    physics = make_physics("mujoco", compile_spec(mujoco.MjSpec.from_string(ARM)), len(kinds), 1)
    variator = Variator(physics, (variation,))
    variator.apply(columns(kind=[float(FAULTS.index(kind)) for kind in kinds], motor=motors))
    return physics, variator


def test_each_fault_changes_the_forces_of_its_motor_alone():
    """The shoulder at 1.0 pulls with 10 N·m; at the mirror image of that in [-0.5, 1.5], 0.0, with none."""
    physics, _ = broken(
        ["dead", "reversed", "reversed", "dead limb", "locked", "dead"], [0.0, 0.0, 1.0, 1.0, 0.0, -1.0]
    )
    found = [torques(physics, world, (1.0, 0.1)) for world in range(6)]
    expected = [[0.0, 0.3], [0.0, 0.3], [10.0, -0.3], [10.0, 0.0], [0.0, 0.3], [10.0, 0.3]]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert torques(physics, 1, (0.3, 0.1), velocity=0.5)[0] == pytest.approx(10.0 * 0.7 - 0.5)  # damped as ever


def test_a_limb_dies_as_a_whole():
    physics, _ = broken(["dead limb", "dead limb"], [1.0, -1.0], MotorFault("kind", "motor", MOTORS, limb=2))
    assert torques(physics, 0, (1.0, 0.1)) == [0.0, 0.0]
    assert torques(physics, 1, (1.0, 0.1)) == pytest.approx([10.0, 0.3])


def test_a_locked_joint_stays_where_it_is_when_it_locks():
    """In mid-motion, in its world only."""
    physics, variator = broken(["dead", "dead"], [-1.0, -1.0])
    qpos, ctrl = physics.bind("qpos"), physics.bind("ctrl")
    ctrl[:] = torch.tensor([1.0, 0.5])
    physics.step(40)
    variator.apply(columns(kind=[1.0, 0.0], motor=[0.0, -1.0]), only(2, 0))
    physics.step(2)
    there = qpos.clone()
    ctrl[:, 0] = -0.5
    physics.step(100)
    moved = (qpos - there).abs()
    assert moved[0, 0] < 0.01
    assert moved[1, 0] > 0.5
    assert moved[0, 1] > 0.1


def test_a_motor_is_whole_again_afterwards():
    physics, variator = broken(["reversed", "locked"], [0.0, 1.0])
    variator.apply(columns(kind=[2.0, 1.0], motor=[-1.0, -1.0]))
    model = physics.model_of(1)
    for world in range(2):
        for field in FAULT.fields:
            assert np.array_equal(getattr(physics.model_of(world), field), getattr(physics.model, field)), field
    assert model.dof_frictionloss.tolist() == [0.0, 0.0]


def test_limbs_differ_in_strength():
    physics = make_physics("mujoco", compile_spec(mujoco.MjSpec.from_string(ARM)), 1, 1)
    Variator(physics, (LimbStrength("strength", (("shoulder",), ("elbow",))),)).apply(columns(strength=[[0.5, 0.25]]))
    assert torques(physics, 0, (1.0, 0.1)) == pytest.approx([5.0, 0.075])
    assert torques(physics, 0, (1.0, 1.0)) == pytest.approx([5.0, 0.375])  # its limit has shrunk too


def test_limbs_turn_round():
    """A servo's target of 0.4 is mirrored in [-0.5, 1.5] to 0.6; a motor's force has the other sign."""
    physics = make_physics("mujoco", compile_spec(mujoco.MjSpec.from_string(ARM)), 3, 1)
    signs = [[-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]
    Variator(physics, (LimbSigns("signs", (("shoulder",), ("elbow",))),)).apply(columns(signs=signs))
    found = [torques(physics, world, (0.4, 0.1)) for world in range(3)]
    np.testing.assert_allclose(found, [[6.0, 0.3], [4.0, -0.3], [4.0, 0.3]], atol=1e-9)


def test_what_cannot_break_or_weaken_is_refused():
    skewed = ARM.replace('gear="3" ctrlrange="-1 1"', 'gear="3" ctrlrange="0 1"')
    physics = make_physics("mujoco", compile_spec(mujoco.MjSpec.from_string(skewed)), 1, 1)
    with pytest.raises(UserError, match="actuator 'elbow' cannot break"):
        Variator(physics, (FAULT,)).apply(columns(kind=[0.0], motor=[0.0]))
    with pytest.raises(UserError, match="must be a ratio, not negative, for each of 2 limbs"):
        Variator(physics, (LimbStrength("strength", (("shoulder",), ("elbow",))),)).apply(columns(strength=[0.5]))
    with pytest.raises(UserError, match="must be a sign, 1 or -1, for each of 2 limbs"):
        Variator(physics, (LimbSigns("signs", (("shoulder",), ("elbow",))),)).apply(columns(signs=[[1.0, 0.5]]))
    with pytest.raises(UserError, match="'motor' = 2 is the index of nothing"):
        Variator(physics, (MotorFault("kind", "motor", ("shoulder",)),)).apply(columns(kind=[0.0], motor=[2.0]))


def test_gains_of_servos_change_apart():
    """At 0 with the target 1.0 and 0.5 rad/s: 10 N·m/rad and 1 N·m·s/rad."""
    physics = make_physics("mujoco", compile_spec(mujoco.MjSpec.from_string(ARM)), 2, 1)
    gains = ServoGain("p", "P", ("shoulder",)), ServoGain("d", "D", ("shoulder",))
    Variator(physics, gains).apply(columns(p=[0.5, 1.0], d=[1.0, 3.0]))
    found = [torques(physics, world, (1.0, 0.0), velocity=0.5)[0] for world in range(2)]
    assert found == pytest.approx([0.5 * 10.0 - 0.5, 10.0 - 1.5])
    with pytest.raises(UserError, match="actuator 'elbow' is no position servo"):
        Variator(physics, (ServoGain("p", "P"),)).apply(columns(p=[1.0, 1.0]))
