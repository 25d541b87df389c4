"""Each check of the contract can fail: a toy that breaks it, and the sentence its author reads."""

import dataclasses
import json
import math
from itertools import count

import mujoco
import pytest
import torch
from families import RAIL, Rail, only

from metarl.check import playing, posing
from metarl.check.check import CHECKS, FOUNDATIONS, Finding, check_family, verdict
from metarl.check.tested import CheckError, Play, Tested as UnderTest
from metarl.core.info import Part
from metarl.core.tasks import Angle, Choice, Disc, LogUniform, Parameter, TaskSpace, Uniform
from metarl.envs.half_cheetah import HalfCheetahDir
from metarl.sim.variations import BodyMass, Friction, SitePosition

GOAL = Rail.space.parameters["goal"]


def faulty(base=Rail, **attributes):
    """A subclass of `base` with some attributes replaced, made."""
    return type("Faulty", (base,), attributes)()


def x(physics):
    return physics.bind("qpos")[:, 0]


def judge(check, family):
    """Finding of one check alone, by the name of its function."""
    alone = {name: function for name, function in CHECKS.items() if function.__name__ == check}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metarl.check.check.CHECKS", alone)
        (finding,) = check_family(family)
    return finding


class Weighted(Rail):
    """The cart's mass differs."""

    space = TaskSpace({"goal": GOAL, "mass": Parameter(LogUniform(0.5, 2.0), unit="1", nominal=1.0)})
    variations = (BodyMass("mass"),)


class Marked(Rail):
    """A mark shows the goal."""

    space = TaskSpace({"goal": Parameter(Uniform(-1.0, 1.0, 1), unit="m")})
    variations = (SitePosition("goal", "mark"),)

    def spec(self):
        return mujoco.MjSpec.from_string(RAIL.format("-1 1").replace("<worldbody>", '<worldbody><site name="mark"/>'))

    def reward(self, physics, before, action, tasks):
        return {"goal": -(x(physics) - tasks["goal"][:, 0]).abs()}


class Variant:
    """A variation of the mass that is wrong somewhere."""

    parameters, fields = ("mass",), ("body_mass",)

    def __init__(self, write):
        self.write = write

    def apply(self, model, live, tasks):
        self.write(model, live, tasks)


class Rooted(BodyMass):
    """Scales by the root of the ratio."""

    def _write(self, model, live, value):
        super()._write(model, live, value.sqrt())


def varied(write):
    return faulty(Weighted, variations=(Variant(write),))


def observing(observe, base=Rail, **attributes):
    """A cart that observes one tensor, by default as many numbers as the cart's."""
    parts = (Part("seen", attributes.pop("size", 2), "1"),)
    return faulty(base, observation=parts, observe=lambda self, *seen: {"seen": observe(self, *seen)}, **attributes)


def both(physics):
    return torch.cat((physics.bind("qpos"), physics.bind("qvel")), dim=1)


def also(**parts):
    """A cart that observes something else, too."""
    return faulty(observe=lambda self, *seen: Rail.observe(self, *seen) | parts)


def rewarding(reward, base=Rail):
    return faulty(base, reward=lambda self, physics, before, action, tasks: reward(physics, before, action, tasks))


def nudged(physics):
    """The cart moves while it is looked at."""
    physics.bind("qpos").add_(1e-3)
    return x(physics)


def heavier(physics, worlds):
    physics.expand("body_mass")[worlds] *= 1.1
    physics.set_const(only(physics.num_worlds, *worlds.tolist()))


def wear(self, physics, worlds, tasks, random):
    """Each episode makes the cart heavier."""
    Rail.reset(self, physics, worlds, tasks, random)
    heavier(physics, worlds)


def dice(self, physics, worlds, tasks, random):
    """Drawn from torch's global stream."""
    physics.bind("qpos")[worlds] = torch.rand(len(worlds), 1, dtype=torch.float64) / 100


ENDLESS = {"terminated": lambda *_: None, "episode_steps": 30}
"""An episode that nothing ends early: worlds begin theirs apart only where a check makes them."""


def reset(write, base=Rail, **attributes):
    """A cart in endless episodes that begin with something wrong."""

    def wrong(self, physics, worlds, tasks, random):
        Rail.reset(self, physics, worlds, tasks, random)
        write(physics, worlds, tasks, random)

    return faulty(base, reset=wrong, **ENDLESS, **attributes)


def halved(physics, worlds, tasks, random):
    physics.bind("qvel").mul_(0.5)


def all_heavier(physics, worlds, tasks, random):
    physics.expand("body_mass")[:] = 1.0 + physics.bind("qpos")[worlds[0], 0]
    physics.set_const(only(physics.num_worlds))


REMEMBERING = RAIL.format("-1 1").replace("<worldbody>", '<size nuserdata="1"/><worldbody>')


def remembering(show, **attributes):
    """A cart of unknown mass that has a memory of one number, of which it observes something."""
    return faulty(
        Weighted,
        spec=lambda self: mujoco.MjSpec.from_string(REMEMBERING),
        observation=(*Rail.observation, Part("memory", 1, "1")),
        observe=lambda self, physics, tasks: Rail.observe(self, physics, tasks) | {"memory": show(physics)},
        **ENDLESS | attributes,
    )


def noted(self, physics, worlds, tasks, random):
    """The mass, under noise, to be shown later on."""
    Rail.reset(self, physics, worlds, tasks, random)
    physics.bind("userdata")[worlds] = tasks["mass"][:, None] + random.normal(0.0, 0.3, 1)


def later(physics):
    return physics.bind("userdata") * (physics.bind("time") > 0.05)[:, None]


def note_late(self, physics, tasks):
    """The mass, from the third step on."""
    physics.bind("userdata")[:, 0] = x(physics) + tasks["mass"] * (physics.bind("time") > 0.05)


def noisy_mass(physics):
    return physics.bind("cinert")[:, 1, 9:] * (1 + 0.3 * (physics.bind("qpos") * 1000).sin())


CALLS = count(1)


class Tenths:
    """Few different numbers, though not a `Choice`."""

    def sample(self, n, rng):
        return rng.integers(10, size=n) / 10

    def contains(self, value):
        return 0 <= value < 1

    def describe(self):
        return "tenths"


class Wrong(Tenths):
    """Draws what it says it does not contain."""

    def contains(self, value):
        return 0 <= value < 0.5


def space(**parameters):
    return TaskSpace({"goal": GOAL} | parameters)


UNLIMITED = RAIL.replace('ctrlrange="{}"', "")
AWAY = RAIL.format("-1 1").replace("<worldbody>", '<worldbody><camera name="away" pos="0 0 5" xyaxes="1 0 0 0 -1 0"/>')
WEAK = RAIL.format("-1 1").replace('gear="100"', 'gear="1e12"')

FAULTS = {
    "no actuators": (
        "model",
        faulty(spec=lambda self: mujoco.MjSpec.from_string("<mujoco><worldbody><body/></worldbody></mujoco>")),
        "no actuators",
    ),
    "no range": (
        "model",
        faulty(spec=lambda self: mujoco.MjSpec.from_string(UNLIMITED)),
        "actuator 'push' has no ctrlrange",
    ),
    "no model": (
        "model",
        faulty(spec=lambda self: mujoco.MjSpec.from_file("nowhere.xml")),
        "nowhere.xml' (test_check.py:",
    ),
    "camera": ("names", faulty(camera="front"), "unknown camera 'front'"),
    "parameter": ("names", faulty(variations=(BodyMass("gaol"),)), "'gaol' (did you mean 'goal'?)"),
    "timestep": ("control_step", faulty(control_step=0.015), "not a whole multiple"),
    "substeps": (
        "control_step",
        faulty(num_substeps=lambda self, model: 3),
        "3 timesteps of 0.01 s are not the control_step of 0.02 s",
    ),
    "no steps": ("episode_length", faulty(episode_steps=0), "episode_steps = 0 must be at least 1"),
    "flat": (
        "spaces",
        observing(lambda self, physics, tasks: x(physics)),
        "the part 'seen' of Faulty.observe is float64 (4,), it must be float64 (4, 2)",
    ),
    "narrow": ("spaces", observing(lambda self, physics, tasks: both(physics), size=3), "must be float64 (4, 3)"),
    "single": ("spaces", observing(lambda self, physics, tasks: both(physics).float()), "float32 (4, 2)"),
    "one tensor": (
        "spaces",
        faulty(observe=lambda self, physics, tasks: both(physics)),
        "Faulty.observe returns float64 (4, 2): declare the parts of the observation, as observation = (Part(",
    ),
    "undeclared part": ("spaces", also(wind=torch.ones(4, 1)), "returns the part 'wind', which is not declared: add"),
    "missing part": (
        "spaces",
        faulty(observe=lambda self, physics, tasks: {"position": physics.bind("qpos")}),
        "does not return the part 'velocity', which `observation` declares",
    ),
    "snapshot": (
        "spaces",
        faulty(snapshot=lambda self, physics: x(physics)),
        "snapshot is float64 (4,), it must be float64 (4, size)",
    ),
    "term": ("spaces", rewarding(lambda physics, *_: {"x": physics.bind("qpos")}), "'x' is float64 (4, 1)"),
    "no terms": ("spaces", rewarding(lambda *_: {}), "reward returns no terms"),
    "mask": (
        "spaces",
        faulty(terminated=lambda self, physics, tasks: x(physics)),
        "terminated is neither None nor a mask, but float64 (4,), it must be bool (4,)",
    ),
    "numpy": (
        "spaces",
        observing(lambda self, physics, tasks: both(physics).numpy()),
        "observe is a numpy.ndarray, it must be a torch tensor, float64 (4, 2)",
    ),
    "nothing seen": ("spaces", observing(lambda *_: None), "the part 'seen' of Faulty.observe is None, it must be"),
    "numpy snapshot": (
        "spaces",
        faulty(snapshot=lambda self, physics: physics.bind("qpos").numpy()),
        "snapshot is a numpy.ndarray, it must be a torch tensor",
    ),
    "total": (
        "spaces",
        rewarding(lambda physics, *_: x(physics)),
        "reward is float64 (4,), it must be a mapping from names to terms",
    ),
    "number": (
        "spaces",
        rewarding(lambda *_: {"x": 1.0}),
        "reward term 'x' is a float, it must be a torch",
    ),
    "nameless": ("spaces", rewarding(lambda physics, *_: {1: x(physics)}), "a reward term is called 1"),
    "list": (
        "spaces",
        faulty(terminated=lambda *_: [False] * 4),
        "terminated is neither None nor a mask, but a list, it must be a torch tensor, bool (4,)",
    ),
    "numpy mask": (
        "spaces",
        faulty(terminated=lambda self, physics, tasks: (x(physics) > 9).numpy()),
        "terminated is neither None nor a mask, but a numpy.ndarray",
    ),
    "standard library": ("spaces", observing(lambda *_: json.loads("{")), "(test_check.py:"),
    "typo": ("spaces", rewarding(lambda physics, *_: {"x": physics.bind("qpos")[:, 7]}), "(test_check.py:"),
    "not finite": (
        "finite",
        observing(lambda self, physics, tasks: (both(physics) + 0.02).sqrt()),
        "of the observation is nan for the task {'goal'",
    ),
    "infinite reward": (
        "finite",
        rewarding(lambda physics, *_: {"x": 1 / (x(physics) < 0.03).double()}),
        "reward term 'x' is inf for the task",
    ),
    "too strong": (
        "diverges",
        faulty(spec=lambda self: mujoco.MjSpec.from_string(WEAK)),
        "times in 1,000 random steps of 4 worlds, first at step 0",
    ),
    "unreachable": (
        "ends",
        faulty(terminated=lambda self, physics, tasks: x(physics) > 100),
        "never true in 1,000 steps of random actions and 1,000 of held extreme ones",
    ),
    "fallen": (
        "ends",
        faulty(terminated=lambda self, physics, tasks: x(physics) > -1),
        "already true where an episode",
    ),
    "constant": (
        "constants",
        observing(lambda self, physics, tasks: torch.cat((both(physics), torch.ones(4, 1).double()), 1), size=3),
        "element 2 (seen.2) = 1 of the observation never change: leave them out, or declare constant_obs",
    ),
    "declared": (
        "constants",
        faulty(constant_observations=(1,)),
        "constant_observations has element 1 (velocity), which varies",
    ),
    "undeclarable": ("constants", faulty(constant_observations=(2,)), "element 2, there are elements 0 to 1"),
    "terms": (
        "reward_sum",
        rewarding(lambda physics, *_: {"left" if x(physics)[0] < 0 else "right": x(physics).abs()}),
        "the first step had",
    ),
    "moving": (
        "pure",
        observing(lambda self, physics, tasks: torch.stack((x(physics), nudged(physics)), 1)),
        "observe changes the state: it may only read",
    ),
    "snatching": (
        "pure",
        rewarding(lambda physics, before, action, tasks: {"x": tasks["goal"].mul_(0.9)}),
        "reward changes the task parameter 'goal': it may only read",
    ),
    "counting": (
        "pure",
        rewarding(lambda physics, *_: {"x": x(physics) + next(CALLS)}),
        "reward returns something else when it is called again",
    ),
    "remodelling": (
        "pure",
        faulty(terminated=lambda self, physics, tasks: heavier(physics, torch.arange(4)) or x(physics) > 0.05),
        "terminated changes the model: only variations may",
    ),
    "dice": (
        "deterministic",
        faulty(reset=dice),
        "the same seed gives another observation 0 in the same environment",
    ),
    "one start": ("starts", faulty(reset=lambda *_: None), "only 1 of 8 episodes start in a state of their own"),
    "few tasks": (
        "disjoint",
        faulty(space=TaskSpace({"goal": Parameter(Tenths(), unit="m")})),
        "of 100 test tasks are also drawn for training, as {'goal'",
    ),
    "own range": (
        "outside",
        faulty(space=space(wrong=Parameter(Wrong(), unit="1"))),
        "outside its own train range tenths",
    ),
    "unplayable": (
        "playable",
        rewarding(lambda physics, before, action, tasks: {"x": (1.5 - tasks["goal"]).log()}),
        "reward term 'x' is nan for the task {'goal': 2.",
    ),
    "exploding": (
        "playable",
        faulty(
            Weighted, space=space(mass=Parameter(Uniform(1.0, 2.0), unit="1", nominal=1.0, ood=Uniform(1e-12, 1e-11)))
        ),
        "the physics diverged at step 0 of random actions on the ood task",
    ),
    "unread": (
        "matters",
        faulty(space=space(wind=Parameter(Uniform(0.0, 1.0), unit="m/s"))),
        "the task parameter 'wind' changes neither observations nor rewards",
    ),
    "ignored": (
        "matters",
        faulty(
            HalfCheetahDir,
            space=TaskSpace(HalfCheetahDir.space.parameters | {"grip": Parameter(Uniform(0.1, 0.9), unit="1")}),
            variations=(Friction("grip", ("ffoot", "bfoot")),),
        ),
        "'grip' changes neither motion nor reward: the physics ignores what the variation Friction makes of it",
    ),
    "read": (
        "hidden",
        observing(lambda self, physics, tasks: torch.stack((x(physics), x(physics) - tasks["goal"]), 1)),
        "element 1 (seen.1) of the observation is computed from the task",
    ),
    "shown": (
        "hidden",
        observing(lambda self, physics, tasks: physics.bind("site_xpos")[:, 0], Marked, size=3),
        "element 0 (seen.0) of the first observation tells 'goal'",
    ),
    "weighed": (
        "hidden",
        observing(lambda self, physics, tasks: 3 - 2 * physics.bind("cinert")[:, 1], Weighted, size=10),
        "of the first observation tells the task parameter 'mass'",
    ),
    "weighed under noise": (
        "hidden",
        remembering(noisy_mass),
        "element 2 (memory) of the first observation tells the task parameter 'mass'",
    ),
    "placed by its model": (
        "placed",
        reset(
            lambda physics, worlds, *_: physics.bind("qpos").index_add_(
                0, worlds, 0.02 * physics.expand("body_mass")[worlds, 1:]
            ),
            Weighted,
        ),
        "the initial state tells the task parameter 'mass': it explains",
    ),
    "placed by its task": (
        "passed_on",
        reset(
            lambda physics, worlds, tasks, _: physics.bind("qpos").index_add_(0, worlds, 0.02 * tasks["mass"][:, None]),
            Weighted,
        ),
        "`reset` or `advance` tells the task parameter 'mass': after 0 steps of random play the observation explains",
    ),
    "remembered": (
        "passed_on",
        remembering(later, reset=noted),
        "tells the task parameter 'mass': after 5 steps of random play the observation explains",
    ),
    "noted": (
        "passed_on",
        remembering(lambda physics: physics.bind("userdata"), advance=note_late),
        "tells the task parameter 'mass': after 5 steps of random play the observation explains",
    ),
    "pushed off": (
        "first_observation",
        reset(
            lambda physics, worlds, tasks, _: physics.bind("qvel").index_add_(0, worlds, 0.1 * tasks["goal"][:, None]),
            observation=(Part("position", 1, "m"),),
            observe=lambda self, physics, tasks: {"position": physics.bind("qpos")},
        ),
        "element 0 (position) of the observation after 1 steps changes with 'goal', which changes no dynamics",
    ),
    "relative": (
        "first_observation",
        observing(lambda self, physics, _: physics.bind("site_xpos")[:, 0] - x(physics)[:, None], Marked, size=3),
        "element 0 (seen.0) of the first observation changes with 'goal', which changes no dynamics",
    ),
    "idle": ("variations", varied(lambda model, live, tasks: None), "changes nothing: body_mass are the same for 8"),
    "undeclared": (
        "variations",
        varied(lambda model, live, tasks: live["body_inertia"].mul_(tasks["mass"][:, None, None])),
        "the variation Variant of 'mass' looks up 'body_inertia', which its `fields`",
    ),
    "shared": (
        "variations",
        varied(lambda model, live, tasks: model.body_mass.__imul__(2.0)),
        "writes to the model that all worlds share",
    ),
    "rooted": (
        "ratios",
        faulty(Weighted, variations=(Rooted("mass"),)),
        "the variation Rooted of 'mass': what it takes to accelerate the bodies changes by the ratio",
    ),
    "growing": (
        "restores",
        varied(lambda model, live, tasks: live["body_mass"].mul_(next(CALLS))),
        "does not restore body_mass in world 0",
    ),
    "wearing": (
        "restores",
        faulty(reset=wear),
        "after 100 other tasks the nominal one does not restore body_mass in world 0",
    ),
    "crowd": (
        "slots",
        rewarding(lambda physics, *_: {"x": x(physics) - x(physics).mean()}),
        "part at step 0 on the same task, start and actions",
    ),
    "numbered": (
        "slots",
        observing(lambda self, physics, tasks: both(physics) * torch.arange(1, 5)[:, None]),
        "world 3 and world 0 part at step 0",
    ),
    "halving": (
        "slots",
        reset(halved),
        "world 1 while others begin episodes and world 0 part at step 2",
    ),
    "burdening": (
        "slots",
        reset(all_heavier),
        "while others begin episodes and world 0 part at step",
    ),
    "blind": (
        "renders",
        faulty(camera="away", spec=lambda self: mujoco.MjSpec.from_string(AWAY)),
        "the picture is of one colour, (0, 0, 0)",
    ),
}


@pytest.mark.parametrize(("check", "family", "sentence"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found_and_named(check, family, sentence):
    finding = judge(check, family)
    assert finding.problem is not None, finding
    assert sentence in finding.problem
    assert "\n" not in finding.problem


def test_every_check_is_proved_able_to_fail():
    elsewhere = {"speed", "memory", "symmetric"}  # the first is a report, the others have tests of their own
    assert {function.__name__ for function in CHECKS.values()} == {check for check, *_ in FAULTS.values()} | elsewhere


@pytest.mark.parametrize("family", [Rail(), Weighted(), Marked()], ids=lambda family: type(family).__name__)
def test_a_sound_family_passes_and_its_speed_is_reported(family):
    findings = check_family(family)
    assert [finding.problem for finding in findings if finding.problem] == []
    assert "steps/s with 64 worlds" in findings[-1].note


def test_an_element_that_only_extreme_motion_changes_is_not_constant():
    far = observing(lambda self, physics, _: (physics.bind("qpos") > 0.33).double(), size=1, terminated=lambda *_: None)
    assert not any(bool(obs.any()) for obs in UnderTest(far).random.obs)
    assert judge("constants", far).problem is None


def played(family, **changes):
    """A family under test whose steps in random play have other fields."""
    tested = UnderTest(family)
    steps = [dataclasses.replace(step, **changes) for step in tested.random.steps]
    tested.random = Play(tested.random.obs, steps)
    return tested


def test_an_episode_that_never_ends_is_found():
    no = torch.zeros(4, dtype=torch.bool)
    with pytest.raises(CheckError, match="no episode ended in 1,000 steps, although one lasts 4"):
        playing.ends(played(Rail(), terminated=no, truncated=no))


def test_a_reward_that_is_not_the_sum_of_its_terms_is_found():
    with pytest.raises(CheckError, match="the sum of its terms"):
        playing.reward_sum(played(Rail(), reward=torch.ones(4)))


def test_an_observation_that_the_next_one_overwrites_is_found(monkeypatch):
    tested, buffer = UnderTest(Rail()), torch.zeros(4, 2)
    begin, step = tested.env.begin, tested.env.step

    def overwriting(action):
        taken = step(action)
        return dataclasses.replace(taken, obs=buffer.copy_(taken.obs))

    monkeypatch.setattr(tested.env, "begin", lambda *words, **named: buffer.copy_(begin(*words, **named)))
    monkeypatch.setattr(tested.env, "step", overwriting)
    with pytest.raises(CheckError, match="it must be a new tensor"):
        playing.memory(tested)


def test_fields_that_neither_variation_nor_mujoco_should_change_are_found(monkeypatch):
    monkeypatch.setattr(posing, "_written", lambda changed: changed)
    problem = judge("variations", Weighted()).problem
    assert problem.startswith("the variation BodyMass of 'mass' changes actuator_acc0, body_invweight0")


def test_without_a_way_to_draw_the_picture_is_not_checked(monkeypatch):
    monkeypatch.setenv("METARL_GL", "off")
    finding = judge("renders", Rail())
    assert (finding.problem, finding.checked) == (None, False)
    assert finding.note.startswith("not checked: MUJOCO_GL=off switches pictures off")


def test_a_sparse_reward_that_random_play_never_meets_is_not_a_fault():
    class Sparse(Rail):
        def reward(self, physics, before, action, tasks):
            return {"met": ((x(physics) - 5 - tasks["goal"]).abs() < 0.01).double()}

    finding = judge("matters", Sparse())
    assert finding.problem is None
    assert finding.note == "not checked: 'goal', as the reward term 'met' stays constant in random play"


def test_a_parameter_that_matters_only_with_another_is_not_a_fault():
    """A load of up to 1 kg, which only one task in four carries."""

    class Loaded(Rail):
        space = space(
            loaded=Parameter(Choice((0.0, 0.0, 0.0, 1.0)), unit="1"), load=Parameter(Uniform(0.0, 1.0), unit="kg")
        )
        variations = (
            Variant(lambda model, live, tasks: live["body_mass"].add_((tasks["loaded"] * tasks["load"])[:, None])),
        )

    Loaded.variations[0].parameters = ("loaded", "load")
    assert judge("matters", Loaded()).problem is None


def test_equal_twins_never_part():
    """Else a variation that the physics ignores would seem to matter."""
    tested = UnderTest(faulty(Weighted, space=space(mass=Parameter(Choice((1.0,)), unit="1"))))
    assert not posing._tells(tested, "mass")


@pytest.mark.parametrize(
    ("train", "inside", "beyond"),
    [
        (Uniform(0.0, 1.0), Uniform(0.9, 1.5), Uniform(1.1, 2.0)),
        (Uniform(0.0, 1.0, 3), Uniform(0.1, 0.9, 3), Uniform(1.1, 2.0, 3)),
        (LogUniform(0.5, 2.0), Uniform(1.0, 3.0), Uniform(2.1, 3.0)),
        (Choice((0.0, 1.0)), Choice((1.0, 2.0)), Choice((2.0,))),
        (Angle(0.0, math.pi), Angle(2 * math.pi, 3 * math.pi), Angle(3.2, 6.0)),
        (Disc(1.0), Disc(2.0), Disc(2.0, inner=1.01)),
    ],
    ids=lambda distribution: type(distribution).__name__,
)
def test_the_ood_split_of_every_distribution_is_judged(train, inside, beyond):
    for ood, sound in ((inside, False), (beyond, True)):
        family = faulty(space=TaskSpace({"goal": Parameter(train, unit="1", ood=ood)}))
        problem = judge("outside", family).problem
        assert (problem is None) == sound
        assert sound or "lies in its training range" in problem


def test_a_finite_space_may_repeat_its_tasks():
    finding = judge("disjoint", faulty(space=TaskSpace({"goal": Parameter(Choice((-1.0, 1.0)), unit="m")})))
    assert (finding.problem, finding.checked) == (None, True)


def test_after_a_foundation_that_fails_nothing_more_is_checked():
    findings = check_family(faulty(episode_steps=0))
    failed = [finding.check for finding in findings if finding.problem]
    assert failed == ["an episode has a length"]
    rest = findings[list(CHECKS).index(failed[0]) + 1 :]
    assert {finding.note for finding in rest} == {"not checked: it needs that an episode has a length"}
    assert failed[0] in FOUNDATIONS


def test_the_verdict_is_one_line_per_finding():
    findings = [
        Finding("a", None),
        Finding("b", "it is not b"),
        Finding("c", None, "7 m"),
        Finding("d", None, "not checked: e"),
    ]
    assert list(verdict("rail", findings)) == [
        "ok      a",
        "FAILED  b: it is not b",
        "ok      c (7 m)",
        "--      d (not checked: e)",
        "rail: 2 of 4 checks passed, 1 failed, 1 not checked",
    ]
