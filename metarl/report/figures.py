"""The figures of a report, one panel each, as SVG to stand in a page: its colours are the page's, its text is text."""

from __future__ import annotations

import html
import io
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

COLOURS = 7
"""Colours the page has for methods, `--c0` to `--c6`."""
_INK, _MUTED, _BAND = "#010203", "#040506", "#070809"
_METHOD = [f"#0a0b{number:02x}" for number in range(COLOURS)]
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _BAND: "--band"} | {c: f"--c{i}" for i, c in enumerate(_METHOD)}
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": _MUTED,
    "grid.alpha": 0.18,
    "grid.linewidth": 0.6,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "text.color": _INK,
    "lines.solid_capstyle": "round",
}
_SIZE = (5.0, 3.2)
_FEW = 12
"""Up to so many episodes have error bars, more a band."""
_JITTER = 0.36


class Palette:
    """A method's colour, the same in every figure and in the page's legends.

    Of more methods than colours, those that are shown on the same family still differ, as far as the colours reach.
    """

    def __init__(self, families: Sequence[Sequence[str]]) -> None:
        """Labels of the methods of each family."""
        self._number: dict[str, int] = {}
        for label in sorted({label for family in families for label in family}):
            beside = {other for family in families if label in family for other in family}
            near = Counter(self._number[other] for other in beside if other in self._number)
            used = Counter(self._number.values())
            self._number[label] = min(range(COLOURS), key=lambda number: (near[number], used[number]))

    def colour(self, label: str) -> str:
        """For matplotlib."""
        return _METHOD[self._number[label]]

    def variable(self, label: str) -> str:
        """For the page."""
        return f"var(--c{self._number[label]})"


def learning_figure(family: Mapping[str, Any], over: str, palette: Palette) -> str:
    """Return of the last episode while training, over `steps` or `minutes`; each run thin, their mean bold."""
    with mpl.rc_context(_STYLE):
        figure, axes = _panel()
        scale = 1e6 if over == "steps" else 1.0
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
        axes.set_xlabel("control steps [million]" if over == "steps" else "training time [min]")
        axes.set_ylabel("return of an episode")
        axes.set_xlim(left=0)
        return _svg(figure, f"learning curves on {family['name']} over {over}")


def adaptation_figure(family: Mapping[str, Any], split: str, palette: Palette) -> str:
    """Return per episode with 95 % intervals, a line per method; dashed with sampled actions."""
    with mpl.rc_context(_STYLE):
        figure, axes = _panel()
        shown = [(m, e) for m in family["methods"] for e in m["evaluations"] if e["split"] == split]
        longest = max(evaluation["episodes"] for _, evaluation in shown)
        for number, (method, evaluation) in enumerate(shown):
            value, low, high = (np.array([p[key] for p in evaluation["iqm"]]) for key in ("value", "low", "high"))
            colour, dashes = palette.colour(method["label"]), "--" if evaluation["actions"] == "sampled" else "-"
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
        axes.set_xlabel("episode on a task")
        axes.set_ylabel("return, interquartile mean")
        axes.set_ylim(_limits(family))
        return _svg(figure, f"adaptation curves on {family['name']}, {split} tasks")


def _limits(family: Mapping[str, Any]) -> tuple[float, float]:
    """One range for all splits of a family, so that they can be compared."""
    points = [p for method in family["methods"] for e in method["evaluations"] for p in e["iqm"]]
    low, high = min(point["low"] for point in points), max(point["high"] for point in points)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def parameter_figure(family: Mapping[str, Any], parameter: Mapping[str, Any], palette: Palette) -> str:
    """Return of the last episode of each task over a task parameter; the training range is shaded."""
    with mpl.rc_context(_STYLE):
        figure, axes = _panel()
        places = {value: place for place, (value, _, _) in enumerate(parameter["categories"])}
        _shade(axes, parameter)
        for returns in parameter["returns"]:
            colour, ood = palette.colour(returns["label"]), returns["split"] == "ood"
            x = np.array([_place(value, places) for value in returns["x"]])
            if places:  # spread out what would lie on one line; by task, so that it is the same every time
                x = x + _JITTER * ((np.arange(len(x)) * 0.618) % 1.0 - 0.5)
            look: Any = (
                {"markerfacecolor": "none", "marker": "D", "markersize": 3.2}
                if ood
                else {"marker": "o", "markersize": 3}
            )
            axes.plot(x, returns["last"], linestyle="", color=colour, alpha=0.5, markeredgewidth=0.8, **look)
            bins = np.array([_place(bin["x"], places) for bin in returns["trend"]])
            for episode, dashes, width in (("first", (0, (1, 1.6)), 1.3), ("last", "-", 1.8)):
                mean = [bin[episode] for bin in returns["trend"]]
                if places:
                    axes.hlines(mean, bins - 0.3, bins + 0.3, color=colour, linestyle=dashes, linewidth=width)
                else:
                    axes.plot(bins, mean, color=colour, linestyle=dashes, linewidth=width)
        if places:
            axes.set_xticks(
                [float(place) for place in places.values()], [label for _, label, _ in parameter["categories"]]
            )
            axes.grid(visible=False, axis="x")
        elif parameter["logarithmic"]:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        axes.set_xlabel(parameter["label"])
        axes.set_ylabel("return of the last episode")
        return _svg(figure, f"return on {family['name']} over {parameter['name']}")


def _place(value: float, places: Mapping[float, int]) -> float:
    """Where a value stands: itself, or the number of its category."""
    return value if not places else float(places[min(places, key=lambda known: abs(known - value))])


def _shade(axes: Axes, parameter: Mapping[str, Any]) -> None:
    """The training range, or every category of it."""
    if parameter["span"]:
        low, high = parameter["span"]
        axes.axvspan(low, high, color=_BAND, linewidth=0, zorder=0)
    for place, (_, _, trained) in enumerate(parameter["categories"]):
        if trained:
            axes.axvspan(place - 0.5, place + 0.5, color=_BAND, linewidth=0.5, zorder=0)


# --------------------------------------------------------------------------------------------------------- drawing


def _panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.yaxis.set_major_locator(MaxNLocator(6))
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    """The SVG element, with ids of its own, the page's colours and font, and a title for those who cannot see it."""
    for spine in figure.axes[0].spines.values():
        spine.set_linewidth(0.6)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    prefix = f"f{zlib.crc32(title.encode()):x}"
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"|height="[\d.]+pt"|width="[\d.]+pt"', "", text, count=2)
    words = html.escape(title)
    return text.replace("<svg", f'<svg role="img" aria-label="{words}"', 1)
