"""The results table of README.md, from the evaluations recorded under experiments/results.

    python experiments/record.py    # or `make results`: redraws everything, this too

Runs of the comparison stand together, a row per family and agent over its seeds; longer ones have rows of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarl.core.files import write_atomic
from metarl.run.records import EvaluationRecord
from metarl.run.run import Run
from metarl.run.statistics import Interval, bootstrap_interval, mean

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "results"
BEGIN, END = "<!-- written by `make results` -->", "<!-- end of what `make results` writes -->"
AGENTS = ("ppo", "maml-trpo", "pearl", "rl2", "ppo-oracle")
"""The order in a table: what does not adapt, what does, and what is told the task."""
_HEAD = "| agent | training | episode 1 | last episode | gain | `ood`, last |\n|---|---|---|---|---|---|"


def recorded(folder: Path) -> list[Run]:
    """The runs recorded directly in `folder`, by name."""
    return [Run(path.parent) for path in sorted(folder.glob("*/run.json"))]


def kinds(run: Run) -> dict[tuple[str, bool], EvaluationRecord]:
    """A run's evaluations by split and whether actions were the mean.

    Of several the one after the longest training, of most episodes.
    """
    found = sorted(run.evaluations, key=lambda record: (record.train_steps, record.returns.shape[1]))
    return {(record.split, record.deterministic): record for record in found}


def compared(results: Path = RESULTS) -> dict[str, dict[str, list[Run]]]:
    """The comparison: its runs, one per seed, by family and agent."""
    found: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in recorded(results / "compare"):
        found[run.panel][run.config_values["agent"]].append(run)
    order = {agent: number for number, agent in enumerate(AGENTS)}
    return {
        place: dict(sorted(agents.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))
        for place, agents in found.items()
    }


def paired(run: Run) -> EvaluationRecord:
    """The evaluation on test tasks whose first and last episode are comparable: sampled where the agent samples."""
    return kinds(run)["test", not run.samples_first]


def row(label: str, runs: Sequence[Run]) -> str:
    """A line of the table: the runs, of one agent on one family, are the strata of the intervals."""
    tests = [kinds(run)["test", True] for run in runs]
    steps, minutes = np.mean([(test.train_steps, test.train_seconds / 60) for test in tests], axis=0)
    seeds = f", {len(runs)} seeds" if len(runs) > 1 else ""
    training = f"{steps / 1e6:.2g} M steps, {minutes:.0f} min{seeds}"
    pairs = [paired(run) for run in runs]
    single = tests[0].returns.shape[1] == 1
    outside = [found for run in runs if (found := kinds(run).get(("ood", True)))]
    cells = (
        label,
        training,
        _show(_of(pairs, lambda returns: returns[:, 0])),
        "" if single else _show(_of(tests, lambda returns: returns[:, -1])),
        "" if single else _show(_of(pairs, lambda returns: returns[:, -1] - returns[:, 0]), "+"),
        _show(_of(outside, lambda returns: returns[:, -1])) if outside else "",
    )
    return "| " + " | ".join(cells) + " |"


def _of(records: Sequence[EvaluationRecord], column: Any) -> Interval:
    return bootstrap_interval([column(record.returns) for record in records], mean)


def _show(interval: Interval, sign: str = "") -> str:
    """`12 [10, 14]`; small returns with a decimal."""
    form = f"{sign}.1f" if max(map(abs, interval)) < 20 else f"{sign}.0f"
    value, low, high = (f"{number:{form}}".replace("-", "−") for number in interval)
    return f"{value} [{low}, {high}]"


def tables() -> Iterator[str]:
    """The comparison, a table per family; then the longer runs."""
    for place, agents in compared().items():
        yield f"**{place}**"
        yield "\n".join((_HEAD, *(row(agent, runs) for agent, runs in agents.items())))
    yield "**Longer runs**, each named as under [experiments/results](experiments/results):"
    longer = [run for run in recorded(RESULTS) if ("test", True) in kinds(run)]
    longer.sort(key=lambda run: (run.panel, run.config_values["agent"]))
    labels = [f"{run.name}: {run.config_values['agent']}, {run.panel}" for run in longer]
    yield "\n".join((_HEAD, *(row(label, [run]) for label, run in zip(labels, longer, strict=True))))


def update(readme: Path = ROOT / "README.md") -> None:
    """Write the tables between the two marks of the README."""
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    write_atomic(readme, before + BEGIN + "\n\n" + "\n\n".join(tables()) + "\n\n" + END + after)
