"""What stands between a policy and a robot: which observations are believed, and which commands go out.

The guard has no clock and does no input or output: the same times, observations and actions give the same commands.

| state | command | left for |
|---|---|---|
| `approach` | from where the joints are to the safe pose, slowly | `ramp-in`, there and with sound observations |
| `ramp-in` | the policy's, blended in within `ramp_in` | `run` after that; `hold` without observation or action |
| `run` | the policy's | `hold` without sound observation or action in time |
| `hold` | the last one | back when they return; `ramp-down` after `hold` without (a good step pays half of one back) |
| `ramp-down` | to the safe pose, within `ramp_down` | `safe` there; `ramp-in` after `recover` of sound ones |
| `safe` | the safe pose | `ramp-in` after `recover` of sound observations and actions; `stop` after `give_up` |
| `stop` | none: the robot's own stop | by `reset` only. Entered at once for tilt, joints beyond their range or speed |
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from . import Bundle

LARGEST = 1e6
"""Of any number of an observation."""


class Observation(NamedTuple):
    """What a robot tells once per control step."""

    number: int
    """Counts up; one that does not is old."""
    time: float
    """When it was measured, by the runner's clock [s]."""
    values: np.ndarray
    """The parts of the contract's observation, one behind the other."""
    reward: float = 0.0
    """Of the last step, where the robot can tell."""
    terminated: bool = False
    """The last episode ended by a fall."""
    final: np.ndarray | None = None
    """Where the robot was just put back to a start: the last observation ahead of that."""
    new_task: bool = False
    """And it is to forget its task."""


class Command(NamedTuple):
    """What is sent to a robot."""

    number: int
    state: str
    """Of the guard, by the table of the module."""
    target: np.ndarray | None
    """One number per actuator, in the unit of the contract; None for the robot's own stop."""
    applied: np.ndarray
    """The action in [-1, 1] that this amounts to, which the policy is told."""
    flags: tuple[str, ...]
    """What was wrong or changed in this step."""


@dataclass(frozen=True)
class Limits:
    """What the guard allows; times in seconds."""

    hold: float = 0.1
    """Without sound observation or action, until it ramps to the safe pose."""
    ramp_down: float = 1.0
    ramp_in: float = 0.5
    recover: float = 0.2
    """Of sound observations and actions, until it acts again."""
    give_up: float = 5.0
    """In the safe pose, until it stops."""
    old: float = 1.5
    """Age of an observation that is too old [control steps]."""
    frozen: int = 10
    """Observations in a row that are equal in every number."""
    tilt: float = 1.0
    """From upright [rad]."""
    near: float = 0.2
    """Of the joints from the safe pose, to need no approach [rad]."""
    beyond: float = 0.2
    """Of a joint outside its range [rad], which stops."""
    speed: float = 2.0
    """Times the limit of a joint's velocity, which stops."""
    unlike: float = 4.0
    """Mean square of the observation by mean and deviation in training, over a second, from which it is unlike them."""
    restart: bool = False
    """A start of an episode ends a stop: of a simulator, that puts the robot back on its feet."""


class Guard:
    """See the module: `admit` an observation, then ask for the `command`, once per control step."""

    def __init__(self, bundle: Bundle, limits: Limits | None = None) -> None:
        self.limits, self.step = limits or Limits(), bundle.control_step
        self._own = action = bundle.action
        size = len(action.names)
        ends = (np.concatenate([getattr(part, end) for part in bundle.observation]) for end in ("low", "high"))
        self._low, self._high = (np.clip(end, -LARGEST, LARGEST) for end in ends)
        self._mean, self._std = _met(bundle)
        self._places = [bundle.places(name) for name in (action.joint_position, action.joint_velocity)]
        self._gravity = bundle.places(bundle.contract.get("gravity"))
        self.pose = _or(action.default, action.offset if action.kind == "position" else np.zeros(size))
        """Where it starts and falls back to."""
        self._base = _or(action.default, np.zeros(size))
        reach = np.abs(action.scale)
        strength = _or(action.torque_limit, reach)
        endless = np.full(size, np.inf)
        low, high = _or(action.position_low, -endless), _or(action.position_high, endless)
        self._box = (low, high) if action.kind == "position" else (-strength, strength)
        fastest = None if action.velocity_limit is None else self.limits.speed * action.velocity_limit * self.step
        self._reach = _or(fastest, 0.5 * (self._box[1] - self._box[0]))  # no joint crosses half its range in a step
        self._rate = _or(action.rate_limit, 2.0 * reach / self.step) * self.step
        self.counts: Counter[str] = Counter()
        """How often each flag was raised."""
        self.number = -1
        """Of the step, counted up by `admit`."""
        self._flags: list[str] = []
        self._believable = _believable(bundle)
        self.reset()

    def reset(self) -> None:
        """As if nothing was observed yet: the one way out of a stop."""
        self.state, self.reason = "approach", ""
        self._last: Observation | None = None
        self._same = self._jumped = 0
        self._unlike = self._sound_for = self._debt = self._waited = self._blend = 0.0
        self._previous = self._from = self.pose.copy()
        self._begun = self._fresh = False
        self._held = "run"

    def admit(self, now: float, seen: Observation | None) -> bool:
        """Whether the observation of this step may be believed; what is wrong with it becomes a flag."""
        self._flags, self.number = [], self.number + 1
        if seen is not None and seen.final is not None and (self.limits.restart or self.state != "stop"):
            self.reset()
        fault = self._fault(now, seen)
        self._fresh = not fault
        if fault or seen is None:
            self._flags.append(fault)
            return False
        self._last, self._jumped = seen, 0
        self._watch(seen.values)
        return True

    def _fault(self, now: float, seen: Observation | None) -> str:
        if seen is None:
            return "missing"
        if np.shape(seen.values) != self._low.shape:
            return "damaged"
        last = self._last
        if last is not None and seen.number <= last.number:
            return "reordered"
        if now - seen.time > self.limits.old * self.step:
            return "late"
        if not np.isfinite(seen.values).all() or not math.isfinite(seen.reward):
            return "nan"
        if (seen.values < self._low).any() or (seen.values > self._high).any():
            return "range"
        if last is not None:
            equal = np.array_equal(seen.values, last.values)
            self._same = self._same + 1 if equal else 0
            if self._same >= self.limits.frozen:
                self._last = seen
                return "frozen"
            if self._jumps(seen, last):
                self._jumped += 1
                return "jump"
        return ""

    def _jumps(self, seen: Observation, last: Observation) -> bool:
        """Whether a joint moved farther than it can, or gravity by more than it can turn in a moment."""
        moved = np.abs(seen.values - last.values)
        steps = max(1, seen.number - last.number - self._jumped)  # where it jumped to is no nearer for having waited
        if self._places[0] is not None and (moved[self._places[0]] > self._reach * steps + 0.02).any():
            return True
        return self._gravity is not None and bool((moved[self._gravity] > 0.5 * steps).any())

    def _watch(self, values: np.ndarray) -> None:
        """Note what of a sound observation asks for a stop or a warning."""
        own, (position, velocity) = self._own, self._places
        if self._gravity is not None:
            self._stop("tilt", -values[self._gravity][2] < math.cos(self.limits.tilt))
        if position is not None and own.kind == "position":
            joints, (low, high) = values[position] + self._base, self._box
            self._stop("joint-range", (np.maximum(low - joints, joints - high) > self.limits.beyond).any())
        if velocity is not None and own.velocity_limit is not None:
            self._stop("joint-speed", (np.abs(values[velocity]) > self.limits.speed * own.velocity_limit).any())
        deviation = np.clip((values - self._mean) / self._std, -10.0, 10.0)
        known = max(int(np.isfinite(self._std).sum()), 1)
        self._unlike += (float(deviation @ deviation) / known - self._unlike) * self.step
        if self._unlike > self.limits.unlike:
            self._flags.append("unlike-training")

    def believe(self, read_out: np.ndarray) -> None:
        """Warn where what the policy believes of its task lies outside what it was trained for."""
        low, high = self._believable
        if read_out.shape == low.shape and ((read_out < low) | (read_out > high)).any():
            self._flags.append("belief-unlike-training")

    def _stop(self, reason: str, wanted: bool | np.bool_) -> None:
        if wanted and self.state != "stop":
            self.state, self.reason = "stop", reason
            self._flags.append(reason)

    def command(self, action: np.ndarray | None) -> Command:
        """What goes out in this step; `action` is None where the policy gave none in time."""
        if action is not None and not (np.shape(action) == self.pose.shape and np.isfinite(action).all()):
            action = None
            self._flags.append("bad-action")
        elif action is None and self._fresh and self.state != "stop":
            self._flags.append("no-action")
        if self._fresh and not self._begun:
            self._begun, where = True, self._joints()
            if where is not None and (np.abs(where - self.pose) > self.limits.near).any():
                self._previous = where
            self._pace = self._slowly()
        if self.state != "stop" and self._begun:
            self._turn(self._fresh and action is not None)
        target = None
        if self.state == "stop":
            self._previous = self.pose.copy()
        elif self._begun:
            target = self._previous = self._bounded(self._wanted(action))
        self.counts.update(self._flags)
        own, applied = self._own, np.zeros(self.pose.shape)
        np.divide(self._previous - own.offset, own.scale, out=applied, where=own.scale != 0)
        return Command(self.number, self.state, target, np.clip(applied, -1.0, 1.0), tuple(self._flags))

    def _turn(self, sound: bool) -> None:
        """The state of this step, by the table of the module."""
        limits, step = self.limits, self.step
        self._sound_for = self._sound_for + step if sound else 0.0
        self._debt = max(0.0, self._debt - 0.5 * step) if sound else self._debt + step
        there = np.array_equal(self._previous, self.pose)
        if self.state == "approach" and there and sound:
            self._ramp_in()
        elif self.state == "ramp-in" and self._blend >= 1.0:
            self.state = "run"
        if self.state in ("ramp-in", "run") and not sound:
            self.state, self._held = "hold", self.state
        elif self.state == "hold" and sound:
            self.state = self._held
        if self.state == "hold" and self._debt > limits.hold + 0.1 * step:
            self.state, self._pace = "ramp-down", self._slowly()
        elif self.state in ("ramp-down", "safe") and self._sound_for > limits.recover:
            self._ramp_in()
        elif self.state == "ramp-down" and there:
            self.state, self._waited = "safe", 0.0
        elif self.state == "safe":
            self._waited += step
            self._stop("gave-up", self._waited > limits.give_up)
        if self.state == "ramp-in":
            self._blend += step / max(limits.ramp_in, step)

    def _ramp_in(self) -> None:
        self.state, self._blend, self._debt, self._from = "ramp-in", 0.0, 0.0, self._previous

    def _slowly(self) -> np.ndarray:
        """How far a step goes towards the safe pose, by which the farthest actuator takes `ramp_down`."""
        far = max(float(np.abs(self.pose - self._previous).max()), self.limits.near)
        return np.full(self.pose.shape, far * self.step / self.limits.ramp_down)

    def _wanted(self, action: np.ndarray | None) -> np.ndarray:
        """Before any limit."""
        if self.state in ("run", "ramp-in") and action is not None:
            bounded = np.clip(action, -1.0, 1.0)
            if (bounded != action).any():
                self._flags.append("clamp-action")
            target: np.ndarray = self._own.offset + self._own.scale * bounded
            if self.state == "run":
                return target
            return np.asarray(self._from + min(self._blend, 1.0) * (target - self._from))
        if self.state == "hold":
            return self._previous
        return np.asarray(self._previous + np.clip(self.pose - self._previous, -self._pace, self._pace))

    def _joints(self) -> np.ndarray | None:
        """Where the joints are, if that was observed just now and is measured in the unit of the commands."""
        place = self._places[0]
        if not self._fresh or self._last is None or place is None or self._own.kind != "position":
            return None
        return np.asarray(self._last.values[place] + self._base)

    def _bounded(self, wanted: np.ndarray) -> np.ndarray:
        """The nearest command within all limits; where they exclude each other, torque comes before the rate.

        A servo pulls with kp (target - q): the target may be off the measured position q by torque / kp. One that moves
        faster than its joint may is not driven on.
        """
        own, limits = self._own, [("clamp-position", *self._box)]
        limits.append(("clamp-rate", self._previous - self._rate, self._previous + self._rate))
        q, place = self._joints(), self._places[1]
        if q is not None and own.kp is not None and own.torque_limit is not None:
            reach = own.torque_limit / own.kp
            limits.append(("clamp-torque", q - reach, q + reach))
        if self._fresh and self._last is not None and place is not None and own.velocity_limit is not None:
            speed, rest = self._last.values[place], q if q is not None else np.zeros(len(wanted))
            fast = np.abs(speed) > own.velocity_limit
            if fast.any() and (q is not None or own.kind == "torque"):
                low = np.where(fast & (speed < 0), rest, -np.inf)
                limits.append(("clamp-velocity", low, np.where(fast & (speed > 0), rest, np.inf)))
        target = wanted
        for flag, low, high in limits:
            within = np.minimum(np.maximum(target, low), high)
            if not np.array_equal(within, target):
                self._flags.append(flag)
            target = within
        return target


def _or(value: np.ndarray | None, otherwise: np.ndarray) -> np.ndarray:
    return otherwise if value is None else value


def _met(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each number in training; an infinite deviation where they are not told."""
    means = [np.zeros(part.size) if part.mean is None else part.mean for part in bundle.observation]
    stds = [np.full(part.size, np.inf) if part.std is None else part.std for part in bundle.observation]
    return np.concatenate(means), np.maximum(np.concatenate(stds), 1e-6)


def _believable(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest of each number of the read-out that training knew, and a quarter of that range beyond."""
    program, rows = bundle.programs.get("read_out"), bundle.contract.get("read_out") or []
    told, ends = {row["name"]: row for row in rows if isinstance(row, dict) and "name" in row}, []
    for name, tensor in program.made.items() if program else ():
        row, size = told.get(name, {}), math.prod(tensor.shape)
        low, high = (row.get(end) if isinstance(row.get(end), int | float) else None for end in ("low", "high"))
        slack = 0.0 if low is None or high is None else 0.25 * (high - low)
        ends += [(-np.inf if low is None else low - slack, np.inf if high is None else high + slack)] * size
    return np.array([low for low, _ in ends]), np.array([high for _, high in ends])
