"""The encoder writes pictures into a file, which gets its name once it is complete: h264, or an animated picture."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from metarl.core.errors import UserError

FORMATS = (".mp4", ".gif", ".webp")
"""What a file may end in: a video, or a picture that moves wherever pictures are shown, with every other frame."""
BLOCK = 16  # h264 codes blocks of 16 x 16 pixels; other sizes would be resampled
_CRF = "26"  # x264's constant rate factor: sharp enough for the moving ground, half the size of 21


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
def movie(path: Path, fps: float) -> Iterator[Movie]:
    """Open a file for writing. It gets its name when it is complete; an error before that leaves no file."""
    part = path.with_name(f".{path.stem}-{os.getpid()}.part{path.suffix.lower()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except (OSError, ValueError) as error:  # the latter of a NUL in the name
        raise UserError(f"cannot write {str(path)!r}: {getattr(error, 'strerror', error)}") from None
    writer: _Video | _Animation = (_Video if part.suffix == ".mp4" else _Animation)(part, fps)

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

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._duration = path, 2000.0 / fps  # [ms]
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
        """Write the file, once."""
        if not self._kept:
            return
        first, *others = (Image.open(io.BytesIO(data)) for data in self._kept)
        self._kept = []
        options = {"quality": 60, "method": 4} if self._path.suffix == ".webp" else {"optimize": True}
        first.save(self._path, save_all=True, append_images=others, duration=self._duration, loop=0, **options)
