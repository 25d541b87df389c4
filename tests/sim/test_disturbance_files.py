"""Disturbances from a file: what it changes of a family's own, what it adds to any, and what is said of a slip."""

import pytest
import torch
from disturbed import Cart, Floater
from external_family import family as external

from metarl.core.config import configure, load_config, to_toml
from metarl.core.distributions import LogUniform, Uniform
from metarl.core.errors import UserError
from metarl.core.registry import make_family
from metarl.sim.altered import Altered
from metarl.sim.disturbance_files import ALTERATIONS, disturbed
from metarl.sim.disturbances import ActionLatency, Kick, Sensor
from metarl.sim.make import make_env
from metarl.sim.mujoco.mujoco_env import MujocoEnv
from metarl.sim.variations import MotorStrength, Payload


def test_a_table_changes_what_it_names_of_the_familys_own_and_adds_the_rest():
    family = Cart(Sensor("position", noise=0.1, bias=0.2), ActionLatency("late"))
    made = disturbed(
        family,
        """
        [[sensor]]
        part = "position"
        noise = { log_uniform = [0.1, 0.4] }
        [[sensor]]
        part = "velocity"
        lost = 0.1
        [action_latency]
        jitter = 0.01
        """,
    )
    assert made.disturbances == (
        Sensor("position", noise=LogUniform(0.1, 0.4), bias=0.2),
        ActionLatency("late", jitter=0.01),
        Sensor("velocity", lost=0.1),
    )
    assert family.disturbances == (Sensor("position", noise=0.1, bias=0.2), ActionLatency("late"))
    only = disturbed(family, "only = true\n[action_latency]\njitter = 0.01\n")
    assert only.disturbances == (ActionLatency(0.0, jitter=0.01),)
    assert disturbed(family, "") is family


def test_a_familys_own_alteration_is_changed_whatever_it_calls_it():
    family = Cart(Altered(MotorStrength("battery"), 0.9))
    made = disturbed(family, "[motor_strength]\nvalue = 0.5\nover = 2.0\n")
    assert made.disturbances == (Altered(MotorStrength("motor_strength"), 0.5, over=2.0),)


def test_a_load_sits_on_the_body_that_moves_unless_told():
    (made,) = disturbed(Floater(), "[payload]\nvalue = { uniform = [1, 2] }\nonset = 0.5\n").disturbances
    assert made == Altered(Payload("payload", "hull", (0.0, 0.0, 0.0)), Uniform(1.0, 2.0), nominal=0.0, onset=0.5)
    (made,) = disturbed(Floater(), '[payload]\nvalue = 1\nbody = "arm"\nat = [0, 0, 1]\n').disturbances
    assert made.variation == Payload("payload", "arm", (0.0, 0.0, 1.0))


def test_every_alteration_can_be_had_of_a_robot_without_a_task_parameter_for_it():
    """Each by a value that is not nominal: the servo's robot moves otherwise than without."""
    text = "".join(f"[{kind}]\nvalue = {entry.nominal + 0.2}\n" for kind, entry in ALTERATIONS.items())
    family = make_family("quadruped-command")
    made = disturbed(family, text)
    assert [one.label for one in made.disturbances] == list(ALTERATIONS)
    plain, env = (MujocoEnv(each, 1, threads=1) for each in (family, made))
    for each in (plain, env):
        each.begin(family.space.nominal(1), key=0)
    for one in made.disturbances:
        fields = ((env.physics.expand(field), plain.physics.expand(field)) for field in one.variation.fields)
        assert any(not torch.equal(*pair) for pair in fields), one.label


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sensr]\n", "unknown disturbance 'sensr'.*did you mean 'sensor'"),
        ("sensor = 3\n", "sensor = 3 must be a table"),
        ("[sensor]\npart = 'place'\nnoize = 1\n", r"\[sensor\]: unknown option 'noize'.*did you mean 'noise'"),
        ("[sensor]\npart = 'plase'\nnoise = 1\n", "unknown part of the observation 'plase'"),
        ("[sensor]\nnoise = 1\n", r"\[sensor\]: part is missing"),
        ("[sensor]\npart = 3\n", "part = 3 must be a text"),
        ("[sensor]\npart = 'place'\nnoise = -1\n", "noise = -1 must be at least 0"),
        ("[sensor]\npart = 'place'\nlost = { uniform = [0, 2] }\n", "must be in"),
        ("[kick]\nspeed = nan\nevery = 1\n", "speed = nan must be a number"),
        ("[kick]\nspeed = { unifrom = [0, 1] }\nevery = 1\n", "unknown distribution 'unifrom'.*'uniform'"),
        ("[kick]\nspeed = { uniform = [1, 0] }\nevery = 1\n", "low < high"),
        ("[kick]\nspeed = 'fast'\nevery = 1\n", "unknown task parameter 'fast'"),
        ("[fault]\nparameters = 'mass'\n", "parameters = 'mass' must be a list of names"),
        ("[drift]\nparameters = ['mass']\nto = 1\nseconds = 1\nevery = 'mass'\n", "every = 'mass' must be a number"),
        ("[force]\nbody = 'hull'\nnewton = 1\naxis = 2\n", "axis = 2 must be 0 or 1"),
        ("[payload]\nvalue = 1\nat = [0, 0]\n", "at = .* must be three numbers"),
        ("[motor_strength]\nratio = 1\n", "unknown option 'ratio'"),
        ("[motor_strength]\n", "value is missing"),
        ("only = 1\n", "only = 1 must be true or false"),
        ("[kick\n", "not valid TOML"),
    ],
)
def test_a_slip_in_a_file_is_one_sentence(text, message):
    with pytest.raises(UserError, match=message) as error:
        disturbed(Floater(), text)
    assert "\n" not in str(error.value)


def test_a_run_keeps_the_text_of_the_file_and_makes_its_family_of_it(tmp_path):
    file = tmp_path / "hard.toml"
    file.write_text('[kick]\nspeed = 0.5\nevery = 1.0\n# "quoted" \\ and äöü\n')
    config = configure("ppo", "quadruped-command", {"disturbances": str(file), "total_steps": 100})
    file.unlink()
    (tmp_path / "config.toml").write_text(to_toml(config))
    read = load_config(tmp_path / "config.toml")
    assert read == config
    assert make_family(read.family, read.disturbances).disturbances == (Kick(0.5, 1.0),)
    with pytest.raises(UserError, match=r"cannot read .*hard\.toml"):
        configure("ppo", "quadruped-command", {"disturbances": str(file)})


def test_of_another_simulator_commands_and_observations_alone_are_disturbed():
    plain = external("carts.py:Cart")
    for text, name in (("[kick]\nspeed = 1\nevery = 1\n", "kick"), ("[mass]\nvalue = 2\n", "mass")):
        with pytest.raises(UserError, match=f"the disturbance {name} needs a MujocoFamily: .*action_latency, sensor"):
            disturbed(plain, text)

    def played(text, actions):
        family = disturbed(plain, text)
        with make_env(family, 2, threads=1) as env:
            env.begin(family.space.nominal(2), key=0)
            steps = [env.step(torch.full((2, 1), action)) for action in actions]
        return torch.stack([step.obs for step in steps]), torch.stack([step.reward for step in steps])

    late, sent = "[action_latency]\nseconds = 0.1\n", (1.0, -1.0, 0.5)
    assert torch.equal(played(late, sent)[0], played("", (0.0, 1.0, -1.0))[0])  # no action is in force at first
    noisy, truth = played('[sensor]\npart = "observation"\nnoise = 0.5\n', sent), played("", sent)
    assert torch.equal(noisy[1], truth[1])
    assert 0.2 < float((noisy[0] - truth[0]).std()) < 1.0
