"""Loads, slopes and legs of other lengths: what they do to a standing robot."""

import math

import mujoco
import numpy as np
import pytest
import torch
from families import columns

from metarl.core.errors import UserError
from metarl.envs.quadruped import LEGS
from metarl.envs.quadruped_shapes import QuadrupedLimbs, QuadrupedLoad
from metarl.sim.mujoco.mujoco_env import MujocoEnv, compile_spec
from metarl.sim.mujoco.physics import make_physics
from metarl.sim.variations import LinkLength, Variator

WEIGHT = float(compile_spec(QuadrupedLoad().spec()).body_mass.sum()) * 9.81
HANGING = 0.213 * math.cos(0.9)  # of a standing leg's link [m]


def standing(family, tasks, num_steps=100):
    """The worlds, after a stand of two seconds."""
    env = MujocoEnv(family, len(tasks), episodes_per_trial=1, threads=1)
    env.begin(tasks, key=0)
    for _ in range(num_steps):
        step = env.step(torch.zeros(len(tasks), 12))
        assert not step.ended.any()
    return env


def test_a_load_weighs_on_the_legs_below_it():
    places = {"load_x": [0.0, 0.0, 0.0, 0.12, -0.12], "load_y": [0.0, 0.08, -0.08, 0.0, 0.0]}
    env = standing(QuadrupedLoad(), columns(load=[0.0, 6.0, 6.0, 6.0, 6.0], slope=[0.0] * 5, **places))
    force = env.physics.bind("sensordata")  # FL, FR, RL, RR
    expected = torch.tensor([WEIGHT] + [WEIGHT + 6.0 * 9.81] * 4, dtype=torch.float64)
    torch.testing.assert_close(force.sum(dim=1), expected, rtol=0.06, atol=0)  # the last still sinks a little
    left, front = (force[:, [0, 2]] - force[:, [1, 3]]).sum(dim=1), (force[:, :2] - force[:, 2:]).sum(dim=1)
    assert left[0].abs() < 3
    assert left[1] > 30
    assert left[2] < -30
    assert front[3] - front[0] > 15
    assert front[4] - front[0] < -15


def test_a_slope_shifts_the_weight_and_shows_in_gravity():
    env = standing(QuadrupedLoad(), columns(load=[0.0] * 3, load_x=[0.0] * 3, load_y=[0.0] * 3, slope=[-0.2, 0.0, 0.2]))
    force, seen = env.physics.bind("sensordata"), env.family.observe(env.physics, env.tasks)
    rear = force[:, 2:].sum(dim=1) / force.sum(dim=1)
    assert rear[0] + 0.05 < rear[1] < rear[2] - 0.05  # uphill the hind legs bear more
    pitch = torch.asin(seen["gravity"][:, 0])  # the trunk leans a little downhill, on servos that give way
    assert pitch[0] - pitch[1] == pytest.approx(0.2, abs=0.11)
    assert pitch[2] - pitch[1] == pytest.approx(-0.2, abs=0.11)
    torch.testing.assert_close(seen["gravity"].norm(dim=1), torch.ones(3, dtype=torch.float64))


def test_a_robot_slides_down_a_slope_that_is_steeper_than_its_friction():
    env = MujocoEnv(QuadrupedLoad(), 2, episodes_per_trial=1, threads=1)
    env.begin(columns(load=[0.0] * 2, load_x=[0.0] * 2, load_y=[0.0] * 2, slope=[1.0, -1.0]), key=0)
    for _ in range(20):
        env.physics.step(5)
    x = env.physics.bind("qpos")[:, 0]
    assert x[0] < -0.1
    assert x[1] > 0.1


def legs(*rows):
    """Tasks whose four legs are alike, from (thigh, calf)."""
    return columns(thigh=[[thigh] * 4 for thigh, _ in rows], calf=[[calf] * 4 for _, calf in rows])


def test_longer_legs_raise_the_trunk_by_what_they_are_longer():
    env = MujocoEnv(QuadrupedLimbs(), 4, episodes_per_trial=1, threads=1)
    ratios = [(1.0, 1.0), (1.25, 1.0), (1.0, 1.25), (0.75, 0.75)]
    env.begin(legs(*ratios), key=0)
    start = env.physics.bind("qpos")[:, 2]
    for world, (thigh, calf) in enumerate(ratios):
        assert start[world] - start[0] == pytest.approx(HANGING * (thigh + calf - 2.0), abs=1e-9)
    feet = [env.physics.model.geom(f"{leg}_foot").id for leg in LEGS]
    assert env.physics.bind("geom_xpos")[:, feet, 2].min() > 0.0  # its own radius above or in the ground


def test_it_stands_on_the_feet_of_longer_legs():
    """Servos give way by more under longer levers."""
    env = standing(QuadrupedLimbs(), legs((1.0, 1.0), (1.25, 1.25), (0.75, 0.75)))
    height, feet = env.physics.bind("qpos")[:, 2], [env.physics.model.geom(f"{leg}_foot").id for leg in LEGS]
    assert height[1] - height[0] == pytest.approx(0.5 * HANGING, abs=0.025)
    assert height[2] - height[0] == pytest.approx(-0.5 * HANGING, abs=0.015)
    lowest = env.physics.bind("geom_xpos")[:, feet, 2]
    torch.testing.assert_close(lowest, torch.full_like(lowest, 0.02), atol=0.004, rtol=0)


def test_a_leg_of_its_own_length_moves_only_its_foot():
    env = MujocoEnv(QuadrupedLimbs(), 2, threads=1)
    one = [1.0] * 4
    env.begin(columns(thigh=[one, one], calf=[one, [1.0, 1.0, 1.2, 1.0]]), key=0)
    qpos = env.physics.bind("qpos")
    qpos[1] = qpos[0]
    env.physics.forward(torch.ones(2, dtype=torch.bool))
    moved = env.physics.bind("site_xpos")[1, :4] - env.physics.bind("site_xpos")[0, :4]
    assert moved[2].norm() == pytest.approx(0.2 * 0.213, rel=1e-6)
    assert not moved[[0, 1, 3]].any()


def test_a_stretched_shank_is_that_of_a_model_with_longer_geoms():
    spec, physics = QuadrupedLimbs().spec(), make_physics("mujoco", compile_spec(QuadrupedLimbs().spec()), 1, 1)
    Variator(physics, (LinkLength("calf", ("FL_calf",)), LinkLength("thigh", ("FL_thigh",)))).apply(
        columns(calf=[[1.2]], thigh=[[1.2]])
    )
    spec.body("FL_calf").pos[2] *= 1.2
    for geom in (spec.geom("FL_calf"), spec.geom("FL_thigh")):
        geom.fromto[[2, 5]] *= 1.2
    spec.geom("FL_foot").pos[2] *= 1.2
    built, stretched = compile_spec(spec), physics.model_of(0)
    for name in ("FL_calf", "FL_thigh"):
        one, other = built.body(name), stretched.body(name)
        np.testing.assert_allclose(one.pos, other.pos, atol=1e-12)
        np.testing.assert_allclose(one.ipos, other.ipos, atol=1e-3)
        assert one.mass == other.mass
        np.testing.assert_allclose(np.sort(one.inertia), np.sort(other.inertia), rtol=0.05)
    for name in ("FL_calf", "FL_thigh", "FL_foot"):
        one, other = built.geom(name), stretched.geom(name)
        for field in ("pos", "size", "rbound"):
            np.testing.assert_allclose(getattr(one, field), getattr(other, field), atol=1e-9, err_msg=f"{name} {field}")
        np.testing.assert_allclose(built.geom_aabb[one.id], stretched.geom_aabb[one.id], atol=1e-9)


def test_the_stretch_of_a_mass_distribution_is_exact_for_points():
    """A dumbbell of two small balls along z, whose distance doubles."""
    rod = "<mujoco><worldbody><body name='rod'><joint/>{}</body></worldbody></mujoco>"
    balls = "".join(f"<geom type='sphere' size='1e-4' pos='0.1 0 {z}' mass='1'/>" for z in (0.1, 0.3))
    physics = make_physics("mujoco", mujoco.MjModel.from_xml_string(rod.format(balls)), 2, 1)
    Variator(physics, (LinkLength("length", ("rod",)),)).apply(columns(length=[[1.0], [2.0]]))
    before, after = (physics.model_of(world) for world in range(2))
    np.testing.assert_allclose(before.body("rod").ipos, [0.1, 0.0, 0.2], atol=1e-9)
    np.testing.assert_allclose(after.body("rod").ipos, [0.1, 0.0, 0.4], atol=1e-9)
    np.testing.assert_allclose(np.sort(before.body("rod").inertia), [0.0, 0.02, 0.02], atol=1e-6)
    np.testing.assert_allclose(np.sort(after.body("rod").inertia), [0.0, 0.08, 0.08], atol=1e-6)


def test_a_length_for_each_link_is_asked_for():
    env = MujocoEnv(QuadrupedLimbs(), 1, threads=1)
    with pytest.raises(UserError, match="'calf' must be a positive ratio"):
        env.begin(columns(thigh=[[1.0] * 4], calf=[[1.0, 1.0, 1.0, -1.0]]), key=0)


def test_an_uneven_gait_is_not_punished_on_uneven_legs():
    env = MujocoEnv(QuadrupedLimbs(), 1, threads=1)
    env.begin(legs((1.0, 1.0)), key=0)
    assert not {"limp", "patter", "duty"} & set(env.step(torch.zeros(1, 12)).reward_terms)
