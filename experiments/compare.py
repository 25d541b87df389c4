"""Run a comparison: every agent on every family with every seed, what is missing of it, several trainings at a time.

    python experiments/compare.py                          # experiments/compare.toml, into runs/compare
    python experiments/compare.py my.toml --runs runs/mine --results results/mine
    python experiments/compare.py --jobs 8                 # eight trainings at a time, whatever the file says
    python experiments/compare.py --list                   # what is done, begun and missing

A run is trained, evaluated and recorded under experiments/results/compare, and is done once it is recorded. What was
stopped, by Ctrl-C, by a kill or with the machine, is resumed exactly where its last checkpoint stands; what it took
before counts towards its time limit.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tomllib
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from record import RESULTS, record, redraw

from metarl import api
from metarl.core.config import configure, load_config, read_toml, to_toml
from metarl.core.errors import UserError, unknown_name
from metarl.core.registry import family_names, learner_names
from metarl.reports.build import find_beliefs
from metarl.run import checkpoint
from metarl.run.launch import end_with_parent
from metarl.run.run import Run
from metarl.run.sessions import settled

HERE = Path(__file__).parent
_ALL_ALIKE = ("family", "estimator_size")
"""Settings by which no policy acts or learns otherwise, or that a run's name tells already."""


@dataclass(frozen=True)
class Trial:
    """One training of the comparison."""

    label: str
    """Its name in tables: the agent's, unless the agent is there with several settings."""
    agent: str
    family: str
    seed: int
    options: Mapping[str, Any]
    max_minutes: float

    @property
    def name(self) -> str:
        """`FAMILY-LABEL-sSEED`; a family in a file is named by its class."""
        return f"{self.family.rpartition(':')[2]}-{self.label}-s{self.seed}"

    @property
    def fields(self) -> dict[str, Any]:
        """Arguments of `metarl.train` beside agent and family."""
        return {"seed": self.seed, "threads": 1, "max_minutes": self.max_minutes} | dict(self.options)

    @property
    def settings(self) -> dict[str, Any]:
        """All that its configuration will say."""
        config = settled(configure(self.agent, self.family, self.fields))
        return _flat(tomllib.loads(to_toml(config)))


@dataclass(frozen=True)
class Comparison:
    """The runs of a comparison, and the folders that hold them."""

    runs: list[Trial]
    jobs: int
    """Trainings at a time."""
    folder: Path
    """Folder of the run folders."""
    results: Path
    """Folder of what is recorded."""

    def state(self, run: Trial) -> str:
        """`done`, `begun` or `missing`; `UserError` where what is recorded was run with other settings.

        Settings that there were none of yet were as the learner says (`before`); of one that was left to the family as
        it was, a record says nothing. What changes nothing of how a policy acts and learns may differ.
        """
        recorded = self.results / run.name
        if (recorded / "run.json").is_file():
            ours = run.settings
            config = load_config(recorded / "config.toml", trust_code=True, of_run=True)
            for name, value in _flat(tomllib.loads(to_toml(config))).items():
                if name in ours and name not in _ALL_ALIKE and value not in ("", ours[name]):
                    other = f"{name} is {value}, not {ours[name]}"
                    raise UserError(f"{recorded} is of other settings ({other}): delete it to run it anew")
            return "done"
        return "begun" if (self.folder / run.name / "config.toml").is_file() else "missing"

    def execute(self, run: Trial) -> None:
        """Train (or go on), evaluate and record one run, in a process of its own; `UserError` where that fails."""
        folder, log = self.folder / run.name, self.folder / f"{run.name}.log"
        process = multiprocessing.get_context("spawn").Process(target=_work, args=(run, folder, log))
        process.start()
        process.join()
        if process.exitcode:
            raise UserError(f"its process ended with {process.exitcode}; the end of {log} says why")
        record(Run(folder), self.results)


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's fields and its learner's."""
    return {name: value for name, value in config.items() if name != "learner"} | dict(config["learner"])


def _work(run: Trial, folder: Path, log: Path) -> None:
    """Train a run, or what is left of it, and evaluate it by mean and by sampled actions; its output goes to a log."""
    end_with_parent()  # and save: it is resumed later
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        if not (folder / "config.toml").is_file():
            api.train(run.agent, run.family, output=folder, show=True, **run.fields)
        else:
            remaining = max(0.0, run.max_minutes - _trained_minutes(folder))
            if remaining or not run.max_minutes:  # 0 is no limit
                api.resume(folder, max_minutes=remaining, show=True)
        for split in Run.open(folder).family().space.splits[1:]:
            for deterministic in (True, False):
                record = api.evaluate(folder, split=split, deterministic=deterministic)
                print(record.summary.adaptation_curve, flush=True)
        find_beliefs(Run.open(folder))
    except UserError as error:
        print(error, flush=True)
        sys.exit(2)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def _trained_minutes(folder: Path) -> float:
    """Return how long a run has trained up to its newest checkpoint."""
    run = Run(folder)
    return run.manifest().elapsed / 60.0 if checkpoint.existing(run.checkpoints) else 0.0


def load(path: Path, folder: Path, results: Path, jobs: int | None = None) -> Comparison:
    """A comparison from its TOML, `jobs` trainings at a time if not as it says; `UserError` for mistakes in it."""
    content = read_toml(path)
    allowed = ("seeds", "families", "agents", "max_minutes", "processes")
    for key in content:
        if key not in allowed:
            raise UserError(f"{path}: {unknown_name('option', key, allowed)}")
    for key in ("families", "agents"):
        if not content.get(key):
            raise UserError(f"{path}: {key} must name at least one")
    _seeds(path, content.get("seeds"))
    jobs = content.get("processes", 1) if jobs is None else jobs
    if type(jobs) is not int or jobs < 1:
        raise UserError(f"{jobs!r} trainings at a time: it must be at least 1")
    return Comparison(list(_runs(path, content)), jobs, folder, results)


def _runs(path: Path, content: Mapping[str, Any]) -> Iterator[Trial]:
    """All cells' runs with the first seed before those with the second: a comparison cut short has every cell once."""
    families, agents = content["families"], content["agents"]
    learners = [options.get("agent", label) for label, options in agents.items()]
    elsewhere = [name for options in agents.values() for name in (*options.get("families", ()), *_own(options))]
    for kind, names, known in (
        ("family", [*families, *elsewhere], family_names()),
        ("agent", learners, learner_names()),
    ):
        for name in names:
            if name not in known and ".py:" not in name:
                raise UserError(f"{path}: {unknown_name(kind, name, known)}")
    cells = [cell for family in families for label in agents if (cell := _cell(path, content, family, label))]
    for seed in dict.fromkeys(seed for cell in cells for seed in (*content["seeds"], *cell.seeds)):
        for cell in cells:
            if seed in cell.seeds:
                agent, minutes = agents[cell.label].get("agent", cell.label), content.get("max_minutes", 0.0)
                yield Trial(cell.label, agent, cell.family, seed, cell.options, minutes)


class _Cell(NamedTuple):
    """An agent on a family."""

    label: str
    family: str
    seeds: list[int]
    options: dict[str, Any]


def _cell(path: Path, content: Mapping[str, Any], family: str, label: str) -> _Cell | None:
    """With the agent's options, and those that it has on that family alone; None where it is not run there."""
    given, where = content["agents"][label], f"{path}: agents.{label}"
    if family not in given.get("families", content["families"]):
        return None
    own = given.get(family, {})
    for name in own.keys() & {"agent", "families"}:
        raise UserError(f"{where}.{family}: {name} stands in [agents.{label}] alone")
    options = {name: value for name, value in given.items() if name not in ("agent", "families", *_own(given))} | own
    return _Cell(label, family, _seeds(where, options.pop("seeds", content["seeds"])), options)


def _own(options: Mapping[str, Any]) -> list[str]:
    """The families for which an agent has a table."""
    return [name for name, value in options.items() if isinstance(value, dict)]


def _seeds(where: Any, seeds: Any) -> list[int]:
    if not isinstance(seeds, list) or not seeds or any(type(seed) is not int for seed in seeds):
        raise UserError(f"{where}: seeds must be a list of whole numbers, and name at least one")
    return seeds


def execute(comparison: Comparison) -> list[str]:
    """Run what is missing; returns what failed, in words. One failure stops no other run."""
    comparison.folder.mkdir(parents=True, exist_ok=True)
    waiting = [run for run in comparison.runs if comparison.state(run) != "done"]
    failures = []
    with ThreadPoolExecutor(comparison.jobs) as pool:
        futures = {pool.submit(comparison.execute, run): run for run in waiting}
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                name, error = futures[future].name, future.exception()
                if error is not None:
                    failures.append(f"{name}: {error}")
                print(f"{number}/{len(waiting)} {name}: {'failed' if error else 'done'}", flush=True)
        except KeyboardInterrupt:  # the trainings got it too, and save
            pool.shutdown(cancel_futures=True)
            raise
    return failures


def main(words: list[str] | None = None) -> int:
    """Entry point; 1 where a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", type=Path, default=HERE / "compare.toml")
    parser.add_argument("--runs", type=Path, default=Path("runs/compare"), help="where run folders are")
    parser.add_argument("--results", type=Path, default=RESULTS / "compare", help="where results are recorded")
    parser.add_argument("--jobs", type=int, help="trainings at a time; by default as the file's `processes` says")
    parser.add_argument("--list", action="store_true", help="only say what is done, begun and missing")
    options = parser.parse_args(words)
    try:
        comparison = load(options.config, options.runs, options.results, options.jobs)
        if options.list:
            print(*(f"{comparison.state(run):8}{run.name}" for run in comparison.runs), sep="\n", flush=True)
            return 0
        failures = execute(comparison)
    except UserError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("compare: stopped; the same command goes on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the list has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains once more at exit
        return 141
    if options.results == RESULTS / "compare":
        redraw()
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
