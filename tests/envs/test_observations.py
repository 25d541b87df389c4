"""What a family observes: its parts are the published vector, and a slip in them is one sentence."""

from pathlib import Path

import numpy as np
import pytest
import torch
from families import ALL_FAMILIES, Rail

from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.info import Part, element_names, observation_table
from metarl.core.registry import make_family
from metarl.sim.family import MujocoFamily, constant_like
from metarl.sim.mujoco.cpu import CpuPhysics
from metarl.sim.mujoco.mujoco_env import MujocoEnv, compile_spec

RECORDED = np.load(Path(__file__).parent / "observations.npz")
"""Per family the first observation of two worlds, and those after 1, 2 and 3 random steps, as of version 0.1."""


@pytest.mark.parametrize("name", RECORDED.files)
def test_the_vectors_are_those_of_the_first_version(name):
    """Recorded results and trained policies depend on it; to the bit where the processor is the recording one."""
    family = make_family(name)
    env = MujocoEnv(family, 2, episodes_per_trial=2, threads=1)
    seen = [env.begin(family.space.sample("train", 2, seeding.rng(0, "golden")), key=5)]
    actions = torch.rand((60, 2, env.action_size), generator=seeding.generator(0, "golden")) * 2 - 1
    seen += [env.step(action).final_obs for action in actions[:3]]
    np.testing.assert_allclose(torch.stack(seen).numpy(), RECORDED[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ALL_FAMILIES)
def test_the_table_counts_every_number_once(name):
    family = make_family(name)
    names = element_names(family.observation)
    assert len(names) == len(set(names)) == sum(part.size for part in family.observation)
    rows = observation_table(family.observation)
    ends = [[int(number) for number in row["index"].split("-")] for row in rows]
    assert [end[0] for end in ends] == [0, *(end[-1] + 1 for end in ends[:-1])]
    assert ends[-1][-1] == len(names) - 1


def test_the_same_name_means_the_same_unit_in_all_families():
    units = {(part.name, part.unit) for name in ALL_FAMILIES for part in make_family(name).observation}
    assert len({name for name, _ in units}) == len(units)


def test_the_table_names_elements_where_they_have_names():
    parts = (Part("gyro", 2, "rad/s", ("x", "y"), "of the trunk"), Part("height", 1, "m"), Part("force", 2, "N"))
    assert element_names(parts) == ["gyro.x", "gyro.y", "height", "force.0", "force.1"]
    assert [row["index"] for row in observation_table(parts)] == ["0-1", "2", "3-4"]
    assert observation_table(parts)[0] == {
        "index": "0-1",
        "part": "gyro",
        "elements": "x, y",
        "unit": "rad/s",
        "help": "of the trunk",
    }


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [
        (lambda x: x, r"Other.observe returns float64 \(2, 1\): declare the parts .* as observation = \(Part"),
        (lambda x: {"position": x}, "does not return the part 'velocity', which `observation` declares"),
        (lambda x: {"position": x, "velocity": x, "x": x}, "returns the part 'x', which is not declared: add Part"),
        (
            lambda x: {"position": x, "velocity": x.repeat(1, 2)},
            r"the part 'velocity' of Other.observe is float64 \(2, 2\), it",
        ),
        (lambda x: {"position": x, "velocity": x[:, 0]}, r"it must be float64 \(num_worlds, 1\)"),
        (lambda x: {"position": x, "velocity": x.numpy()}, "observe is a numpy.ndarray, it must be a torch tensor"),
    ],
)
def test_an_environment_refuses_what_is_not_declared(seen, sentence):
    class Other(Rail):
        def observe(self, physics, tasks):
            return seen(physics.bind("qpos"))

    with pytest.raises(UserError, match=sentence):
        MujocoEnv(Other(), 2, threads=1)


def test_a_family_never_changes_once_it_is_made():
    family = Rail(edge=3.0)
    with pytest.raises(UserError, match=r"^Rail.episode_steps cannot be set, .* arguments of make_env"):
        family.episode_steps = 7
    assert (family.episode_steps, family.edge) == (4, 3.0)
    assert "task_visible" not in dir(MujocoFamily)


def test_the_length_of_an_episode_is_the_environment_s():
    env = MujocoEnv(Rail(edge=1e9), 2, episodes_per_trial=2, episode_steps=3, threads=1)
    env.begin(env.family.space.nominal(2), key=0)
    truncated = [bool(env.step(torch.zeros(2, 1)).truncated[0]) for _ in range(env.trial_steps)]
    assert truncated == [False, False, True, False, False, True]


def test_a_constant_follows_the_tensor_it_meets_and_is_copied_once():
    constant = torch.tensor([0.1, 0.2], dtype=torch.float64)
    assert constant_like(constant, torch.zeros(1, dtype=torch.float64)) is constant
    single = constant_like(constant, torch.zeros(1))
    assert single.dtype == torch.float32
    assert constant_like(constant, torch.ones(3)) is single


class SinglePhysics(CpuPhysics):
    """Float32 copies of the fields: what a family meets on a GPU."""

    def bind(self, field, *, fresh=True, at_start=True):
        copies = vars(self).setdefault("copies", {})
        return copies.setdefault(field, super().bind(field, fresh=fresh).float())


class SingleRandom(seeding.WorldRandom):
    """Draws in float32."""

    def __init__(self, *words):
        self.double = seeding.WorldRandom(*words)

    def uniform(self, *words):
        return self.double.uniform(*words).float()

    def normal(self, *words):
        return self.double.normal(*words).float()


@pytest.mark.parametrize("name", ALL_FAMILIES)
def test_families_compute_in_the_dtype_of_the_physics(name):
    family, worlds = make_family(name), torch.arange(2)
    physics = SinglePhysics(compile_spec(family.spec()), 2, threads=1)
    tasks = family.space.sample("train", 2, seeding.rng(0, "single")).to(torch.device("cpu"), torch.float32)
    family.reset(physics, worlds, tasks, SingleRandom(0, worlds, worlds))
    before, action = family.snapshot(physics), torch.zeros(2, physics.model.nu)
    family.advance(physics, tasks)
    seen = {"snapshot": before, **family.observe(physics, tasks), **family.reward(physics, before, action, tasks)}
    assert {key: value.dtype for key, value in seen.items() if value.dtype != torch.float32} == {}
    fallen = family.terminated(physics, tasks)
    assert fallen is None or fallen.dtype == torch.bool
