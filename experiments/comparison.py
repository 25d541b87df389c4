"""What experiments/results holds of comparisons: runs by family and agent, and what they say of a family's headroom."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metarl.run.headroom import TASK_MATTERS, gained
from metarl.run.placing import Placing, placing
from metarl.run.records import EvaluationRecord
from metarl.run.run import Run, short

RESULTS = Path(__file__).parent / "results"
ROLES = ("memoryless", "adapting", "oracle")
"""The order in a table: what does not adapt, what does, and what is told the task."""
ByFamily = Mapping[str, Mapping[str, Sequence[Run]]]
"""Runs, one per seed, by family and agent."""


def recorded(folder: Path) -> list[Run]:
    """The runs recorded directly in `folder`, by name."""
    return [Run(path.parent) for path in sorted(folder.glob("*/run.json"))]


def kinds(run: Run) -> dict[tuple[str, bool], EvaluationRecord]:
    """A run's evaluations by split and whether actions were the mean.

    Of several the one after the longest training, of most tasks, of most episodes.
    """
    found = sorted(run.evaluations, key=lambda record: (record.train_steps, *record.returns.shape))
    return {(record.split, record.deterministic): record for record in found}


def compared(results: Path = RESULTS, folder: str = "compare") -> dict[str, dict[str, list[Run]]]:
    """A comparison: its runs, one per seed, by family and agent, or the name that the comparison has for it."""
    found: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in recorded(results / folder):
        found[run.panel][label(run)].append(run)
    return {place: dict(sorted(agents.items(), key=_rank)) for place, agents in found.items()}


def label(run: Run) -> str:
    """`ppo` of `ant-dir-ppo-s1`; a run of another name has its agent's."""
    config = run.config_values
    prefix, suffix = f"{short(str(config['family']))}-", f"-s{config['seed']}"
    named = run.name.startswith(prefix) and run.name.endswith(suffix)
    return run.name[len(prefix) : -len(suffix)] if named else str(config["agent"])


def _rank(item: tuple[str, list[Run]]) -> tuple[int, str]:
    agent, runs = item
    roles = [record.role for run in runs for record in run.evaluations]
    return ROLES.index(roles[0] if roles else "adapting"), agent


def paired(run: Run) -> EvaluationRecord:
    """The evaluation on test tasks whose first and last episode are comparable: sampled where the agent samples."""
    found = kinds(run)
    return found["test", True] if found["test", True].paired is not None else found["test", False]


@dataclass(frozen=True)
class Compared:
    """A family's runs of the comparison, and what they say of its headroom."""

    agents: Mapping[str, Sequence[Run]]
    """One run per seed, by agent."""
    placing: Placing | None
    """None without a memoryless policy or an oracle."""

    @property
    def tells(self) -> bool:
        """Whether there is a headroom, and its share of the oracle's return says anything."""
        if self.placing is None:
            return False
        curves = [run.curve["last"] for run in self.agents[self.placing.oracle] if run.metrics]
        return self.placing.headroom.tells(float(np.mean([gained(curve) for curve in curves])) if curves else 0.0)

    @property
    def pays(self) -> bool:
        """Whether its headroom, by the interval, may be large enough that adapting pays."""
        if self.placing is None or not self.tells:
            return False
        room = self.placing.headroom
        return room.measured and room.share.high >= TASK_MATTERS

    def steps_of(self, agent: str) -> int:
        """What a training of an agent took [control steps]."""
        return max(kinds(run)["test", True].train_steps for run in self.agents[agent])

    @property
    def best(self) -> str | None:
        """Of those that adapt the one with the highest return; None where there is none.

        Of trainings half to one and a half times as long as the oracle's, and of two seeds or more where any is: one of
        a single seed is easily lucky.
        """
        if self.placing is None:
            return None
        steps = self.steps_of(self.placing.oracle)
        alike = [agent for agent in self.placing.recovered if 0.5 <= self.steps_of(agent) / steps <= 1.5]
        theirs = {agent: self.placing.recovered[agent].ours for agent in alike}
        return max(theirs, key=lambda agent: (min(len(theirs[agent]), 2), np.mean(theirs[agent])), default=None)

    @property
    def steps(self) -> int:
        """What its longest training took [control steps]."""
        return max(map(self.steps_of, self.agents))


def places(folder: str = "compare") -> dict[str, Compared]:
    """Every family of a comparison."""
    found = {}
    for place, agents in compared(folder=folder).items():
        tests = {agent: [kinds(run)["test", True] for run in runs] for agent, runs in agents.items()}
        found[place] = Compared(agents, placing(tests))
    return found


def by_steps(families: Mapping[str, Compared]) -> dict[str, Compared]:
    """Named by what their training took too, to stand beside those of another comparison."""
    return {f"{place}, {family.steps / 1e6:.0f} M steps": family for place, family in families.items()}


def by_headroom(families: Mapping[str, Compared]) -> dict[str, Compared]:
    """The largest headroom first, as a share of the oracle's return; families where it is not known last, by name.

    Where such a share says nothing, it is none.
    """

    def place(item: tuple[str, Compared]) -> tuple[float, str]:
        name, family = item
        return (math.inf if family.placing is None else -family.placing.headroom.share.value * family.tells), name

    return dict(sorted(families.items(), key=place))
