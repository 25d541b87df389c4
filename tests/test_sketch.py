"""`metarl new`: from a model to a family that is checked, trained and edited; what it finds in several robots."""

from pathlib import Path

import mujoco
import pytest
from families import RAIL

import metarl
from metarl.cli.main import main
from metarl.core.errors import UserError
from metarl.core.registry import make_family
from metarl.envs.parts import GYMNASIUM_MODELS
from metarl.sim.mujoco.mujoco_env import compile_spec
from metarl.sketch.robot import look_at

HOPPING = """<mujoco><option timestep="0.004"/><worldbody>
<body name="trunk" pos="0 0 1"><freejoint/><geom type="box" size="0.2 0.1 0.05" mass="5"/>
  {legs}
</body></worldbody><actuator>{motors}</actuator></mujoco>"""
LEG = """<body name="{0} leg" pos="{1} {2} 0"><joint name="{0} hip" axis="0 1 0" range="-60 60"/>
  <geom type="capsule" fromto="0 0 0 0 0 -0.2" size="0.02" mass="0.3"/></body>"""
PLACES = {'"front"': (0.2, 0.1), "back": (-0.2, 0.1), "right": (0.2, -0.1), "rear": (-0.2, -0.1)}


def walker(motors=True):
    """Four straight legs with motors of 5 N·m, one of them with a name that has to be quoted."""
    names = [name.replace('"', "&quot;") for name in PLACES]
    legs = "".join(LEG.format(name, *place) for name, place in zip(names, PLACES.values(), strict=True))
    driven = "".join(f'<motor joint="{name} hip" gear="10" ctrlrange="-0.5 0.5"/>' for name in names if motors)
    return HOPPING.format(legs=legs, motors=driven)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The file written for the walker, by the command line as a user would; and what was printed."""
    folder = tmp_path_factory.mktemp("new")
    (folder / "models").mkdir()
    (folder / "models" / "walker.xml").write_text(walker())
    assert main(["new", str(folder / "models" / "walker.xml"), "-o", str(folder / "my-walker.py")]) == 0
    return folder / "my-walker.py"


def test_a_new_family_passes_the_check_and_trains(written):
    lines = written.read_text().splitlines()
    assert len(lines) < 150 and max(map(len, lines)) <= 120
    family = make_family(f"{written}:MyWalker")
    assert list(family.space.parameters) == ["speed", "payload", "friction", "strength", "damping"]
    tiny = {"num_worlds": 4, "total_steps": 4 * 2 * 20, "episode_steps": 20, "hidden_size": 8, "validation_tasks": 0}
    run = metarl.train("rl2", f"{written}:MyWalker", output=written.parent / "run", seed=1, **tiny)
    assert len(run.metrics) == 1
    env = metarl.make(f"{written}:MyWalker", num_worlds=2)
    assert env.info.actions[0] == '"front" hip'


def test_motors_become_servos_of_their_own_strength_that_hold_the_robot_up(written):
    family = make_family(f"{written}:MyWalker")
    model = compile_spec(family.spec())
    assert model.actuator_forcerange.tolist() == [[-5.0, 5.0]] * 4
    assert model.actuator_ctrlrange.tolist() == [[-0.5, 0.5]] * 4
    env = metarl.make(family, num_worlds=1)
    env.begin(family.space.nominal(1), key=0)
    for _ in range(100):
        step = env.step(env.physics.bind("ctrl").float() * 0)
        assert not bool(step.terminated.any())
    assert float(env.physics.bind("qpos")[0, 2]) == pytest.approx(0.22, abs=0.03)


def test_what_exists_or_cannot_be_is_one_sentence(written, tmp_path):
    model = written.parent / "models" / "walker.xml"
    with pytest.raises(UserError, match=r"my-walker\.py exists already"):
        metarl.new(model, written)
    with pytest.raises(UserError, match=r"a family is a Python file: .*robot.txt must end in .py"):
        metarl.new(model, tmp_path / "robot.txt")
    with pytest.raises(UserError, match="there is no file"):
        metarl.new(tmp_path / "none.xml")
    (tmp_path / "rock.xml").write_text("<mujoco><worldbody><body><geom size='1'/></body></worldbody></mujoco>")
    with pytest.raises(UserError, match="neither actuators nor hinges or slides"):
        metarl.new(tmp_path / "rock.xml", tmp_path / "rock.py")
    with pytest.raises(UserError, match="unknown robot of mujoco-menagerie"):
        metarl.new("menagerie:unitre_go1", tmp_path / "go1.py")


def test_a_model_without_actuators_is_given_servos_by_its_masses():
    robot = look_at(mujoco.MjSpec.from_string(walker(motors=False)))
    assert robot.bare and len(robot.servos) == 4 and all(servo.estimated for servo in robot.servos)
    weight = 9.81 * (0.3 + 0.25 * 5.9)
    assert robot.servos[0].limit == pytest.approx(2 * weight * 0.1, rel=0.01)


def test_sensors_of_motors_follow_them_to_their_new_names(tmp_path):
    model = walker().replace("<motor joint", '<motor name="m" joint', 1)
    file = tmp_path / "sensed.xml"
    file.write_text(model.replace("</mujoco>", '<sensor><actuatorfrc actuator="m"/></sensor></mujoco>'))
    made = metarl.new(file, tmp_path / "sensed.py")
    assert compile_spec(make_family(made.name).spec()).sensor_objid.tolist() == [0]


@pytest.mark.parametrize(
    ("file", "kind", "base", "servos"),
    [("ant", "free", "torso", 8), ("half_cheetah", "rail", "torso", 6), ("reacher", "fixed", "fingertip", 2)],
)
def test_how_a_robot_moves_is_seen(file, kind, base, servos):
    robot = look_at(mujoco.MjSpec.from_file(str(GYMNASIUM_MODELS / f"{file}.xml")))
    assert (robot.kind, robot.base, len(robot.servos)) == (kind, base, servos)
    assert robot.floor and robot.kept == () and "target_x" not in robot.joints


def test_a_cart_with_a_motor_is_a_fixed_robot():
    robot = look_at(mujoco.MjSpec.from_string(RAIL.format("-1 1")))
    assert (robot.kind, robot.base, robot.servos[0].limit) == ("fixed", "cart", 100.0)


def test_the_name_of_a_file_is_no_code(tmp_path, monkeypatch):
    """What is written is run at once, to be checked: a file from someone else may have any name."""
    monkeypatch.chdir(tmp_path)
    robot = Path('cart"""\nopen("ran", "w")\n""".xml')
    robot.write_text(
        '<mujoco><worldbody><body><joint name="slide" type="slide" range="-1 1"/><geom size="0.1" mass="1"/></body>'
        '</worldbody><actuator><motor joint="slide" ctrlrange="-1 1"/></actuator></mujoco>'
    )
    metarl.new(robot, "cart.py")
    assert not Path("ran").exists()
