"""Small charts as SVG, drawn anew several times a second: lines, bands, bars and trails."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

INK, MUTED = "currentColor", "#8a939d"
BLUE, ORANGE, GREEN, PURPLE, SKY, GOLD = "#1c7fc4", "#e0752b", "#2f9e5b", "#a05fa8", "#5fb3e6", "#c8940c"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, GOLD)
_POINTS = 160  # of a line, at most
_LEFT, _RIGHT, _TOP, _BOTTOM = 38.0, 8.0, 6.0, 16.0
WIDTH, HEIGHT = 320.0, 92.0


@dataclass(frozen=True)
class Line:
    """A line of a chart, or with `low` and `high` a band about it."""

    y: Float[np.ndarray, "T"]
    color: str = BLUE
    width: float = 1.6
    dashed: bool = False
    low: Float[np.ndarray, "T"] | None = None
    high: Float[np.ndarray, "T"] | None = None


def chart(
    x: Float[np.ndarray, "T"],
    lines: Sequence[Line],
    *,
    title: str = "",
    note: str = "",
    least: tuple[float, float] | None = None,
    zones: Sequence[tuple[float, float]] = (),
    height: float = HEIGHT,
) -> str:
    """Lines over time. `least` is what the y axis shows at least, `zones` are ranges of y that are shaded."""
    shown = [value for line in lines for value in (line.y, line.low, line.high) if value is not None]
    values = np.concatenate([np.ravel(value) for value in shown]) if shown else np.zeros(1)
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    low, high = min(low, least[0]) if least else low, max(high, least[1]) if least else high
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    room = 0.04 * (high - low)
    axes = _Axes(
        (float(x[0]), max(float(x[-1]), float(x[0]) + 1e-6)) if len(x) else (0.0, 1.0),
        (low - room, high + room),
        height,
    )
    parts = [axes.frame()]
    parts += [axes.zone(max(bottom, low - room), min(top, high + room)) for bottom, top in zones]
    pick = np.unique(np.linspace(0, len(x) - 1, min(len(x), _POINTS)).astype(int)) if len(x) else np.zeros(0, int)
    for line in lines:
        if line.low is not None and line.high is not None and len(pick):
            parts.append(axes.band(x[pick], line.low[pick], line.high[pick], line.color))
    parts += [axes.line(x[pick], line.y[pick], line) for line in lines if len(pick)]
    return _figure(parts, height, title, note)


def bars(rows: Sequence[tuple[str, float, str]], *, title: str = "", note: str = "", full: float = 0.0) -> str:
    """Signed bars with their names and values; `full` is the length that fills half of the figure at least."""
    height = 15.0 * len(rows) + 4.0
    scale = max([full, 1e-9, *(abs(value) for _, value, _ in rows if math.isfinite(value))])
    middle, half = 0.56 * WIDTH, 0.24 * WIDTH
    parts = [f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="0" y2="{height:.0f}" stroke="{MUTED}" stroke-width=".6"/>']
    for number, (name, value, color) in enumerate(rows):
        y, length = 15.0 * number + 2.0, half * (value / scale if math.isfinite(value) else 0.0)
        parts.append(_text(2.0, y + 9, name, anchor="start"))
        left = min(middle, middle + length)
        parts.append(
            f'<rect x="{left:.1f}" y="{y:.1f}" width="{abs(length):.1f}" height="10" rx="1.5" fill="{color}"/>'
        )
        parts.append(_text(WIDTH - 2, y + 9, f"{value:+.2f}", anchor="end"))
    return _figure(parts, height, title, note)


def chances(rows: Sequence[tuple[str, float, bool]], *, title: str = "", note: str = "") -> str:
    """A bar from 0 to 1 for each possibility, the true one marked."""
    height = 15.0 * len(rows) + 4.0
    left, room = 0.34 * WIDTH, 0.5 * WIDTH
    parts = []
    for number, (name, value, true) in enumerate(rows):
        y, share = 15.0 * number + 2.0, min(max(value, 0.0), 1.0)
        parts.append(_text(2.0, y + 9, ("▸ " if true else "") + name, anchor="start", bold=true))
        parts.append(
            f'<rect x="{left:.1f}" y="{y:.1f}" width="{room:.1f}" height="10" rx="1.5" fill="{MUTED}" opacity=".18"/>'
        )
        color = GREEN if true else BLUE
        parts.append(
            f'<rect x="{left:.1f}" y="{y:.1f}" width="{room * share:.1f}" height="10" rx="1.5" fill="{color}"/>'
        )
        parts.append(_text(WIDTH - 2, y + 9, f"{value:.0%}", anchor="end"))
    return _figure(parts, height, title, note)


def trail(points: Float[np.ndarray, "T 2"], groups: Sequence[int], *, title: str = "", note: str = "") -> str:
    """A path in a plane, a colour for each group of it, the older the paler, and where it is now."""
    height, width = 150.0, WIDTH
    if not len(points):
        return _figure([], height, title, note)
    centre, spread = (points.max(axis=0) + points.min(axis=0)) / 2, float(np.ptp(points, axis=0).max()) or 1.0
    scale = 0.88 * height / spread
    x, y = width / 2 + scale * (points[:, 0] - centre[0]), height / 2 - scale * (points[:, 1] - centre[1])
    pick = np.unique(np.linspace(0, len(x) - 1, min(len(x), 2 * _POINTS)).astype(int))
    parts, pieces = [], 24
    for piece in np.array_split(np.arange(len(pick)), min(pieces, len(pick))):
        piece = np.append(piece, min(piece[-1] + 1, len(pick) - 1))
        color = COLORS[int(groups[pick[piece[0]]]) % len(COLORS)]
        opacity = 0.12 + 0.78 * (piece[-1] / max(len(pick) - 1, 1)) ** 2
        path = " ".join(f"{x[pick[i]]:.1f},{y[pick[i]]:.1f}" for i in piece)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.4" opacity="{opacity:.2f}"/>'
        )
    color = COLORS[int(groups[-1]) % len(COLORS)]
    parts.append(f'<circle cx="{x[-1]:.1f}" cy="{y[-1]:.1f}" r="4.5" fill="{color}" stroke="{INK}" stroke-width="1"/>')
    return _figure(parts, height, title, note)


class _Axes:
    """From values to points of the figure."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], height: float) -> None:
        self._x, self._y, self._height = x, y, height

    def _at(self, x: Float[np.ndarray, "T"], y: Float[np.ndarray, "T"]) -> str:
        across = _LEFT + (WIDTH - _LEFT - _RIGHT) * (x - self._x[0]) / (self._x[1] - self._x[0])
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, self._down(y), strict=True) if math.isfinite(b))

    def _down(self, y: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
        room = self._height - _TOP - _BOTTOM
        down: np.ndarray = _TOP + room * (self._y[1] - np.clip(y, *self._y)) / (self._y[1] - self._y[0])
        return down

    def line(self, x: Float[np.ndarray, "T"], y: Float[np.ndarray, "T"], line: Line) -> str:
        dash = ' stroke-dasharray="4 3"' if line.dashed else ""
        return (
            f'<polyline points="{self._at(x, y)}" fill="none" stroke="{line.color}" stroke-width="{line.width}" '
            f'stroke-linejoin="round"{dash}/>'
        )

    def band(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, color: str) -> str:
        points = f"{self._at(x, high)} {self._at(x[::-1], low[::-1])}"
        return f'<polygon points="{points}" fill="{color}" opacity=".22"/>'

    def zone(self, low: float, high: float) -> str:
        if high <= low:
            return ""
        top, bottom = self._down(np.array([high, low]))
        size = f'width="{WIDTH - _LEFT - _RIGHT:.1f}" height="{bottom - top:.1f}"'
        return f'<rect x="{_LEFT}" y="{top:.1f}" {size} fill="{MUTED}" opacity=".13"/>'

    def frame(self) -> str:
        """Grid lines with round numbers at both axes."""
        parts = []
        for value in ticks(*self._y, most=4):
            y = float(self._down(np.array([value]))[0])
            ends = f'x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
            parts.append(f'<line {ends} stroke="{MUTED}" stroke-width=".5" opacity=".45"/>')
            parts.append(_text(_LEFT - 4, y + 3, f"{value:g}", anchor="end", muted=True))
        for value in ticks(*self._x, most=5):
            x = _LEFT + (WIDTH - _LEFT - _RIGHT) * (value - self._x[0]) / (self._x[1] - self._x[0])
            parts.append(_text(x, self._height - 3, f"{value:g} s", muted=True))
        return "".join(parts)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers within a range, at most so many."""
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return []
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (power * factor) <= most)
    first = math.ceil(low / step - 1e-9)
    found = [round(number * step, 12) + 0.0 for number in range(first, math.floor(high / step + 1e-9) + 1)]
    return found[:most]


def _text(x: float, y: float, text: str, anchor: str = "middle", muted: bool = False, bold: bool = False) -> str:
    look = f'fill="{MUTED if muted else INK}" font-size="9.5"' + (' font-weight="600"' if bold else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {look}>{html.escape(text)}</text>'


def _figure(parts: Sequence[str], height: float, title: str, note: str) -> str:
    small = f'<div style="font-size:10.5px;color:{MUTED};font-weight:400">{html.escape(note)}</div>' if note else ""
    head = (
        f'<div style="font-size:12.5px;font-weight:600;margin:6px 0 2px">{html.escape(title)}{small}</div>'
        if title
        else ""
    )
    box = f'viewBox="0 0 {WIDTH:g} {height:g}" style="width:100%;display:block"'
    drawn = f'<svg {box} xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    return f'<div style="padding:0 .75em .35em">{head}{drawn}</div>'
