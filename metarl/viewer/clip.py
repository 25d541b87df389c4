"""A clip of what a browser shows: the worlds wait for each of its pictures, so that it runs in their time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from metarl.core.errors import UserError
from metarl.video.encoder import BLOCK, movie

_FPS = 25.0
_WAIT = 10.0  # [s] for a picture
_FOLDER = Path("videos")


class Clip:
    """At most one clip at a time."""

    def __init__(self) -> None:
        self._client: Any = None
        self._left = 0
        self._stride = 1
        self._steps = 0
        self._writer: Any = None
        self.path = Path()
        """Where the last one is, or will be."""

    @property
    def running(self) -> bool:
        """One is being recorded."""
        return self._left > 0

    def start(self, client: Any, seconds: float, dt: float) -> None:
        """Record so many seconds of the worlds' time as `client` sees them."""
        if self.running:
            raise UserError("a clip is being recorded already")
        if client is None:
            raise UserError("a clip is of what a browser shows: open the page first")
        self._stride = max(1, round(1.0 / (_FPS * dt)))
        self._fps = 1.0 / (self._stride * dt)
        self._client, self._steps = client, 0
        self.path = _FOLDER / time.strftime("view-%Y%m%d-%H%M%S.mp4")
        self._left = max(1, round(seconds * self._fps))

    def frame(self) -> None:
        """The worlds have been drawn: take a picture where one is due. In the thread of the clock."""
        if not self.running:
            return
        self._steps += 1
        if self._steps % self._stride:
            return
        try:
            picture = self._picture()
            if self._writer is None:
                self._movie = movie(self.path, self._fps)
                self._writer = self._movie.__enter__()
            self._writer.write(picture)
        except Exception as error:  # a browser that was closed, a full disk: the worlds go on
            self._client.add_notification("The clip ended early", str(error), color="red")
            self.stop()
            return
        self._left -= 1
        if self._left == 0:
            self.stop()
            self._client.send_file_download(self.path.name, self.path.read_bytes())
            self._client.add_notification("A clip was recorded", f"{self.path}", color="green")

    def stop(self) -> None:
        """End it here; what there is of it is kept."""
        self._left = 0
        if self._writer is not None:
            self._writer = None
            self._movie.__exit__(None, None, None)

    def _picture(self) -> np.ndarray:
        camera = self._client.camera
        height, width = (max(BLOCK, size // BLOCK * BLOCK) for size in (camera.image_height, camera.image_width))
        scale = min(1.0, 1280 / width)
        size = (int(height * scale) // BLOCK * BLOCK, int(width * scale) // BLOCK * BLOCK)
        return np.ascontiguousarray(self._client.get_render(*size, timeout=_WAIT)[..., :3])
