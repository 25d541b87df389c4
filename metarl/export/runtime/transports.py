"""Robots at a distance, and logs in their place: UDP with its jitter recorded, and CSV or MCAP played back.

MCAP files need the package mcap.

A datagram is `MRL1`, a letter for its kind, a number and a time [s] of the sender's clock, and float32 numbers. A
`H`ello is answered by a `D`escription, the fields of `Robot` as JSON. `O`bservations carry reward, terminated, new
task, whether an episode ended, and the numbers observed, with those of the ended episode's last one ahead; `C`ommands
carry targets, a `S`top nothing.
"""

from __future__ import annotations

import csv
import json
import math
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from . import Bundle, BundleError, listed
from .guard import Command, Observation
from .runner import Clock, Robot, Transport

_HEAD = struct.Struct("<4scqd")
_MOST = 60_000  # bytes of a datagram
_KEPT = 100_000  # intervals that are remembered


def _packed(kind: bytes, number: int, when: float, numbers: Sequence[float] | np.ndarray = ()) -> bytes:
    return _HEAD.pack(b"MRL1", kind, number, when) + np.asarray(numbers, "<f4").tobytes()


def _unpacked(content: bytes) -> tuple[bytes, int, float, bytes] | None:
    """Kind, number, time and the rest; None of what is no datagram of ours."""
    if len(content) < _HEAD.size or content[:4] != b"MRL1":
        return None
    _, kind, number, when = _HEAD.unpack_from(content)
    return kind, number, when, content[_HEAD.size :]


class UdpRobot:
    """A robot behind UDP: observations come in, commands go out, and how regularly they come is recorded."""

    def __init__(self, address: tuple[str, int], clock: Clock | None = None, tries: int = 50) -> None:
        """Ask it what it is; `BundleError` where it does not say, within `tries` tenths of a second."""
        self._clock, self._address = clock or Clock(), address
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.connect(address)  # datagrams of others are not received
            self._socket.settimeout(0.1)
            self.robot = self._asked(tries)
            self._socket.setblocking(False)
        except OSError as error:
            self.close()
            raise BundleError(f"the robot at {address[0]}:{address[1]} cannot be reached: {error}") from None
        except BundleError:
            self.close()
            raise
        self.ages: list[float] = []
        """Of the observations [s]: how much longer each was on its way than the fastest."""
        self.refused = 0
        """Datagrams that were none of ours."""
        self._offset = math.inf

    def receive(self) -> Observation | None:
        """The newest observation that has come, by its number."""
        newest: Observation | None = None
        while (content := self._read()) is not None:
            seen = self._observation(content)
            if seen is not None and (newest is None or seen.number > newest.number or seen.final is not None):
                newest = seen
        return newest

    def send(self, command: Command) -> None:
        """Send targets off."""
        assert command.target is not None
        self._write(_packed(b"C", command.number, self._clock.now(), command.target))

    def stop(self) -> None:
        """Tell it to stop."""
        self._write(_packed(b"S", 0, self._clock.now()))

    def close(self) -> None:
        """Free the socket."""
        self._socket.close()

    def _asked(self, tries: int) -> Robot:
        for _ in range(tries):
            try:
                self._socket.send(_packed(b"H", 0, 0.0))
                found = _unpacked(self._socket.recv(_MOST))
            except (TimeoutError, ConnectionRefusedError):
                self._clock.wait_until(self._clock.now() + 0.1)
                continue
            if found is not None and found[0] == b"D":
                return _described(found[3])
        raise BundleError(f"the robot at {self._address[0]}:{self._address[1]} does not say what it is")

    def _read(self) -> bytes | None:
        try:
            return self._socket.recv(_MOST)
        except OSError:  # nothing there, or nobody
            return None

    def _write(self, content: bytes) -> None:
        try:
            self._socket.send(content)
        except OSError:  # nobody listens, or the buffer is full: the guard sees it by what does not come back
            return

    def _observation(self, content: bytes) -> Observation | None:
        found, size = _unpacked(content), sum(part[1] for part in self.robot.observation)
        if found is None or found[0] != b"O" or len(found[3]) not in (4 * (4 + size), 4 * (4 + 2 * size)):
            self.refused += found is None or found[0] != b"D"
            return None
        row = np.frombuffer(found[3], "<f4").astype(float)
        now = self._clock.now()
        self._offset = min(self._offset, now - found[2])
        age = now - found[2] - self._offset
        if len(self.ages) < _KEPT:
            self.ages.append(age)
        final = row[4:-size] if row[3] else None
        return Observation(found[1], now - age, row[-size:], float(row[0]), bool(row[1]), final, bool(row[2]))


def _described(content: bytes) -> Robot:
    try:
        told = json.loads(content.decode())
        parts = tuple((str(name), int(size), str(unit)) for name, size, unit in told["observation"])
        joints = tuple(map(str, told["joints"]))
        return Robot(parts, joints, str(told["kind"]), str(told["unit"]), float(told["control_step"]))
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"the robot's description is none: {type(error).__name__}: {error}") from None


class UdpServer:
    """The robot's side: puts any transport behind UDP, and stops it where no command has come for `patience` [s]."""

    def __init__(self, behind: Transport, port: int = 0, host: str = "127.0.0.1", patience: float = 0.5) -> None:
        """Listen on `host`, which is this machine alone unless told; port 0 takes a free one."""
        self._behind, self._patience, self._clock = behind, patience, Clock()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, port))
        self._socket.settimeout(behind.robot.control_step)
        self.port: int = self._socket.getsockname()[1]
        self._peer: Any = None
        self._heard, self._newest = -math.inf, -1

    def serve(self, datagrams: int | None = None) -> None:
        """Answer so many datagrams beside those that ask who it is, or go on until interrupted."""
        served = 0
        while datagrams is None or served < datagrams:
            try:
                content, peer = self._socket.recvfrom(_MOST)
                served += self._take(content, peer)
            except TimeoutError:
                pass
            if self._peer is not None and self._clock.now() - self._heard > self._patience:
                self._behind.stop()
            self._tell()

    def close(self) -> None:
        """Free the socket."""
        self._socket.close()

    def _take(self, content: bytes, peer: Any) -> bool:
        found, size = _unpacked(content), 4 * len(self._behind.robot.joints)
        if found is None:
            return False
        if found[0] == b"H" and peer != self._peer and self._clock.now() - self._heard < self._patience:
            return False  # nobody takes over a robot that is being driven
        if found[0] == b"H":
            told = json.dumps(asdict(self._behind.robot)).encode()
            self._socket.sendto(_packed(b"D", 0, self._clock.now()) + told, peer)
            self._peer, self._newest, self._heard = peer, -1, self._clock.now()
            return False
        if peer == self._peer and found[0] == b"S":
            self._behind.stop()
        elif peer == self._peer and found[0] == b"C" and len(found[3]) == size and found[1] > self._newest:
            self._newest, self._heard = found[1], self._clock.now()
            target = np.frombuffer(found[3], "<f4").astype(float)
            if np.isfinite(target).all():
                self._behind.send(Command(found[1], "", target, np.zeros(len(target)), ()))
        return True

    def _tell(self) -> None:
        seen = self._behind.receive() if self._peer is not None else None
        if seen is None:
            return
        head = [seen.reward, seen.terminated, seen.new_task, seen.final is not None]
        numbers = np.concatenate([head, *([] if seen.final is None else [seen.final]), seen.values])
        self._socket.sendto(_packed(b"O", seen.number, self._clock.now(), numbers), self._peer)


class Replay:
    """A recorded run in a robot's place: its observations at their times, whatever is commanded.

    `differences` tells how far the commands are from those recorded.
    """

    def __init__(self, path: Path, bundle: Bundle, clock: Clock) -> None:
        """`BundleError` where the file has not the columns that the bundle observes."""
        self.robot, self._clock, self._path = Robot.of(bundle), clock, path
        labels = [label for part in bundle.observation for label in part.labels()]
        rows = list(_mcap_rows(path) if path.suffix == ".mcap" else _csv_rows(path))
        missing = [label for label in ("time", *labels) if not rows or label not in rows[0]]
        if missing:
            raise BundleError(f"{path} has no columns {listed(missing)}, which the bundle needs")
        targets = [f"target.{name}" for name in bundle.action.names]
        self._rows = [(self._number(row, "time"), self._numbers(row, labels), row) for row in rows]
        self._targets = [self._numbers(row, targets) for row in rows]
        self._begun, self._first, self._next = clock.now(), self._rows[0][0], 0
        self.differences: list[float] = []
        """Largest difference of each command to the recorded one, in the bundle's unit; NaN where none was."""

    @property
    def seconds(self) -> float:
        """Length of the recording [s]."""
        return self._rows[-1][0] - self._first + self.robot.control_step

    def receive(self) -> Observation | None:
        """The newest that is due."""
        due = self._clock.now() - self._begun + self._first + 1e-6
        found = None
        while self._next < len(self._rows) and self._rows[self._next][0] <= due:
            when, values, row = self._rows[self._next]
            reward, start = self._number(row, "reward", 0.0), str(row.get("start") or "")
            again = (start.startswith("fall"), values if start else None, start.endswith("task"))
            found = Observation(self._next, when - self._first + self._begun, values, reward, *again)
            self._next += 1
        return None if found is None or np.isnan(found.values).all() else found

    def send(self, command: Command) -> None:
        """Compare."""
        assert command.target is not None
        place = max(self._next - 1, 0)
        self.differences.append(float(np.abs(command.target - self._targets[place]).max()))

    def stop(self) -> None:
        """Nothing moves."""

    def _numbers(self, row: Mapping[str, Any], labels: Sequence[str]) -> np.ndarray:
        return np.array([self._number(row, label) for label in labels])

    def _number(self, row: Mapping[str, Any], label: str, otherwise: float = math.nan) -> float:
        value = row.get(label)
        try:
            return otherwise if value is None or value == "" else float(value)
        except (TypeError, ValueError):
            raise BundleError(f"{self._path}: '{label}' = {value!r} is no number") from None


def _csv_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open(newline="") as file:
            yield from csv.DictReader(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BundleError(f"{path} cannot be read: {error}") from None


def _mcap_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Messages in JSON, an object each with the names of a log's columns; `time` is that of the log unless told."""
    try:
        from mcap.reader import make_reader
    except ImportError:
        raise BundleError(f"{path} needs the package mcap: pip install mcap") from None
    try:
        with path.open("rb") as file:
            for _, _, message in make_reader(file).iter_messages():
                row = json.loads(message.data)
                if isinstance(row, dict):
                    yield {"time": message.log_time / 1e9, **row}
    except Exception as error:  # whatever a damaged file makes of the reader
        raise BundleError(f"{path} cannot be read: {type(error).__name__}: {error}") from None
