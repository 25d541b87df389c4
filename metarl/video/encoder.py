"""The encoder writes pictures into a file, which gets its name once it is complete: h264, or an animated picture."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import imageio.v2 as imageio
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from metarl.core.errors import UserError

FORMATS = (".mp4", ".gif", ".webp")
"""What a file may end in: a video, or a picture that moves wherever pictures are shown, with every other frame at most.

A video has no limit of its size, a picture that moves has one."""
BLOCK = 16  # h264 codes blocks of 16 x 16 pixels; other sizes would be resampled
_CRF = "26"  # x264's constant rate factor: sharp enough for the moving ground, half the size of 21


class _Way(NamedTuple):
    """How a picture that moves is made."""

    every: int
    """One of so many pictures that were kept is shown."""
    scale: float
    quality: int
    cost: float
    """About how large a file is, as a share of that of the first way."""


_WAYS = (
    _Way(1, 1.0, 60, 1.0),
    _Way(1, 1.0, 45, 0.8),
    _Way(1, 0.9, 40, 0.66),
    _Way(1, 0.8, 40, 0.53),
    _Way(2, 0.8, 35, 0.35),
    _Way(2, 0.7, 30, 0.25),
    _Way(2, 0.6, 30, 0.18),
    _Way(2, 0.5, 25, 0.12),
    _Way(3, 0.4, 25, 0.06),
    _Way(4, 0.3, 20, 0.03),
)


@dataclass
class Movie:
    """An open video file and the number of frames written to it."""

    append: Callable[[np.ndarray], None]
    num_frames: int = 0

    def write(self, picture: UInt8[np.ndarray, "H W 3"], times: int = 1) -> None:
        """Append the picture, several times where it stands still."""
        for _ in range(times):
            self.append(picture)
        self.num_frames += times


@contextmanager
def movie(path: Path, fps: float, megabytes: float = 2.0) -> Iterator[Movie]:
    """Open a file for writing. It gets its name when it is complete; an error before that leaves no file.

    A gif or webp is no larger than `megabytes`; `UserError` where it cannot be made so small.
    """
    part = path.with_name(f".{path.stem}-{os.getpid()}.part{path.suffix.lower()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except (OSError, ValueError) as error:  # the latter of a NUL in the name
        raise UserError(f"cannot write {str(path)!r}: {getattr(error, 'strerror', error)}") from None
    writer: _Video | _Animation = _Video(part, fps) if part.suffix == ".mp4" else _Animation(part, fps, megabytes)

    def append(picture: np.ndarray) -> None:
        try:
            writer.append(picture)
        except OSError:
            raise UserError(f"cannot write {path}: the encoder stopped; is the disk full?") from None

    try:
        yield Movie(append)
        writer.close()
        os.replace(part, path)
    finally:
        with suppress(OSError):
            writer.close()
        part.unlink(missing_ok=True)


class _Video:
    """An h264 file."""

    def __init__(self, path: Path, fps: float) -> None:
        self._writer = imageio.get_writer(
            path,
            format="FFMPEG",
            fps=fps,
            codec="libx264",
            pixelformat="yuv420p",
            quality=None,
            macro_block_size=BLOCK,
            output_params=["-crf", _CRF, "-movflags", "+faststart"],  # browsers start before all of it has arrived
        )
        self.append: Callable[[np.ndarray], None] = self._writer.append_data
        self.close: Callable[[], None] = self._writer.close


class _Animation:
    """A GIF or a WebP file, which repeats for ever; its pictures wait, compressed, until all are there."""

    def __init__(self, path: Path, fps: float, megabytes: float) -> None:
        self._path, self._fps, self._limit = path, fps, 1e6 * megabytes
        self._kept: list[bytes] = []
        self._number = 0

    def append(self, picture: np.ndarray) -> None:
        """Keep every other picture."""
        if self._number % 2 == 0:
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "JPEG", quality=95, subsampling=0)
            self._kept.append(buffer.getvalue())
        self._number += 1

    def close(self) -> None:
        """Write the file, once, in the best of the ways in which it is no larger than it may be."""
        if not self._kept:
            return
        kept, self._kept = self._kept, []
        way = 0
        while (size := self._save(kept, _WAYS[way])) > self._limit:
            if way == len(_WAYS) - 1:
                raise UserError(
                    f"a {self._path.suffix[1:]} of this film has at least {size / 1e6:.2g} MB, more than the "
                    f"{self._limit / 1e6:g} it may have: show fewer seconds, or smaller pictures"
                )
            wanted = _WAYS[way].cost * self._limit / size
            way = next((n for n in range(way + 1, len(_WAYS)) if _WAYS[n].cost <= wanted), len(_WAYS) - 1)

    def _save(self, kept: list[bytes], way: _Way) -> int:
        """Write the file in one way, and return its size."""
        pictures = [Image.open(io.BytesIO(data)) for data in kept[:: way.every]]
        width, height = (max(1, round(way.scale * edge)) for edge in pictures[0].size)
        scaled = [picture if way.scale == 1.0 else picture.resize((width, height)) for picture in pictures]
        options: dict[str, Any] = {"quality": way.quality, "method": 4}
        if self._path.suffix == ".gif":  # one palette for all, so that what stands still stays the same
            palette = scaled[len(scaled) // 2].convert("RGB").quantize(4 * way.quality)
            scaled = [p.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE) for p in scaled]
            options = {"optimize": False}
        first, *others = scaled
        duration = 2000.0 * way.every / self._fps  # [ms]
        first.save(self._path, save_all=True, append_images=others, duration=duration, loop=0, **options)
        return self._path.stat().st_size
