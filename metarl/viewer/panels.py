"""The panels of a page: what one may do on the right, what the robot knows and does on the left, kept up to date."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import viser

from metarl.core.errors import UserError
from metarl.core.tasks import Value
from metarl.viewer import knowledge as tell
from metarl.viewer.choices import NEWEST
from metarl.viewer.controls import HandPanel, TaskPanel
from metarl.viewer.hand import Grip
from metarl.viewer.player import Instant, Player

if TYPE_CHECKING:
    from metarl.viewer.page import Viewer

_SPEEDS = ("0.1×", "0.25×", "0.5×", "1×", "2×", "as fast as it can")
_MOST_FIGURES = 12
_PANEL = 0.25  # [s] between two states of the panels
_LOOK = 2.0  # [s] between two looks for a newer checkpoint


class Panels:
    """The controls of a page, and where its figures go."""

    def __init__(self, viewer: Viewer) -> None:
        gui, self._of = viewer.server.gui, viewer
        gui.configure_theme(show_logo=False, show_share_button=False, brand_color=(28, 127, 196))
        gui.set_panel_label("metarl view")
        several = viewer.player.env.num_worlds > 1
        self.status = gui.add_html("")
        self._time(gui)
        with gui.add_folder("Task"):
            self.task = TaskPanel(gui, viewer.shown.family.space, self._set)
            self._everyone = gui.add_checkbox("change all robots", initial_value=True, visible=several)
        with gui.add_folder("Disturb"):
            self.hand = HandPanel(gui, viewer.player.hand, self._grip, self._push)
        with gui.add_folder("Policy"):
            self._policies(gui)
        with gui.add_folder("View", expand_by_default=False):
            self._views(gui)
        panel = gui.add_panel()
        with panel.add_tab("what it knows"):
            self.figures = [gui.add_html("") for _ in range(_MOST_FIGURES)]
        with panel.add_tab("what it does"):
            self.doing = gui.add_html("")
            parts = tuple(part.name for part in viewer.shown.family.observation)
            self.part = gui.add_dropdown("it senses", parts or ("",), initial_value=(*parts, "")[0])
            self.sensed = gui.add_html("")
        panel.dock_left()
        panel.set_width(330)
        gui.main_panel.dock_right()
        gui.main_panel.set_width(310)

    def _time(self, gui: viser.GuiApi) -> None:
        """Pause, step, speed, what begins next."""
        clock = self._of.clock
        goes = gui.add_button_group("time", ("pause / go", "one step"))
        anew = gui.add_button_group("new", ("episode", "task"))
        speed = gui.add_dropdown("speed", _SPEEDS, initial_value="1×")
        same = gui.add_checkbox("keep the task", initial_value=False, hint="the next trial is on the same task")

        @goes.on_click
        def _(event: Any) -> None:
            one = event.target.value == "one step"
            clock.paused = one or not clock.paused
            if one:
                self._of.order(Player.step)

        @anew.on_click
        def _(event: Any) -> None:
            self._of.order(Player.new_episode if event.target.value == "episode" else Player.new_trial)

        @speed.on_update
        def _(event: Any) -> None:
            text = event.target.value.removesuffix("×")
            clock.speed = float(text) if text != _SPEEDS[-1] else 1000.0

        @same.on_update
        def _(event: Any) -> None:
            self._of.player.same_task = event.target.value

    def _policies(self, gui: viser.GuiApi) -> None:
        choices = {choice.name: choice for choice in self._of.shown.choices}
        policy = gui.add_dropdown("acts", tuple(choices), initial_value=self._of.choice.name)
        self._checkpoints = gui.add_dropdown("checkpoint", (NEWEST,), initial_value=NEWEST)
        self._note = gui.add_markdown("")
        self.show_checkpoints()

        @policy.on_update
        def _(event: Any) -> None:
            self._of.choose(choices[event.target.value])
            self.show_checkpoints()

        @self._checkpoints.on_update
        def _(event: Any) -> None:
            if event.target.value != self._of.checkpoint:
                self._of.choose(self._of.choice, event.target.value)

    def show_checkpoints(self, taken_up: str = "") -> None:
        """Offer those that there are, and say which was just taken up."""
        entries = tuple(self._of.choice.checkpoints)
        if self._checkpoints.options != entries:
            self._checkpoints.options = entries
        self._checkpoints.visible = len(entries) > 1
        self._note.content = f"took up `{taken_up}`" if taken_up else ""

    def _views(self, gui: viser.GuiApi) -> None:
        viewer = self._of
        follow = gui.add_checkbox("follow the robot", initial_value=True)
        self.arrows = gui.add_checkbox(
            "arrows", initial_value=True, hint="green: asked for; blue: actual; orange: a push"
        )
        worlds = tuple(str(world + 1) for world in range(viewer.player.env.num_worlds))
        focus = gui.add_dropdown("robot", worlds, initial_value=worlds[0], visible=len(worlds) > 1)
        seconds = gui.add_slider("clip of [s]", min=1, max=30, step=1, initial_value=8)
        clip = gui.add_button("record a clip", icon=viser.Icon.VIDEO)

        @follow.on_update
        def _(event: Any) -> None:
            viewer.scene.follow = event.target.value

        @focus.on_update
        def _(event: Any) -> None:
            viewer.scene.focus = int(event.target.value) - 1

        @clip.on_click
        def _(event: Any) -> None:
            try:
                viewer.clip.start(float(seconds.value), event.client)
            except UserError as error:
                viewer.say(error)

    def _set(self, name: str, value: Value) -> None:
        worlds = None if self._everyone.value else [self._of.scene.focus]
        self._of.order(lambda player: player.set(name, value, worlds))

    def _grip(self, **changes: Any) -> None:
        self._of.order(lambda player: player.grip(**changes))

    def _push(self, ahead: float, left: float) -> None:
        self._of.order(lambda player: player.push(ahead, left))


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
