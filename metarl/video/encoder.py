"""The encoder writes pictures into an h264 file, which gets its name once it is complete."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
from jaxtyping import UInt8

from metarl.core.errors import UserError

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
    """Open a video file for writing. It gets its name when it is complete; an error before that leaves no file."""
    part = path.with_name(f".{path.stem}-{os.getpid()}.part.mp4")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except (OSError, ValueError) as error:  # the latter of a NUL in the name
        raise UserError(f"cannot write {str(path)!r}: {getattr(error, 'strerror', error)}") from None
    writer = imageio.get_writer(
        part,
        format="FFMPEG",
        fps=fps,
        codec="libx264",
        pixelformat="yuv420p",
        quality=None,
        macro_block_size=BLOCK,
        output_params=["-crf", _CRF, "-movflags", "+faststart"],  # browsers start before the whole file has arrived
    )

    def append(picture: np.ndarray) -> None:
        try:
            writer.append_data(picture)
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
