"""The benchmark: speed of stepping, collecting and training, as ratios measured in turns in one run."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from metarl.bench.learners import contests
from metarl.bench.measure import Row, compare, rate
from metarl.bench.worlds import Place, gymnasium_vectors, mujoco_family, stepping
from metarl.core.graphs import own_stream
from metarl.rl.learner import require_device
from metarl.rl.parallel import device_math, single_threaded_math

_MOST_PROCESSES = 1024
"""Gymnasium's vector environments are not measured with more worlds: one has a process for each."""


def run_benchmark(
    families: tuple[str, ...], worlds: tuple[int, ...], seconds: float, place: Place, disturbances: str = ""
) -> list[Row]:
    """Measure every contender in turns, `seconds` per contender in all.

    Each family is stepped with the largest number of worlds; the learners' contests with each of them.
    """
    require_device(place.device)
    single_threaded_math()
    device_math(place.device)
    own_stream(place.device)
    made = {
        name: mujoco_family(name, disturbances) for name in families
    }  # says what is no MuJoCo family before anything is measured
    rows: list[Row] = []
    for name, family in made.items():
        bare, *ours = compare(name, max(worlds), stepping(family, max(worlds), place), seconds)
        rows += [bare, *ours]
        if max(worlds) > _MOST_PROCESSES:
            continue
        for vector, work in gymnasium_vectors(family, bare.num_worlds):  # they cannot take turns, so come last
            work()
            own = rate(work, seconds)
            rows.append(Row(name, vector, bare.num_worlds, own, own / bare.steps_per_second, {}))
    for contest in contests(worlds, place):
        rows += compare(*contest, seconds)
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
