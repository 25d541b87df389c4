"""What it costs to share a training among processes: measured here, and worked out for more workers than there are.

    python experiments/scale.py measure rl2 half-cheetah-vel --output scale.json
    python experiments/scale.py costs half-cheetah-vel quadruped-body --output costs.json
    python experiments/scale.py simulate scale.json --costs costs.json
    python experiments/scale.py efficiency rl2 half-cheetah-vel

`measure` and `costs` take CPU time, which depends little on what else runs on the machine, and bytes; `simulate` takes
these, with the waiting that a network and stragglers add. `efficiency` takes seconds, and wants idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarl.core import seeding
from metarl.core.config import configure
from metarl.core.registry import make_family
from metarl.rl.adam import Adam
from metarl.rl.parallel import Group, Shares
from metarl.run.fleet import Fleet
from metarl.run.ranks import MEETING, joined
from metarl.run.run import Run
from metarl.run.train import Training
from metarl.sim.make import make_env

LATENCY, BANDWIDTH = 50e-6, 1.25e9
"""Of a message over a network of 10 Gbit/s [s], [bytes/s]."""
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
DESIGNS = ("as it is", "and sums in a tree", "and data stay", "and some collect, a step behind")
"""What the simulation adds one after the other: see docs/scale.md."""
_CALLS = ("gather", "swap", "add")


def measured(agent: str, family: str, iterations: int, fields: dict[str, Any]) -> dict[str, float]:
    """Per iteration: CPU seconds of this process's collection, its physics, update and exchange; bytes received."""
    spent = dict.fromkeys(("physics", "joined", "adam", "exchange", "bytes", "exchanges"), 0.0)
    """Of the present iteration."""
    timed(Adam, "step", spent, "adam")
    timed(Fleet, "_joined", spent, "joined")
    config = configure(agent, family, {"validation_tasks": 0, "threads": 1} | fields)
    with joined(config) as shares:
        told = Shares(shares.pieces, shares.rank, shares.size, shares.group and Watched(shares.group, spent))
        training = Training(Run(Path()), config, told)
        with training.fleet:
            for env in training.fleet.envs:
                timed(env.physics, "step", spent, "physics")  # type: ignore[attr-defined]
            rows = []
            for number in range(iterations + 1):
                row: dict[str, float] = {}
                for part in range(training.fleet.parts(training.learner.segment_steps)):
                    spent |= dict.fromkeys(spent, 0.0)
                    begun, started = time.process_time(), time.perf_counter()
                    segment = training.collect(part)[0]
                    collected, before = time.process_time(), dict(spent)
                    training.learner.update(segment, seeding.generator(0, "update", number), number / iterations)
                    updated = time.process_time()
                    times = {"collect": collected - begun - before["exchange"]}
                    times |= {"joined": before["joined"] - before["exchange"]}
                    times |= {name: spent[name] for name in ("physics", "adam", "exchange", "exchanges")}
                    times["update"] = updated - collected - (spent["exchange"] - before["exchange"])
                    times |= {"bytes_segment": before["bytes"], "bytes_gradients": spent["bytes"] - before["bytes"]}
                    times["seconds"] = time.perf_counter() - started
                    row = {name: row.get(name, 0.0) + value for name, value in times.items()}
                training.iteration += 1
                rows.append(row)
    return {name: float(np.mean([row[name] for row in rows[1:]])) for name in rows[0]}  # the first one warms up


def timed(owner: object, name: str, spent: dict[str, float], total: str) -> None:
    """Add the CPU time of a method's calls up in `spent[total]`."""
    call: Callable[..., Any] = getattr(owner, name)

    def noted(*words: Any) -> Any:
        begun = time.process_time()
        found = call(*words)
        spent[total] += time.process_time() - begun
        return found

    setattr(owner, name, noted)


class Watched:
    """The other processes, with CPU time and bytes of what they say noted."""

    def __init__(self, group: Group, spent: dict[str, float]) -> None:
        self._spent, self.wait = spent, group.wait
        for name in _CALLS:
            setattr(self, name, self._counted(getattr(group, name)))
            timed(self, name, spent, "exchange")

    def _counted(self, call: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        def noted(rows: torch.Tensor) -> torch.Tensor:
            found = call(rows)
            self._spent["bytes"] += found.numel() * found.element_size()
            self._spent["exchanges"] += 1
            return found

        return noted


def in_processes(size: int, words: Sequence[str]) -> list[dict[str, float]]:
    """`measured` in each of so many processes at once."""
    with tempfile.TemporaryDirectory() as meeting:
        ours = {"WORLD_SIZE": size, "TORCHELASTIC_RUN_ID": "scale", MEETING: meeting}
        ours["LOCAL_WORLD_SIZE"] = max(size, os.cpu_count() or 1)  # a thread each
        ours |= {"OMP_NUM_THREADS": 1, "GLOO_SOCKET_IFNAME": "lo"}
        started = []
        for rank in range(size):
            own = {name: str(value) for name, value in (ours | {"RANK": rank, "LOCAL_RANK": rank}).items()}
            words_of = [sys.executable, __file__, "one", *words]
            started.append(subprocess.Popen(words_of, env=os.environ | own, stdout=subprocess.PIPE, text=True))
        return [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]


def slowest(rows: list[dict[str, float]]) -> dict[str, float]:
    """Of several processes' figures the largest."""
    return {name: float(np.max([row[name] for row in rows])) for name in rows[0]}


def fitted(runs: dict[str, dict[str, float]], worlds: int, shards: int, most: int) -> dict[str, float]:
    """The model's constants.

    collect(S shards, n worlds) = S step + n (world + physics) + joined, update(S pieces) = alike + adam + S piece +
    data; `joined` and `adam` are timed by themselves.
    `runs`: `whole` is one process with all worlds in one shard, `1` one with all shards; `most` processes share them.
    """
    cut = runs["1"]
    whole, shared = undisturbed(runs["whole"], 1, cut), undisturbed(runs[str(most)], most, cut)
    step, piece = (max(0.0, cut[name] - whole[name]) / (shards - 1) for name in ("collect", "update"))
    physics, data = whole["physics"] / worlds, (cut["update"] - shared["update"]) / (1.0 - 1.0 / most) - shards * piece
    return {
        "worlds": worlds,
        "shards": shards,
        "step": step,
        "world": max(0.0, (whole["collect"] - step) / worlds - physics),
        "physics": physics,
        "joined": shared["joined"],
        "piece": piece,
        "data": max(0.0, data),
        "adam": shared["adam"],
        "alike": max(0.0, cut["update"] - shards * piece - data - shared["adam"]),
        "exchanges": shared["exchanges"],
        "bytes_segment": shared["bytes_segment"],
        "bytes_gradients": shared["bytes_gradients"],
    }


def undisturbed(run: dict[str, float], size: int, by: dict[str, float]) -> dict[str, float]:
    """A run's CPU times as they were, had its physics, which is the same work, taken as long as that of another."""
    slowed = size * run["physics"] / by["physics"]
    return run | {name: run[name] / slowed for name in ("collect", "joined", "physics", "update", "adam", "exchange")}


def predicted(cost: dict[str, float], size: int) -> dict[str, float]:
    """What the model says of `size` processes that share the shards, as they were measured."""
    own = -(-int(cost["shards"]) // size)
    worlds, joined = own * cost["worlds"] / cost["shards"], cost["joined"] if size > 1 else 0.0
    return {
        "collect": own * cost["step"] + worlds * (cost["world"] + cost["physics"]) + joined,
        "update": cost["alike"] + cost["adam"] + own * (cost["piece"] + cost["data"] / cost["shards"]),
    }


def iteration_time(
    cost: dict[str, float], factors: np.ndarray, workers: int, tasks: int, design: int, rng: np.random.Generator
) -> float:
    """Seconds of an iteration of so many tasks, by a design of `DESIGNS`: a share of the tasks, and a piece, each.

    The physics of a task costs one of the measured `factors` times the mean. Gradient steps are as many whatever the
    number of tasks, in larger minibatches. A sum is two exchanges, which receive twice the parameters whatever the
    number of workers, each a ring of workers - 1 messages, or both a tree of twice log2(workers). With data that stay
    where they were collected no segment is sent, and what all do alike with data is done with their own. Where some
    workers collect for the others, a step behind them, they are as many as is best, and send their segments.
    """
    scale, sent = tasks / cost["worlds"], cost["bytes_segment"] * tasks / cost["worlds"]

    def collect(number: int) -> float:
        shares = np.array_split(rng.choice(factors, tasks), busy := min(number, tasks))
        joined = cost["joined"] * scale if design < 2 and number > 1 else 0.0
        load = max(part.sum() for part in shares) * cost["physics"]
        return float(cost["step"] + -(-tasks // busy) * cost["world"] + load + joined)

    def update(number: int) -> float:
        busy = min(number, tasks)
        alike = cost["adam"] + cost["alike"] * scale / (busy if design >= 2 else 1)
        found = alike + cost["piece"] + cost["data"] * scale / busy
        received = (0.0, cost["bytes_gradients"])[number > 1] + (sent, sent, 0.0, sent / number)[design]
        messages = cost["exchanges"] * (number - 1 if design < 1 else np.log2(number)) / (2 if number == 2 else 1)
        return float(found + messages * LATENCY + (received / BANDWIDTH if workers > 1 else 0.0))

    if design < 3 or workers == 1:
        return collect(workers) + update(workers)
    splits = {round(workers * part) for part in (0.25, 0.4, 0.5, 0.6, 0.75, 0.9)} - {0, workers}
    return min(max(collect(number), update(workers - number)) for number in splits)


def simulate(cost: dict[str, float], factors: np.ndarray, tasks: int) -> None:
    """Print how many times as fast as one worker so many are, by every design."""
    rng = np.random.default_rng(0)

    def mean(workers: int, design: int) -> float:
        return float(np.mean([iteration_time(cost, factors, workers, tasks, design, rng) for _ in range(100)]))

    alone = mean(1, 0)
    print(f"{tasks} tasks, {alone:.2f} s an iteration of one worker; the physics of a task deviates by "
          f"{factors.std():.3f}, and is at most {factors.max():.2f} of the mean")  # fmt: skip
    print(f"{'workers':32}", *(f"{workers:6d}" for workers in WORKERS))
    for number, design in enumerate(DESIGNS):
        print(f"{design:32}", *(f"{alone / mean(workers, number):6.1f}" for workers in WORKERS))


def episode_costs(name: str, number: int) -> list[float]:
    """CPU seconds of the physics in a trial of each of so many training tasks, random actions; the less of two."""
    family, spent = make_family(name), {"physics": 0.0}
    tasks, found = family.space.sample("train", number, seeding.rng(0, "tasks")), []
    with make_env(family, 1, episodes_per_trial=2, threads=1) as env:
        timed(env.physics, "step", spent, "physics")  # type: ignore[attr-defined]
        for task in range(number):
            plays = []
            for _ in range(2):
                env.begin(tasks.select(torch.tensor([task])), key=task)
                noise = seeding.generator(0, "costs", task)
                spent["physics"] = 0.0
                for _ in range(env.trial_steps):
                    env.step(2.0 * torch.rand(1, env.info.action_size, generator=noise) - 1.0)
                plays.append(spent["physics"])
            found.append(min(plays))
    return found


def words_of(given: argparse.Namespace, worlds: int, shards: int) -> list[str]:
    """The arguments of `one` with other sizes."""
    head = [given.agent, given.family, "--iterations", str(given.iterations)]
    return [*head, "--worlds", str(worlds), "--shards", str(shards), "--set", *given.set]


def run_one(given: argparse.Namespace) -> None:
    """What a process of the others does."""
    fields = {name: json.loads(value) for name, _, value in (word.partition("=") for word in given.set)}
    fields |= {"num_worlds": given.worlds, "shards": given.shards}
    print(json.dumps(measured(given.agent, given.family, given.iterations, fields)))


def run_efficiency(given: argparse.Namespace) -> None:
    """One process and two, in turns, each on one thread: what share of twice one the two reach."""
    ratios, words = [], words_of(given, given.worlds, given.shards)
    for turn in range(given.turns):
        one, two = (slowest(in_processes(size, words)) for size in (1, 2))
        cpu = [sum(run[name] for name in ("collect", "update", "exchange")) for run in (one, two)]
        ratios.append((one["seconds"] / two["seconds"] / 2.0, cpu[0] / cpu[1] / 2.0))
        print(f"turn {turn + 1}: {one['seconds']:.3f} s and {two['seconds']:.3f} s an iteration, {ratios[-1][0]:.2f}; "
              f"by CPU time {cpu[0]:.3f} s and {cpu[1]:.3f} s, {ratios[-1][1]:.2f}", flush=True)  # fmt: skip
    seconds, cpu_time = np.median(ratios, axis=0)
    print(
        f"{given.agent} on {given.family}: two processes reach {seconds:.2f} of twice one, by CPU time {cpu_time:.2f}"
    )


def run_measure(given: argparse.Namespace) -> None:
    """What one, two and four processes take, the model's constants, and what it says of the same."""
    worlds, shards = given.worlds, given.shards
    runs = {str(size): slowest(in_processes(size, words_of(given, worlds, shards))) for size in (1, 2, 4)}
    runs["whole"] = in_processes(1, words_of(given, worlds, 1))[0]
    cost = fitted(runs, worlds, shards, 4)
    for name, run in runs.items():
        print(f"{name:6}", *(f"{key} {value:.4g}" for key, value in run.items()), sep="  ")
        if name.isdigit():
            same = undisturbed(run, int(name), runs["1"])
            print(f"{'':6}  undisturbed:", *(f"{key} {same[key]:.4g}" for key in ("collect", "update", "exchange")))
            print(f"{'':6}  model:", *(f"{key} {value:.4g}" for key, value in predicted(cost, int(name)).items()))
    print(*(f"{key} {value:.4g}" for key, value in cost.items()), sep="  ")
    if given.output:
        given.output.write_text(json.dumps({"command": sys.argv, "measured": runs, "cost": cost}, indent=1) + "\n")


def run_costs(given: argparse.Namespace) -> None:
    """What trials of different tasks of some families cost."""
    costs = {name: episode_costs(name, given.tasks) for name in given.families}
    for name, values in costs.items():
        share = np.array(values) / np.mean(values)
        print(f"{name}: {np.mean(values):.3f} s a trial, deviation {share.std():.3f}, most {share.max():.2f}")
    if given.output:
        given.output.write_text(json.dumps(costs, indent=1) + "\n")


def run_simulate(given: argparse.Namespace) -> None:
    """Both, worked out for more workers: with as many tasks as were measured, and with 32 times as many."""
    cost = json.loads(given.file.read_text())["cost"]
    for name, values in json.loads(given.costs.read_text()).items():
        print(f"\n{name}")
        for tasks in (int(cost["worlds"]), 32 * int(cost["worlds"])):
            simulate(cost, np.array(values) / np.mean(values), tasks)


def main() -> None:
    """Measure, or simulate from what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, work in (("measure", run_measure), ("efficiency", run_efficiency), ("one", run_one)):
        verb = verbs.add_parser(name, help=work.__doc__)
        verb.set_defaults(work=work)
        verb.add_argument("agent")
        verb.add_argument("family")
        verb.add_argument("--iterations", type=int, default=3)
        verb.add_argument("--worlds", type=int, default=32)
        verb.add_argument("--shards", type=int, default=2 if name == "efficiency" else 4)
        verb.add_argument("--set", nargs="*", default=[], help="field=value of the configuration")
        verb.add_argument("--turns", type=int, default=3)
        verb.add_argument("--output", type=Path)
    verb = verbs.add_parser("costs", help=run_costs.__doc__)
    verb.set_defaults(work=run_costs)
    verb.add_argument("families", nargs="+")
    verb.add_argument("--tasks", type=int, default=32)
    verb.add_argument("--output", type=Path)
    verb = verbs.add_parser("simulate", help=run_simulate.__doc__)
    verb.set_defaults(work=run_simulate)
    verb.add_argument("file", type=Path)
    verb.add_argument("--costs", type=Path, required=True)
    given = parser.parse_args()
    given.work(given)


if __name__ == "__main__":
    main()
