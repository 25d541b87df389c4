"""Words in pictures, and tasks in words."""

from __future__ import annotations

import re
from collections.abc import Mapping

from PIL import ImageDraw, ImageFont

from metarl.tasks import TaskSpace, Value

WHITE, GREY = (255, 255, 255), (200, 200, 200)


def write(
    pen: ImageDraw.ImageDraw,
    where: tuple[int, int],
    text: str,
    size: int,
    room: int,
    anchor: str,
    colour: tuple[int, int, int] = WHITE,
) -> None:
    """Text at a point, in a smaller font where it is wider than `room`."""
    font = ImageFont.load_default(size)
    while size > 8 and pen.textlength(text, font) > room:
        size -= 1
        font = ImageFont.load_default(size)
    pen.text(where, text, colour, font, anchor)


def describe(space: TaskSpace, row: Mapping[str, Value]) -> str:
    """A task in words: `velocity 1.72 m/s`, or `mass 0.93, dead_joint bfoot`; of a long vector its range."""
    words = []
    for name, parameter in space.parameters.items():
        unit = "" if parameter.unit in ("1", "index", "") else f" {parameter.unit}"
        words.append(f"{name} {parameter.label(row[name]) or _number(row[name])}{unit}")
    return ", ".join(words)


def _number(value: Value) -> str:
    if isinstance(value, list) and len(value) > 3:
        return f"{_number(min(value))} to {_number(max(value))}"
    if isinstance(value, list):
        return "(" + ", ".join(_number(item) for item in value) + ")"
    if value == round(value):
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def kebab(name: str) -> str:
    """`HalfCheetahVel` -> `half-cheetah-vel`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
