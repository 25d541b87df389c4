"""Sweeps of the physics: what each point is, what is lost there, and the gate."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from disturbed import Cart

import metarl
from metarl.cli.main import main
from metarl.core.errors import UserError
from metarl.core.info import PolicyInfo
from metarl.core.registry import make_family
from metarl.core.tasks import Uniform, save_tasks
from metarl.reports.gap_page import write_gap
from metarl.rl.scripted import UNTRAINED
from metarl.run.evaluate import evaluate
from metarl.run.records import Origin
from metarl.run.subject import Subject
from metarl.sim.disturbances import ActionLatency, Sensor
from metarl.sim.make import make_env
from metarl.sweeps.axes import axes_of
from metarl.sweeps.measure import Plan, swept


class Steady:
    """Holds the cart back by what it senses."""

    def __init__(self, info: PolicyInfo) -> None:
        self._zero = UNTRAINED["zero"](info)

    def __getattr__(self, name):
        return getattr(self._zero, name)

    def act(self, obs, state, noise, deterministic=False):
        return (-0.5 * obs[:, :1] - 0.2 * obs[:, 1:2]).clamp(-1.0, 1.0), state


def subject(*disturbances):
    family = Cart(*disturbances)
    with make_env(family, 1, threads=1) as env:
        policy = Steady(env.info)
    return Subject(policy, family, Origin(agent="steady", family="cart", episode_steps=10), 2)


def sweep(*names, of=None, **plan):
    return swept({"steady": of or subject()}, Plan(sweeps=names, num_tasks=2, **plan), ["gap"], lambda what: None)


def test_a_point_is_the_same_tasks_with_what_is_swept_changed_and_nothing_else():
    record = sweep("mass=1,2.5", "latency=0,0.04", "noise=0,0.5", of=subject(Sensor("velocity", noise=0.1)))
    (policy,) = record.policies
    one = subject(Sensor("velocity", noise=0.1), ActionLatency(0.04))
    tasks = one.family.space.fixed("test", 2)
    played = evaluate(one.policy, one.family, tasks, 2, origin=one.origin)
    assert policy.points["latency"][0] is policy.nominal
    np.testing.assert_array_equal(policy.points["latency"][1].returns, played.returns)
    tasks.values["mass"][:] = 2.5
    one = subject(Sensor("velocity", noise=0.1))
    played = evaluate(one.policy, one.family, tasks, 2, origin=one.origin)
    np.testing.assert_array_equal(policy.points["mass"][1].returns, played.returns)
    assert policy.share(policy.points["noise"][1]) != 1.0


def test_what_was_asked_for_by_name_is_never_left_out_in_silence():
    with pytest.raises(UserError, match=r"d_gain cannot be swept: .* is no position servo"):
        sweep("d_gain")


def test_axes_are_the_familys_parameters_where_it_has_them_and_disturbances_where_not():
    axes = {axis.name: axis for axis in axes_of(Cart(ActionLatency("late", jitter=Uniform(0.0, 0.01))))}
    assert "motor_strength" not in axes  # the task's strength
    assert axes["strength"].is_task
    assert axes["strength"].trained == (0.0, 1.0)
    assert axes["late"].is_task
    assert "latency" not in axes
    assert axes["jitter"].trained == (0.0, 0.01)
    assert "goal" not in axes  # nothing of the physics
    assert not axes["friction"].is_task
    assert [axes["timestep"].label(axes["timestep"].own), axes["integrator"].label(axes["integrator"].own)] == [
        "0.01",
        "euler",
    ]
    assert axes["friction"].in_training(axes["friction"].own)
    few = axes_of(Cart(), quick=True)
    assert [axis.name for axis in few] == ["strength", "mass", "latency", "noise", "friction", "payload"]
    assert max(len(axis.values) for axis in few) <= 4


def test_another_model_and_a_magnitude_that_is_drawn_have_worlds_of_their_own():
    record = sweep("timestep=0.01,0.005", "solver", "lost", of=subject(ActionLatency(Uniform(0.0, 0.02), lost=0.1)))
    (policy,) = record.policies
    assert record.skipped == {}
    assert {len(points) for points in policy.points.values()} == {2, 3, 4}
    assert policy.points["timestep"][0] is policy.nominal
    assert not np.array_equal(policy.points["timestep"][1].returns, policy.nominal.returns)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("latecy", "unknown sweep 'latecy'.*'latency'"),
        ("latency=0,x", "must be latency=NUMBER"),
        ("solver=1", "has no quantity"),
        ("mass=inf", "must be finite"),
    ],
)
def test_a_sweep_that_cannot_be_is_one_sentence(word, message):
    with pytest.raises(UserError, match=message):
        axes_of(Cart(), [word])


def test_the_gate_names_every_point_below_it_and_the_page_shows_all(tmp_path):
    record = sweep("strength=0,1", "latency=0,0.06")
    (policy,) = record.policies
    policy.points["strength"][0].returns[:] = policy.nominal.returns - 2.0 * abs(policy.nominal.returns.mean())
    assert any("strength = 0: " in sentence and "nominal return" in sentence for sentence in record.below(0.8))
    assert record.below(-100.0) == []
    policy.points["strength"][0].returns[:] = np.nan  # the physics of every task diverged
    assert any("strength = 0: nan" in sentence for sentence in record.below(0.1))
    write_gap(record, tmp_path / "gap.html")
    content = json.loads((tmp_path / "gap.json").read_text())
    assert content["axes"][0]["in_training"] == [True, True]
    assert content["policies"][0]["points"]["strength"][0]["return"] is None
    page = (tmp_path / "gap.html").read_text()
    assert page.count("<svg") == 4
    assert "diverged" in page


def test_a_report_of_a_run_shows_its_gap(tmp_path):
    run = tmp_path / "quickstart"
    shutil.copytree(Path(__file__).parents[2] / "experiments" / "results" / "quickstart", run)
    record = sweep("strength=0,1", "latency=0,0.06")
    (policy,) = record.policies
    policy.points["strength"][0].returns[:] = policy.nominal.returns - 2.0 * abs(policy.nominal.returns.mean())
    write_gap(record, run / "gap.html")
    report = {"output": tmp_path / "report.html", "evaluate_missing": False, "film": False}
    page = metarl.report(run, **report).read_text()
    assert '<section id="gap">' in page and (run / "gap.html").as_uri() in page
    rows = json.loads((tmp_path / "report.json").read_text())["gaps"][0]["axes"]
    assert (rows[0]["name"], rows[0]["value"]) == ("strength", "0") and rows[0]["of_nominal"] < 0.0
    (run / "gap.json").write_text("{}")
    assert '<section id="gap">' not in metarl.report(run, **report).read_text()


def test_the_gate_closes_with_exit_code_1(tmp_path, capsys):
    words = ["gap", "pretrained:half-cheetah-dir-rl2", "--sweep", "gravity_", "--num-tasks", "2"]
    assert main(words) == 2
    assert "unknown sweep 'gravity_'" in capsys.readouterr().err
    assert main(["gap"]) == 2
    assert torch.get_num_threads() == 1


def test_tasks_of_a_file_are_swept(tmp_path, capsys):
    run, path, page = "pretrained:half-cheetah-dir-rl2", tmp_path / "mine.json", tmp_path / "gap.html"
    space = make_family("half-cheetah-dir").space
    save_tasks(path, "half-cheetah-dir", space.fixed("test", 1))
    words = ["gap", run, "--tasks", str(path), "--sweep", "timestep=0.01", "--episodes", "1", "--output", str(page)]
    assert main(words) == 0
    content = json.loads(page.with_suffix(".json").read_text())
    assert (content["split"], content["num_tasks"]) == ("list-mine", 1)
    assert main([*words, "--split", "ood"]) == 2
    assert "takes the place of --split ood" in capsys.readouterr().err
