"""Identify, then an oracle; or adapt in context: what either is worth on robots whose body is not known.

    python experiments/identify_then_oracle.py ORACLE [--family quadruped-body --tasks 12 --split test]

Each held-out robot squats for a while, its noisy log is identified, and the oracle is shown the task that was found in
place of the true one. Beside it, on the same robots with the same draws: the oracle shown the truth and the nominal
task, RL², which adapts to each in two episodes, and PPO without memory. Written to experiments/results/identify/.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import metarl
from metarl.core.files import write_json
from metarl.core.tasks import Tasks
from metarl.rl.parallel import single_threaded_math
from metarl.rl.policy import Policy
from metarl.run.evaluate import evaluate
from metarl.run.logs import provenance
from metarl.run.statistics import mean_interval
from metarl.run.subject import Subject, trained
from metarl.sim.family import MujocoFamily
from metarl.sim.task_code import task_code
from metarl.sysid.simulated import simulated_log

RESULTS = Path(__file__).parent / "results" / "identify"


class Told:
    """An oracle that is told other tasks than those it acts on."""

    def __init__(self, oracle: Policy[Any], family: MujocoFamily, tasks: Tasks) -> None:
        self._oracle, self._code = oracle, task_code(family.space, tasks)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._oracle, name)

    def act(self, obs: Tensor, state: Any, noise: Tensor, deterministic: bool = False) -> tuple[Tensor, Any]:
        """The oracle's action, where the task stands that it is told."""
        seen = torch.cat((obs[:, : -self._code.shape[1]], self._code), dim=1)
        return self._oracle.act(seen, state, noise, deterministic)


def identified(
    family: MujocoFamily, name: str, tasks: Tasks, seconds: float, starts: int
) -> tuple[Tasks, list[dict[str, Any]]]:
    """What the logs of robots say of their tasks, with what was found of each parameter."""
    rows, details = [], []
    for number, row in enumerate(tasks.rows()):
        log = simulated_log(family, row, seconds=seconds, seed=number)
        begun = time.process_time()
        found = metarl.identify(name, log, starts=starts, threads=1)
        rows += found.tasks.rows()
        details.append(
            {
                "truth": row,
                "found": {one.unknown.label: [one.value, one.low, one.high, one.told] for one in found.estimates},
                "held_out": found.held_out,
                "cpu_seconds": time.process_time() - begun,
            }
        )
        print(number, row, rows[-1], flush=True)
    return Tasks.from_rows(rows), details


def main() -> None:
    """Identify all robots, play all policies on them, and write every return."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("oracle", type=Path)
    parser.add_argument("--family", default="quadruped-body")
    parser.add_argument("--tasks", type=int, default=12)
    parser.add_argument("--split", default="test")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--starts", type=int, default=1)
    given = parser.parse_args()
    single_threaded_math()
    oracle = trained(given.oracle)
    family = oracle.family
    assert isinstance(family, MujocoFamily)
    tasks = family.space.fixed(given.split, given.tasks)
    found, details = identified(family, given.family, tasks, given.seconds, given.starts)
    told = {"the truth": tasks, "what was identified": found, "the nominal task": family.space.nominal(len(tasks))}
    played: dict[str, Subject] = {
        f"oracle, told {what}": oracle._replace(policy=Told(oracle.policy, family, shown))
        for what, shown in told.items()
    }
    played |= {name: trained(f"pretrained:{given.family}-{name}") for name in ("rl2", "ppo")}
    returns = {
        name: evaluate(one.policy, family, tasks, 2, threads=1, origin=one.origin).returns
        for name, one in played.items()
    }
    text = {
        "family": given.family,
        "split": given.split,
        "log_seconds": given.seconds,
        "starts": given.starts,
        "tasks": details,
        "returns": {name: values.tolist() for name, values in returns.items()},
        **provenance(sys.argv),
    }
    write_json(RESULTS / f"{given.family}-{given.split}.json", text)
    print("| policy | episode 1 | episode 2 | less than the oracle that knows |\n|---|---|---|---|")
    best = returns["oracle, told the truth"]
    for name, values in returns.items():
        cells = [f"{v:.0f} [{a:.0f}, {b:.0f}]" for v, a, b in map(mean_interval, (*values.T, (best - values)[:, 1]))]
        print(f"| {name} | {' | '.join(cells)} |")
    for name in family.space.parameters:
        rows = [(one["truth"][name], *one["found"][name]) for one in details if one["found"][name][3]]
        held = sum(low <= truth <= high for truth, _, low, high, _ in rows)
        error = np.mean([abs(value - truth) for truth, value, *_ in rows]) if rows else np.nan
        print(f"{name}: told by {len(rows)} of {len(details)} logs, mean error {error:.3g}, {held} intervals hold it")


if __name__ == "__main__":
    main()
