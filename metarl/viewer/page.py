"""The page: worlds that go on in real time, a scene that shows them, and panels to interfere with them."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from metarl.core.errors import UserError
from metarl.core.tasks import Split
from metarl.run.statistics import Interval
from metarl.viewer.choices import NEWEST, Choice, Seen
from metarl.viewer.clip import Clip
from metarl.viewer.clock import Clock
from metarl.viewer.panels import Painter, Panels
from metarl.viewer.player import Player
from metarl.viewer.scene import FOV, Scene
from metarl.viewer.server import LOOPBACK, PORT, address, serve

_FRAME = 1 / 60  # [s] at least between two pictures
_PUSH_SHOWN = 0.5  # [s]
_LOOK = 0.25  # [s] between two looks at models that change within an episode
_FEW = 4  # worlds that one thread moves


class Viewer:
    """Worlds on a page, until `close`. A notebook shows it in place; the worlds go on meanwhile."""

    def __init__(
        self,
        shown: Seen,
        *,
        num_worlds: int = 1,
        split: Split = "test",
        seed: int = 0,
        host: str = LOOPBACK,
        port: int = PORT,
        plain: bool = False,
    ) -> None:
        """Start worlds and server; see `metarl.view`."""
        self.shown, self.choice, self.checkpoint = shown, shown.choices[0], NEWEST
        """What is shown, who acts, and at which checkpoint."""
        options: dict[str, Any] = {"episodes": shown.episodes, "episode_steps": shown.episode_steps}
        threads = 1 if num_worlds <= _FEW else 0
        self.player = Player(shown.family, num_worlds, split=split, seed=seed, threads=threads, **options)
        self.expected: Sequence[Interval] = ()
        """Returns per episode of the policy's evaluation."""
        try:
            self._load(self.player)
            self.player.new_trial()
            self.server = serve(host, port)
        except BaseException:
            self.player.close()
            raise
        self.scene = Scene(self.server, self.player.env.physics, self.player.root, plain)
        camera = self.server.initial_camera
        camera.fov = FOV
        camera.position, camera.look_at = self.scene.camera()
        self.clip = Clip(self.player, self.scene)
        self.clock = Clock(self.player, self._draw, self.clip.stop)
        self.frames = 0
        """Pictures that were sent."""
        self._drawn = self._pushed = self._looked = 0.0
        self._changes = self.player.changes
        self._closed = threading.Event()
        self.panels = Panels(self)
        self._painter = Painter(self)
        self.clock.start()
        self._painter.start()

    @property
    def url(self) -> str:
        """What to open in a browser."""
        return address(self.server)

    def close(self) -> None:
        """Stop worlds and server."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._painter.stop()
        self.clock.stop()
        self.server.stop()
        self.player.close()

    def wait(self) -> None:
        """Return when it is closed; raise what stopped the worlds."""
        while not self._closed.wait(0.2):
            if self.clock.error is not None:
                self.close()
                raise self.clock.error

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Viewer({self.url})"

    def _repr_html_(self) -> str:
        return f'<iframe src="{html.escape(self.url)}" style="width:100%;height:720px;border:0"></iframe>'

    # ------------------------------------------------------------------------------------------------------- orders

    def order(self, order: Callable[[Player], Any]) -> None:
        """Have something done between two steps, and say on the page where it could not be."""
        answer = self.clock.do(order)
        answer.add_done_callback(lambda done: self.say(done.exception()) if done.exception() else None)

    def say(self, error: BaseException | None) -> None:
        """Tell on the page what went wrong."""
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        for client in self.server.get_clients().values():
            client.add_notification("This cannot be done", text, color="red", auto_close_seconds=8.0)

    def choose(self, choice: Choice, checkpoint: str = NEWEST) -> None:
        """Let another policy act, or this one at another checkpoint."""
        self.choice, self.checkpoint = choice, checkpoint
        self.order(self._load)

    def follow_training(self) -> None:
        """Take up the newest checkpoint of a run that is training, where that is what acts."""
        try:
            newest = self.choice.newest()
        except UserError:  # it is being replaced
            return
        if self.checkpoint == NEWEST and newest != self._loaded:
            self.choose(self.choice)
            self.panels.show_checkpoints(newest)

    def _load(self, player: Player) -> None:
        self._loaded = self.choice.newest()
        player.use(self.choice.policy(player.env.info, self.checkpoint), self.choice.name)
        self.expected = self.choice.expected()

    # ------------------------------------------------------------------------------------ in the thread of the clock

    def _draw(self, moved: bool) -> None:
        """Show the worlds as they are, after a step or an order."""
        now, player, scene = time.monotonic(), self.player, self.scene
        if moved:
            self.clip.frame()
        if now - self._drawn < _FRAME:
            return
        self._drawn = now
        faults = bool(self.shown.family.disturbances) and now - self._looked > _LOOK
        if self._changes != player.changes or faults:
            self._changes, self._looked = player.changes, now
            scene.refresh()
        scene.update()
        self._point(now)
        self.frames += 1

    def _point(self, now: float) -> None:
        """Arrows for what is wanted, what is, and a push."""
        player, scene, nothing = self.player, self.scene, np.zeros((1, 2))
        wanted = player.wanted() if self.panels.arrows.value else None
        speed = None if wanted is None else wanted.speed
        direction = nothing if wanted is None else wanted.direction.numpy()
        scene.point("wanted", direction * (1.0 if speed is None else speed.numpy()[:, None]), 0.62, wanted is not None)
        scene.point("actual", player.velocity, 0.5, wanted is not None)
        if player.pushing():
            self._pushed = now
        push = nothing if player.last_push is None else player.last_push
        scene.point("push", push, 0.2, now - self._pushed < _PUSH_SHOWN)
