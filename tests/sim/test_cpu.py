import math

import mujoco
import pytest
import torch
from families import BENCH, only

from metarl.core.errors import UserError
from metarl.sim.mujoco.physics import make_physics

MODEL = mujoco.MjModel.from_xml_string(BENCH)
EVERY = only(4)
FIELDS = ("qpos", "qvel", "ctrl", "xpos", "actuator_force", "qfrc_bias", "sensordata")


def make(threads=1, num_worlds=4):
    """Four worlds in motion, each differently, box on the ground and pendulum driven."""
    physics = make_physics("mujoco", MODEL, num_worlds, threads)
    worlds = torch.arange(num_worlds).double()
    physics.bind("qvel")[:, 0] = 0.5 * worlds
    physics.bind("qvel")[:, 6:] = 1.0 + worlds[:, None]
    physics.bind("ctrl")[:, :3] = 0.3 - 0.2 * worlds[:, None]
    return physics


def reference(world, num_steps):
    """The same world in plain MuJoCo."""
    data = mujoco.MjData(MODEL)
    data.qvel[0], data.qvel[6:], data.ctrl[:3] = 0.5 * world, 1.0 + world, 0.3 - 0.2 * world
    mujoco.mj_step(MODEL, data, num_steps)
    return data


def test_step_equals_plain_mujoco_bit_for_bit():
    physics = make()
    physics.step(20)
    for world in range(4):
        data = reference(world, 20)
        assert physics.bind("qpos")[world].tolist() == data.qpos.tolist()
        assert physics.bind("qvel")[world].tolist() == data.qvel.tolist()


def test_views_share_memory_with_the_batch():
    physics = make()
    qpos = physics.bind("qpos")
    assert physics.bind("qpos").data_ptr() == qpos.data_ptr()
    qpos[2, 7] = 1.25
    physics.bind("qvel").zero_()
    assert physics.data_of(2).qpos[7] == 1.25
    physics.step(1)
    assert 1.2 < qpos[2, 7] < 1.25
    assert abs(qpos[1, 7]) < 0.1


@pytest.mark.parametrize("threads", [2, 4])
def test_results_do_not_depend_on_the_number_of_threads(threads):
    states = []
    for physics in (make(1), make(threads)):
        physics.expand("body_mass")[:] *= 1.0 + torch.arange(4)[:, None] / 3
        physics.set_const(EVERY)
        force = physics.bind("actuator_force")
        for _ in range(10):
            physics.step(5)
        physics.reset(only(4, 1))
        physics.forward(only(4, 1))
        states.append((physics.get_state(), force.clone()))
    assert torch.equal(states[0][0], states[1][0])
    assert torch.equal(states[0][1], states[1][1])


def test_reset_touches_only_the_given_worlds():
    physics, untouched, fresh = make(), make(), make_physics("mujoco", MODEL, 4, 1)
    for each in (physics, untouched):
        each.step(30)
    physics.reset(only(4, 0, 2))
    state = physics.get_state()
    assert torch.equal(state[[1, 3]], untouched.get_state()[[1, 3]])
    assert torch.equal(state[[0, 2]], fresh.get_state()[[0, 2]])


def test_a_saved_state_continues_exactly():
    physics = make()
    xpos = physics.bind("xpos")
    physics.step(10)
    saved, place = physics.get_state(), xpos.clone()
    physics.step(25)
    expected = physics.get_state()
    assert not torch.equal(saved, expected)
    other = make_physics("mujoco", MODEL, 4, 1)
    for each in (physics, other):
        each.bind("xpos")
        each.set_state(saved)
        torch.testing.assert_close(each.bind("xpos"), place, rtol=0, atol=1e-12)
        each.step(25)
        assert torch.equal(each.get_state(), expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [("qpos", 1e12), ("qpos", math.nan), ("qvel", 1e12), ("qvel", math.nan), ("qvel", -math.inf), ("ctrl", math.nan)],
)
def test_a_diverged_world_is_noticed_and_disturbs_no_other(field, value):
    physics, undisturbed = make(), make()
    physics.bind(field)[2, 0] = value
    for each in (physics, undisturbed):
        each.step(5)
    assert physics.diverged().tolist() == [False, False, True, False]
    assert undisturbed.diverged() is None
    assert torch.isfinite(physics.bind("qpos")).all()  # MuJoCo has reset the world: only the counters tell
    others = torch.tensor([0, 1, 3])
    assert torch.equal(physics.get_state()[others], undisturbed.get_state()[others])
    physics.reset(only(4, 2))
    physics.step(5)
    assert physics.diverged() is None


def test_a_world_in_which_mujoco_raises_has_diverged():
    physics, undisturbed = make(), make()
    integrator = physics.expand("opt.integrator")
    integrator[1] = 99
    before = physics.get_state()
    for each in (physics, undisturbed):
        each.step(5)
    assert physics.diverged().tolist() == [False, True, False, False]
    assert torch.equal(physics.get_state()[1], before[1])
    assert torch.equal(physics.get_state()[2:], undisturbed.get_state()[2:])
    integrator[1] = MODEL.opt.integrator
    physics.reset(only(4, 1))
    assert physics.diverged() is None


def test_derived_fields_are_current_after_step():
    physics = make()
    xpos = physics.bind("xpos")
    physics.step(7)
    for world in range(4):
        expected = torch.from_numpy(physics.data_of(world).xpos)
        torch.testing.assert_close(xpos[world], expected, rtol=0, atol=1e-14)


def test_a_derived_field_bound_late_is_current_at_once():
    physics = make()
    physics.step(7)
    expected = torch.from_numpy(physics.data_of(3).xpos)
    torch.testing.assert_close(physics.bind("xpos")[3], expected, rtol=0, atol=1e-14)


def test_forward_leaves_no_world_with_anothers_values():
    """A stage that is not computed holds what the thread's last world left there."""
    physics = make()
    force = physics.bind("actuator_force")
    physics.step(3)
    physics.forward(EVERY)
    expected = torch.stack([torch.from_numpy(physics.data_of(world).actuator_force.copy()) for world in range(4)])
    assert torch.equal(force, expected)
    assert len(expected[:, 0].unique()) == 4


def test_what_is_bound_does_not_change_the_trajectory():
    plain, watched = make(), make()
    for each in (plain, watched):
        each.step(5)
        if each is watched:
            each.bind("xpos")
            each.forward(EVERY)
        each.step(20)
    assert torch.equal(plain.get_state(), watched.get_state())


def test_set_const_follows_the_expanded_masses():
    physics = make()
    physics.expand("body_mass")[1] *= 2.0
    pristine = physics.model_of(1).body_subtreemass.copy()
    physics.set_const(EVERY)
    assert physics.model_of(1).body_subtreemass.tolist() == (2.0 * pristine).tolist()
    assert physics.model_of(0).body_subtreemass.tolist() == MODEL.body_subtreemass.tolist()


def test_data_of_holds_the_worlds_state_and_its_own_model():
    physics = make()
    physics.expand("opt.gravity")[1] = 0.0
    physics.step(5)
    data = physics.data_of(1)
    assert data.qpos.tolist() == physics.bind("qpos")[1].tolist()
    assert physics.model_of(1).opt.gravity.tolist() == [0.0, 0.0, 0.0]
    assert physics.model_of(0).opt.gravity.tolist() == [0.0, 0.0, -9.81]
    assert abs(data.qfrc_bias[2]) < 1e-9
    assert abs(physics.data_of(0).qfrc_bias[2] - 9.81 * 2.0) < 1e-9
    again = mujoco.MjData(physics.model_of(2))
    assert physics.data_of(2, again) is again
    assert again.qpos.tolist() == physics.bind("qpos")[2].tolist()


def test_a_field_that_stepping_does_not_compute_is_refused():
    """It would bind, and hold zeros or another world's values."""
    physics = make()
    with pytest.raises(UserError, match="does not compute 'subtree_linvel'"):
        physics.bind("subtree_linvel")
    with pytest.raises(UserError, match="'cfrc_ext' only for a model with a force"):
        physics.bind("cfrc_ext")


def test_a_field_bound_without_freshness_is_as_mujoco_leaves_it():
    """One substep behind after a step, like `mj_step`; current after a reset."""
    physics = make()
    xpos = physics.bind("xpos", fresh=False)
    physics.step(20)
    data = reference(3, 20)
    assert xpos[3].tolist() == data.xpos.tolist()
    lagging = data.xpos.copy()
    mujoco.mj_forward(MODEL, data)
    assert (lagging != data.xpos).any()
    physics.reset(EVERY)
    physics.forward(EVERY)
    mujoco.mj_resetData(MODEL, data)
    mujoco.mj_forward(MODEL, data)
    assert xpos[3].tolist() == data.xpos.tolist()


def test_body_forces_with_a_force_sensor_equal_plain_mujoco():
    sensor = "<sensor><force site='here'/></sensor></mujoco>"
    geom = '<geom name="lower"'
    xml = BENCH.replace(geom, f'<site name="here"/>{geom}').replace("</mujoco>", sensor)
    model = mujoco.MjModel.from_xml_string(xml)
    physics = make_physics("mujoco", model, 3, threads=2)
    forces = physics.bind("cfrc_ext")
    physics.bind("qvel")[:, 2] = -0.1 * torch.arange(3).double()
    physics.step(20)
    for world in range(3):
        data = mujoco.MjData(model)
        data.qvel[2] = -0.1 * world
        mujoco.mj_step(model, data, 20)
        assert abs(data.cfrc_ext).max() > 1.0  # the box's weight
        assert forces[world].tolist() == data.cfrc_ext.tolist()


def test_resetting_some_worlds_equals_resetting_all():
    """Also the second time, when the start is known, and where worlds start differently."""
    for field in (None, "qpos0"):
        physics, expected = make(), make()
        for each in (physics, expected):
            if field:
                each.expand(field)[:, 7] = 0.1 * torch.arange(4).double()
            each.reset(EVERY)
        start = expected.get_state()
        assert len(start.unique(dim=0)) == (4 if field else 1)
        for some in ([2], [0, 3]):
            physics.step(5)
            physics.reset(only(4, *some))
            assert torch.equal(physics.get_state()[some], start[some])
            assert not torch.equal(physics.get_state()[1], start[1])
