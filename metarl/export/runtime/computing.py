"""Where a policy computes: in this process, or in one of its own that cannot delay whoever asks."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from . import Bundle, BundleError, BundlePolicy
from .guard import Observation

_MOST = 2000  # numbers of an observation


class Question(NamedTuple):
    """What a policy is asked in a step."""

    number: int
    seen: Observation
    applied: np.ndarray
    """The action that was applied in the step before."""


class Answer(NamedTuple):
    """What it says."""

    number: int
    action: np.ndarray
    read_out: np.ndarray
    """What its read-out tells, one behind the other."""


@runtime_checkable
class Computing(Protocol):
    """What computes a policy."""

    def ask(self, question: Question) -> None:
        """Begin to compute; returns at once where that is elsewhere."""
        ...

    def answer(self, wait: float) -> Answer | None:
        """The answer, once; waits no longer than that [s]."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class InlinePolicy:
    """Answers at once, in this process: for simulation, where a late answer harms nobody."""

    def __init__(self, bundle: Bundle, seed: int = 0) -> None:
        self._policy, self._answer = BundlePolicy(bundle, seed), list[Answer]()
        self._acted = False

    def ask(self, question: Question) -> None:
        """Compute."""
        policy, seen = self._policy, question.seen
        if self._acted:
            final = seen.values if seen.final is None else seen.final
            policy.observe(seen.reward, final, seen.terminated, question.applied)
            if seen.final is not None:
                policy.end_episode()
        if seen.new_task:
            policy.new_task()
        action, self._acted = policy.act(seen.values), True
        found = [np.ravel(value).astype(float) for value in policy.read_out().values()]
        self._answer = [Answer(question.number, action.astype(float), np.concatenate([*found, np.zeros(0)]))]

    def answer(self, wait: float) -> Answer | None:
        """The answer, once; waits no longer than that [s]."""
        return self._answer.pop() if self._answer else None

    def close(self) -> None:
        """Nothing is held."""


class ProcessPolicy:
    """Answers from a process of its own, so that nothing that it does can delay the loop: neither its time nor its end.

    Numbers travel as plain bytes; the child reads the bundle itself.
    """

    def __init__(self, bundle: Bundle, seed: int = 0, ready_within: float = 60.0) -> None:
        """`BundleError` where the child cannot read the bundle, or is not ready in time [s]."""
        if (
            bundle.observation_size > _MOST
        ):  # more would fill the pipe of a child that hangs, and whoever asks would wait
            raise BundleError(f"a process is told no more than {_MOST} numbers at a time: {bundle.observation_size}")
        own = multiprocessing.get_context("spawn")
        self._pipe, theirs = own.Pipe()
        self._actions = len(bundle.action.names)
        self._child = own.Process(target=_serve, args=(theirs, str(bundle.path), bundle.digest, seed), daemon=True)
        self._child.start()
        theirs.close()
        try:
            told = self._pipe.recv_bytes().decode() if self._pipe.poll(ready_within) else "not ready in time"
        except EOFError:
            told = "it ended"
        if told != "ready":
            self.close()
            raise BundleError(f"the policy's process: {told}")

    def ask(self, question: Question) -> None:
        """Send the question off; a child that is gone never answers."""
        seen = question.seen
        head = [question.number, seen.reward, seen.terminated, seen.new_task, seen.final is not None]
        final = seen.values if seen.final is None else seen.final
        message = np.concatenate([head, question.applied, final, seen.values]).astype(np.float64)
        try:
            self._pipe.send_bytes(message.tobytes())
        except OSError:
            return

    def answer(self, wait: float) -> Answer | None:
        """The answer, once; waits no longer than that [s]."""
        try:
            if not self._pipe.poll(max(wait, 0.0)):
                return None
            row = np.frombuffer(self._pipe.recv_bytes(), np.float64)
        except (EOFError, OSError):
            return None
        return Answer(int(row[0]), row[1 : 1 + self._actions], row[1 + self._actions :])

    def close(self) -> None:
        """End the child."""
        self._pipe.close()
        self._child.terminate()
        self._child.join(5.0)
        if self._child.is_alive():
            self._child.kill()
            self._child.join()


def _serve(pipe: Connection, path: str, digest: str, seed: int) -> None:
    """The child's loop, until the pipe closes."""
    try:
        bundle = Bundle.read(path)
        if bundle.digest != digest:
            raise BundleError("the bundle has changed since it was read")
    except BundleError as error:
        pipe.send_bytes(str(error).encode())
        return
    inline, actions, observed = InlinePolicy(bundle, seed), len(bundle.action.names), bundle.observation_size
    pipe.send_bytes(b"ready")
    try:
        while True:
            row = np.frombuffer(pipe.recv_bytes(), np.float64)
            head, applied, final, values = np.split(row, np.cumsum([5, actions, observed]))
            ended = final if head[4] else None
            seen = Observation(int(head[0]), 0.0, values, float(head[1]), bool(head[2]), ended, bool(head[3]))
            inline.ask(Question(seen.number, seen, applied))
            answer = inline.answer(0.0)
            assert answer is not None
            pipe.send_bytes(np.concatenate([[answer.number], answer.action, answer.read_out]).tobytes())
    except (EOFError, OSError, KeyboardInterrupt):
        return
