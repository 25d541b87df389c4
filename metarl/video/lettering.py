"""Text drawn into pictures, and descriptions of tasks as text."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from PIL import ImageDraw, ImageFont

from metarl.core.tasks import TaskSpace, Value
from metarl.sim.task_code import decoder, trained_range

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
WHITE, GREY = (255, 255, 255), (200, 200, 200)
_SMALLEST = 8
"""The smallest font size that can be read [pixels]."""
_NOTHING: Mapping[str, np.ndarray] = {}


def write(
    pen: ImageDraw.ImageDraw,
    where: tuple[int, int],
    text: str,
    size: int,
    room: int,
    anchor: str,
    colour: tuple[int, int, int] = WHITE,
) -> None:
    """Draw text at a point. Text wider than `room` gets a smaller font, then two lines, and is cut at last."""
    lines, font = _fitted(text, size, room)
    pen.text(where, lines, colour, font, anchor, spacing=1)


@functools.lru_cache(1024)  # the captions of a film are the same in most of its pictures
def _fitted(text: str, size: int, room: int) -> tuple[str, Font]:
    """The lines that are drawn, and their font."""
    while size > _SMALLEST and _too_wide(text, size, room):
        size -= 1
    lines = [_cut(line, size, room) for line in _halves(text)] if _too_wide(text, size, room) else [text]
    return "\n".join(lines), _font(size)


@functools.cache
def _font(size: int) -> Font:
    return ImageFont.load_default(size)


def _too_wide(text: str, size: int, room: int) -> bool:
    return _font(size).getlength(text) > room


def _halves(text: str) -> list[str]:
    """Split the text after the comma nearest to its middle; text without a comma stays one line."""
    commas = [match.end() for match in re.finditer(", ", text)]
    place = min(commas, key=lambda end: abs(2 * end - len(text)), default=len(text))
    return [half for half in (text[:place].rstrip(), text[place:]) if half]


def _cut(text: str, size: int, room: int) -> str:
    while len(text) > 1 and _too_wide(text, size, room):
        text = text.removesuffix("…")[:-1].rstrip(", ") + "…"
    return text


def describe(space: TaskSpace, row: Mapping[str, Value], now: Mapping[str, np.ndarray] = _NOTHING) -> str:
    """Describe a task: `velocity 1.72 m/s`, or `mass 0.93, dead_joint bfoot`.

    A vector of more than four numbers is shown as its range, unless they are whole and few. `now` are the privileged
    numbers of an instant: of what changes in an episode the present value is shown, and of a fault that has not come,
    or is over, that it is not now.
    """
    words = []
    for name, parameter in space.parameters.items():
        unit = "" if parameter.unit in ("1", "index", "") else f" {parameter.unit}"
        value = row[name]
        if f"present_{name}" in now and trained_range(parameter) is not None:
            present = decoder(parameter)(now[f"present_{name}"]).tolist()
            value = present[0] if len(present) == 1 else present
        words.append(f"{name} {parameter.label(value) or _number(value)}{unit}")
    sound = all(row[name] == parameter.nominal for name, parameter in space.parameters.items())
    return ", ".join(words) + (" (not now)" if "fault" in now and not now["fault"].any() and not sound else "")


def _number(value: Value) -> str:
    if isinstance(value, list) and len(value) > (8 if all(item == round(item) for item in value) else 4):
        return f"{_number(min(value))} to {_number(max(value))}"
    if isinstance(value, list):
        return "(" + ", ".join(_number(item) for item in value) + ")"
    if value == round(value):
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"
