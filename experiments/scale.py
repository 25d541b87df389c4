"""What it costs to share a training among processes: measured here, and worked out for more workers than there are.

    python experiments/scale.py measure rl2 half-cheetah-vel --processes 1 2 4 --output scale.json
    python experiments/scale.py simulate scale.json

`measure` takes CPU time, which does not depend on what else runs on the machine, and bytes; `simulate` takes these,
with the waiting that a network and stragglers add.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarl.core import seeding
from metarl.core.config import configure
from metarl.rl.parallel import Shares
from metarl.run.ranks import MEETING, joined
from metarl.run.run import Run
from metarl.run.train import Training

LATENCY, BANDWIDTH = 50e-6, 1.25e9
"""Of an exchange over a network of 10 Gbit/s [s], [bytes/s]."""


def measured(agent: str, family: str, iterations: int, fields: dict[str, Any]) -> dict[str, float]:
    """CPU seconds per iteration of this process's collection, update and exchange, and the bytes it received."""
    spent = {"exchange": 0.0, "bytes": 0.0, "exchanges": 0.0}
    """Of the present iteration."""
    with joined(config := configure(agent, family, {"validation_tasks": 0, "threads": 1} | fields)) as shares:
        told = Shares(shares.pieces, shares.rank, shares.size, shares.exchange and watched(shares.exchange, spent))
        training = Training(Run(Path()), config, told)
        with training.fleet:
            rows = []
            for number in range(iterations + 1):
                spent |= dict.fromkeys(spent, 0.0)
                begun = time.process_time()
                segment = training.collect()[0]
                collected, before = time.process_time(), dict(spent)
                training.learner.update(segment, seeding.generator(0, "update", number), number / iterations)
                updated = time.process_time()
                training.iteration += 1
                times = {"collect": collected - begun - before["exchange"]}
                times["update"] = updated - collected - (spent["exchange"] - before["exchange"])
                sent = {"bytes_segment": before["bytes"], "bytes_gradients": spent["bytes"] - before["bytes"]}
                counted = {"exchange": spent["exchange"], "exchanges": spent["exchanges"]}
                rows.append(times | counted | sent)
    return {name: float(np.mean([row[name] for row in rows[1:]])) for name in rows[0]}  # the first one warms up


def watched(exchange: Any, spent: dict[str, float]) -> Any:
    """The exchange, its CPU time and bytes noted."""

    def noted(rows: torch.Tensor) -> torch.Tensor:
        begun = time.process_time()
        found: torch.Tensor = exchange(rows)
        spent["exchange"] += time.process_time() - begun
        spent["bytes"] += found.numel() * found.element_size()
        spent["exchanges"] += 1
        return found

    return noted


def in_processes(size: int, words: Sequence[str]) -> list[dict[str, float]]:
    """`measured` in each of so many processes at once."""
    with tempfile.TemporaryDirectory() as meeting:
        ours = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "TORCHELASTIC_RUN_ID": "scale", MEETING: meeting}
        ours |= {"OMP_NUM_THREADS": 1, "GLOO_SOCKET_IFNAME": "lo"}
        started = []
        for rank in range(size):
            own = {name: str(value) for name, value in (ours | {"RANK": rank, "LOCAL_RANK": rank}).items()}
            words_of = [sys.executable, __file__, "one", *words]
            started.append(subprocess.Popen(words_of, env=os.environ | own, stdout=subprocess.PIPE, text=True))
        return [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]


def fitted(one: dict[str, float], several: dict[str, float], size: int, pieces: int) -> dict[str, float]:
    """The model's constants, of one process and of `size`: update(P) = alike + shared / P."""
    shared = max(0.0, (one["update"] - several["update"]) / (1.0 - 1.0 / size))
    return {
        "collect": one["collect"],
        "shared": shared,
        "alike": one["update"] - shared,
        "exchanges": several["exchanges"],
        "bytes_segment": several["bytes_segment"],
        "bytes_piece": several["bytes_gradients"] / pieces,
    }


def iteration_time(cost: dict[str, float], workers: int, tasks: int, spread: float, rng: np.random.Generator) -> float:
    """Seconds of an iteration: the slowest worker's collection, the update, and the exchanges.

    A task's collection varies by a log-normal factor of deviation `spread` about 1. There are as many pieces as
    workers, and what is gathered of them goes to every worker, over `BANDWIDTH`, after log2(workers) latencies each.
    """
    factor = rng.lognormal(-(spread**2) / 2.0, spread, tasks)
    slowest = max(part.sum() for part in np.array_split(factor, min(workers, tasks))) * cost["collect"] / tasks
    update = cost["alike"] + cost["shared"] / min(workers, tasks)
    if workers == 1:
        return float(slowest + update)
    sent = cost["bytes_segment"] + cost["bytes_piece"] * workers
    return float(slowest + update + cost["exchanges"] * LATENCY * np.log2(workers) + sent / BANDWIDTH)


def main() -> None:
    """Measure, or simulate from what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("measure", "one"):
        verb = verbs.add_parser(name)
        verb.add_argument("agent")
        verb.add_argument("family")
        verb.add_argument("--iterations", type=int, default=3)
        verb.add_argument("--set", nargs="*", default=[], help="field=value of the configuration")
        verb.add_argument("--processes", type=int, nargs="*", default=[1, 2, 4])
        verb.add_argument("--output", type=Path)
    verb = verbs.add_parser("simulate")
    verb.add_argument("file", type=Path)
    verb.add_argument("--tasks", type=int, default=32)
    verb.add_argument("--spread", type=float, default=0.1)
    given = parser.parse_args()
    if given.verb == "simulate":
        cost, rng = json.loads(given.file.read_text())["cost"], np.random.default_rng(0)
        for workers in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024):
            told = [f"{workers:5d}"]
            for tasks in (given.tasks, 32 * given.tasks):
                share = {
                    **cost,
                    "collect": cost["collect"] * tasks / given.tasks,
                    "shared": cost["shared"] * tasks / given.tasks,
                }
                share |= {
                    "alike": cost["alike"] * tasks / given.tasks,
                    "bytes_segment": cost["bytes_segment"] * tasks / given.tasks,
                }
                one, now = (
                    np.mean([iteration_time(share, n, tasks, given.spread, rng) for _ in range(200)])
                    for n in (1, workers)
                )
                told.append(f"{tasks:5d} tasks {now:8.3f} s, {one / now:6.1f} times as fast")
            print(*told, sep="   ")
        return
    fields = {name: json.loads(value) for name, _, value in (word.partition("=") for word in given.set)}
    if given.verb == "one":
        print(json.dumps(measured(given.agent, given.family, given.iterations, fields)))
        return
    words = [given.agent, given.family, "--iterations", str(given.iterations), "--set", *given.set]
    found = {size: in_processes(size, words) for size in given.processes}
    for size, rows in found.items():
        print(size, *(f"{name} {np.max([row[name] for row in rows]):.4g}" for name in rows[0]), sep="  ", flush=True)
    if given.output:
        last = max(found)
        cost = fitted(found[1][0], found[last][0], last, fields["shards"])
        given.output.write_text(json.dumps({"command": sys.argv, "measured": found, "cost": cost}, indent=1) + "\n")


if __name__ == "__main__":
    main()
