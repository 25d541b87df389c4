import mujoco
import numpy as np
import pytest
import torch
from families import ALL_FAMILIES, BENCH, columns, only

from metarl.core.errors import UserError
from metarl.core.registry import make_family
from metarl.core.tasks import Tasks
from metarl.sim.mujoco.mujoco_env import MujocoEnv, compile_spec
from metarl.sim.mujoco.physics import make_physics
from metarl.sim.rotations import axes_of, quaternion_of
from metarl.sim.variations import (
    Armature,
    BodyMass,
    CentreOfMass,
    Friction,
    FrictionLoss,
    Gravity,
    JointDamping,
    JointFault,
    ModelField,
    MotorStrength,
    Option,
    Payload,
    SitePosition,
    Variator,
    WeakMotor,
    ids,
)

MODEL = mujoco.MjModel.from_xml_string(BENCH)
SHOULDER, ELBOW = MODEL.joint("shoulder").dofadr[0], MODEL.joint("elbow").dofadr[0]
VARIED_FAMILIES = [name for name in ALL_FAMILIES if make_family(name).variations]
VARIATIONS = [
    BodyMass("x"),
    BodyMass("x", ("lower", "box")),
    Friction("x"),
    Friction("x", ("floor",)),
    JointDamping("x"),
    JointDamping("x", ("elbow",)),
    MotorStrength("x"),
    MotorStrength("x", ("servo", "cable")),
    JointFault("x", ("elbow", "shoulder")),
    JointFault("x", ("elbow", "shoulder"), mode="locked"),
    Gravity("x"),
]


FREE_BOX = BENCH.replace('name="box" pos', 'name="box" simple="false" pos')
"""A bench whose box may have its centre of mass anywhere: MuJoCo compiles simple bodies to a faster form."""


def bench(values, *variations, model=MODEL):
    """Physics with one world per value of the task parameter `x`, the variations applied."""
    physics = make_physics("mujoco", model, len(values), threads=1)
    Variator(physics, variations).apply(columns(x=values))
    return physics


def contents(model):
    """Every array and option of a model, as bytes."""
    found = {}
    for owner in (model, model.opt, model.stat):
        for name in dir(owner):
            value = getattr(owner, name)
            if not name.startswith("_") and isinstance(value, np.ndarray | float | int):
                found[type(owner).__name__, name] = np.asarray(value).tobytes()
    return found


def differing(model, other):
    a, b = contents(model), contents(other)
    assert len(a) > 400
    return sorted(name for _, name in a if a[_, name] != b[_, name])


# every variation


@pytest.mark.parametrize("name", VARIED_FAMILIES)
def test_the_nominal_task_gives_back_the_familys_pristine_model(name):
    family = make_family(name)
    pristine = compile_spec(family.spec())
    physics = make_physics("mujoco", pristine, 2, threads=1)
    variator = Variator(physics, family.variations)
    drawn = family.space.sample("train", 200, np.random.default_rng(0))
    for first in range(0, 200, 2):
        variator.apply(drawn.select(torch.tensor([first, first + 1])))
    assert differing(physics.model_of(1), pristine)
    variator.apply(family.space.nominal(2))
    assert [differing(physics.model_of(world), pristine) for world in range(2)] == [[], []]


@pytest.mark.parametrize("variation", VARIATIONS, ids=str)
def test_a_hundred_tasks_and_the_nominal_one_leave_no_trace(variation):
    fault = isinstance(variation, JointFault)
    physics = make_physics("mujoco", MODEL, 2, threads=1)
    variator = Variator(physics, [variation])
    rng = np.random.default_rng(0)
    for _ in range(100):
        values = rng.integers(0, 2, 2) if fault else rng.uniform(0.1, 3.0, 2)
        variator.apply(columns(x=values.tolist()))
    assert differing(physics.model_of(1), MODEL)
    variator.apply(columns(x=[-1.0 if fault else 1.0] * 2))
    assert [differing(physics.model_of(world), MODEL) for world in range(2)] == [[], []]


@pytest.mark.parametrize("variation", VARIATIONS, ids=str)
def test_worlds_are_independent(variation):
    values = [0.0, 1.0, -1.0] if isinstance(variation, JointFault) else [0.5, 1.0, 2.0]
    together = bench(values, variation)
    together.bind("ctrl")[:] = 0.7
    together.step(20)
    for world, value in enumerate(values):
        alone = bench([value], variation)
        assert differing(together.model_of(world), alone.model_of(0)) == []
        alone.bind("ctrl")[:] = 0.7
        alone.step(20)
        assert torch.equal(together.get_state()[world], alone.get_state()[0])


@pytest.mark.parametrize(
    ("variation", "message"),
    [
        (BodyMass("x", ("bax",)), "unknown body 'bax'; the model has: world, box, upper, lower"),
        (Friction("x", ("bax",)), "unknown geom 'bax'; the model has: floor, box, upper, lower"),
        (JointDamping("x", ("bax",)), "unknown joint 'bax'; the model has: free, shoulder, elbow"),
        (JointFault("x", ("bax",)), "unknown joint 'bax'; the model has: free, shoulder, elbow"),
        (MotorStrength("x", ("bax",)), "unknown actuator 'bax'; the model has: shoulder, elbow, cable, servo"),
    ],
    ids=str,
)
def test_an_unknown_name_lists_the_known_ones(variation, message):
    with pytest.raises(UserError, match=message):
        bench([1.0], variation)


def test_ids_follow_the_given_order():
    assert ids(MODEL, "joint", ("elbow", "free")).tolist() == [2, 0]
    assert ids(MODEL, "actuator", None).tolist() == [0, 1, 2, 3]


def test_variations_of_one_field_compose():
    physics = bench([2.0], BodyMass("x"), BodyMass("x", ("box",)))
    ratio = physics.model_of(0).body_mass[1:] / MODEL.body_mass[1:]
    assert ratio.tolist() == [4.0, 2.0, 2.0]


# what each of them does


def test_mass_doubles_the_weight_and_the_inertia_of_its_bodies_only():
    physics = bench([1.0, 2.0], BodyMass("x", ("box",)))
    physics.forward(only(2))
    weight = physics.bind("qfrc_bias")[:, 2]
    torch.testing.assert_close(weight, torch.tensor([2.0, 4.0]).double() * 9.81)
    box, one, two = MODEL.body("box").id, physics.model_of(0), physics.model_of(1)
    assert two.body_inertia[box].tolist() == (2 * one.body_inertia[box]).tolist()
    assert two.body_subtreemass[[0, box]].tolist() == [6.0, 4.0]
    assert two.body_mass[box + 1 :].tolist() == one.body_mass[box + 1 :].tolist()


def test_double_friction_halves_the_distance_a_box_slides():
    physics = bench([1.0, 2.0], Friction("x"))
    physics.step(50)
    qpos, qvel = physics.bind("qpos"), physics.bind("qvel")
    start = qpos[:, 0].clone()
    qvel[:, 0] = 1.0
    physics.step(100)
    slid = qpos[:, 0] - start
    expected = 1.0 / (2 * 9.81 * torch.tensor([0.4, 0.8]).double())
    torch.testing.assert_close(slid, expected, rtol=0.1, atol=0)
    assert qvel[:, 0].abs().max() < 0.01


def test_damping_scales_the_named_joints_only():
    physics = bench([1.0, 3.0], JointDamping("x", ("elbow",)))
    damper = physics.bind("qfrc_damper")
    physics.bind("qvel")[:] = 2.0
    physics.forward(only(2))
    torch.testing.assert_close(damper[:, ELBOW], -2.0 * 0.2 * torch.tensor([1.0, 3.0]).double())
    torch.testing.assert_close(damper[:, SHOULDER], torch.full((2,), -2.0 * 0.3).double())


def test_rotors_weigh_more_at_the_named_joints_only():
    """Ahead of its motor the inertia of a joint's rotor stands on the diagonal of the mass matrix."""
    xml = BENCH.replace('name="shoulder"', 'name="shoulder" armature="0.2"').replace(
        'name="elbow"', 'name="elbow" armature="0.1"'
    )
    model = mujoco.MjModel.from_xml_string(xml)
    physics = make_physics("mujoco", model, 2, threads=1)
    Variator(physics, [Armature("rotor", ("elbow",))]).apply(columns(rotor=[1.0, 3.0]))
    one, other = (physics.model_of(world).dof_armature - model.dof_armature for world in range(2))
    elbow = model.joint("elbow").dofadr[0]
    assert not one.any() and other[elbow] == pytest.approx(0.2) and (np.delete(other, elbow) == 0).all()


def test_dry_friction_holds_a_joint_against_less_than_its_torque():
    """The upper arm is turned by 0.1 rad, whose weight pulls with about 2 N·m; a free joint has none of it."""
    model = mujoco.MjModel.from_xml_string(BENCH)
    physics = make_physics("mujoco", model, 2, threads=1)
    Variator(physics, [FrictionLoss("rub")]).apply(columns(rub=[0.0, 20.0]))
    ends = []
    for world in range(2):
        own, data = physics.model_of(world), mujoco.MjData(model)
        data.joint("shoulder").qpos = 0.1
        mujoco.mj_step(own, data, 60)
        ends.append(float(data.joint("shoulder").qpos[0]))
    assert not physics.model_of(1).dof_frictionloss[:6].any()
    assert ends[0] < 0.05 and ends[1] == pytest.approx(0.1, abs=0.01)
    with pytest.raises(UserError, match=r"'rub' = -1 is a friction: it must not be negative"):
        Variator(physics, [FrictionLoss("rub")]).apply(columns(rub=[0.0, -1.0]))


def test_wind_and_viscosity_are_written_as_they_are():
    """A box of 0.4 m in a wind of 10 m/s of air is blown along; without a medium no wind is felt."""
    model = mujoco.MjModel.from_xml_string(BENCH.replace('timestep="0.005"', 'timestep="0.005" density="1.2"'))
    physics = make_physics("mujoco", model, 2, threads=1)
    variations = (Option("wind", "wind"), Option("thick", "viscosity"))
    winds = torch.tensor([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0]], dtype=torch.float64)
    Variator(physics, variations).apply(Tasks({"wind": winds, **columns(thick=[0.0, 0.1]).values}))
    assert physics.model_of(1).opt.wind.tolist() == [10.0, 0.0, 0.0] and physics.model_of(1).opt.viscosity == 0.1
    pulls = []
    for world in range(2):
        data = mujoco.MjData(model)
        mujoco.mj_forward(physics.model_of(world), data)
        pulls.append(float(data.qfrc_fluid[model.joint("free").dofadr[0]]))
    assert pulls[0] == 0.0 < 0.1 < pulls[1]
    with pytest.raises(UserError, match=r"unknown option of the world 'wnd' \(did you mean 'wind'"):
        Option("wind", "wnd")
    with pytest.raises(UserError, match="'wind' is 1 numbers, wind has 3"):
        Variator(physics, variations[:1]).apply(columns(wind=[1.0, 2.0]))


def test_motor_strength_scales_every_force_even_a_saturated_one():
    """Motors, a motor at its force limit, and a servo, whose bias must weaken with its gain."""
    physics = bench([1.0, 0.5], MotorStrength("x"))
    force = physics.bind("actuator_force")
    physics.bind("ctrl")[:] = torch.tensor([0.8, 0.6, 1.0, 0.3])
    physics.bind("qpos")[:, -1] = 0.1
    physics.forward(only(2))
    torch.testing.assert_close(force[0], torch.tensor([0.8, 0.6, 0.5, 10 * (0.3 - 0.1)]).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(force[1], 0.5 * force[0])


def test_a_dead_joint_loses_the_force_of_its_own_actuators_only():
    """Not that of the cable, although its tendon has the shoulder's index."""
    physics = bench([0.0, 1.0, -1.0], JointFault("x", ("shoulder", "elbow")))
    force = physics.bind("actuator_force")
    physics.bind("ctrl")[:] = 0.4
    physics.bind("qpos")[:, -1] = 0.1
    physics.forward(only(3))
    healthy = force[2].tolist()
    assert all(healthy)
    assert force[0].tolist() == [0.0, *healthy[1:]]
    assert force[1].tolist() == [healthy[0], 0.0, healthy[2], 0.0]


def test_a_locked_joint_stays_where_it_is_under_full_torque():
    physics = bench([0.0, 1.0, -1.0], JointFault("x", ("shoulder", "elbow"), mode="locked"))
    qpos = physics.bind("qpos")
    qpos[:, -2:] = 0.4
    physics.bind("ctrl")[:] = 1.0
    physics.step(100)
    moved = (qpos[:, -2:] - 0.4).abs()
    assert moved[0, 0] < 1e-3
    assert moved[1, 1] < 1e-3
    assert moved[[0, 1, 2, 2], [1, 0, 0, 1]].min() > 0.05


def test_a_locked_thigh_of_the_half_cheetah_holds_against_its_motor():
    model = compile_spec(make_family("half-cheetah-vel").spec())
    physics = make_physics("mujoco", model, 2, threads=1)
    Variator(physics, [JointFault("x", ("bthigh",), mode="locked")]).apply(columns(x=[0.0, -1.0]))
    physics.bind("ctrl")[:, 0] = 1.0
    physics.step(100)
    locked, free = physics.bind("qpos")[:, 3].abs()
    assert locked < 0.02
    assert free > 0.3


def test_gravity_scales_the_free_fall():
    physics = bench([0.0, 1.0, 2.0], Gravity("x"))
    physics.bind("qpos")[:, 2] = 5.0
    physics.step(40)
    expected = -9.81 * 0.2 * torch.tensor([0.0, 1.0, 2.0]).double()
    torch.testing.assert_close(physics.bind("qvel")[:, 2], expected)


@pytest.mark.parametrize("name", [name for name in VARIED_FAMILIES if not make_family(name).disturbances])
def test_a_trial_runs_on_the_models_of_its_tasks(name):
    family = make_family(name)
    env = MujocoEnv(family, 2, threads=1)
    tasks = family.space.sample("train", 2, np.random.default_rng(0))
    env.begin(tasks, key=0)
    physics = make_physics("mujoco", compile_spec(family.spec()), 2, threads=1)
    Variator(physics, family.variations).apply(tasks)
    for world in range(2):
        assert differing(env.physics.model_of(world), physics.model_of(world)) == []
        assert differing(env.physics.model_of(world), physics.model)


# a load, a shifted centre of mass, a weak motor, a shown goal, any field


@pytest.mark.parametrize("at", [(0.0, 0.0, 0.2), (0.15, -0.1, 0.2)], ids=["above", "off centre"])
def test_a_payload_is_a_point_mass_welded_to_the_body(at):
    """Against a model compiled with the mass as a geom of its own: products of inertia turn the principal axes."""
    mass = 3.0
    load = f'<geom type="sphere" size="1e-4" pos="{at[0]} {at[1]} {at[2]}" mass="{mass}" contype="0" conaffinity="0"/>'
    box = '<geom name="box" type="box"'
    expected = mujoco.MjModel.from_xml_string(FREE_BOX.replace(box, load + box))
    model = mujoco.MjModel.from_xml_string(FREE_BOX)
    found = bench([0.0, mass], Payload("x", "box", at), model=model).model_of(1)
    body = MODEL.body("box").id
    assert found.body_mass[body] == pytest.approx(expected.body_mass[body])
    assert found.body_ipos[body] == pytest.approx(expected.body_ipos[body])
    assert sorted(found.body_inertia[body]) == pytest.approx(sorted(expected.body_inertia[body]), rel=1e-6)
    data, reference = mujoco.MjData(found), mujoco.MjData(expected)
    for each, model in ((data, found), (reference, expected)):
        each.qvel[0], each.qvel[4] = 1.0, 0.5
        mujoco.mj_step(model, each, 100)
    assert data.qpos == pytest.approx(reference.qpos, abs=1e-6)


def test_a_shifted_centre_of_mass_tilts_a_box_that_overhangs():
    model = mujoco.MjModel.from_xml_string(FREE_BOX)
    physics = bench([0.0, 0.25], CentreOfMass("x", "box", axis=0), model=model)
    physics.bind("qpos")[:, 2] = 0.05
    physics.step(100)
    quaternion = physics.bind("qpos")[:, 3:7]
    assert quaternion[0, 0] == pytest.approx(1.0, abs=1e-4)
    assert quaternion[1, 2] > 0.05  # about +y: its far side, beyond which the mass lies, goes down


def test_a_simple_body_that_cannot_be_shifted_is_named():
    with pytest.raises(UserError, match=r"body 1 is compiled as simple .* use body/simple='false'"):
        bench([0.0, 0.25], CentreOfMass("x", "box", axis=0))


def test_a_weak_motor_keeps_its_share_and_others_all():
    tasks = columns(which=[-1.0, 0.0, 1.0], left=[0.3, 0.3, 0.0])
    physics = make_physics("mujoco", MODEL, 3, threads=1)
    Variator(physics, [WeakMotor("which", "left", ("servo", "cable"))]).apply(tasks)
    servo, cable, shoulder = (MODEL.actuator(name).id for name in ("servo", "cable", "shoulder"))
    models = [physics.model_of(world) for world in range(3)]
    assert [model.actuator_gainprm[servo, 0] for model in models] == pytest.approx([10.0, 3.0, 10.0])
    assert [model.actuator_biasprm[servo, 1] for model in models] == pytest.approx([-10.0, -3.0, -10.0])
    assert [model.actuator_forcerange[cable, 1] for model in models] == pytest.approx([0.5, 0.5, 0.0])
    assert [model.actuator_gainprm[shoulder, 0] for model in models] == [1.0, 1.0, 1.0]


def test_several_joints_break_together():
    physics = bench([-1.0, 0.0, 1.0], JointFault("x", (("shoulder", "elbow"), "elbow")))
    gains = [physics.model_of(world).actuator_gainprm[:, 0] for world in range(3)]
    shoulder, elbow = MODEL.actuator("shoulder").id, MODEL.actuator("elbow").id
    assert gains[0][[shoulder, elbow]].tolist() == [1.0, 1.0]
    assert gains[1][[shoulder, elbow]].tolist() == [0.0, 0.0]
    assert gains[2][[shoulder, elbow]].tolist() == [1.0, 0.0]


def test_every_number_of_a_field_has_its_own_factor():
    size = MODEL.body_inertia.size
    factors = np.random.default_rng(0).uniform(0.5, 2.0, (2, size))
    physics = make_physics("mujoco", MODEL, 2, threads=1)
    Variator(physics, [ModelField("x", "body_inertia")]).apply(columns(x=factors.tolist()))
    for world in range(2):
        expected = MODEL.body_inertia * factors[world].reshape(-1, 3)
        assert np.array_equal(physics.model_of(world).body_inertia, expected)
    with pytest.raises(UserError, match="4x3 numbers was given 2 factors"):
        Variator(physics, [ModelField("x", "body_inertia")]).apply(columns(x=factors[:, :2].tolist()))


def test_a_site_shows_where_the_goal_is():
    model = mujoco.MjModel.from_xml_string(
        BENCH.replace("<worldbody>", '<worldbody><site name="goal" pos="1 1 0.5"/>', 1)
    )
    physics = make_physics("mujoco", model, 2, threads=1)
    Variator(physics, [SitePosition("x", "goal")]).apply(columns(x=[[3.0, 4.0], [5.0, 6.0]]))
    assert physics.model_of(1).site_pos[0].tolist() == [5.0, 6.0, 0.5]
    with pytest.raises(UserError, match="unknown site 'gaol'"):
        Variator(physics, [SitePosition("x", "gaol")]).apply(columns(x=[[3.0, 4.0], [5.0, 6.0]]))


def test_rotations_are_those_of_scipy_to_the_last_bit():
    """So that bodies with a payload keep the dynamics that recorded results are of."""
    from scipy.spatial.transform import Rotation

    quaternion = torch.from_numpy(Rotation.random(500, random_state=1).as_quat(scalar_first=True)) * 1.1
    axes = Rotation.from_quat(quaternion.numpy(), scalar_first=True)
    assert torch.equal(axes_of(quaternion), torch.from_numpy(axes.as_matrix()))
    again = Rotation.from_matrix(axes.as_matrix()).as_quat(scalar_first=True)
    assert torch.equal(quaternion_of(axes_of(quaternion)), torch.from_numpy(again))


def test_only_fields_that_hold_something_are_expanded_and_damping_needs_no_new_constants(monkeypatch):
    physics, fields = make_physics("mujoco", MODEL, 2, threads=1), []
    expand = physics.expand
    monkeypatch.setattr(physics, "expand", lambda field: fields.append(field) or expand(field))
    monkeypatch.setattr(physics, "set_const", lambda mask: pytest.fail("constants are computed anew"))
    Variator(physics, [JointDamping("x"), Friction("x")]).apply(columns(x=[1.0, 2.0]))
    assert fields == ["dof_damping", "geom_friction"]


def test_tasks_that_cannot_be_posed_are_refused_where_they_come_in():
    env = MujocoEnv(make_family("ant-body"), 2, threads=1)
    good, wrong = (env.family.space.nominal(2) for _ in range(2))
    wrong["friction"][1] = -0.5
    message = r"'friction' = -0\.5 is a ratio: it must not be negative"
    with pytest.raises(UserError, match=message):
        env.begin(wrong, 0)
    env.begin(good, 0)
    with pytest.raises(UserError, match=message):
        env.queue(wrong)
