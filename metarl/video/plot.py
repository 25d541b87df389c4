"""The plot under a picture shows how the return and the policy's read-outs develop, and what is true of the task."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from metarl.rl.policy import BAND
from metarl.video.layout import Shot
from metarl.video.lettering import GREY, write
from metarl.video.take import Take

_FINE = 2  # drawn this many times larger, then reduced: smooth lines
_MAX_LINES = 8  # what has more components is shown by its principal ones
_MAX_PANELS = 4  # beside the return
_COMPONENTS = 3
_PAPER, _AXIS, _FAINT = (24, 24, 24), (70, 70, 70), (95, 105, 125)
_COLOURS = (
    (95, 180, 255),
    (255, 165, 70),
    (120, 220, 120),
    (235, 120, 205),
    (240, 220, 90),
    (150, 140, 255),
    (110, 225, 220),
    (255, 120, 110),
)
"""Colours of the lines, distinct on the dark ground."""


@dataclass(frozen=True)
class Panel:
    """The scales of one panel of the plot."""

    name: str
    low: float
    high: float
    steps: int
    """Length of the horizontal axis [control steps]."""


class Plot:
    """Plots the return over the episode, earlier ones faintly, and the policy's read-outs over the whole trial."""

    def __init__(self, take: Take, shots: Iterable[Shot], size: tuple[int, int], limit: int, window: int) -> None:
        """`size` is that of the picture above, `limit` the longest that is shown of an episode [steps].

        Signals of many components are averaged over the last `window` steps. All shots share the scales.
        """
        self.width, self.height = size[0], max(48, round(size[1] * 0.3 / 16) * 16)
        self._take, self._limit = take, limit
        shown = list(shots)
        curves = [self._curve(s.world, e) for s in shown for e in range(s.episode + 1)]
        self._return = _panel("return", curves, max(map(len, curves)) - 1)
        self._read_outs = []
        for name in [name for name in take.read_outs if not name.endswith(BAND)][:_MAX_PANELS]:
            title, lines = _lines(name, take.read_outs[name], window)
            band = take.read_outs.get(name + BAND) if title == name else None
            band = np.zeros_like(lines) if band is None else band
            true = _true(take, name, lines)
            panel = _panel(title, [lines - band, lines + band, true], len(lines) - 1)
            self._read_outs.append((panel, lines, band, true))

    def draw(self, shot: Shot, age: int) -> UInt8[np.ndarray, "h W 3"]:
        """Draw the plot as it is `age` steps into the shot's episode."""
        image = Image.new("RGB", (self.width * _FINE, self.height * _FINE), _PAPER)
        pen = ImageDraw.Draw(image)
        wide = self.width * _FINE / (1 + len(self._read_outs))
        episodes = [self._curve(shot.world, episode) for episode in range(shot.episode + 1)]
        frame = self._frame(pen, self._return, 0.0, wide)
        for earlier in episodes[:-1]:
            frame.line(earlier, _FAINT, 1)
        frame.line(episodes[-1][: age + 1], _COLOURS[0], 2)
        starts = self._take.starts[shot.world]
        now = min(starts[shot.episode] + age, starts[shot.episode + 1])
        for number, (panel, lines, band, true) in enumerate(self._read_outs, start=1):
            frame = self._frame(pen, panel, number * wide, wide)
            for start in starts[1 : shot.episode + 1]:
                frame.mark(start)
            columns = list(zip(lines[:now, shot.world].T, band[:now, shot.world].T, _COLOURS, strict=False))
            for column, spread, colour in columns:
                frame.band(column, spread, colour)
            for column, colour in zip(true[:now, shot.world].T, _COLOURS, strict=False):
                red, green, blue = (round(0.75 * part) for part in colour)
                frame.line(column, (red, green, blue), 1)
            for column, _, colour in columns:
                frame.line(column, colour, 2)
        return np.asarray(image.reduce(_FINE))

    def _curve(self, world: int, episode: int) -> Float[np.ndarray, "L1"]:
        return self._take.collected(world, episode)[: self._limit + 1]

    def _frame(self, pen: ImageDraw.ImageDraw, panel: Panel, left: float, wide: float) -> _Frame:
        """Draw an empty panel with its name and scale."""
        text = max(9, round(self.height / 8)) * _FINE
        gap = 4 * _FINE
        box = (left + gap, float(text + gap), left + wide - gap, float(self.height * _FINE - gap))
        frame = _Frame(pen, panel, box)
        pen.rectangle(box, outline=_AXIS)
        if panel.low < 0.0 < panel.high:
            frame.level(0.0)
        room, middle = round(wide) - 4 * gap, text // 2 + gap // 2
        scale = f"{panel.low:.4g} to {panel.high:.4g}"
        write(pen, (round(left) + 2 * gap, middle), panel.name, text, room, "lm")
        taken = pen.textlength(panel.name, font_size=text)
        if taken + pen.textlength(scale, font_size=round(0.85 * text)) + 4 * gap < wide:
            write(pen, (round(left + wide) - 2 * gap, middle), scale, round(0.85 * text), room, "rm", GREY)
        return frame


@dataclass(frozen=True)
class _Frame:
    """A panel at its place in the image."""

    pen: ImageDraw.ImageDraw
    panel: Panel
    box: tuple[float, float, float, float]
    """Left, upper, right and lower edge [pixels]."""

    def line(self, values: Float[np.ndarray, "L"], colour: tuple[int, int, int], width: int) -> None:
        """Draw values of successive steps, from the left edge on."""
        if len(values) > 1:
            x, y = self._across(np.arange(len(values))), self._up(values)
            self.pen.line(np.stack((x, y), axis=1).ravel().tolist(), colour, width * _FINE)

    def band(self, values: np.ndarray, spread: np.ndarray, colour: tuple[int, int, int]) -> None:
        """Shade what lies within `spread` of values of successive steps."""
        if len(values) > 1 and spread.any():
            x = self._across(np.arange(len(values)))
            edges = np.concatenate(
                (np.stack((x, self._up(values + spread)), 1), np.stack((x, self._up(values - spread)), 1)[::-1])
            )
            self.pen.polygon(edges.ravel().tolist(), fill=tuple(round(0.35 * part) for part in colour))

    def mark(self, step: int) -> None:
        """Draw a vertical line at a step."""
        x = float(self._across(np.asarray([step]))[0])
        self.pen.line((x, self.box[1], x, self.box[3]), _AXIS, _FINE)

    def level(self, value: float, colour: tuple[int, ...] = _AXIS) -> None:
        """Draw a horizontal line at a value."""
        y = float(self._up(np.asarray([value]))[0])
        self.pen.line((self.box[0], y, self.box[2], y), colour, _FINE)

    def _across(self, steps: np.ndarray) -> np.ndarray:
        left, _, right, _ = self.box
        return left + (right - left) * steps / max(1, self.panel.steps)

    def _up(self, values: np.ndarray) -> np.ndarray:
        _, upper, _, lower = self.box
        inset = 2.0 * _FINE
        share = (values - self.panel.low) / (self.panel.high - self.panel.low)
        return lower - inset - (lower - upper - 2 * inset) * share


def _panel(name: str, values: list[np.ndarray], steps: int) -> Panel:
    values = [v for v in values if v.size]
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    if high - low < 1e-9:
        high = low + 1.0
    return Panel(name, low, high, steps)


def _true(take: Take, name: str, lines: Float[np.ndarray, "T N C"]) -> Float[np.ndarray, "T N D"]:
    """The privileged numbers that a read-out is of, in the same units; none where it is of something else."""
    found = take.privileged.get(name)
    return lines[..., :0] if found is None or found.shape != lines.shape else found


def _lines(name: str, values: Float[np.ndarray, "T N D"], window: int) -> tuple[str, Float[np.ndarray, "T N C"]]:
    """Reduce a read-out to few lines; returns its name for the plot and the lines.

    The units of a memory vary more with the gait than with what the policy knows, so the principal components of
    their running mean are shown.
    """
    if values.shape[2] <= _MAX_LINES:
        return name, values
    lines, share = principal(running_mean(values, window), _COMPONENTS)
    return f"{name}: {_COMPONENTS} directions, {share:.0%}", lines


def running_mean(values: Float[np.ndarray, "T N D"], window: int) -> Float[np.ndarray, "T N D"]:
    """Mean over the last `window` steps; at the beginning over fewer."""
    total = np.concatenate((np.zeros_like(values[:1], np.float64), values.cumsum(axis=0, dtype=np.float64)))
    now = np.arange(1, len(total))
    start = np.maximum(now - window, 0)
    mean: np.ndarray = (total[now] - total[start]) / (now - start)[:, None, None]
    return mean


def principal(values: Float[np.ndarray, "T N D"], number: int) -> tuple[Float[np.ndarray, "T N C"], float]:
    """Projection on the first principal components over all steps and worlds, and their share of the variance.

    The sign of a component is such that its largest coefficient is positive.
    """
    flat = values.reshape(-1, values.shape[2]).astype(np.float64)
    centred = flat - flat.mean(axis=0)
    variances, vectors = np.linalg.eigh(centred.T @ centred)  # ascending
    directions = vectors[:, : -number - 1 : -1]
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, np.arange(number)])
    share = variances[-number:].sum() / max(variances.sum(), 1e-12)
    return (centred @ directions).reshape(*values.shape[:2], number), float(share)
