"""Figures of all that is recorded: learning curves, and the comparison at a glance, as README shows it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from comparison import Compared, by_headroom, kinds, paired, recorded
from learning_speed import curve

from metarl.run.run import Run

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_BEFORE, _AFTER = "#9aa3ad", "#0072b2"


def learning_curves(results: Path, path: Path) -> None:
    """Return of the last episode while training, a panel per family."""
    panels: dict[str, list[Run]] = defaultdict(list)
    for run in recorded(results):
        panels[run.panel].append(run)
    plots, axes = _grid(len(panels), (4.5, 3.2))
    for axis, (place, runs) in zip(axes, panels.items(), strict=True):
        for run in runs:
            steps, returns = curve(run)
            axis.plot(steps / 1e6, returns, label=run.name, linewidth=1.2)
        axis.set(title=place, xlabel="million control steps", ylabel="return of the last episode (training tasks)")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8)
    plots.tight_layout()
    plots.savefig(path, dpi=110)
    plt.close(plots)


def comparison(families: Mapping[str, Compared], path: Path) -> None:
    """Mean return of the first and the last episode of every agent with its seeds, a panel per family in which it pays.

    Both with sampled actions where an agent samples before it adapts; a ring is then its last with the mean action.
    """
    shown = {place: family.agents for place, family in by_headroom(families).items() if family.pays}
    plots, axes = _grid(len(shown), (4.2, 0.8 + 0.2 * max(map(len, shown.values()))))
    for axis, (place, agents) in zip(axes, shown.items(), strict=True):
        _panel(axis, place, agents)
    faces = (_BEFORE, _AFTER, "none")
    edges = (_BEFORE, _AFTER, _AFTER)
    marks = [
        plt.Line2D([], [], marker="o", linestyle="", markerfacecolor=face, markeredgecolor=edge)
        for face, edge in zip(faces, edges, strict=True)
    ]
    words = ("episode 1", "last episode", "last episode by the mean action, of an agent that samples to adapt")
    plots.legend(marks, words, loc="lower center", ncols=3, frameon=False, fontsize=9)
    plots.tight_layout(rect=(0.0, 0.03, 1.0, 1.0))
    plots.savefig(path, dpi=130)
    plt.close(plots)


def _grid(number: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """Panels of a size [inches], three in a row."""
    columns, rows = min(3, number), -(-number // 3)
    plots, axes = plt.subplots(rows, columns, figsize=(size[0] * columns, size[1] * rows), squeeze=False)
    for spare in axes.ravel()[number:]:
        spare.set_visible(False)
    return plots, list(axes.ravel()[:number])


def _panel(axis: Axes, place: str, agents: Mapping[str, Sequence[Run]]) -> None:
    for height, runs in enumerate(agents.values()):
        played = [found.returns if found.paired is None else found.paired for found in map(paired, runs)]
        first, last = (np.array([returns[:, episode].mean() for returns in played]) for episode in (0, -1))
        by_mean = np.array([kinds(run)["test", True].returns[:, -1].mean() for run in runs])
        axis.plot([first.mean(), last.mean()], [height] * 2, color=_AFTER, linewidth=2, alpha=0.4, zorder=1)
        axis.scatter(last, [height] * len(runs), color=_AFTER, s=14, alpha=0.45, linewidths=0, zorder=2)
        axis.scatter([first.mean()], [height], color=_BEFORE, s=42, zorder=3)
        axis.scatter([last.mean()], [height], color=_AFTER, s=42, zorder=4)
        if (by_mean != last).any():
            axis.scatter([by_mean.mean()], [height], facecolors="none", edgecolors=_AFTER, s=42, zorder=4)
    low, high = axis.get_xlim()
    room = 0.04 * (max(high, 0.0) - min(low, 0.0))
    axis.set_xlim(min(low, 0.0), max(high, 0.0) + room)  # from 0: a small gain of a large return looks small
    axis.set_yticks(range(len(agents)), list(agents))
    axis.set_ylim(len(agents) - 0.4, -0.6)
    axis.set_title(place, fontsize=10)
    axis.set_xlabel("return on test tasks", fontsize=9)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
