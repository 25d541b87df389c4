"""The benchmark: speed of stepping, collecting and training, as ratios measured in turns in one run."""

from __future__ import annotations

from dataclasses import asdict

import torch
from rich.console import Console
from rich.table import Table

from metarl.bench.learners import gradient_steps, learning, meta_updates
from metarl.bench.measure import Row, compare, rate
from metarl.bench.worlds import gymnasium_vectors, mujoco_family, stepping
from metarl.rl.parallel import single_threaded_math

_LEARNING_FAMILY = "half-cheetah-body"
"""Collection and training are measured here."""


def run_benchmark(families: tuple[str, ...], worlds: tuple[int, ...], seconds: float, threads: int) -> list[Row]:
    """Measure every contender in turns, `seconds` per contender in all.

    Each family is stepped with the largest number of worlds; the learners' collection and training with each of them.
    MAML's meta-update is compared with a plain loop over tasks, and PEARL's gradient step (gradient steps per second)
    with one written plainly; on CUDA too where there is one.
    """
    single_threaded_math()
    made = {name: mujoco_family(name) for name in families}
    rows: list[Row] = []
    for name, family in made.items():
        bare, *ours = compare(name, max(worlds), stepping(family, max(worlds), threads), seconds)
        rows += [bare, *ours]
        for vector, work in gymnasium_vectors(family, bare.num_worlds):  # they cannot take turns, so come last
            work()
            own = rate(work, seconds)
            rows.append(Row(name, vector, bare.num_worlds, own, own / bare.steps_per_second, {}))
    for num_worlds in worlds:
        contenders = learning(mujoco_family(_LEARNING_FAMILY), num_worlds, threads)
        rows += compare(_LEARNING_FAMILY, num_worlds, contenders, seconds)
    rows += compare(_LEARNING_FAMILY, 40, meta_updates(_LEARNING_FAMILY, threads), seconds)
    gradient = gradient_steps()
    if torch.cuda.is_available():
        gradient |= {f"{name} (CUDA)": work for name, work in list(gradient_steps("cuda").items())[1:]}
    rows += compare(_LEARNING_FAMILY, 16, gradient, seconds)
    if torch.cuda.is_available():
        on_device = meta_updates(_LEARNING_FAMILY, threads, "cuda")
        rows += compare(_LEARNING_FAMILY, 40, {f"{name} (CUDA)": work for name, work in on_device.items()}, seconds)
    return rows


def print_benchmark(rows: list[Row], console: Console) -> None:
    """The rows as a table, and below it where the time goes; a ratio is to the last row above whose own is 1."""
    table = Table(title="control steps per second", title_justify="left")
    for column in ("family", "", "worlds", "steps/s", "ratio"):
        table.add_column(column, justify="left" if column in ("family", "") else "right")
    for row in rows:
        speed = f"{row.steps_per_second:,.{0 if row.steps_per_second >= 100 else 2}f}"
        table.add_row(row.family, row.name, str(row.num_worlds), speed, f"{row.ratio:.2f}")
    console.print(table)
    for row in rows:
        if row.shares:
            shares = ", ".join(f"{name.replace('_', ' ')} {share:.0%}" for name, share in row.shares.items())
            console.print(f"{row.name}, {row.num_worlds} worlds: {shares}", soft_wrap=True)


def to_json(rows: list[Row]) -> list[dict[str, object]]:
    """Plain data."""
    return [asdict(row) for row in rows]
