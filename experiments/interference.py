"""What it costs policies to have their adaptation interfered with, and whether their lead goes with the task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from comparison import Compared, kinds
from formatting import as_interval, as_mean

from metarl.run.statistics import Interval, bootstrap_interval, mean
from metarl.run.tables import LEADS, leads

HEADS = ("wiped", "swapped", "lead on its tasks", "lead on the nominal one")


def table(families: Mapping[str, Compared]) -> str:
    """A row per policy whose adaptation was interfered with."""
    rows = []
    for place, family in families.items():
        for agent in family.agents:
            if found := costs(family, agent):
                shown = (as_interval(value, "+") if value else "" for value in found.values)
                rows.append("| " + " | ".join((place, agent, as_mean([found.plain]), *shown, str(found.seeds))) + " |")
    heads = ("family", "policy", "last episode", *HEADS, "seeds")
    return "\n".join(("| " + " | ".join(heads) + " |", "|---" * len(heads) + "|", *rows))


@dataclass(frozen=True)
class Costs:
    """What interfering with a policy costs."""

    plain: float
    """Return of the last episode without it."""
    values: Sequence[Interval | None]
    """As `HEADS` names them; None for what was not measured."""
    seeds: int


def costs(family: Compared, agent: str) -> Costs | None:
    """None where nobody has interfered with the policy."""
    lowest = [name for name in family.agents if family.placing is None or name == family.placing.memoryless]
    memoryless = [kinds(run)["test", True] for name in lowest for run in family.agents[name]]
    memoryless = [record for record in memoryless if record.role == "memoryless"]
    plain, found = [], defaultdict[str, list[Any]](list)
    for record in (kinds(run)["test", True] for run in family.agents[agent]):
        if record.role != "adapting" or not record.controls or record.paired is None:
            continue
        plain.append(record.paired[:, -1])
        for one in record.controls:
            found[one.kind].append(plain[-1] - one.returns[:, -1])
        for where, ahead in leads(record, memoryless):
            found[where].append(ahead)
    if not plain:
        return None
    every = ("wipe", "swap", *LEADS)
    values = [bootstrap_interval(found[one], mean) if found[one] else None for one in every]
    return Costs(float(np.concatenate(plain).mean()), values, len(plain))
