"""The guard and the runner: every fault that can be injected, and what comes out of it."""

import csv
import importlib.util
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from metarl.export.runtime import Bundle, BundleError
from metarl.export.runtime.computing import Answer, InlinePolicy, ProcessPolicy
from metarl.export.runtime.guard import Guard, Limits, Observation
from metarl.export.runtime.runner import Robot, Runner, SteppedClock, require_fit

_SPEC = importlib.util.spec_from_file_location("handmade", Path(__file__).parent / "handmade.py")
handmade = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(handmade)

STEP = 0.02
POSE = np.array([0.1, -1.0])
REACH = np.array([20.0, 30.0]) / 50.0  # of the torque limits, by the stiffness


@pytest.fixture
def bundle(tmp_path):
    return Bundle.read(handmade.write(tmp_path / "bundle"))


class Servos:
    """Two servos that follow their targets; `faults` change what is observed, by the number of the step."""

    def __init__(self, bundle, clock, faults=None):
        self.robot, self.clock, self.faults = Robot.of(bundle), clock, faults or {}
        self.rng = np.random.default_rng(0)
        self.joints, self.speed, self.number = POSE + 0.05, np.zeros(2), 0
        self.sent, self.stops = [], 0

    def receive(self):
        self.number += 1
        gravity = np.array([0.0, 0.0, -1.0]) + self.rng.normal(0.0, 0.01, 3)
        values = np.concatenate([gravity, self.joints - POSE, self.speed, self.rng.normal(0.0, 0.1, 2)])
        values[2] = max(values[2], -1.05)
        seen = Observation(self.number, self.clock.now(), values)
        fault = self.faults.get(self.number)
        return fault(seen) if fault else seen

    def send(self, command):
        self.sent.append(command)
        self.speed = np.clip(command.target - self.joints, -0.2, 0.2) / STEP * 0.5
        self.joints = self.joints + STEP * self.speed

    def stop(self):
        self.stops += 1


class Scripted:
    """A policy that answers what it is told to, or nothing in the steps that are `dropped`."""

    def __init__(self, action=(0.5, 0.5), dropped=()):
        self.action, self.dropped, self.number, self.asked = np.array(action), dropped, 0, []

    def ask(self, question):
        self.asked.append(question)

    def answer(self, wait):
        if wait == 0.0 and self.asked[-1].number in self.dropped:
            return Answer(0, self.action, np.zeros(0))  # too late
        return None if self.asked[-1].number in self.dropped else Answer(0, self.action, np.zeros(0))

    def close(self):
        pass


def run(bundle, faults=None, policy=None, seconds=2.0, limits=None, log=None):
    clock = SteppedClock()
    servos = Servos(bundle, clock, faults)
    runner = Runner(bundle, servos, policy=policy or Scripted(), clock=clock, limits=limits, log=log)
    return runner.run(seconds), servos


def in_steps(first, last, fault):
    return dict.fromkeys(range(first, last), fault)


def changed(**words):
    return lambda seen: seen._replace(**words)


def put(place, value):
    def fault(seen):
        values = seen.values.copy()
        values[place] = value
        return seen._replace(values=values)

    return fault


FAULTS = {
    "missing": (lambda seen: None, "missing"),
    "late": (lambda seen: seen._replace(time=seen.time - 0.05), "late"),
    "nan": (put(5, np.nan), "nan"),
    "reward": (changed(reward=np.inf), "nan"),
    "short": (lambda seen: seen._replace(values=seen.values[:-1]), "damaged"),
    "reordered": (changed(number=3), "reordered"),
    "range": (put(4, 5.0), "range"),
    "jump": (put(3, 1.3), "jump"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_short_fault_holds_the_last_command(bundle, name):
    fault, flag = FAULTS[name]
    summary, servos = run(bundle, in_steps(80, 83, fault))
    states = [command.state for command in servos.sent]
    assert states[78:84] == ["run", "hold", "hold", "hold", "run", "run"]
    held = {tuple(command.target) for command in servos.sent[78:82]}
    assert len(held) == 1 and summary.flags[flag] == 3 and not summary.stopped


@pytest.mark.parametrize("name", FAULTS)
def test_a_long_fault_ends_in_the_safe_pose_and_then_in_a_stop(bundle, name):
    fault, _ = FAULTS[name]
    summary, servos = run(bundle, in_steps(80, 1000, fault), seconds=5.0, limits=Limits(give_up=0.6))
    states = [command.state for command in servos.sent]
    assert states[79:84] == ["hold"] * 5 and set(states[85:130]) == {"ramp-down"} and states[150] == "safe"
    moved = np.abs(np.diff([command.target for command in servos.sent[84:]], axis=0)).max(axis=0)
    assert (moved < 0.02).all(), "slowly"
    np.testing.assert_allclose(servos.sent[-1].target, POSE)
    assert summary.stopped == "gave-up" and servos.stops >= 1


def test_it_acts_again_once_the_observations_are_back(bundle):
    _, servos = run(bundle, in_steps(80, 160, lambda seen: None), seconds=4.0)
    states = [command.state for command in servos.sent]
    assert states[158] == "safe" and states[168] == "safe" and states[172] == "ramp-in" and states[-1] == "run"
    jumps = np.abs(np.diff([command.target for command in servos.sent[158:]], axis=0)).max()
    assert jumps < 0.03, "blended in"


def test_frozen_observations_are_noticed(bundle):
    frozen = Observation(0, 0.0, np.array([0, 0, -1.0, 0.05, 0.05, 0, 0, 0, 0]))
    kept = {i: (lambda seen: frozen._replace(number=seen.number, time=seen.time)) for i in range(70, 200)}
    summary, servos = run(bundle, kept, seconds=4.0)
    assert summary.flags["frozen"] > 100 and servos.sent[-1].state in ("safe", "ramp-down", "ramp-in", "run")
    assert any(command.state == "safe" for command in servos.sent)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (put(slice(0, 3), [0.85, 0.0, -0.52]), "tilt"),
        (put(3, 0.95), "joint-range"),
        (put(5, 45.0), "joint-speed"),
    ],
)
def test_a_dangerous_state_stops_in_the_same_step(bundle, fault, reason):
    slow_to_see = {79: put(slice(0, 3), [0.45, 0.0, -0.89])} if reason == "tilt" else {79: put(3, 0.5)}
    summary, servos = run(bundle, {**slow_to_see, 80: fault})
    assert summary.stopped == reason and summary.steps == 80 and len(servos.sent) == 79 and servos.stops >= 1


def test_a_stop_is_for_good_unless_the_robot_is_put_back(bundle):
    faults = {80: put(5, 45.0), 120: lambda seen: seen._replace(final=seen.values, terminated=True)}
    summary, servos = run(bundle, faults)
    assert summary.stopped == "joint-speed" and summary.steps == 80
    summary, servos = run(bundle, faults, limits=Limits(restart=True), seconds=4.0)
    assert not summary.stopped and summary.falls == 1 and servos.stops == 41
    assert servos.sent[79].state == "approach" or servos.sent[79].state == "ramp-in"
    assert len(summary.returns) == 2


@pytest.mark.parametrize("bad", [None, [np.nan, 0.0], [0.0], "dropped"])
def test_actions_that_do_not_come_or_are_none(bundle, bad):
    policy = Scripted(dropped=range(80, 90)) if bad == "dropped" else Scripted([0.5, 0.5] if bad is None else bad)
    summary, servos = run(bundle, policy=policy)
    if bad == "dropped":
        assert [c.state for c in servos.sent[79:84]] == ["run", "hold", "hold", "hold", "hold"]
        assert summary.misses == summary.flags["no-action"] == 10 and servos.sent[86].state == "ramp-down"
    elif bad is None:
        assert summary.misses == 0 and servos.sent[-1].state == "run"
    else:
        assert summary.flags["bad-action"] == summary.steps and {c.state for c in servos.sent} == {"approach"}


def test_the_limits_of_a_command(bundle):
    guard = Guard(bundle, Limits(ramp_in=0.02, recover=0.0))

    def step(number, q, speed=(0.0, 0.0), action=(0.0, 0.0)):
        values = np.concatenate([[0, 0, -1], np.array(q) - POSE, speed, [0.001 * number, 0]])
        assert guard.admit(number * STEP, Observation(number, number * STEP, values))
        return guard.command(np.array(action))

    for number in range(1, 5):
        command = step(number, POSE)
    assert command.state == "run" and command.flags == ()
    np.testing.assert_allclose(command.target, POSE)
    command = step(5, POSE, action=(2.0, 0.0))
    assert command.flags == ("clamp-action", "clamp-torque")
    np.testing.assert_allclose(command.target, [0.1 + 0.4, -1.0])
    np.testing.assert_allclose(command.applied, [0.8, 0.0])
    command = step(6, POSE, action=(-1.0, -1.0))
    assert command.flags == ("clamp-position", "clamp-rate", "clamp-torque")
    np.testing.assert_allclose(command.target, [0.0, -1.6])
    command = step(7, POSE, speed=(-25.0, 0.0), action=(-1.0, 0.0))
    assert "clamp-velocity" in command.flags and command.target[0] == POSE[0]
    for number in range(8, 12):
        command = step(number, [0.5, -1.0], action=(1.0, 0.0))
    np.testing.assert_allclose(command.target, [0.6, -1.0])


def test_it_begins_from_where_the_joints_are(bundle):
    clock = SteppedClock()
    servos = Servos(bundle, clock)
    servos.joints = np.array([0.7, -0.2])
    Runner(bundle, servos, policy=Scripted(), clock=clock).run(3.0)
    first = servos.sent[0]
    assert first.state == "approach" and np.abs(first.target - [0.7, -0.2]).max() < 0.03
    states = [command.state for command in servos.sent]
    assert states.index("ramp-in") in range(40, 60) and states[-1] == "run"


def test_a_jump_is_noticed_without_a_limit_of_velocity(tmp_path):
    bundle = Bundle.read(handmade.write(tmp_path / "b", lambda said: said["action"].pop("velocity_limit")))
    summary, servos = run(bundle, in_steps(80, 83, put(3, 1.3)))
    assert summary.flags["jump"] == 3 and [command.state for command in servos.sent[79:83]] == ["hold"] * 3 + ["run"]


def test_nothing_is_sent_before_anything_was_observed(bundle):
    summary, servos = run(bundle, in_steps(0, 1000, lambda seen: None), seconds=1.0)
    assert not servos.sent and summary.steps == 50 and summary.flags["missing"] == 50


def test_observations_unlike_those_in_training_are_told(bundle):
    summary, _ = run(bundle, in_steps(60, 200, put(slice(7, 9), 5.0)))
    assert summary.flags["unlike-training"] > 10
    assert run(bundle)[0].flags["unlike-training"] == 0


def test_a_belief_outside_what_was_trained_is_told(tmp_path):
    def believing(said):
        memory = [handmade.tensor("state.memory", 1, 3)]
        read_out = [{"name": "payload", "value": "state.memory"}]
        said["programs"]["read_out"] = {"inputs": memory, "operations": [], "outputs": read_out}
        said["read_out"] = [{"name": "payload", "low": -0.5, "high": 0.5}]

    bundle = Bundle.read(handmade.write(tmp_path / "believing", believing))
    summary, _ = run(bundle, policy=InlinePolicy(bundle))
    assert summary.flags["belief-unlike-training"] == summary.steps
    guard = Guard(bundle)
    guard.believe(np.array([0.8, -0.7, 0.0]))
    assert guard._flags == ["belief-unlike-training"]
    guard._flags = []
    guard.believe(np.array([0.6, -0.6, 0.0]))
    assert guard._flags == []


def test_a_policy_that_hangs_cannot_delay_the_stop(bundle):
    """The child is held up by the system; a robot that topples in the meantime is stopped in that very step."""
    clock = SteppedClock()
    servos, policy = Servos(bundle, clock), Scripted()
    held = ProcessPolicy(bundle)

    def hang(seen):
        os.kill(held._child.pid, signal.SIGSTOP)
        runner._policy = held
        return seen

    servos.faults = {80: hang, 82: put(slice(0, 3), [0.45, 0, -0.89]), 83: put(slice(0, 3), [0.85, 0, -0.52])}
    runner = Runner(bundle, servos, policy=policy, clock=clock)
    summary = runner.run(2.0)
    assert summary.stopped == "tilt" and summary.steps == 83 and summary.misses == 3
    assert [command.state for command in servos.sent[78:]] == ["run", "hold", "hold", "hold"]


def allowed(command, previous, seen, sound):
    """Whether a command is within all limits, worked out anew."""
    target = command.target
    if target is None:
        return command.state in ("stop", "approach")
    if not np.isfinite(target).all() or np.abs(command.applied).max() > 1.0:
        return False
    held = np.zeros(2)
    if sound:
        q = seen.values[3:5] + POSE
        if (np.abs(target - q) > REACH + 1e-9).any():
            return False
        held = np.maximum(0.0, np.abs(previous - q) - REACH)  # the torque limit may ask for more than the rate allows
        fast = np.abs(seen.values[5:7]) > 20.0
        if (fast & ((target - q) * np.sign(seen.values[5:7]) > 1e-9)).any():
            return False
        held = np.where(fast, np.inf, held)
    if (np.abs(target - previous) > np.array([25.0, 40.0]) * STEP + held + 1e-9).any():
        return False
    return bool((target >= np.array([-0.6, -1.7]) - 1e-9).all() and (target <= np.array([0.8, 0.0]) + 1e-9).all())


def storm(bundle, steps, seed):
    """Random faults of every kind, in bursts; commands that break a limit, all flags, and all states."""
    rng, clock = np.random.default_rng(seed), SteppedClock()
    servos, guard = Servos(bundle, clock), Guard(bundle, Limits(give_up=0.5, restart=True))
    faults = [fault for fault, _ in FAULTS.values()]
    broken, states, fault, left, stopped = 0, set(), None, 0, 0
    previous = guard.pose
    for number in range(steps):
        clock.time = number * STEP
        seen = servos.receive()
        if left == 0:
            fault = faults[rng.integers(len(faults))] if rng.random() < 0.3 else None
            left = int(rng.integers(1, 40 if fault else 80))
        left -= 1
        if (rare := rng.random()) < 0.02:  # beyond the limit, and seldom where that stops
            seen = put(5, 45.0 if rare < 0.001 else 25.0)(seen)
        if fault is not None:
            seen = fault(seen)
        stopped = stopped + 1 if guard.state == "stop" else 0
        if stopped > 20:
            servos.joints, seen = POSE + rng.uniform(-0.5, 0.5, 2), servos.receive()
            seen, previous, stopped = seen._replace(final=seen.values), None, 0
        sound = guard.admit(clock.time, seen)
        chance = rng.random()
        action = None if chance < 0.05 else rng.normal(0.0, 2.0, 2)
        if chance > 0.98:
            action[0] = np.nan
        command = guard.command(action)
        if previous is None:
            previous = seen.values[3:5] + POSE
        broken += not allowed(command, previous, seen, sound)
        states.add(command.state)
        if command.target is not None:
            servos.send(command)
            previous = command.target
        else:
            previous = guard.pose
    return broken, guard.counts, states


def test_no_command_breaks_a_limit_under_random_faults(bundle):
    broken, flags, states = storm(bundle, 3_000, 0)
    assert broken == 0
    assert states == {"approach", "ramp-in", "run", "hold", "ramp-down", "safe", "stop"}
    expected = {"clamp-action", "clamp-rate", "clamp-torque", "clamp-position", "no-action", "bad-action"}
    expected |= {"clamp-velocity", "joint-speed"}
    assert set(flags) >= {flag for _, flag in FAULTS.values()} | expected


@pytest.mark.slow
def test_no_command_breaks_a_limit_in_a_million_steps(bundle):
    assert sum(storm(bundle, 10_000, seed)[0] for seed in range(100)) == 0


def test_the_log_has_every_step(bundle, tmp_path):
    summary, servos = run(bundle, {80: FAULTS["missing"][0]}, log=tmp_path / "log.csv")
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == summary.steps == 100
    row = rows[50]
    assert float(row["time"]) == 50 * STEP and row["state"] == "run" and row["flags"] == ""
    assert float(row["target.hip"]) == pytest.approx(servos.sent[50].target[0], rel=1e-6)
    assert {"gravity.x", "joint_position.knee", "command.0", "reward", "action.knee", "latency"} <= set(row)
    assert rows[79]["flags"] == "missing" and rows[79]["gravity.x"] == ""


WRONG = {
    "joints": ({"joints": ("knee", "hip")}, "hip, knee; the robot has knee, hip"),
    "unit": ({"unit": "degree"}, "position in rad; the robot has position in degree"),
    "rate": ({"control_step": 0.01}, "every 0.02 s, the robot every 0.01 s"),
    "missing part": (
        {"observation": Robot((("gravity", 3, "1"),), (), "", "", 0.0).observation},
        "the robot has gravity",
    ),
    "size": ({"observation": (("gravity", 4, "1"),)}, "'gravity' .3 numbers, 1. where the robot tells 'gravity' .4"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_robot_that_does_not_fit_is_refused(bundle, name):
    change, words = WRONG[name]
    robot = Robot.of(bundle)
    require_fit(bundle, robot)
    with pytest.raises(BundleError, match=words):
        require_fit(bundle, type(robot)(**{**vars(robot), **change}))


def test_a_policy_in_its_own_process_says_the_same(bundle):
    asked = InlinePolicy(bundle, 3)
    clock = SteppedClock()
    ours = Runner(bundle, Servos(bundle, clock), policy=asked, clock=clock)
    ours.run(1.0)
    theirs = Runner(bundle, other := Servos(bundle, clock2 := SteppedClock()), policy=Patient(bundle, 3), clock=clock2)
    theirs.run(1.0)
    for mine, its in zip(ours._transport.sent, other.sent, strict=True):
        np.testing.assert_array_equal(mine.target, its.target)


class Patient(ProcessPolicy):
    """Waits for the answer however long it takes, so that no result depends on the machine's load."""

    def answer(self, wait):
        return None if wait == 0.0 else super().answer(60.0)


def test_a_policy_whose_process_ends_leads_to_a_safe_stop(bundle):
    clock = SteppedClock()
    servos, policy = Servos(bundle, clock), Patient(bundle)

    def end(seen):
        policy._child.kill()
        policy._child.join()
        return seen

    servos.faults = {80: end}
    summary = Runner(bundle, servos, policy=policy, clock=clock, limits=Limits(give_up=0.6)).run(5.0)
    assert summary.stopped == "gave-up" and servos.stops >= 1
    np.testing.assert_allclose(servos.sent[-1].target, POSE)


def test_the_process_refuses_a_bundle_that_has_changed(bundle):
    text = (bundle.path / "contract.json").read_text()
    (bundle.path / "contract.json").write_text(text + " ")
    with pytest.raises(BundleError, match="has changed"):
        ProcessPolicy(bundle)


def test_an_interrupted_run_is_stopped_and_told(bundle):
    def interrupt(seen):
        raise KeyboardInterrupt

    summary, servos = run(bundle, {80: interrupt})
    assert summary.stopped == "interrupted" and summary.steps == 79 and servos.stops == 1


def test_whatever_goes_wrong_the_robot_is_stopped(bundle):
    clock = SteppedClock()
    servos = Servos(bundle, clock)
    servos.send = lambda command: 1 / 0
    with pytest.raises(ZeroDivisionError):
        Runner(bundle, servos, policy=Scripted(), clock=clock).run(1.0)
    assert servos.stops == 1
