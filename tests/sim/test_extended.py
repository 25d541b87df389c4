"""Families with more task parameters, and with narrower ones."""

import pytest
import torch

from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.registry import make_family
from metarl.sim.make import make_env


def test_a_parameter_is_added_by_its_name():
    family = make_family("quadruped-body+joint_friction")
    tasks = family.space.nominal(2)
    tasks["joint_friction"][1] = 3.0
    with make_env(family, 2, threads=1) as env:
        env.begin(tasks, key=0)
        loss = [env.physics.model_of(world).dof_frictionloss[6:] for world in range(2)]
    assert loss[1] == pytest.approx(3.0 * loss[0])
    assert "joint_friction" not in make_family("quadruped-body").space.parameters


def test_a_wrong_addition_is_refused():
    with pytest.raises(UserError, match="did you mean 'joint_friction'"):
        make_family("quadruped-body+joint_frction")
    with pytest.raises(UserError, match="of its own"):
        make_family("quadruped-body+strength")


def test_ranges_narrow_what_is_drawn():
    family = make_family("quadruped-body", ranges=("payload=1.5:1.9",))
    drawn = family.space.sample("train", 50, seeding.rng(0, "test"))
    assert bool(((drawn["payload"] >= 1.5) & (drawn["payload"] <= 1.9)).all())
    assert float(drawn["friction"].max()) > 1.0
    vector = make_family("quadruped-hidden-actuation", ranges=("strength.2=0.7:0.8",))
    strength = vector.space.sample("test", 50, seeding.rng(0, "test"))["strength"]
    assert bool(((strength[:, 2] >= 0.7) & (strength[:, 2] <= 0.8)).all())
    assert float(strength[:, 0].min()) < 0.6
    assert torch.equal(make_family("quadruped-body").space.fixed("test", 3)["payload"], family_payload())


def family_payload():
    return make_family("quadruped-body").space.fixed("test", 3)["payload"]


@pytest.mark.parametrize("text", ["payload", "payload=2:1", "payload=a:b", "paylod=1:2", "payload.0=1:2"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(UserError):
        make_family("quadruped-body", ranges=(text,))


def test_a_task_list_may_be_of_the_family_with_more_parameters(tmp_path):
    from metarl.core.tasks import save_tasks
    from metarl.run.sessions import around
    from metarl.run.subject import on_tasks, subject_of

    name, path = "quadruped-body+joint_friction", tmp_path / "tasks.json"
    tasks = make_family(name).space.nominal()
    tasks["joint_friction"][:] = 2.2
    save_tasks(path, name, tasks, {"intervals": {"joint_friction": [2.0, 2.4]}})
    subject, found = on_tasks(subject_of("quadruped-body", "zero"), path)
    assert "joint_friction" in subject.family.space.parameters
    assert float(found["joint_friction"]) == 2.2
    family, ranges = around(path, "quadruped-body")
    assert family == name
    assert ranges == ("joint_friction=1.55:2.85",)
    with pytest.raises(UserError, match="not of 'quadruped-crippled'"):
        around(path, "quadruped-crippled")
