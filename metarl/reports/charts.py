"""The figures of a report, each an SVG element with one panel, in the colours and font of the page."""

from __future__ import annotations

import html
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from metarl.reports.captions import Content

COLOURS = 7
"""Number of colours that the page has for methods, `--c0` to `--c6`."""
INK, MUTED, _BAND = "#010203", "#040506", "#070809"
_METHOD = [f"#0a0b{number:02x}" for number in range(COLOURS)]
_VARIABLES = {INK: "--ink", MUTED: "--muted", _BAND: "--band"} | {c: f"--c{i}" for i, c in enumerate(_METHOD)}
_STYLE: Any = {
    **dict.fromkeys(("axes.labelcolor", "text.color", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    **dict.fromkeys(("axes.linewidth", "grid.linewidth"), 0.6),
    "grid.alpha": 0.18,
    "font.size": 9.0,
    "text.parse_math": False,  # a name may contain $
    "svg.fonttype": "none",
    "lines.solid_capstyle": "round",
}
_FEW = 12
"""Curves of up to this many episodes have error bars, longer ones a band."""
_JITTER = 0.36


class Palette:
    """Gives each method a colour, the same in every figure and in the page's legends.

    If there are more methods than colours, those of one family still differ as far as possible.
    """

    def __init__(self, families: Sequence[Sequence[str]]) -> None:
        """`families` are the labels of the methods of each family."""
        self._number: dict[str, int] = {}
        for label in sorted({label for family in families for label in family}):
            beside = {other for family in families if label in family for other in family}
            near = Counter(self._number[other] for other in beside if other in self._number)
            used = Counter(self._number.values())
            self._number[label] = min(range(COLOURS), key=lambda number: (near[number], used[number]))

    def colour(self, label: str) -> str:
        """The colour for matplotlib."""
        return _METHOD[self._number[label]]

    def variable(self, label: str) -> str:
        """The colour for the page."""
        return f"var(--c{self._number[label]})"


def learning_figure(family: Content, over: str, palette: Palette) -> str:
    """Plot the return of the last episode over `steps` or `minutes` of training: runs thin, their mean bold."""
    scale, unit = (1e6, "control steps [million]") if over == "steps" else (1.0, "training time [min]")
    with panel(f"learning curves on {family['name']} over {over}", unit, "return of an episode") as (axes, svg):
        for method in family["methods"]:
            curve = method["learning"].get(over)
            if curve is None:
                continue
            colour, x = palette.colour(method["label"]), np.array(curve["x"]) / scale
            if len(curve["runs"]) > 1:
                axes.fill_between(x, curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0)
                for run in curve["runs"].values():
                    axes.plot(np.array(run["x"]) / scale, run["last"], color=colour, linewidth=0.7, alpha=0.55)
            axes.plot(x, curve["first"], color=colour, linewidth=1.0, linestyle=(0, (1, 2)))
            axes.plot(x, curve["last"], color=colour, linewidth=1.8)
        axes.set_xlim(left=0)
        from_zero(axes)
    return "".join(svg)


def adaptation_figure(family: Content, split: str, palette: Palette) -> str:
    """Plot the return per episode with 95 % intervals, a line per method, dashed for sampled actions."""
    evaluations = [(m["label"], e) for m in family["methods"] for e in m["evaluations"]]
    shown = [(label, e) for label, e in evaluations if e["split"] == split]
    longest = max(evaluation["episodes"] for _, evaluation in shown)
    title = f"adaptation curves on {family['name']}, {split} tasks"
    with panel(title, "episode on a task", "return, interquartile mean") as (axes, svg):
        for number, (label, evaluation) in enumerate(shown):
            value, low, high = (np.array([p[key] for p in evaluation["iqm"]]) for key in ("value", "low", "high"))
            colour, dashes = palette.colour(label), "--" if evaluation["actions"] == "sampled" else "-"
            offset = (number - (len(shown) - 1) / 2) * min(0.05, 0.012 * longest)
            x = np.arange(1, len(value) + 1) + offset
            if longest <= _FEW:
                bars = np.maximum(0.0, [value - low, high - value])  # of a skewed sample one may be a hair negative
                axes.errorbar(x, value, bars, color=colour, linestyle=dashes, marker="o", markersize=3.5, capsize=2.5)
            else:
                axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
                axes.plot(x, value, color=colour, linestyle=dashes)
        axes.set_xlim(0.6, longest + 0.4)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        points = [point for _, evaluation in evaluations for point in evaluation["iqm"]]  # one range for all splits
        from_zero(axes, min(point["low"] for point in points), max(point["high"] for point in points))
    return "".join(svg)


def parameter_figure(family: Content, parameter: Content, palette: Palette) -> str:
    """Plot the return of each task's last episode over a task parameter; the training range is shaded."""
    known = [value for value, _, _ in parameter["categories"]]

    def place(values: Sequence[float]) -> np.ndarray:
        """Positions of values on the axis: the values themselves, or the numbers of their categories."""
        x = np.array(values)
        return np.abs(x[:, None] - known).argmin(axis=1).astype(float) if known else x

    title = f"return on {family['name']} over {parameter['name']}"
    with panel(title, parameter["label"], "return of the last episode") as (axes, svg):
        shaded = [parameter["span"]] if parameter["span"] else []
        shaded += [(i - 0.5, i + 0.5) for i, (_, _, trained) in enumerate(parameter["categories"]) if trained]
        for low, high in shaded:
            axes.axvspan(low, high, color=_BAND, linewidth=0.5 if known else 0, zorder=0)
        for returns in parameter["returns"]:
            colour, x = palette.colour(returns["label"]), place(returns["x"])
            if known:  # spread out what would lie on one line; by task, so that it is the same every time
                x = x + _JITTER * ((np.arange(len(x)) * 0.618) % 1.0 - 0.5)
            marker, size, face = ("D", 3.2, "none") if returns["split"] == "ood" else ("o", 3.0, colour)
            look: Any = {"marker": marker, "markersize": size, "markerfacecolor": face, "markeredgewidth": 0.8}
            axes.plot(x, returns["last"], linestyle="", color=colour, alpha=0.5, **look)
            bins = place([bin["x"] for bin in returns["trend"]])
            for episode, dashes, width in (("first", (0, (1, 1.6)), 1.3), ("last", "-", 1.8)):
                mean = [bin[episode] for bin in returns["trend"]]
                if known:
                    axes.hlines(mean, bins - 0.3, bins + 0.3, color=colour, linestyle=dashes, linewidth=width)
                else:
                    axes.plot(bins, mean, color=colour, linestyle=dashes, linewidth=width)
        from_zero(axes)
        if known:
            axes.set_xticks(np.arange(len(known)), [label for _, label, _ in parameter["categories"]])
            axes.grid(visible=False, axis="x")
        elif parameter["logarithmic"]:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
    return "".join(svg)


def swept_figure(axis: Content, of: str, lines: Sequence[Content], palette: Palette) -> str:
    """Plot a figure of each policy, with intervals, against what is swept; what they were trained in is shaded.

    `axis` has the range of the figure, `span`; `lines` have a `label`, the `value`, `low` and `high` at each place of
    the axis (not a number where there is none), and what it is without a sweep, `nominal`.
    """
    x = np.arange(len(axis["values"])) if axis["labels"] else np.array(axis["values"])
    unit = f" [{axis['unit']}]" if axis["unit"] not in ("", "1", "index") else ""
    with panel(f"{of} over {axis['name']}", f"{axis['name'].replace('_', ' ')}{unit}", of) as (axes, svg):
        if axis["trained"] and not axis["labels"]:
            axes.axvspan(*axis["trained"], color=_BAND, linewidth=0, zorder=0)
        for place, known in enumerate(axis["known"]):
            if known and axis["labels"]:
                axes.axvspan(place - 0.5, place + 0.5, color=_BAND, linewidth=0, zorder=0)
        for line in lines:
            colour = palette.colour(line["label"])
            value, low, high = (np.array(line[key], float) for key in ("value", "low", "high"))
            bars = np.maximum(0.0, [value - low, high - value])
            look: Any = {"linestyle": "" if axis["labels"] else "-", "marker": "o", "markersize": 3.5, "capsize": 2.5}
            axes.errorbar(x, value, bars, color=colour, **look)
            axes.axhline(line["nominal"], color=colour, linestyle=(0, (1, 2)), linewidth=1.0)
        if axis["labels"]:
            axes.set_xticks(x, axis["labels"])
            axes.grid(visible=False, axis="x")
        axes.set_ylim(*axis["span"])
    return "".join(svg)


def from_zero(axes: Axes, low: float | None = None, high: float | None = None) -> None:
    """Let the vertical axis hold 0, so that a small difference of large numbers looks small."""
    data = axes.dataLim
    low, high = min(0.0, float(data.y0) if low is None else low), max(0.0, float(data.y1) if high is None else high)
    room = 0.06 * (high - low) or 1.0
    axes.set_ylim(low - room if low < 0.0 else 0.0, high + room if high > 0.0 or low == 0.0 else 0.0)


@contextmanager
def panel(title: str, x: str, y: str, size: tuple[float, float] = (5.0, 3.2)) -> Iterator[tuple[Axes, list[str]]]:
    """Make a panel of a size [inches] to draw into; at the end its SVG element is put into the list.

    The element's ids are unique in the page, and its title is read to people who cannot see it.
    """
    svg: list[str] = []
    with mpl.rc_context(_STYLE | {"svg.hashsalt": title}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot(xlabel=x, ylabel=y)
        axes.yaxis.set_major_locator(MaxNLocator(6))
        yield axes, svg
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>f{zlib.crc32(title.encode()):x}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    svg.append(text.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1))
