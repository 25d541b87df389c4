"""A clip of the robots as a browser shows them, drawn here: it runs in the worlds' time, however slow the browser."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from metarl.core.errors import UserError
from metarl.sim.mujoco.rendering import gl_backend
from metarl.video.encoder import BLOCK, movie
from metarl.viewer.player import Player
from metarl.viewer.scene import FOV, Scene

_FPS = 25.0
_SIZE = (1024, 576)  # [pixels] of the whole picture, about
_FOLDER = Path("videos")


class Clip:
    """At most one clip at a time. All but `start` is called in the thread of the clock, which alone draws."""

    def __init__(self, player: Player, scene: Scene) -> None:
        self._player, self._scene = player, scene
        self._columns = math.ceil(math.sqrt(player.env.num_worlds))
        self._client: Any = None
        self._left = self._steps = 0
        self._stride = max(1, round(1.0 / (_FPS * player.dt)))
        self._writer: Any = None
        self._cameras: Any = None
        self._changes = -1
        self.path = Path()
        """Where the last one is, or will be."""

    @property
    def running(self) -> bool:
        """One is being recorded."""
        return self._left > 0

    def start(self, seconds: float, client: Any = None) -> None:
        """Record so many seconds of the worlds' time from where `client` looks; `UserError` where nothing can draw."""
        if self.running:
            raise UserError("a clip is being recorded already")
        gl_backend()
        self._client, self._steps = client, 0
        self.path = _FOLDER / time.strftime("view-%Y%m%d-%H%M%S.mp4")
        self._left = max(1, round(seconds / (self._stride * self._player.dt)))

    def frame(self) -> None:
        """The worlds have moved by a step: take a picture where one is due."""
        if not self.running:
            return
        self._steps += 1
        if self._steps % self._stride:
            return
        try:
            picture = self._picture()
            if self._writer is None:
                self._movie = movie(self.path, 1.0 / (self._stride * self._player.dt))
                self._writer = self._movie.__enter__()
            self._writer.write(picture)
        except Exception as error:  # a full disk, a lost screen: the worlds go on
            self.stop()
            if self._client is not None:
                self._client.add_notification("The clip ended early", str(error), color="red")
            return
        if self._left > 1:
            self._left -= 1
            return
        self.stop()
        if self._client is not None:
            self._client.send_file_download(self.path.name, self.path.read_bytes())
            self._client.add_notification("A clip was recorded", f"{self.path}", color="green")

    def stop(self) -> None:
        """End it here; what there is of it is kept."""
        if self._writer is not None:
            self._writer = None
            self._movie.__exit__(None, None, None)
        if self._cameras is not None:
            self._cameras.close()
            self._cameras = None
        self._left = 0

    def _picture(self) -> UInt8[np.ndarray, "H W 3"]:
        """One robot from where the browser looks; of several each by itself, all from that direction."""
        player, n = self._player, self._player.env.num_worlds
        if self._cameras is None or self._changes != player.changes:  # models may look different now
            if self._cameras is not None:
                self._cameras.close()
            size = (_SIZE[0] // self._columns // BLOCK * BLOCK, _SIZE[1] // self._columns // BLOCK * BLOCK)
            self._cameras, self._changes = player.env.cameras(range(n), size), player.changes
        eye, at = self._scene.camera()
        if self._client is not None:
            eye, at = np.array(self._client.camera.position), np.array(self._client.camera.look_at)
        self._cameras.aim(*self._scene.seen_from(eye, at), FOV)
        drawn = [picture.copy() for picture in self._cameras.draw()]
        drawn += [np.full_like(drawn[0], 255)] * (-n % self._columns)
        return np.vstack([np.hstack(drawn[first : first + self._columns]) for first in range(0, n, self._columns)])
