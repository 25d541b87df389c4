"""Tasks and robots of other people: files and packages that the package knows nothing of, through the command line."""

import importlib
import json
import subprocess
import sys
import sysconfig
import venv
from importlib.util import find_spec
from pathlib import Path

import imageio_ffmpeg
import pytest

from metarl.check.check import CHECKS
from metarl.cli.main import main
from metarl.core.registry import family_names, make_family

ROOT = Path(__file__).parent.parent
FINGER = f"{ROOT}/examples/plug_in_finger.py:FingerTurn"
TINY = ["--num-worlds", "8", "--chunk-steps", "5", "--hidden-size", "16", "--total-steps", "960", "--threads", "1"]
SMALL = ["--grid", "2", "--width", "96", "--height", "64", "--episodes", "1"]

PENDULUM = '''"""A pendulum of unknown mass, to be held at an unknown angle."""

import mujoco

from metarl.core.info import Part
from metarl.sim.family import MujocoFamily
from metarl.sim.variations import BodyMass
from metarl.core.tasks import LogUniform, Parameter, TaskSpace, Uniform

MODEL = """
<mujoco model="pendulum">
  <option timestep="0.01"/>
  <worldbody>
    <light pos="0 -1 3"/>
    <camera name="side" pos="0 -2.5 1" xyaxes="1 0 0 0 0 1"/>
    <geom name="floor" type="plane" size="3 3 0.1"/>
    <body name="rod" pos="0 0 1">
      <joint name="hinge" type="hinge" axis="0 1 0" damping="0.1"/>
      <geom name="rod" type="capsule" fromto="0 0 0 0 0 -0.5" size="0.03" mass="1" rgba="0.9 0.5 0.1 1"/>
    </body>
  </worldbody>
  <actuator><motor name="motor" joint="hinge" gear="4" ctrlrange="-1 1"/></actuator>
</mujoco>
"""


class Pendulum(MujocoFamily):
    """Hold the rod at an unknown angle: r = -|angle - goal| - 0.1 a^2."""

    space = TaskSpace(
        {
            "goal": Parameter(Uniform(-1.0, 1.0), ood=Uniform(1.2, 1.5), unit="rad", help="angle to hold"),
            "mass": Parameter(LogUniform(0.5, 2.0), unit="1", nominal=1.0, help="of the rod, ratio"),
        }
    )
    observation = (Part("angle", 1, "rad"), Part("velocity", 1, "rad/s"))
    control_step, episode_steps = 0.05, 10
    variations = (BodyMass("mass", ("rod",)),)
    camera = "side"

    def spec(self):
        return mujoco.MjSpec.from_string(MODEL)

    def reset(self, physics, worlds, tasks, random):
        physics.bind("qpos")[worlds] = random.uniform(-0.2, 0.2, 1)

    def observe(self, physics, tasks):
        return {"angle": physics.bind("qpos"), "velocity": physics.bind("qvel")}

    def reward(self, physics, before, action, tasks):
        error = physics.bind("qpos")[:, 0] - tasks["goal"]
        return {"goal": -error.abs(), "effort": -0.1 * action[:, 0].square()}
'''

STAND_IN = """
<mujoco><option timestep="0.01" gravity="0 0 0"/>
<worldbody>
  <camera name="cam1" pos="0 -1 .4" xyaxes="1 0 0 0 0 1"/>
  <body pos="-.2 0 .4"><joint name="proximal" axis="0 -1 0" damping="2.5" ref="-90"/>
    <geom type="capsule" size=".03" fromto="0 0 0 0 0 -.17"/>
    <body pos="0 0 -.18"><joint name="distal" axis="0 -1 0" damping="2.5"/>
      <geom type="capsule" size=".03" fromto="0 0 -.1 0 0 -.16"/></body></body>
  <body pos=".2 0 .4"><joint name="hinge" axis="0 -1 0" damping=".5"/>
    <geom type="capsule" size=".04 .09" rgba=".9 .5 .1 1"/></body>
</worldbody>
<actuator>
  <motor joint="proximal" gear="30" ctrlrange="-1 1"/><motor joint="distal" gear="15" ctrlrange="-1 1"/>
</actuator></mujoco>"""
"""A finger of primitive shapes with the joints of dm_control's, for machines that do not have dm_control."""


def run(*words):
    """Exit code of a command."""
    try:
        return main([str(word) for word in words])
    except SystemExit as error:
        return error.code


def one_line(captured):
    """What a command printed, free of frames and line breaks."""
    return " ".join((captured.out + captured.err).replace("│", "").split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's own folder, with a family in a file and a run of it."""
    path = tmp_path_factory.mktemp("own")
    (path / "pendulum.py").write_text(PENDULUM)
    assert run("train", "rl2", f"{path}/pendulum.py:Pendulum", "--output", path / "run", *TINY) == 0
    return path


# ------------------------------------------------------------------------------------------------ a file of one's own


def test_one_file_is_checked_and_listed(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert run("check", "pendulum.py:Pendulum") == 0
    assert f"pendulum.py:Pendulum: {len(CHECKS)} of {len(CHECKS)} checks passed" in capsys.readouterr().out
    assert run("list", "pendulum.py:Pendulum", "--json", "list.json") == 0
    printed = one_line(capsys.readouterr())
    assert "Hold the rod at an unknown angle" in printed
    assert "goal: angle to hold" in printed
    (family,) = json.loads((folder / "list.json").read_text())["families"]
    assert [parameter["unit"] for parameter in family["parameters"]] == ["rad", "1"]
    assert family["splits"] == ["train", "test", "ood"]


def test_one_file_is_trained_evaluated_and_recorded(folder, tmp_path, capsys):
    assert len((folder / "run" / "metrics.jsonl").read_text().splitlines()) == 6
    assert run("eval", folder / "run", "--num-tasks", "5", "--split", "ood", "--json", tmp_path / "out.json") == 0
    assert len(json.loads((tmp_path / "out.json").read_text())["returns"]) == 5
    assert run("video", folder / "run", *SMALL, "--output", tmp_path / "own.mp4") == 0
    assert "2 tasks" in capsys.readouterr().out
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "own.mp4"))
    assert frames == 10 + 2 * 10 - 1, "ten steps, and half a second where the episode begins and ends"
    assert seconds == pytest.approx(frames * 0.05, abs=0.05)


# --------------------------------------------------------------------------------------- a look before any training


def test_a_look_at_a_family_is_evaluated_and_filmed(folder, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(folder)
    for agent, name in (("random", "first"), ("random", "second"), ("zero", "zero")):
        options = ("--agent", agent, "--num-tasks", "6", "--json", tmp_path / f"{name}.json")
        assert run("eval", "pendulum.py:Pendulum", *options) == 0
        printed = one_line(capsys.readouterr()).replace(" ", "")
        assert f"{agent}on{folder}/pendulum.py:Pendulum:6testtasks,untrained" in printed
    first, second, zero = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("first", "second", "zero"))
    assert first["returns"] == second["returns"] != zero["returns"]
    assert [len(row) for row in first["returns"]] == [2] * 6
    assert (first["agent"], first["train_steps"], first["deterministic"]) == ("random", 0, False)
    assert (zero["agent"], zero["family"], zero["deterministic"]) == ("zero", f"{folder}/pendulum.py:Pendulum", True)
    monkeypatch.chdir(tmp_path)
    assert run("eval", folder / "run", "--tasks", tmp_path / "first.json") == 0, "a look's tasks are a task list"
    assert run("video", f"{folder}/pendulum.py:Pendulum", "--agent", "random", *SMALL) == 0
    assert (tmp_path / "videos" / "look.mp4").stat().st_size > 1000


def test_the_recorder_shows_what_the_evaluator_measures_of_random_actions(monkeypatch, tmp_path):
    shown = []
    record = importlib.import_module("metarl.video.recorder").record
    monkeypatch.setattr("metarl.video.recorder.record", lambda *words: shown.append(record(*words)) or shown[-1])
    for file in ("a.mp4", "b.mp4"):
        words = ("--agent", "random", "--seed", "3", *SMALL, "--output", tmp_path / file)
        assert run("video", FAST, *words) == 0
    assert run("eval", FAST, "--agent", "random", "--seed", "3", "--episodes", "1", "--json", tmp_path / "e.json") == 0
    first, second = (recording.returns.tolist() for recording in shown)
    assert first == second
    measured = json.loads((tmp_path / "e.json").read_text())["returns"][:2]
    assert [row[0] for row in first] == pytest.approx([row[0] for row in measured], abs=1e-6)


FAST = f"{ROOT}/tests/short_family.py:ShortDir"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["eval", FAST], "is a family, not a run folder: add --agent zero or --agent random"),
        (["video", "point-goal"], "point-goal is a family, not a run folder: add --agent zero or --agent random"),
        (["eval", "RUN", "--agent", "zero"], "is a run folder, which has an agent of its own: leave out --agent zero"),
        (["video", "RUN", "--agent", "random"], "is a run folder, which has an agent of its own"),
        (["eval", "point-gaol", "--agent", "zero"], "unknown family 'point-gaol' (did you mean 'point-goal'?)"),
        (["eval", "point-goal", "--agent", "rl2"], "unknown agent without training 'rl2'; available: random, zero"),
        (["video", "point-goal", "--agent", "zero", "--checkpoint", "x"], "never trained and takes no --checkpoint"),
        (["eval", "point-goal", "--agent", "zero", "--stochastic"], "never trained and takes no --stochastic"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_mixtures_that_make_no_sense_are_one_sentence(words, expected, folder, capsys, tmp_path):
    assert run(*(folder / "run" if word == "RUN" else word for word in words)) == 2
    captured = capsys.readouterr()
    assert expected in one_line(captured)
    assert len(captured.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------- a robot of another package


@pytest.fixture
def finger(tmp_path, monkeypatch):
    """The name of the example's family, with dm_control's model or one that stands in for it."""
    if find_spec("dm_control") is None:
        (tmp_path / "site" / "dm_control" / "suite").mkdir(parents=True)
        (tmp_path / "site" / "dm_control" / "__init__.py").touch()
        (tmp_path / "site" / "dm_control" / "suite" / "finger.xml").write_text(STAND_IN)
        monkeypatch.syspath_prepend(tmp_path / "site")
    return FINGER


def test_the_example_fulfils_the_contract(finger, capsys):
    assert run("check", finger) == 0, capsys.readouterr().out


def test_the_example_trains(finger, tmp_path):
    options = ["--num-worlds", "4", "--total-steps", "800", "--hidden-size", "8", "--threads", "1"]
    assert run("train", "rl2", finger, *options, "--output", tmp_path / "run") == 0


def test_without_its_package_the_example_says_what_to_install(monkeypatch, capsys):
    module = sys.modules[type(make_family(FINGER)).__module__]
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert run("eval", FINGER, "--agent", "zero") == 2
    assert capsys.readouterr().err.endswith("model of dm_control: pip install --no-deps dm-control\n")


# ------------------------------------------------------------------------------------------------- a package installed

PROJECT = """[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "metarl-pendulum"
version = "1.0"
[project.entry-points."metarl.families"]
pendulum-hold = "metarl_pendulum:Pendulum"
[tool.setuptools]
py-modules = ["metarl_pendulum"]
"""


def test_an_installed_package_s_family_is_listed_and_checked_by_name(tmp_path):
    source, place = tmp_path / "source", tmp_path / "venv"
    source.mkdir()
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "metarl_pendulum.py").write_text(PENDULUM)
    venv.create(place, with_pip=False, symlinks=True)
    (site,) = place.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")  # metarl and what it needs
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", site]
    subprocess.run([*pip, source], check=True, capture_output=True)

    def metarl(*words):
        command = [place / "bin" / "python", "-m", "metarl.cli.main", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout

    metarl("list", "--json", "list.json")
    names = [family["name"] for family in json.loads((tmp_path / "list.json").read_text())["families"]]
    assert names[-1] == "pendulum-hold"
    assert len(names) == len(family_names()) + 1
    assert metarl("check", "pendulum-hold").endswith(f"pendulum-hold: {len(CHECKS)} of {len(CHECKS)} checks passed\n")


# ------------------------------------------------------------------------------------------------ ten typical mistakes

SEEN = '{"angle": physics.bind("qpos"), "velocity": physics.bind("qvel")}'
PAID = '{"goal": -error.abs(), "effort": -0.1 * action[:, 0].square()}'
RESET = "def reset("
OVER = 'def terminated(self, physics, tasks):\n        return physics.bind("qpos")[:, 0] > 100.0'
MISTAKES = {
    "no parts": (SEEN, 'physics.bind("qpos")', "Pendulum.observe returns float64 (4, 1): declare the parts of the"),
    "wrong shape": (
        'bind("qvel")}',
        'bind("qvel")[:, 0]}',
        "the part 'velocity' of Pendulum.observe is float64 (4,), it",
    ),
    "misspelt part": ('"velocity": p', '"velocty": p', "returns the part 'velocty', which is not declared: add Part("),
    "part forgotten": (', "velocity": physics.bind("qvel")', "", "does not return the part 'velocity', which"),
    "nothing declared": (
        "    observation = ",
        "    observed = ",
        "it declares no observation: write one, as observation =",
    ),
    "no terms": (PAID, "-error.abs()", "reward is float64 (4,), it must be a mapping from names to terms"),
    "not finite": (PAID, '{"goal": (0.5 - error).log()}', "reward term 'goal' is nan for the task {'goal': "),
    "unknown body": ('("rod",)', '("rods",)', "a variation names the unknown body 'rods'; the model has: world, rod"),
    "misspelt parameter": ('BodyMass("mass"', 'BodyMass("maas"', "task parameter 'maas' (did you mean 'mass'?)"),
    "never ends": (RESET, f"{OVER}\n\n    {RESET}", "never true in 1,000 steps of random actions"),
    "no length": ("episode_steps = 0.05, 10", "episode_steps = 0.05, 0", "episode_steps = 0 must be "),
    "odd step": ("= 0.05, 10", "= 0.025, 10", "control_step 0.025 s is not a whole multiple of the timestep 0.01 s"),
    "no such camera": ('camera = "side"', 'camera = "front"', "unknown camera 'front'; available: side"),
    "no range": (' ctrlrange="-1 1"', "", "actuator 'motor' has no ctrlrange"),
    "broken model": ("</mujoco>", "</mojoco>", "XML"),
    "method forgotten": (RESET, "def restart(", "does not define reset"),
    "task shown": (
        'bind("qvel")}',
        'bind("qvel") + tasks["goal"][:, None]}',
        "element 1 (velocity) of the observation is",
    ),
    "unused parameter": ('- tasks["goal"]', "", "the task parameter 'goal' changes neither observations nor rewards"),
    "one start": ("random.uniform(-0.2, 0.2, 1)", "0.0", "only 1 of 8 episodes start in a state of their own"),
}
"""A slip in the pendulum's file: what stood there, what stands there now, and words of the sentence about it."""


@pytest.fixture
def no_slow_checks(monkeypatch):
    """Without the picture and the speed, which take longer than all else and find none of these mistakes."""
    quick = {name: check for name, check in CHECKS.items() if check.__name__ not in ("renders", "speed")}
    monkeypatch.setattr("metarl.check.check.CHECKS", quick)


def test_every_mistake_gets_a_sentence_of_its_own(tmp_path, capsys, no_slow_checks):
    sentences = {}
    for number, (mistake, (right, wrong, words)) in enumerate(MISTAKES.items()):
        assert PENDULUM.count(right) == 1, mistake
        (tmp_path / f"{number}.py").write_text(PENDULUM.replace(right, wrong))
        assert run("check", f"{tmp_path}/{number}.py:Pendulum") == 2, mistake
        captured = capsys.readouterr()
        told = [line for line in captured.out.splitlines() if line.startswith("FAILED")] or captured.err.splitlines()
        assert words in told[0], mistake  # a slip may break several promises: the first is the one to read
        sentences[mistake] = told[0].removeprefix("FAILED").replace(f"{number}.py", "")
    assert len(set(sentences.values())) == len(MISTAKES) >= 10
