"""What an author may get wrong in declaring a family, and the sentence that says so, whatever the verb."""

import dataclasses
import sys

import pytest
from families import Rail

from metarl.cli.main import main
from metarl.core.errors import UserError
from metarl.core.registry import family_names, learner_class, learner_config_class, make_family
from metarl.core.tasks import Parameter, TaskSpace, Uniform
from metarl.sim.declarations import make
from metarl.sim.variations import BodyMass

RANGE = Uniform(0.5, 2.0)


class Odd:
    """A distribution of the user's own that is wrong somewhere."""

    def __init__(self, draw):
        self.draw = draw

    def sample(self, n, rng):
        return self.draw(n)

    def contains(self, value):
        return True

    def describe(self):
        return "odd"


def raw(kind, **values):
    """An object of a dataclass of ours whose types nobody has checked, as outside of the tests."""
    made = object.__new__(kind)
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    vars(made).update(defaults | values)
    return made


def space(parameters):
    return {"space": raw(TaskSpace, parameters=parameters)}


def of(train, unit="1", **values):
    """A family's one parameter."""
    return space({"mass": raw(Parameter, train=train, unit=unit, **values)})


MISTAKES = {
    "space": ({"space": {"mass": Parameter(RANGE, unit="1")}}, "must be a TaskSpace"),
    "empty": (space({}), "space = TaskSpace({}) must map at least one name to its Parameter"),
    "bare distribution": (space({"mass": RANGE}), "the task parameter 'mass' = Uniform("),
    "key": (space({1: Parameter(RANGE, unit="1")}), "the task parameter 1 must be named by a string"),
    "range": (of((0.5, 2.0)), "'mass': train = (0.5, 2.0) must be a distribution: Uniform,"),
    "ood": (of(RANGE, ood=(3.0, 4.0)), "'mass': ood = (3.0, 4.0) must be a distribution"),
    "class": (of(Uniform), "must be a distribution"),
    "unit": (of(RANGE, unit=None), "'mass': unit = None must be a string"),
    "labels": (of(RANGE, labels="ab"), "'mass': labels = 'ab' must be a tuple of strings"),
    "drawing": (of(Odd(lambda n: 1 / 0)), "train cannot be drawn from: ZeroDivisionError"),
    "draw": (of(Odd(lambda n: 0.5)), "one draw from train is 0.5, it must be a finite array"),
    "lengths": (of(RANGE, ood=Uniform(3.0, 4.0, 2)), "train draws one number, ood 2 numbers"),
    "nominal point": (of(RANGE, nominal=[1.0]), "nominal = [1.0] must be like what train draws"),
    "nominal number": (of(Uniform(0.0, 1.0, 3), nominal=1.0), "nominal = 1.0 must be like what train"),
    "nominal": (
        of(RANGE, nominal="one"),
        "nominal = 'one' must be like what train draws, one number",
    ),
    "variation": ({"variations": BodyMass("goal")}, "variations is a single BodyMass, it must be a tuple of them"),
    "no variation": ({"variations": ("goal",)}, "'goal' among the variations must be an object with parameters"),
    "variation class": ({"variations": (BodyMass,)}, "among the variations must be an object with parameters"),
    "fields": (
        {"variations": (raw(BodyMass, parameter="goal", fields="body_mass"),)},
        "`fields` of the variation BodyMass is 'body_mass'",
    ),
    "parameter": (
        {"variations": (BodyMass("gaol"),)},
        "BodyMass reads the unknown task parameter 'gaol' (did you mean",
    ),
    "real steps": ({"episode_steps": 200.0}, "episode_steps = 200.0 must be a whole number (int), at least 1"),
    "no steps": ({"episode_steps": 0}, "episode_steps = 0 must be a whole number (int), at least 1"),
    "control step": ({"control_step": "0.02"}, "control_step = '0.02' must be a positive number"),
    "no time": ({"control_step": 0.0}, "control_step = 0.0 must be a positive number"),
    "one constant": ({"constant_observations": 1}, "constant_observations = 1 must be a tuple of whole numbers"),
    "constants": ({"constant_observations": (1.0,)}, "constant_observations = (1.0,) must be a tuple of whole numbers"),
    "camera": ({"camera": 0}, "camera = 0 must be the name of a camera, or None"),
    "argument": ({"__init__": lambda self, edge: None}, "__init__ needs edge, but a family is made without arguments"),
    "constructor": (
        {"__init__": lambda self: [][0]},
        "cannot be made: IndexError: list index out of range (test_registry",
    ),
}


@pytest.mark.parametrize(("attributes", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_what_is_declared_is_one_sentence(attributes, sentence):
    with pytest.raises(UserError) as error:
        make("rail", type("Faulty", (Rail,), attributes))
    assert sentence in str(error.value)
    assert str(error.value).startswith("family 'rail'")
    assert "\n" not in str(error.value)


def test_a_sound_declaration_is_made():
    vector = Parameter(Uniform(0.5, 2.0, 2), unit="1", ood=Uniform(3.0, 4.0, 2), nominal=[1.0, 1.0])
    family = make(
        "rail", type("Sound", (Rail,), {"space": TaskSpace({"mass": vector}), "variations": [BodyMass("mass")]})
    )
    assert family.space.splits == ("train", "test", "ood")
    assert all(make_family(name).space for name in family_names())


def test_what_is_no_family_is_said():
    for found in (Rail(), "rail", Uniform):
        with pytest.raises(UserError, match=r"'rail' is not a family: it must be a subclass of metarl\.sim\.family"):
            make("rail", found)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("episode_steps = 200.0", "episode_steps = 200.0 must be a whole number (int), at least 1"),
        ("space = {}", "space = {} must be a TaskSpace"),
        ("variations = BodyMass('direction')", "variations is a single BodyMass"),
        ("variations = (BodyMass('mass'),)", "the variation BodyMass reads the unknown task parameter 'mass'"),
        ("def __init__(self, mass): pass", "__init__ needs mass"),
    ],
)
@pytest.mark.parametrize("verb", ["check", "list", "train"])
def test_every_verb_says_it_and_exits_with_2(verb, body, sentence, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    head = "from metarl.envs.half_cheetah import HalfCheetahDir\nfrom metarl.sim.variations import BodyMass\n"
    (tmp_path / "robot.py").write_text(f"{head}class Robot(HalfCheetahDir):\n    {body}\n")
    words = {"train": ["train", "rl2"]}.get(verb, [verb])
    assert main([*words, "robot.py:Robot"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("metarl: family 'robot.py:Robot': ")
    assert sentence in error
    assert len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["robot.py"]


def test_a_file_imports_the_modules_beside_it_and_each_folder_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    for folder, steps in (("a", 7), ("b", 9)):
        (tmp_path / folder / "parts").mkdir(parents=True)
        (tmp_path / folder / "parts" / "__init__.py").write_text("")
        (tmp_path / folder / "parts" / "sizes.py").write_text(f"STEPS = {steps}\n")
        (tmp_path / folder / "beside.py").write_text("from parts.sizes import STEPS\n")
        (tmp_path / folder / "torch.py").write_text("raise RuntimeError('hides an installed package')\n")
        head = "from beside import STEPS\nimport torch\nfrom metarl.envs.half_cheetah import HalfCheetahDir\n"
        body = "class Robot(HalfCheetahDir):\n    episode_steps = STEPS\n"
        (tmp_path / folder / "robot.py").write_text(head + body)
    made = [make_family(f"{tmp_path}/{folder}/robot.py:Robot").episode_steps for folder in "abab"]
    assert made == [7, 9, 7, 9]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("robot.py", "'robot.py' must name the class too: robot.py:ClassName"),
        ("x" * 300 + ".py:Robot", "there is no file xxx"),
        ("a\0b.py:Robot", "there is no file a"),
        ("leaves.py:Robot", "does not import: SystemExit: 3, line 2"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_sentence(name, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(UserError) as error:
        make_family(name)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("config", ["", "    Config = 3\n", "    class Config: pass\n"])
def test_a_learner_without_a_configuration_is_said(config, tmp_path):
    (tmp_path / "own.py").write_text(f"class Own:\n    rate = 1\n{config}")
    with pytest.raises(UserError, match="has no attribute Config, the dataclass of its hyperparameters"):
        learner_config_class(f"{tmp_path}/own.py:Own")
    with pytest.raises(UserError, match="is no class but a int"):
        (tmp_path / "value.py").write_text("Own = 3\n")
        learner_class(f"{tmp_path}/value.py:Own")
