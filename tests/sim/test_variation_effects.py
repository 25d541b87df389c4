"""Every quantity changes by the ratio a task says, in every form in which MuJoCo holds it: by motion or force."""

import mujoco
import numpy as np
import pytest
from families import ALL_FAMILIES, columns

from metarl.check.effects import effect_problems, not_measured
from metarl.check.tested import Tested as UnderTest
from metarl.core.errors import UserError
from metarl.core.info import Part
from metarl.core.registry import make_family
from metarl.core.tasks import Choice, Parameter, TaskSpace, Uniform
from metarl.sim.declarations import make
from metarl.sim.family import MujocoFamily
from metarl.sim.mujoco.cpu import CpuPhysics
from metarl.sim.terrain import TerrainChoice, Tile
from metarl.sim.variation import scale
from metarl.sim.variations import (
    BodyMass,
    CentreOfMass,
    Friction,
    Gravity,
    JointDamping,
    JointFault,
    ModelField,
    MotorStrength,
    Payload,
    Variator,
    WeakMotor,
)

ARM = """<mujoco><option timestep="0.002" gravity="0 0 0"/>
<worldbody><body name="arm"><joint name="hinge" axis="0 0 1" {joint}/>
  <geom name="arm" type="box" size=".1 .1 .1" mass="1"/><site name="tip" pos=".3 0 0"/>
  <body name="hand" pos="1 0 0"><joint name="wrist" axis="0 0 1" {wrist}/>
    <geom name="hand" type="box" size=".1 .1 .1" mass="1"/>
    <body name="ball" pos="1 0 0"><joint name="ball" type="ball"/><geom size=".1" mass="1"/></body></body></body>
  <site name="ground" pos=".4 0 0"/></worldbody>
<tendon><fixed name="one" {tendon}><joint joint="hinge" coef="1"/></fixed>
  <fixed name="both" {both}><joint joint="hinge" coef="1"/><joint joint="wrist" coef="1"/></fixed></tendon>
<actuator>{actuator}</actuator></mujoco>"""
SERVO = '<position name="servo" joint="hinge" kp="500" kv="1" ctrlrange="-3 3" {}/>'


def arm(actuator="", **places):
    """Two hinges in a plane and a ball joint, weightless, with the given actuators and attributes."""
    blank = dict.fromkeys(("joint", "wrist", "tendon", "both"), "")
    return ARM.format(actuator=actuator, **(blank | places))


def worlds(xml, variation, **parameters):
    """The models of as many worlds as there are values of each task parameter."""
    model = mujoco.MjModel.from_xml_string(xml)
    number = len(next(iter(parameters.values())))
    physics = CpuPhysics(model, number, threads=1)
    Variator(physics, [variation]).apply(columns(**parameters))
    return [physics.model_of(world) for world in range(number)]


def speed(model, seconds, control):
    """Of the first joint after so long, at full control."""
    data = mujoco.MjData(model)
    data.ctrl[:] = control
    mujoco.mj_step(model, data, round(seconds / model.opt.timestep))
    return float(data.qvel[0])


def toy(xml, variation, space):
    """A family of one variation of an MJCF model."""

    class Toy(MujocoFamily):
        variations = (variation,)
        control_step, episode_steps = 0.02, 50

        def spec(self):
            return mujoco.MjSpec.from_string(xml)

        def reset(self, physics, worlds, tasks, random):
            physics.bind("qvel")[worlds] += random.normal(0.0, 0.1, physics.model.nv)

        def observe(self, physics, tasks):
            return {"speed": physics.bind("qvel")}

        def reward(self, physics, before, action, tasks):
            return {"speed": physics.bind("qvel")[:, 0].clone()}

    Toy.space = TaskSpace(space)
    Toy.observation = (Part("speed", Toy().spec().compile().nv, "1"),)
    return Toy


RATIO = {"x": Parameter(Uniform(0.1, 0.9), unit="1", nominal=1.0)}


def problems(xml, variation, space=RATIO):
    return list(effect_problems(UnderTest(toy(xml, variation, space)())))


# strength


@pytest.mark.parametrize(
    "xml",
    [
        arm(SERVO.format('forcerange="-1 1"'), joint='damping="0.3"'),
        arm(SERVO.format(""), joint='damping="0.3" actuatorfrcrange="-1 1"'),
        arm(
            SERVO.format("").replace('joint="hinge"', 'tendon="one"'),
            joint='damping="0.3"',
            tendon='actuatorfrcrange="-1 1"',
        ),
    ],
    ids=["at the actuator", "at the joint", "at the tendon"],
)
def test_a_saturated_servo_slows_with_its_strength_wherever_its_limit_stands(xml):
    xml = xml[: xml.index('<body name="hand"')] + xml[xml.index("</body></body></body>") + len("</body></body>") :]
    xml = xml.replace(xml[xml.index('<fixed name="both"') : xml.index("</tendon>")], "")
    speeds = [speed(model, 0.1, 3.0) for model in worlds(xml, MotorStrength("x"), x=[1.0, 0.5, 0.1])]
    assert speeds == pytest.approx([3.29, 1.64, 0.33], abs=0.005)


ACTUATORS = {
    "motor": '<motor joint="hinge" gear="3" ctrlrange="-1 1"/>',
    "limited motor": '<motor joint="hinge" ctrlrange="-1 1" forcerange="-.4 .5"/>',
    "position": '<position joint="hinge" kp="5" kv="1" ctrlrange="-1 1"/>',
    "timed position": '<position joint="hinge" kp="5" dampratio="1" timeconst=".01" ctrlrange="-1 1"/>',
    "velocity": '<velocity joint="hinge" kv="5" ctrlrange="-1 1"/>',
    "intvelocity": '<intvelocity joint="hinge" kp="5" kv="1" ctrlrange="-1 1" actrange="-1 1"/>',
    "damper": '<damper joint="hinge" kv="2" ctrlrange="0 1"/>',
    "cylinder": '<cylinder joint="hinge" area=".5" bias=".1 .2 .3" ctrlrange="-1 1"/>',
    "own muscle": '<muscle joint="hinge" force="7" lengthrange="-1 1" ctrlrange="0 1"/>',
    "scaled muscle": '<muscle joint="hinge" scale="50" lengthrange="-1 1" ctrlrange="0 1"/>',
    "pid": '<pid joint="hinge" kp="5" kv="1" ki="3" imax="2" ctrlrange="-1 1" velrange="-1 1"/>',
    "slow pid": '<pid joint="hinge" kp="5" ki="3" slewmax="9" ctrlrange="-1 1" velrange="-1 1"/>',
    "affine gain": '<general joint="hinge" gaintype="affine" gainprm="1 2 3" biastype="affine" biasprm="1 2 3" '
    'dyntype="filterexact" ctrlrange="-1 1"/>',
    "tendon": '<motor tendon="both" ctrlrange="-1 1"/>',
    "site": '<motor site="tip" refsite="ground" gear="0 1 0 0 0 0" ctrlrange="-1 1"/>',
    "orientation": '<orientation joint="ball" kp="5" kv="1" ctrlrange="-1 1" forcerange="0 2"/>',
    "delayed": '<motor joint="hinge" delay=".01" nsample="6" ctrlrange="-1 1"/>',
    "dcmotor": '<dcmotor joint="hinge" nominal="12 2 100" ctrlrange="-12 12"/>',
    "inductive dcmotor": '<dcmotor joint="hinge" nominal="12 2 100" inductance=".01 0" saturation="1 0 900" '
    'ctrlrange="-12 12"/>',
    "hot dcmotor": '<dcmotor joint="hinge" nominal="12 2 100" thermal="1 2 0 .004 20 25" ctrlrange="-12 12"/>',
    "dcmotor servo": '<dcmotor joint="hinge" nominal="12 2 100" input="pos vel" controller="3 1 .1 8 1 6" '
    'ctrlrange="-1 1"/>',
}


def forces(model, control, velocity, angle):
    """On all joints after 30 steps in which the robot is held."""
    data = mujoco.MjData(model)
    data.ctrl[:], data.qvel[:], data.qpos[:2] = control, velocity, angle
    qpos, qvel = data.qpos.copy(), data.qvel.copy()
    for _ in range(30):
        mujoco.mj_step(model, data)
        data.qpos[:], data.qvel[:] = qpos, qvel
    mujoco.mj_forward(model, data)
    return data.qfrc_actuator.copy()


@pytest.mark.parametrize("limit", ["", 'actuatorfrcrange="-.3 .2"'], ids=["free", "limited"])
@pytest.mark.parametrize("kind", ACTUATORS)
def test_the_force_of_every_actuator_scales_at_every_state_and_control(kind, limit):
    models = worlds(arm(ACTUATORS[kind], joint=limit), MotorStrength("x"), x=[1.0, 0.5, 0.1, 2.0])
    seen = False
    for control in (0.0, *models[0].actuator_ctrlrange[0]):
        for velocity, angle in ((0.0, 0.0), (0.5, 0.2), (-0.5, -0.3)):
            full, *others = (forces(model, control, velocity, angle) for model in models)
            seen |= bool(np.abs(full).max() > 1e-3)
            for ratio, found in zip((0.5, 0.1, 2.0), others, strict=True):
                assert found == pytest.approx(ratio * full, rel=1e-6, abs=1e-9)
    assert seen


@pytest.mark.parametrize("kind", ACTUATORS)
def test_check_measures_every_actuator(kind):
    assert problems(arm(ACTUATORS[kind]), MotorStrength("x")) == []


def test_a_weak_dc_motor_has_less_torque_and_its_own_no_load_speed():
    xml = arm('<dcmotor joint="hinge" nominal="12 2 100" cogging=".1 3 .2" ctrlrange="-12 12"/>')
    full, half = worlds(xml, MotorStrength("x"), x=[1.0, 0.5])
    cogging = forces(full, 0.0, 0.0, 0.2)[0]
    assert cogging == pytest.approx(0.1 * np.sin(3 * 0.2 + 0.2))
    stall = [forces(model, 12.0, 0.0, 0.2)[0] - cogging for model in (full, half)]
    assert stall == pytest.approx([2.0, 1.0])
    turning = [forces(model, 12.0, [100.0, 0, 0, 0, 0], 0.2)[0] - cogging for model in (full, half)]
    assert turning == pytest.approx([0.0, 0.0], abs=1e-9)
    assert problems(xml, MotorStrength("x")) == []


def test_a_muscles_lengths_and_speeds_keep_their_meaning():
    lengths, rates = np.linspace(-0.9, 0.9, 7), np.linspace(-1.0, 1.0, 5)
    full, half = worlds(arm(ACTUATORS["own muscle"]), MotorStrength("x"), x=[1.0, 0.5])
    curve = np.array([[forces(full, 1.0, rate, length)[0] for rate in rates] for length in lengths])
    weak = np.array([[forces(half, 1.0, rate, length)[0] for rate in rates] for length in lengths])
    assert len(np.unique(curve.round(6))) > 10
    assert weak == pytest.approx(0.5 * curve)


@pytest.mark.parametrize("kind", sorted(set(ACTUATORS) - {"tendon", "site"}))
def test_every_actuator_can_be_dead(kind):
    joint = "ball" if kind == "orientation" else "hinge"
    alive, dead = worlds(arm(ACTUATORS[kind]), JointFault("x", (joint,)), x=[-1.0, 0.0])
    control = alive.actuator_ctrlrange[0, 1]
    assert np.abs(forces(alive, control, 0.5, 0.2)).max() > 1e-3
    assert forces(dead, control, 0.5, 0.2) == pytest.approx(0.0, abs=1e-6)


def test_what_sticks_to_the_ground_holds_half_as_fast():
    xml = sled().replace("</mujoco>", '<actuator><adhesion body="sled" gain="30" ctrlrange="0 1"/></actuator></mujoco>')
    pressed = []
    for model in worlds(xml, MotorStrength("x"), x=[1.0, 0.5, 0.0]):
        data = mujoco.MjData(model)
        data.ctrl[:] = 1.0
        mujoco.mj_step(model, data, 500)
        pressed.append(data.qfrc_actuator[2])
    assert pressed == pytest.approx([-30.0, -15.0, 0.0])
    assert problems(xml, MotorStrength("x")) == []


def test_a_weak_motor_weakens_the_limit_at_its_own_joint_alone():
    xml = arm(
        '<motor name="a" joint="hinge" ctrlrange="-9 9"/><motor name="b" joint="wrist" ctrlrange="-9 9"/>',
        joint='actuatorfrcrange="-1 1"',
        wrist='actuatorfrcrange="-2 2"',
    )
    tasks = {"which": [-1.0, 0.0, 1.0], "left": [0.5, 0.5, 0.25]}
    found = [forces(model, 9.0, 0.0, 0.0)[:2] for model in worlds(xml, WeakMotor("which", "left", ("a", "b")), **tasks)]
    assert np.array(found) == pytest.approx(np.array([[1.0, 2.0], [0.5, 2.0], [1.0, 0.5]]))


USER = '<general name="m" joint="hinge" gaintype="user" ctrlrange="-1 1"/>'
FEEDS = '<pid name="m" joint="hinge" input="pos ff" ctrlrange="-1 1" ffrange="-1 1"/>'
STACKED = '<motor name="a" joint="hinge" ctrlrange="-1 1"/><motor name="b" tendon="both" ctrlrange="-1 1"/>'
MUSCLE = ACTUATORS["scaled muscle"].replace("<muscle", '<muscle name="biceps"')


@pytest.mark.parametrize(
    ("xml", "variation", "message"),
    [
        (arm(USER), MotorStrength("x"), "strength of actuator 'm' cannot vary, as it is of type 'user'"),
        (arm(FEEDS), MotorStrength("x"), "strength of actuator 'm' cannot vary, as its input 'ff'"),
        (
            arm(SERVO.format(""), joint='actuatorgravcomp="true"'),
            MotorStrength("x"),
            "strength of actuator 'servo' cannot vary, as joint 'hinge' has actuatorgravcomp",
        ),
        (
            arm(STACKED, joint='actuatorfrcrange="-1 1"'),
            MotorStrength("x", ("a",)),
            "actuatorfrcrange of joint 'hinge' limits the sum of actuator 'a', actuator 'b', which do not vary",
        ),
        (arm(STACKED), JointFault("x", ("wrist",)), "joint 'wrist' has no motor of its own .* only actuator 'b'"),
        (arm(), JointFault("x", ("wrist",)), "joint 'wrist' has no motor of its own .* nothing drives it"),
        (
            arm().replace("<option", '<option><flag frictionloss="disable"/></option><option'),
            JointFault("x", ("wrist",), mode="locked"),
            "no joint can be locked, as the model's option flag disables frictionloss",
        ),
        (
            arm().replace("<option", '<option><flag override="enable"/></option><option'),
            Friction("x"),
            "the friction of geoms cannot vary, as the model's option flag `override`",
        ),
        (
            arm(both='damping="1"'),
            JointDamping("x", ("wrist",)),
            "tendon 'both' damps varied joints together with joint 'hinge'",
        ),
        (
            arm(MUSCLE),
            BodyMass("x"),
            "BodyMass of 'x' would change the force of actuator 'biceps', a muscle .* force=\"",
        ),
        (
            arm(MUSCLE),
            Payload("x", "arm", (0.0, 0.0, 0.0)),
            "the variation Payload of 'x' would change the force of actuator 'biceps'",
        ),
        (arm(MUSCLE), ModelField("x", "body_mass"), "would change the force of actuator 'biceps'"),
        (
            arm().replace("<option", '<option density="1000"'),
            Payload("x", "arm", (0.0, 0.0, 0.0)),
            "a load would change the drag of body 'arm'",
        ),
        (arm(), ModelField("x", "opt.viscosity"), "cannot scale 'opt.viscosity', as every number of it is zero"),
        (arm(), ModelField("x", "jnt_limited"), "cannot scale 'jnt_limited', as it holds no real numbers"),
        (arm(), ModelField("x", "pair_friction"), "cannot scale 'pair_friction', as every number of it is zero"),
    ],
    ids=lambda value: None if isinstance(value, str) and value.startswith("<") else str(value)[:60],
)
def test_what_cannot_vary_is_refused_by_name(xml, variation, message):
    with pytest.raises(UserError, match=message):
        worlds(xml, variation, x=[0.0])


def test_a_plugins_force_is_refused_by_name():
    plugin = (
        '<extension><plugin plugin="mujoco.pid"><instance name="i"><config key="kp" value="1"/></instance></plugin>'
    )
    motor = '<plugin name="p" plugin="mujoco.pid" instance="i" joint="hinge" actdim="0" ctrlrange="-1 1"/>'
    xml = arm(motor).replace("<worldbody>", f"{plugin}</extension><worldbody>")
    with pytest.raises(UserError, match="strength of actuator 'p' cannot vary, as it is a plugin"):
        worlds(xml, MotorStrength("x"), x=[1.0])


@pytest.mark.parametrize("variation", [MotorStrength("x"), BodyMass("x"), Friction("x"), JointDamping("x")], ids=str)
def test_a_negative_ratio_is_refused(variation):
    with pytest.raises(UserError, match=r"task parameter 'x' = -0\.5 is a ratio: it must not be negative"):
        worlds(arm(SERVO.format("")), variation, x=[1.0, -0.5])


@pytest.mark.parametrize("variation", [MotorStrength("x"), BodyMass("x"), Gravity("x"), JointDamping("x")], ids=str)
def test_several_ratios_where_one_is_read_are_refused(variation):
    with pytest.raises(UserError, match=r"'x' is 2 numbers where one is read: ModelField has one for each"):
        worlds(arm(SERVO.format("")), variation, x=[[1.0, 0.5]])


def test_a_load_cannot_take_away_more_than_there_is():
    with pytest.raises(UserError, match=r"a load of 'x' = -2 kg leaves body 'arm' without mass: it has 1 kg"):
        worlds(arm(), Payload("x", "arm", (0.0, 0.0, 0.0)), x=[-2.0])


# damping, friction, options


@pytest.mark.parametrize(
    ("damping", "speeds"), [("0.1", (10.0, 91.74)), ("0.001 0.1", (3.16, 10.0))], ids=["linear", "quadratic"]
)
def test_a_damped_joint_speeds_up_as_every_coefficient_falls(damping, speeds):
    xml = f"""<mujoco><option gravity="0 0 0"/><worldbody><body><joint name="hinge" axis="0 0 1" damping="{damping}"/>
        <geom size=".1" mass="1"/></body></worldbody><actuator><motor joint="hinge"/></actuator></mujoco>"""
    found = [speed(model, 1.0, 1.0) for model in worlds(xml, JointDamping("x"), x=[1.0, 0.1])]
    assert found == pytest.approx(speeds, abs=0.01)


@pytest.mark.parametrize(
    "xml",
    [
        arm(joint='damping="1 2 3"'),
        arm('<motor joint="hinge" gear="2" damping="1 2 3"/>'),
        arm(tendon='damping="1 2 3"'),
        arm('<motor tendon="one" damping="1 2 3"/>'),
    ],
    ids=["of the joint", "of a motor", "of a tendon", "of a tendon's motor"],
)
def test_all_that_damps_a_joint_scales(xml):
    models = worlds(xml, JointDamping("x", ("hinge",)), x=[1.0, 0.1])
    for velocity in (-3.0, 0.1, 20.0):
        damped = []
        for model in models:
            data = mujoco.MjData(model)
            data.qvel[:] = velocity
            mujoco.mj_forward(model, data)
            damped.append(data.qfrc_passive[0])
        assert damped[0] * velocity < 0
        assert damped[1] == pytest.approx(0.1 * damped[0])
    assert problems(xml, JointDamping("x", ("hinge",))) == []


SLED = """<mujoco><option timestep="0.002" cone="elliptic"/><worldbody>
<geom name="floor" type="plane" size="9 9 1" friction="{floor}" {more}/>
<body name="sled" pos="0 0 .1"><freejoint name="free"/>
  <geom name="sled" type="box" size=".3 .3 .1" mass="1" friction="{sled}"/></body></worldbody>
<contact>{pair}</contact></mujoco>"""


def sled(floor=0.4, sled=0.4, pair="", more=""):
    return SLED.format(floor=floor, sled=sled, pair=pair, more=more)


@pytest.mark.parametrize(
    "xml",
    [sled(), sled(pair='<pair geom1="floor" geom2="sled" friction=".4 .4"/>'), sled(floor=0.1)],
    ids=["two geoms", "pair", "larger"],
)
def test_a_sled_slides_as_far_as_its_friction_lets_it(xml):
    slid = []
    for model in worlds(xml, Friction("x", ("sled",)), x=[1.0, 2.0]):
        data = mujoco.MjData(model)
        mujoco.mj_step(model, data, 200)
        start, data.qvel[0] = float(data.qpos[0]), 1.0
        mujoco.mj_step(model, data, 400)
        slid.append(float(data.qpos[0]) - start)
    assert slid == pytest.approx([1 / (2 * 9.81 * 0.4), 1 / (2 * 9.81 * 0.8)], rel=0.05)


def test_flexes_slide_like_geoms():
    xml = """<mujoco><worldbody><geom type="plane" size="1 1 1"/><flexcomp name="cloth" type="grid" count="3 3 1"
        dim="2" spacing=".1 .1 .1" pos="0 0 1" radius=".01"/></worldbody></mujoco>"""
    one, half = worlds(xml, Friction("x"), x=[1.0, 0.5])
    assert half.flex_friction[0, 0] == 0.5 * one.flex_friction[0, 0] > 0


@pytest.mark.parametrize("option", ["viscosity", "density"])
def test_a_scalar_option_is_a_field_too(option):
    drag = []
    xml = arm().replace("<option", f'<option {option}="7"')
    for model in worlds(xml, ModelField("x", f"opt.{option}"), x=[1.0, 2.0, 0.5]):
        data = mujoco.MjData(model)
        data.qvel[:2] = 1.0
        mujoco.mj_forward(model, data)
        drag.append(float(data.qfrc_fluid[0]))
    assert drag == pytest.approx([drag[0], 2 * drag[0], drag[0] / 2])
    assert drag[0] < 0


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("opt.viscous", r"no field of MuJoCo's MjModel \(did you mean 'opt.viscosity'\?\)"),
        ("opt.timestep", "cannot scale 'opt.timestep', as a control step must be a whole number of them"),
        ("body_subtreemass", "cannot scale 'body_subtreemass', as MuJoCo computes it from others"),
    ],
)
def test_a_field_that_cannot_be_scaled_says_why(field, message):
    with pytest.raises(UserError, match=message):
        ModelField("x", field)


def test_a_centre_of_mass_moves_along_one_of_three_axes():
    with pytest.raises(UserError, match="along the axis 3: it must be 0, 1 or 2"):
        CentreOfMass("x", "arm", axis=3)


# an index of nothing

TWO = arm('<motor name="a" joint="hinge" ctrlrange="-1 1"/><motor name="b" joint="wrist" ctrlrange="-1 1"/>')
INDEXED = {
    "dead": JointFault("x", ("hinge", "wrist")),
    "locked": JointFault("x", ("hinge", "wrist"), mode="locked"),
    "weak": WeakMotor("x", "left", ("a", "b")),
}


@pytest.mark.parametrize("value", [2.0, 7.0, -5.0, 0.5])
@pytest.mark.parametrize("kind", INDEXED)
def test_an_index_of_nothing_is_no_intact_robot(kind, value):
    with pytest.raises(UserError, match=rf"'x' = {value:g} is the index of nothing: .* from 0 to 1, or -1 for none"):
        worlds(TWO, INDEXED[kind], x=[-1.0, value], left=[1.0, 1.0])


def parameter(train, nominal=-1.0, **more):
    return Parameter(train, unit="index", nominal=nominal, **more)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (parameter(Choice((0.0, 2.0))), "'x': train has 2, which to .* whole number from 0 to 1, or -1 for none"),
        (parameter(Choice((0.0, 1.0)), ood=Choice((7.0,))), "'x': ood has 7"),
        (parameter(Choice((0.0, 0.5))), r"'x': train has 0\.5"),
        (parameter(Choice((-5.0, 1.0))), "'x': train has -5"),
        (parameter(Choice((0.0, 1.0)), nominal=-2.0), "'x': nominal has -2"),
        (parameter(Uniform(0.0, 1.0)), r"'x': train has 0\."),
        (parameter(Choice((0.0, 1.0)), labels=("hinge",)), "'x' has 1 labels, but .* chooses among 2"),
    ],
    ids=["train", "ood", "fraction", "negative", "nominal", "continuous", "labels"],
)
@pytest.mark.parametrize("kind", INDEXED)
def test_a_family_that_can_draw_an_index_of_nothing_is_not_made(kind, index, message):
    left = Parameter(Uniform(0.1, 0.9), unit="1", nominal=1.0)
    with pytest.raises(UserError, match=message):
        make("toy", toy(TWO, INDEXED[kind], {"x": index, "left": left}))


@pytest.mark.parametrize("kind", INDEXED)
def test_none_is_an_index(kind):
    left = Parameter(Uniform(0.1, 0.9), unit="1", nominal=1.0)
    space = {"x": parameter(Choice((-1.0, 0.0, 1.0)), labels=("one", "two")), "left": left}
    assert list(effect_problems(UnderTest(make("toy", toy(TWO, INDEXED[kind], space))))) == []


def test_a_ground_of_another_index_is_none():
    tile = Tile(length=3.0, width=1.0, cell=0.5)
    choice = TerrainChoice(("flat", "rough"), (0.0, 1.0), tile, "ground")
    tasks = columns(terrain=[2.0], difficulty=[0.0], shift=[0.0])
    with pytest.raises(UserError, match=r"'terrain' = 2 is the index of nothing: .* whole number from 0 to 1$"):
        Variator(CpuPhysics(mujoco.MjModel.from_xml_string(arm()), 1, 1), [choice]).require(tasks)


# what the check measures


@pytest.mark.parametrize("name", [name for name in ALL_FAMILIES if make_family(name).variations])
def test_our_own_variations_do_what_they_say(name):
    assert list(effect_problems(UnderTest(make_family(name)))) == []


class Forgetful(MotorStrength):
    """Scales all numbers of gain and bias, and one of the limits."""

    def _write(self, model, live, value):
        for field in ("actuator_gainprm", "actuator_biasprm", "actuator_forcerange"):
            scale(live, field, tuple(range(model.nactuator)), value)


class Linear(JointDamping):
    """Scales the first coefficient."""

    def _write(self, model, live, value):
        live["dof_damping"] *= value[:, None]


class Massive(BodyMass):
    """Forgets the inertia."""

    def _write(self, model, live, value):
        live["body_mass"] *= value[:, None]


class Pairless(Friction):
    """Forgets explicit pairs."""

    def _write(self, model, live, value):
        live["geom_friction"][:, :, 0] *= value[:, None]


class Loose(JointFault):
    """Locks nothing."""

    def _write(self, model, live, value):
        live["dof_frictionloss"][:] += 1e-6


PUSHED = '<actuator><motor joint="free" gear="1 0 0 0 0 0" ctrlrange="-1 1"/></actuator></mujoco>'


def pushed(xml):
    return xml.replace("</mujoco>", PUSHED)


@pytest.mark.parametrize(
    ("xml", "variation", "message"),
    [
        (
            arm(SERVO.format(""), joint='actuatorfrcrange="-1 1"'),
            Forgetful("x"),
            "the force of all actuators on joint 'hinge' changes by the ratio 1 instead of 0.",
        ),
        (arm(ACTUATORS["own muscle"]), Forgetful("x"), "the force of actuator 0 at full control"),
        (arm(ACTUATORS["dcmotor"]), Forgetful("x"), "the force of actuator 0 at full control"),
        (arm('<motor joint="hinge" gear="0" ctrlrange="0 0"/>'), MotorStrength("x"), "is zero on the unmodified model"),
        (arm(joint='damping=".001 .1"'), Linear("x"), "what damps the joints changes by the ratio"),
        (arm(), JointDamping("x"), "what damps the joints is zero on the unmodified model"),
        (arm(), Massive("x"), "what it takes to accelerate the bodies changes by the ratio"),
        (arm(), BodyMass("x", ("world",)), "what it takes to accelerate the bodies is zero"),
        (arm(), Gravity("x"), "the weight upon the joints is zero on the unmodified model"),
        (
            pushed(sled(pair='<pair geom1="floor" geom2="sled" friction=".4 .4"/>')),
            Pairless("x"),
            "the friction of geom 'floor' on geom 'sled' does not change",
        ),
        (pushed(sled(floor=0.9)), Friction("x", ("sled",)), "does not change, as that of the other geom counts"),
        (pushed(sled(more='priority="1"')), Friction("x", ("sled",)), "does not change, as that of the other geom"),
        (pushed(sled(floor=0.3)), Friction("x", ("sled",)), "changes by the ratio 0.75 instead of 0."),
        (
            pushed(sled(more='condim="1"')).replace('mass="1"', 'mass="1" condim="1"'),
            Friction("x"),
            "nothing that it varies touched anything with friction",
        ),
    ],
    ids=lambda value: None if isinstance(value, str) and value.startswith("<") else str(value)[:60],
)
def test_check_finds_what_does_nothing_or_the_wrong_thing(xml, variation, message):
    (problem,) = problems(xml, variation)
    assert problem.startswith(f"the variation {type(variation).__name__} of 'x': ")
    assert message in problem
    assert "(at x = " in problem


def test_check_finds_a_lock_that_does_not_hold():
    space = {"x": parameter(Choice((0.0, 1.0)))}
    (problem,) = problems(TWO, Loose("x", ("hinge", "wrist"), mode="locked"), space)
    assert "locked, joint 'hinge' still moves by" in problem or "locked, joint 'wrist' still moves by" in problem


def test_check_says_what_cannot_be_applied_and_what_it_does_not_measure():
    (problem,) = problems(arm(USER), MotorStrength("x"))
    assert "cannot be applied: the strength of actuator 'm' cannot vary" in problem
    assert not_measured(UnderTest(make_family("walker-params"))) == ["ModelField"]
    assert not_measured(UnderTest(make_family("ant-body"))) == []


def test_check_weighs_a_load_and_a_shifted_centre():
    loaded = {"x": Parameter(Uniform(0.5, 3.0), unit="kg", nominal=0.0)}
    xml = pushed(sled()).replace('<body name="sled"', '<body name="sled" simple="false"')
    assert problems(xml, Payload("x", "sled", (0.1, 0.2, 0.3)), loaded) == []
    assert problems(xml, CentreOfMass("x", "sled", 1), loaded) == []
    assert problems(xml, Gravity("x")) == []
