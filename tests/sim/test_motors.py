"""A family's own law of control ahead of the physics: torques, impedance, another number of actions; and late ones."""

import mujoco
import pytest
import torch
from families import RAIL, Rail, columns

from metarl.check.check import check_family
from metarl.core.tasks import Parameter, TaskSpace, Uniform
from metarl.sim.disturbances import ActionLatency
from metarl.sim.mujoco.mujoco_env import MujocoEnv

GEARED = RAIL.replace('gear="100"', 'gear="1"')
ACTIONS = torch.tensor([[[0.5], [-1.0]], [[0.2], [0.7]], [[-0.3], [0.1]]])


def track(family, actions=ACTIONS):
    """Observations under some actions."""
    env = MujocoEnv(family, 2, threads=1)
    seen = [env.begin(columns(goal=[0.1, 0.2]), key=3)]
    seen += [env.step(action).obs for action in actions]
    return torch.stack(seen)


class Servo(Rail):
    """Its cart is pulled by a spring and a damper towards where the action says, which MuJoCo computes."""

    def spec(self):
        spec = mujoco.MjSpec.from_string(GEARED.format("-0.5 0.5"))
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_EULER
        motor = spec.actuators[0]
        motor.gainprm[0], motor.biastype = 200.0, mujoco.mjtBias.mjBIAS_AFFINE
        motor.biasprm[:3] = (0.0, -200.0, -5.0)
        return spec


class Impedance(Rail):
    """The same by a law of its own, computed ahead of each physics step."""

    control_every = 1

    def spec(self):
        return mujoco.MjSpec.from_string(GEARED.format("-1000 1000"))

    def control(self, physics, action, tasks):
        return 200.0 * (0.5 * action - physics.bind("qpos")) - 5.0 * physics.bind("qvel")


def test_the_default_law_is_the_map_onto_the_control_ranges():
    class Plain(Servo):
        def control(self, physics, action, tasks):
            return super().control(physics, action, tasks)

    assert torch.equal(track(Plain()), track(Servo()))


def test_a_spring_and_damper_by_a_law_is_mujocos_own():
    assert torch.allclose(track(Impedance()), track(Servo()), atol=1e-6)
    assert not torch.allclose(track(Impedance()), track(type("Once", (Impedance,), {"control_every": 0})()), atol=1e-4)


def test_an_action_may_have_other_numbers_than_there_are_actuators():
    class Stiff(Impedance):
        actions = ("target", "stiffness")

        def control(self, physics, action, tasks):
            target, stiffness = action.split(1, dim=1)
            return (200.0 + 100.0 * stiffness) * (target - physics.bind("qpos"))

    env = MujocoEnv(Stiff(), 2, threads=1)
    assert (env.info.actions, env.action_size) == (("target", "stiffness"), 2)
    problems = [finding for finding in check_family(Stiff()) if finding.problem]
    assert not problems


def test_what_is_late_is_the_action_and_the_law_runs_on():
    class Late(Impedance):
        space = TaskSpace({**Rail.space.parameters, "late": Parameter(Uniform(0.0, 0.3), "s")})
        disturbances = (ActionLatency("late"),)

    step = Rail.control_step
    env = MujocoEnv(Late(), 2, threads=1)
    env.begin(columns(goal=[0.1, 0.1], late=[0.0, step]), key=3)
    state = env.physics.get_state()
    env.physics.set_state(state[:1].expand(2, -1).clone())
    ones, none = torch.ones(2, 1), torch.tensor([[1.0], [0.0]])
    late = [env.step(action).obs for action in (none, ones, ones)]
    env.begin(columns(goal=[0.1, 0.1], late=[0.0, 0.0]), key=3)
    env.physics.set_state(state[:1].expand(2, -1).clone())
    prompt = [env.step(action).obs for action in (none, none, ones)]
    assert torch.equal(late[0], prompt[0])
    assert torch.equal(late[1], prompt[1]), "its action of 1 is a step late, and 0 until then"
    assert torch.equal(late[0][0], prompt[0][0])


def test_an_actuator_without_a_range_is_named_unless_a_law_drives_it():
    class Open(Rail):
        def spec(self):
            spec = mujoco.MjSpec.from_string(RAIL.format("-1 1"))
            spec.actuators[0].ctrllimited = mujoco.mjtLimited.mjLIMITED_FALSE
            spec.actuators[0].ctrlrange = (0.0, 0.0)
            return spec

    with pytest.raises(Exception, match="needs a ctrlrange"):
        MujocoEnv(Open(), 1)
    law = {"control": lambda self, physics, action, tasks: 2.0 * action}
    assert track(type("Driven", (Open,), law)()).isfinite().all()
