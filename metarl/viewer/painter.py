"""Keeps the panels of a page up to date, in a thread of its own, and takes up newer checkpoints."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from metarl.core.tasks import Value
from metarl.viewer import knowledge as tell
from metarl.viewer.hand import Grip
from metarl.viewer.player import Instant, Player

if TYPE_CHECKING:
    from metarl.viewer.page import Viewer

_PANEL = 0.25  # [s] between two states of the panels
_LOOK = 2.0  # [s] between two looks for a newer checkpoint


class Present(NamedTuple):
    """What the page is told, between two steps."""

    past: Sequence[Instant]
    returns: Sequence[float]
    task: dict[str, Value]
    trial: int
    grip: Grip
    policy: str


class Painter(threading.Thread):
    """Asks the clock's thread, between two steps, what is so, and shows it."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(name="metarl-panels", daemon=True)
        self._of, self._ended = viewer, threading.Event()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self.join()

    def _present(self, player: Player) -> Present:
        focus = self._of.scene.focus
        return Present(
            list(player.past),
            list(player.returns[focus]) if player.returns else [],
            player.tasks.rows()[focus],
            player.trial,
            player.hand.grip,
            player.name,
        )

    def run(self) -> None:
        """Keep the panels up to date; look for newer checkpoints."""
        looked = time.monotonic()
        while not self._ended.wait(_PANEL):
            if self._of.clock.error is not None:
                self._of.panels.status.content = (
                    f'<div style="padding:.5em;color:#c03030">{html.escape(str(self._of.clock.error))}</div>'
                )
                return
            try:
                self.paint()
                if time.monotonic() - looked > _LOOK:
                    looked = time.monotonic()
                    self._of.follow_training()
            except BaseException as error:  # whoever waits for the page is told
                self._of.clock.error = error
                return

    def paint(self) -> None:
        """Show on the panels what is so now."""
        answer = self._of.clock.do(self._present)
        while not answer.done():
            if self._ended.wait(0.002) or self._of.clock.error is not None or not self._of.clock.is_alive():
                return
        now, of, family = answer.result(), self._of, self._of.shown.family
        told = tell.Told(now.past, of.scene.focus, of.player.env.info, family.space, now.returns, of.expected)
        own = tell.of_the_present(told)
        figures = [tell.returns(told), *tell.knowledge(own), *tell.velocities(told), tell.state_plane(own)]
        panels = of.panels
        with of.server.atomic():
            panels.task.show(now.task)
            panels.hand.show(now.grip)
            panels.status.content = self._headline(now)
            _fill(panels.figures, [figure for figure in figures if figure])
            _fill([panels.doing], [tell.reward_terms(told)])
            _fill([panels.sensed], [tell.sensors(told, family.observation, panels.part.value)])

    def _headline(self, now: Present) -> str:
        last = now.past[-1] if now.past else None
        episode = 0 if last is None else int(last.episode[self._of.scene.focus])
        seconds = 0.0 if last is None else last.time
        pace = "paused" if self._of.clock.paused else f"{self._of.clock.pace:.2g}× real time"
        name, policy = (html.escape(long.rsplit("/", 1)[-1]) for long in (self._of.shown.name, now.policy))
        of = f" of {self._of.shown.episodes}" if episode < self._of.shown.episodes else ""  # a fall begins one more
        return (
            f'<div style="padding:.2em .9em .3em;line-height:1.45"><b style="font-size:1.1em">{name}</b><br/>'
            f'<span style="opacity:.75">{policy}</span><br/>'
            f"task {now.trial + 1} · episode {episode + 1}{of} · {seconds:.1f} s "
            f'<span style="opacity:.65">· {pace}</span></div>'
        )


def _fill(handles: Sequence[Any], contents: Sequence[str]) -> None:
    for number, handle in enumerate(handles):
        content = contents[number] if number < len(contents) else ""
        if handle.content != content:
            handle.content = content
