"""Lets a player go on in real time in a thread of its own, and hands it what is to be done between two steps."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from metarl.viewer.player import Player

T = TypeVar("T")
_BEHIND = 0.25  # [s] a clock that is later than this does not try to catch up
_IDLE = 0.02  # [s] between two looks at what is to be done, while paused


class Clock(threading.Thread):
    """Steps the player in real time, or at `speed` times that; nothing else touches the player meanwhile."""

    def __init__(self, player: Player, shown: Callable[[bool], None], last: Callable[[], None]) -> None:
        """In the thread `shown` is called after orders and steps, and told which; `last` is called at its end."""
        super().__init__(name="metarl-view", daemon=True)
        self._player, self._shown, self._last = player, shown, last
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._ended = threading.Event()
        self.paused = False
        """Nothing moves, but what is asked for by `do`."""
        self.speed = 1.0
        """Simulated time over real time, where the machine keeps up."""
        self.pace = 1.0
        """What of it is reached, of late."""
        self.error: BaseException | None = None
        """What ended the thread, if it was not asked to end."""

    def do(self, order: Callable[[Player], T]) -> Future[T]:
        """Have something done between two steps; the answer comes with what it returns, or raises."""
        answer: Future[T] = Future()

        def work() -> None:
            try:
                answer.set_result(order(self._player))
            except BaseException as error:  # it belongs to whoever asked
                answer.set_exception(error)

        self._orders.put(work)
        return answer

    def stop(self) -> None:
        """End the thread, after the present step."""
        self._ended.set()
        if self.is_alive() and threading.current_thread() is not self:
            self.join()

    def run(self) -> None:
        """Step, until stopped."""
        try:
            self._play()
        except BaseException as error:  # shown on the page, and raised by whoever waits for it
            self.error = error
        finally:
            self._last()

    def _play(self) -> None:
        due, since, steps = time.monotonic(), time.monotonic(), 0
        while not self._ended.is_set():
            if self._obey():
                self._shown(False)
            if self.paused:
                self._ended.wait(_IDLE)
                due = since = time.monotonic()
                steps = 0
                continue
            self._player.step()
            self._shown(True)
            steps += 1
            due += self._player.dt / self.speed
            now = time.monotonic()
            if now - since >= 1.0:
                self.pace, since, steps = steps * self._player.dt / (now - since), now, 0
            if now < due:
                self._ended.wait(due - now)
            elif now > due + _BEHIND:
                due = now

    def _obey(self) -> bool:
        """Do what is to be done; whether there was any."""
        done = False
        while not self._orders.empty():
            self._orders.get()()
            done = True
        return done
