"""The results table of README.md, from the evaluations recorded under experiments/results.

    python experiments/record.py    # or `make results`: redraws everything, this too

Runs of the comparison stand together, a row per family and agent over its seeds; longer ones have rows of their own.
"""

from __future__ import annotations

import json
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl.report.recorded import samples_first
from metarl.run.statistics import Interval, bootstrap_interval, mean

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "results"
BEGIN, END = "<!-- written by `make results` -->", "<!-- end of what `make results` writes -->"
AGENTS = ("ppo", "maml-trpo", "pearl", "rl2", "ppo-oracle")
"""The order in a table: what does not adapt, what does, and what is told the task."""
_HEAD = "| agent | training | episode 1 | last episode | gain | `ood`, last |\n|---|---|---|---|---|---|"


@dataclass(frozen=True)
class Recorded:
    """One recorded run."""

    name: str
    config: dict[str, Any]
    evaluations: dict[tuple[str, bool], dict[str, Any]]
    """By split and whether actions were the mean; of several the one after the longest training, of most episodes."""

    @property
    def agent(self) -> str:
        """Name of the learner."""
        return str(self.config["agent"])

    @property
    def place(self) -> str:
        """Family, with the horizon where it is not the family's own: returns are compared only within."""
        limit = self.config.get("episode_steps", 0)
        return self.config["family"] + (f", {limit} steps" if limit else "")


def recorded(folder: Path) -> list[Recorded]:
    """The runs recorded directly in `folder`, by name."""
    found = []
    for path in sorted(path.parent for path in folder.glob("*/run.json")):
        contents = [json.loads(file.read_text()) for file in sorted((path / "eval").glob("*.json"))]
        contents.sort(key=lambda content: (content["train_steps"], len(content["returns"][0])))
        kinds = {(content["split"], content["deterministic"]): content for content in contents}
        found.append(Recorded(path.name, tomllib.loads((path / "config.toml").read_text()), kinds))
    return found


def compared(results: Path = RESULTS) -> dict[str, dict[str, list[Recorded]]]:
    """The comparison: its runs, one per seed, by family and agent."""
    found: dict[str, dict[str, list[Recorded]]] = defaultdict(lambda: defaultdict(list))
    for run in recorded(results / "compare"):
        found[run.place][run.agent].append(run)
    order = {agent: number for number, agent in enumerate(AGENTS)}
    return {
        place: dict(sorted(agents.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))
        for place, agents in found.items()
    }


def paired(run: Recorded) -> dict[str, Any]:
    """The evaluation on test tasks whose first and last episode are comparable: sampled where the agent samples."""
    return run.evaluations["test", not samples_first(run.config)]


def row(label: str, runs: Sequence[Recorded]) -> str:
    """A line of the table: the runs, of one agent on one family, are the strata of the intervals."""
    tests = [run.evaluations["test", True] for run in runs]
    steps, minutes = (np.mean([test[key] for test in tests]) for key in ("train_steps", "train_seconds"))
    seeds = f", {len(runs)} seeds" if len(runs) > 1 else ""
    training = f"{steps / 1e6:.2g} M steps, {minutes / 60:.0f} min{seeds}"
    pairs = [paired(run) for run in runs]
    single = len(tests[0]["returns"][0]) == 1
    outside = [run.evaluations["ood", True] for run in runs if ("ood", True) in run.evaluations]
    cells = (
        label,
        training,
        _show(_of(pairs, lambda returns: returns[:, 0])),
        "" if single else _show(_of(tests, lambda returns: returns[:, -1])),
        "" if single else _show(_of(pairs, lambda returns: returns[:, -1] - returns[:, 0]), "+"),
        _show(_of(outside, lambda returns: returns[:, -1])) if outside else "",
    )
    return "| " + " | ".join(cells) + " |"


def _of(evaluations: Sequence[dict[str, Any]], column: Any) -> Interval:
    return bootstrap_interval([column(np.array(content["returns"])) for content in evaluations], mean)


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
    longer = [run for run in recorded(RESULTS) if ("test", True) in run.evaluations]
    longer.sort(key=lambda run: (run.place, run.agent))
    yield "\n".join((_HEAD, *(row(f"{run.name}: {run.agent}, {run.place}", [run]) for run in longer)))


def update(readme: Path = ROOT / "README.md") -> None:
    """Write the tables between the two marks of the README."""
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    readme.write_text(before + BEGIN + "\n\n" + "\n\n".join(tables()) + "\n\n" + END + after)
