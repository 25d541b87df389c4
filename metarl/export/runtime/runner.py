"""Runs a bundle on a robot: a policy in a process of its own, and a loop that guards it and owns the clock.

On a robot, with a copy of this folder by the name `robot`:

    from robot.runner import Bundle, Runner

    if __name__ == "__main__":  # processes are started
        Runner(Bundle.read("bundle"), transport).run(seconds=60.0)

A transport has three methods, and says what it drives: see `Transport`.
"""

from __future__ import annotations

import csv
import queue
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from . import Bundle, BundleError, listed
from .computing import Computing, ProcessPolicy, Question
from .guard import Command, Guard, Limits, Observation

_BINS = 50  # of a latency histogram, per control step
_WAITING = 4096  # rows of a log that wait for the disk, at most


@dataclass(frozen=True)
class Robot:
    """What a robot, or what stands for it, says of itself: a bundle has to fit."""

    observation: tuple[tuple[str, int, str], ...]
    """Name, size and unit of each part, in order."""
    joints: tuple[str, ...]
    """Names of the actuators, in order."""
    kind: str
    """What it takes: `position`, `torque` or `normalised`."""
    unit: str
    control_step: float
    """[s]"""

    @staticmethod
    def of(bundle: Bundle) -> Robot:
        """The robot that a bundle expects."""
        parts = tuple((part.name, part.size, part.unit) for part in bundle.observation)
        return Robot(parts, bundle.action.names, bundle.action.kind, bundle.action.unit, bundle.control_step)


def require_fit(bundle: Bundle, robot: Robot) -> None:
    """`BundleError` names both sides of the first thing in which a bundle and a robot differ."""
    wanted = Robot.of(bundle)
    for ours, theirs in zip(wanted.observation, robot.observation, strict=False):
        if ours != theirs:
            (name, size, unit), (other, count, measure) = ours, theirs
            raise BundleError(
                f"the bundle observes '{name}' ({size} numbers, {unit}) where the robot tells '{other}' ({count} "
                f"numbers, {measure})"
            )
    for what, one, two in (
        ("observes", [p[0] for p in wanted.observation], [p[0] for p in robot.observation]),
        ("commands the joints", list(wanted.joints), list(robot.joints)),
        ("commands", [f"{wanted.kind} in {wanted.unit}"], [f"{robot.kind} in {robot.unit}"]),
    ):
        if one != two:
            raise BundleError(f"the bundle {what} {listed(one)}; the robot has {listed(two)}")
    if abs(wanted.control_step - robot.control_step) > 1e-6:
        raise BundleError(f"the bundle acts every {wanted.control_step} s, the robot every {robot.control_step} s")


@runtime_checkable
class Transport(Protocol):
    """What carries observations and commands: to a robot, a simulator, or a log. No method may wait."""

    robot: Robot
    """What it drives."""

    def receive(self) -> Observation | None:
        """The newest observation that was not received before; None where there is none."""
        ...

    def send(self, command: Command) -> None:
        """A command, which the guard has passed."""
        ...

    def stop(self) -> None:
        """Let the robot come to rest by its own means, as by damping; called again and again while stopped."""
        ...


class Clock:
    """The machine's own; one that steps by itself makes a run independent of it."""

    def now(self) -> float:
        """Time [s]."""
        return time.monotonic()

    def wait_until(self, when: float) -> None:
        """Return at `when`, or at once where that is past."""
        time.sleep(max(0.0, when - self.now()))


class SteppedClock(Clock):
    """A clock that is always on time: nobody waits for it."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        """Time [s]."""
        return self.time

    def wait_until(self, when: float) -> None:
        """It is `when`."""
        self.time = max(self.time, when)


# ---------------------------------------------------------------------------------------------------------- the log


class Log:
    """A CSV file with a row per step, written by a thread of its own: a slow disk delays nobody.

    Columns: `step`, `time` [s], `state`, every number observed by its name (`gyro.x`), `reward`, `start` (where the
    robot was just put back: `fall` or `end`, by how the episode before ended, and `+task` where the next task begins),
    `action.JOINT` in [-1, 1] as applied, `target.JOINT` in the bundle's unit, `latency` of the policy [s], and `flags`
    with `+` between. What is not known stays empty.
    """

    def __init__(self, path: Path, bundle: Bundle) -> None:
        names = bundle.action.names
        seen = [label for part in bundle.observation for label in part.labels()]
        columns = ["step", "time", "state", *seen, "reward", "start"]
        columns += [f"action.{n}" for n in names] + [f"target.{n}" for n in names] + ["latency", "flags"]
        self._blank = [""] * len(seen), [""] * len(names)
        self._rows: queue.Queue[list[Any] | None] = queue.Queue(_WAITING)
        self.lost = 0
        """Rows that the disk was too slow for."""
        try:
            self._file = path.open("w", newline="")
        except OSError as error:
            raise BundleError(f"the log {path} cannot be written: {error.strerror}") from None
        self._writer = csv.writer(self._file)
        self._writer.writerow(columns)
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def row(self, now: float, seen: Observation | None, command: Command, latency: float | None) -> None:
        """Note a step."""
        values = self._blank[0] if seen is None else [f"{x:.9g}" for x in np.ravel(seen.values)]
        target = self._blank[1] if command.target is None else [f"{x:.9g}" for x in command.target]
        row = [command.number, f"{now:.6f}", command.state, *values, "" if seen is None else f"{seen.reward:.9g}"]
        row += [_start(seen)] + [f"{x:.7g}" for x in command.applied] + target
        row += ["" if latency is None else f"{latency:.6f}", "+".join(command.flags)]
        try:
            self._rows.put_nowait(row)
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        """Wait for the last row."""
        self._rows.put(None)
        self._thread.join()
        self._file.close()

    def _write(self) -> None:
        while (row := self._rows.get()) is not None:
            self._writer.writerow(row)


def _start(seen: Observation | None) -> str:
    if seen is None or seen.final is None:
        return ""
    return ("fall" if seen.terminated else "end") + "+task" * seen.new_task


# ------------------------------------------------------------------------------------------------------- the runner


@dataclass
class Summary:
    """What a run came to."""

    steps: int = 0
    seconds: float = 0.0
    misses: int = 0
    """Steps whose sound observation got no action by its deadline."""
    late: int = 0
    """Steps that began more than a tenth of a control step after their time."""
    skipped: int = 0
    """Steps left out, as their time was over before they began."""
    flags: Counter[str] = field(default_factory=Counter)
    """How often each flag of the guard was raised: see `guard.py`."""
    states: Counter[str] = field(default_factory=Counter)
    """Steps in each state."""
    latency: np.ndarray = field(default_factory=lambda: np.zeros(_BINS + 1, int))
    """Steps by the time from their begin to the policy's answer, in fiftieths of a control step; last: longer."""
    returns: list[float] = field(default_factory=list)
    """Of each episode, the last one up to the end of the run."""
    falls: int = 0
    stopped: str = ""
    """Why the guard stopped for good; empty where it did not."""

    def quantile(self, share: float) -> float:
        """Latency that this share of the answers was below, as a share of the control step; inf beyond it."""
        total = np.cumsum(self.latency)
        place = int(np.searchsorted(total, share * total[-1])) if total[-1] else 0
        return (place + 1) / _BINS if place < _BINS else float("inf")


class Runner:
    """Steps a robot at the bundle's rate, through the guard; see the module.

    A step: receive, check, ask the policy, wait for it until `deadline` of the step is over, send what the guard
    passes. A policy that is late is not asked again until it has answered, and what it answers late is not sent.
    """

    def __init__(
        self,
        bundle: Bundle,
        transport: Transport,
        *,
        policy: Computing | None = None,
        clock: Clock | None = None,
        limits: Limits | None = None,
        log: Path | None = None,
        deadline: float = 0.8,
    ) -> None:
        """`policy` is a `ProcessPolicy` by default, `deadline` in control steps; `BundleError`: a wrong robot."""
        require_fit(bundle, transport.robot)
        self._transport, self._clock, self._step = transport, clock or Clock(), bundle.control_step
        self._deadline = deadline * self._step
        self.guard = Guard(bundle, limits)
        self._policy = policy or ProcessPolicy(bundle)
        self._log = None if log is None else Log(log, bundle)
        self.summary = Summary(returns=[0.0])
        self._asked: tuple[int, float] | None = None
        self._applied = np.zeros(len(bundle.action.names))

    def run(self, seconds: float) -> Summary:
        """Run for that long, or until a stop for good or Ctrl-C; however it ends, the robot is told to stop."""
        summary, clock = self.summary, self._clock
        begun = clock.now()
        try:
            tick, last = 0, round(seconds / self._step)
            while tick < last and not (self.guard.state == "stop" and not self.guard.limits.restart):
                due = begun + tick * self._step
                clock.wait_until(due)
                behind = clock.now() - due
                summary.late += behind > 0.1 * self._step
                self.tick(due if behind < self._step else clock.now())
                ahead = max(1, int((clock.now() - due) / self._step))
                summary.skipped += ahead - 1
                tick += ahead
        except KeyboardInterrupt:
            self.guard.reason = self.guard.reason or "interrupted"
        finally:
            self._transport.stop()
            self._policy.close()
            if self._log is not None:
                self._log.close()
        summary.seconds = clock.now() - begun
        summary.flags, summary.stopped = self.guard.counts, self.guard.reason
        return summary

    def tick(self, due: float) -> Command:
        """One step, that began at `due`."""
        clock, summary, begun = self._clock, self.summary, time.perf_counter()
        seen = self._transport.receive()
        sound, latency, action = self.guard.admit(clock.now(), seen), None, None
        if sound and seen is not None:
            self._count(seen)
        if self._asked is not None and self._policy.answer(0.0) is not None:  # of a step that is over
            self._asked = None
        if sound and seen is not None and self.guard.state != "stop":
            if self._asked is None:
                self._asked = self.guard.number, clock.now()
                self._policy.ask(Question(self.guard.number, seen, self._applied))
                answer = self._policy.answer(due + self._deadline - clock.now())
                if answer is not None:
                    self._asked, action = None, answer.action
                    latency = max(clock.now() - due, time.perf_counter() - begun)  # also where the clock only steps
                    self.guard.believe(answer.read_out)
                    summary.latency[min(int(latency / self._step * _BINS), _BINS)] += 1
            summary.misses += action is None
        command = self.guard.command(action)
        if command.state == "stop":
            self._transport.stop()
        elif command.target is not None:
            self._transport.send(command)
        self._applied = command.applied
        summary.steps += 1
        summary.states[command.state] += 1
        if self._log is not None:
            self._log.row(due, seen, command, latency)
        return command

    def _count(self, seen: Observation) -> None:
        self.summary.returns[-1] += seen.reward
        if seen.final is not None:
            self.summary.falls += seen.terminated
            self.summary.returns.append(0.0)
