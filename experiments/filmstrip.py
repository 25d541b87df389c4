"""Put frames of a video one above the other into one picture.

python experiments/filmstrip.py videos/half_cheetah_dir.mp4 videos/adaptation.png 0.6 3 10.9
"""

from __future__ import annotations

import sys
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from PIL import Image


def filmstrip(video: Path, output: Path, seconds: list[float]) -> None:
    """Write the frames at the given times [s] as one PNG with a reduced palette."""
    fps = imageio.immeta(video, plugin="FFMPEG")["fps"]
    wanted = {round(second * fps) for second in seconds}
    frames = [frame for i, frame in enumerate(imageio.imiter(video, plugin="FFMPEG")) if i in wanted]
    Image.fromarray(np.concatenate(frames)).quantize(128).save(output, optimize=True)


if __name__ == "__main__":
    filmstrip(Path(sys.argv[1]), Path(sys.argv[2]), [float(word) for word in sys.argv[3:]])
