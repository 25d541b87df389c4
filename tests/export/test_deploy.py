"""Bundles through the command line and every transport: the simulated robot, UDP on loopback, recordings."""

import csv
import importlib.util
import json
import re
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

import metarl
from metarl.cli.main import main
from metarl.core.errors import UserError
from metarl.export.deploy import Deployment, deploy, served as served_by
from metarl.export.runtime import Bundle, BundleError
from metarl.export.runtime.computing import InlinePolicy
from metarl.export.runtime.guard import Command, Observation
from metarl.export.runtime.runner import Clock, Robot, Runner, SteppedClock
from metarl.export.runtime.transports import Replay, UdpRobot, UdpServer

_SPEC = importlib.util.spec_from_file_location("handmade", Path(__file__).parent / "handmade.py")
handmade = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(handmade)
operation, tensor = handmade.operation, handmade.tensor


def quadruped(said):
    """A policy that stands, for quadruped-body: its action is a little of what the joints are off by."""
    from metarl.envs.quadruped import MOTORS, Quadruped
    from metarl.envs.quadruped_tasks import QuadrupedBody

    assert issubclass(QuadrupedBody, Quadruped)
    parts = [vars(part) | {"elements": list(part.elements)} for part in QuadrupedBody.observation]
    action = {"names": list(MOTORS), "kind": "position", "unit": "rad", "scale": [0.4, 0.7, 0.8] * 4}
    action |= {"offset": [0.0, 0.9, -1.8] * 4, "default": [0.0, 0.9, -1.8] * 4, "kp": [50.0] * 12}
    action |= {"torque_limit": [23.7, 23.7, 35.55] * 4}
    action |= {"joint_position": "joint_position", "joint_velocity": "joint_velocity"}
    act = {
        "inputs": [tensor("obs", 1, 44), tensor("state.steps", 1, dtype="int64")],
        "operations": [
            operation("slice", "obs", "v0", dim=1, start=6, end=18),
            operation("full", "", "v1", shape=[1, 12], value=-0.5, dtype="float32"),
            operation("mul", "v0 v1", "v2"),
            operation("full", "", "v3", shape=[1], value=1, dtype="int64"),
            operation("add", "state.steps v3", "v4"),
        ],
        "outputs": [{"name": "action", "value": "v2"}, {"name": "state.steps", "value": "v4"}],
    }
    nothing = {"inputs": [], "operations": [], "outputs": []}
    said |= {"observation": parts, "action": action, "noise": {"size": 0, "deterministic": []}}
    said |= {"state": [tensor("steps", 1, dtype="int64") | {"initial": "initial.episode"}], "episodes_per_trial": 1}
    said |= {"programs": {"act": act, "observe": nothing, "end_episode": nothing}, "run": {"family": "quadruped-body"}}


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    return handmade.write(tmp_path_factory.mktemp("standing") / "bundle", quadruped)


def test_the_command_line_runs_a_bundle_in_simulation_and_replays_its_log(standing, tmp_path, capsys):
    log = tmp_path / "log.csv"
    words = ["deploy", str(standing), "--sim", "--fast", "--seconds", "5.2", "--task", "payload=1", "--log", str(log)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "260 steps of 20 ms in 5.2 s" in said and "returns of 1 episodes" in said and "0 falls" in said
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 260 and [row["start"] for row in rows if row["start"]] == ["end+task"]
    assert rows[-60]["state"] == "run" and "joint_velocity.RR_knee" in rows[0] and float(rows[40]["reward"]) > 0

    assert main(["deploy", str(standing), "--replay", str(log), "--fast"]) == 0
    differs = re.search("commands differ from the log's by at most (.*)", capsys.readouterr().out)
    assert float(differs[1]) < 1e-6


def test_a_log_of_deploy_is_what_identify_reads(standing, tmp_path):
    log = tmp_path / "log.csv"
    truth = {"payload": 3.0, "centre": 0.0, "friction": 1.0, "strength": 1.0, "damping": 1.0}
    deploy(standing, Deployment(fast=True, seconds=5.5, task=truth, log=log))
    found = metarl.identify("quadruped-body", log, parameters=["payload"], starts=1, max_shots=7, threads=1)
    assert found.tasks["payload"].item() == pytest.approx(3.0, rel=0.1)
    assert not found.notes


def test_a_replay_tells_how_far_another_policy_is_from_the_log(standing, tmp_path):
    log = tmp_path / "log.csv"
    deploy(standing, Deployment(fast=True, seconds=1.0, log=log))
    done = deploy(standing, Deployment(on="replay", replay=log, fast=True))
    assert len(done.differences) == 50 and max(done.differences) < 1e-6
    text = log.read_text().replace(",joint_position.FL_hip,", ",elbow,")
    log.write_text(text)
    with pytest.raises(UserError, match=r"no columns joint_position\.FL_hip"):
        deploy(standing, Deployment(on="replay", replay=log, fast=True))


def test_mcap_is_played_as_csv_is(standing, tmp_path):
    writer_of = pytest.importorskip("mcap.writer")
    log, path = tmp_path / "log.csv", tmp_path / "log.mcap"
    deploy(standing, Deployment(fast=True, seconds=0.5, log=log))
    with log.open(newline="") as file, path.open("wb") as out:
        writer = writer_of.Writer(out)
        writer.start()
        schema = writer.register_schema("step", "jsonschema", b"{}")
        channel = writer.register_channel("/step", "json", schema)
        for row in csv.DictReader(file):
            when = int(float(row["time"]) * 1e9)
            writer.add_message(channel, when, json.dumps(row).encode(), when)
        writer.finish()
    done = deploy(standing, Deployment(on="replay", replay=path, fast=True))
    assert done.summary.steps == 25 and max(done.differences) < 1e-6
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(UserError, match="cannot be read"):
        deploy(standing, Deployment(on="replay", replay=path, fast=True))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "payload"], "NAME=NUMBER"),
        (["--task", "weight=1"], "unknown task parameter 'weight'"),
        (["--family", "half-cheetah-vel"], "observes 'gyro' .* where the robot tells 'torso_height'"),
        (["--sim", "--udp", "a:1"], "exclude each other"),
        (["--udp", "nobody"], "HOST:PORT"),
        (["--udp", "127.0.0.1:9", "--fast"], "--fast"),
        (["--seconds", "0"], "seconds"),
        (["--fast", "--log", "no/such/folder.csv"], "cannot be written"),
        (["--replay", "nothing.csv"], "nothing.csv"),
    ],
)
def test_mistakes_are_one_sentence(standing, capsys, words, said):
    assert main(["deploy", str(standing), *words]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error.replace("\n", " ")) and "Traceback" not in error


def test_a_run_in_the_place_of_a_bundle_is_told_how_to_make_one(tmp_path, capsys):
    assert main(["deploy", str(tmp_path)]) == 2
    assert "is no bundle, as it has no contract.json: metarl export" in capsys.readouterr().err.replace("\n", " ")


def test_code_that_a_bundle_names_is_not_run(tmp_path):
    (tmp_path / "evil.py").write_text("raise SystemExit('run')")
    named = handmade.write(tmp_path / "b", lambda said: said.update(run={"family": f"{tmp_path}/evil.py:Family"}))
    with pytest.raises(UserError, match="no family of metarl"):
        deploy(named, Deployment(fast=True))


class Behind:
    """A robot behind a UDP server, in the same process."""

    def __init__(self, bundle):
        self.robot, self.sent, self.stops, self.number = Robot.of(bundle), [], 0, 0

    def receive(self):
        if self.number > len(self.sent):
            return None
        self.number += 1
        final = np.full(9, 0.5) if self.number == 5 else None
        values = np.concatenate([[0, 0, -1.0], np.full(6, 0.01 * self.number)])
        return Observation(self.number, 0.0, values, 1.5, self.number == 5, final)

    def send(self, command):
        self.sent.append(command.target)

    def stop(self):
        self.stops += 1


@pytest.fixture
def served(tmp_path):
    bundle = Bundle.read(handmade.write(tmp_path / "bundle"))
    behind = Behind(bundle)
    server = UdpServer(behind, patience=60.0)
    yield bundle, behind, server
    server.close()


def datagrams(server, number):
    thread = threading.Thread(target=server.serve, args=(number,))
    thread.start()
    return thread


def read(robot):
    """The next observation, however long that takes."""
    while (seen := robot.receive()) is None:
        pass
    return seen


def test_udp_carries_observations_and_commands(served):
    bundle, behind, server = served
    thread = datagrams(server, 6)
    robot = UdpRobot(("127.0.0.1", server.port))
    assert robot.robot == Robot.of(bundle)
    seen = []
    for number in range(1, 6):
        seen.append(read(robot))
        target = np.array([0.1 * number, -1.0])
        robot.send(Command(number, "run", target, np.zeros(2), ()))
    robot.stop()
    thread.join()
    robot.close()
    assert [one.number for one in seen] == [1, 2, 3, 4, 5] and seen[0].reward == 1.5
    np.testing.assert_allclose(seen[1].values, [0, 0, -1, *[0.02] * 6], rtol=1e-6)
    assert seen[3].final is None and seen[4].terminated and seen[4].final.tolist() == [0.5] * 9
    np.testing.assert_allclose(behind.sent, [[0.1 * n, -1.0] for n in range(1, 6)], rtol=1e-6)
    assert behind.stops == 1 and len(robot.ages) == 5 and min(robot.ages) == 0.0


def test_the_simulated_robot_answers_by_udp(standing):
    server = served_by(standing, 0)
    thread = datagrams(server, 2)
    robot = UdpRobot(("127.0.0.1", server.port))
    first = read(robot)
    robot.send(Command(1, "run", np.array([0.0, 0.9, -1.8] * 4), np.zeros(12), ()))
    second = read(robot)
    robot.stop()
    thread.join()
    robot.close()
    server.close()
    assert (first.number, second.number) == (0, 1) and second.reward != 0.0 and len(second.values) == 44
    with pytest.raises(UserError, match="no family of metarl"):
        served_by(handmade.write(standing.parent / "nameless"), 0)


def test_udp_takes_nothing_that_is_not_its_robots(served):
    _, behind, server = served
    thread = datagrams(server, 3)
    robot = UdpRobot(("127.0.0.1", server.port))
    read(robot)
    own = robot._socket.getsockname()
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with stranger:
        from metarl.export.runtime.transports import _packed

        stranger.sendto(_packed(b"C", 1, 0.0, [9.0, 9.0]), ("127.0.0.1", server.port))
        stranger.sendto(_packed(b"H", 0, 0.0), ("127.0.0.1", server.port))
        stranger.sendto(b"noise", ("127.0.0.1", server.port))
        stranger.sendto(_packed(b"S", 1, 0.0), ("127.0.0.1", server.port))
    robot.send(Command(1, "run", np.array([np.nan, 0.0]), np.zeros(2), ()))
    thread.join()
    robot.close()
    assert behind.sent == [] and behind.stops == 0 and server._peer == own


def test_nobody_there_is_one_sentence():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(BundleError, match="does not say what it is"):
        UdpRobot(("127.0.0.1", port), SteppedClock(), tries=2)


def test_a_robot_without_commands_is_stopped(served):
    _, behind, server = served
    server._patience = 0.0
    thread = datagrams(server, 1)
    robot = UdpRobot(("127.0.0.1", server.port))
    robot.send(Command(1, "run", np.zeros(2), np.zeros(2), ()))
    thread.join()
    robot.close()
    assert behind.stops >= 1


def test_a_replay_has_its_own_times(standing, tmp_path):
    log = tmp_path / "log.csv"
    deploy(standing, Deployment(fast=True, seconds=0.5, log=log))
    lines = log.read_text().splitlines()
    log.write_text("\n".join(lines[:11] + lines[14:]))  # three steps were not recorded
    bundle, clock = Bundle.read(standing), SteppedClock()
    runner = Runner(bundle, Replay(log, bundle, clock), policy=InlinePolicy(bundle), clock=clock)
    summary = runner.run(0.4)
    assert summary.flags["missing"] == 3 and summary.states["hold"] == 3 and isinstance(clock, Clock)
