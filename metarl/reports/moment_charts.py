"""Figures of what is recovered, of a trial's first seconds, of faults, beliefs, and two task parameters at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MultipleLocator

from metarl.reports.captions import Content
from metarl.reports.charts import INK, MUTED, Palette, from_zero, panel

_LEAST, _MOST = -0.5, 1.6
"""Shares of a headroom that are drawn in their place; what lies beyond is named at the edge."""


def recovered_figure(families: Sequence[Content], palette: Palette) -> str:
    """Plot what each method recovers of its family's headroom, between memoryless (0) and oracle (1)."""
    rows = [
        (family["name"], label, own)
        for family in families
        for label, own in family["headroom"]["recovered"].items()
        if own["value"] is not None
    ]
    size = (6.0, 0.65 + 0.25 * len(rows))
    with panel("recovered share of the headroom", "share of the headroom", "", size) as (axes, svg):
        axes.axvline(0.0, color=MUTED, linewidth=1.0)
        axes.axvline(1.0, color=MUTED, linewidth=1.0)
        for row, (_, label, own) in enumerate(rows):
            point, colour = own["value"], palette.colour(label)
            ends = np.maximum(0.0, [[point["value"] - point["low"]], [point["high"] - point["value"]]])
            axes.errorbar([point["value"]], [row], xerr=ends, color=colour, marker="o", markersize=5, capsize=3)
            if len(own["by_seed"]) > 1:
                axes.plot(own["by_seed"], [row] * len(own["by_seed"]), "|", color=colour, markersize=9, alpha=0.6)
        lows, highs = ([own["value"][key] for *_, own in rows] for key in ("low", "high"))
        left, right = max(_LEAST, min(-0.05, *lows) - 0.02), min(_MOST, max(1.1, *highs) + 0.02)
        axes.set_xlim(left, right)
        for row, (_, label, own) in enumerate(rows):
            value, colour = own["value"]["value"], palette.colour(label)
            if not left <= value <= right:  # one that is far off would make all others one
                edge, side, words = (left, "left", "◂ {}") if value < left else (right, "right", "{} ▸")
                axes.text(edge, row, words.format(_percent(value)), color=colour, ha=side, va="center", fontsize=8)
        axes.set_yticks(range(len(rows)), [_method(name, label) for name, label, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.xaxis.set_major_locator(MultipleLocator(0.5))
        axes.xaxis.set_major_formatter(lambda value, _: _percent(value))
        axes.grid(visible=False, axis="y")
    return "".join(svg)


def _method(family: str, label: str) -> str:
    """`ant-dir: rl2`; the name of its run where the label has that and it tells the family too."""
    run = label.partition("(")[2].removesuffix(")")
    return run if run.startswith(f"{family}-") else f"{family}: {label}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %".replace("-", "−")


def reward_figure(family: Content, palette: Palette) -> str:
    """Plot the reward in the first seconds of the first episode on a task, and dotted of the last."""
    with panel(f"reward on {family['name']} over an episode", "time in the episode [s]", "reward per step") as (
        axes,
        svg,
    ):
        for line in family["rewards"]:
            colour = palette.colour(line["label"])
            if line["episodes"] > 1:
                axes.plot(line["seconds"], line["last"], color=colour, linewidth=1.1, linestyle=(0, (1, 1.6)))
            axes.plot(line["seconds"], line["first"], color=colour, linewidth=1.7)
        axes.set_xlim(left=0.0)
        from_zero(axes)
    return "".join(svg)


def recovery_figure(family: Content, palette: Palette) -> str:
    """Plot the reward around the onset of a fault."""
    title = f"reward on {family['name']} around a fault"
    with panel(title, "time from the fault's onset [s]", "reward per second") as (axes, svg):
        axes.axvline(0.0, color=INK, linewidth=1.0, linestyle=(0, (3, 2)))
        for line in family["recoveries"]:
            axes.plot(line["seconds"], line["reward"], color=palette.colour(line["label"]), linewidth=1.5)
        from_zero(axes)
    return "".join(svg)


def error_figure(family: Content, palette: Palette) -> str:
    """Plot how wrong what a policy believes of its task is, over the trial; thin by task parameter."""
    title = f"what it believes of its task on {family['name']}"
    with panel(title, "time in the trial [s]", "error (1: knows nothing)") as (axes, svg):
        axes.axhline(1.0, color=MUTED, linewidth=1.0, linestyle=(0, (3, 2)))
        for line in family["errors"]:
            colour = palette.colour(line["label"])
            for own in line["by_name"].values() if len(line["by_name"]) > 1 else ():
                axes.plot(line["seconds"], own, color=colour, linewidth=0.6, alpha=0.5)
            axes.plot(line["seconds"], line["error"], color=colour, linewidth=1.8, marker="o", markersize=3)
        axes.set_xlim(left=0.0)
        from_zero(axes)
    return "".join(svg)


def surface_figure(family: Content, number: int) -> str:
    """Map a method's return over two task parameters; one scale of colours for all methods."""
    across, up = family["surface"]["axes"]
    one = family["surface"]["maps"][number]
    known = [v for m in family["surface"]["maps"] for row in m["returns"] for v in row if v is not None]
    title = f"return of {one['label']} on {family['name']} over {across['name']} and {up['name']}"
    with panel(title, across["label"], up["label"]) as (axes, svg):
        cells = np.array([[np.nan if v is None else v for v in row] for row in one["returns"]], float).T
        places = [np.arange(len(a["edges"])) - 0.5 if a["categories"] else np.array(a["edges"]) for a in (across, up)]
        drawn = axes.pcolormesh(*places, cells, vmin=min(0.0, *known), vmax=max(0.0, *known), cmap="viridis")
        for a, set_ticks in ((across, axes.set_xticks), (up, axes.set_yticks)):
            if a["categories"]:
                set_ticks(range(len(a["categories"])), a["categories"])
        axes.grid(visible=False)
        axes.figure.colorbar(drawn, ax=axes, label="return of the last episode").outline.set_visible(False)
    return "".join(svg)
