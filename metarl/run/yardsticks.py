"""The headroom of a family: a memoryless policy and an oracle, trained at equal budgets and held against each other."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from metarl.core import trust
from metarl.core.config import TrainConfig, configure, task_visible
from metarl.core.errors import UserError
from metarl.core.files import write_json
from metarl.core.registry import make_family, reference
from metarl.run import checkpoint, headroom as statistics, sessions
from metarl.run.evaluate import evaluate_subject
from metarl.run.headroom import Headroom, gained, still_rising
from metarl.run.logs import words_of
from metarl.run.records import EvaluationRecord
from metarl.run.run import Run, short
from metarl.run.subject import on_tasks, trained
from metarl.sim.family import Family

RISE = 0.05
"""A learning curve that makes more than this share of its rise in its last fifth is not at its end."""
_WIDE = 0.25
"""An interval that reaches further than this share of the headroom to either side is wide."""
_ANY_LENGTH = ("total_steps", "max_minutes", "threads", "checkpoint_minutes", "validation_tasks")
"""Options in which a run that is there may differ from what is asked for."""


@dataclass(frozen=True)
class Budget:
    """What is trained, and for how long."""

    agent: str = "ppo"
    """A learner that does not adapt; the oracle is the same one, shown the task."""
    total_steps: int = 2_000_000
    """Length of each training [control steps over all worlds]."""
    seeds: tuple[int, ...] = (1, 2)
    """Seeds of the trainings."""
    config: Path | None = None
    """A TOML file with other settings of the trainings."""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds must name at least one, each once, and are {self.seeds}")


@dataclass(frozen=True)
class FamilyHeadroom:
    """The headroom of a family, measured, and what is to be said against the measurement."""

    family: str
    budget: Budget
    headroom: Headroom
    runs: Mapping[str, Path]
    """Folder of each run, as `memoryless-s1`."""
    rising: Mapping[str, float]
    """Share of its rise, or of the headroom where that is more, that each run's curve made in its last fifth."""
    gained: Mapping[str, float]
    """Return that each run's training gained."""
    gradient_steps: Mapping[str, int]
    """Gradient steps of each run."""
    num_tasks: int
    """Tasks that the returns are means over."""

    @property
    def doubts(self) -> list[str]:
        """Why the budget may be too small to tell, a sentence each; empty where nothing speaks against it."""
        steps, found, room = self.budget.total_steps, [], self.headroom.value
        for name, share in self.rising.items():
            if share > RISE:
                how = f"{name} made {100 * share:.0f} % of its rise in its last fifth"
                found.append(f"the budget is too small to tell: {how}; try --total-steps {2 * steps:_}")
        learnt = float(np.mean([value for name, value in self.gained.items() if name.startswith("oracle")]))
        if not self.headroom.tells(learnt):
            much = f"{room.value:.4g} of the {learnt:.4g} that the oracle gained in training"
            found.append(f"knowing the task is worth {much}: a share of a return so near zero says nothing")
        reach = max(room.high - room.value, room.value - room.low)
        scale = room.value if self.headroom.measured else float(np.mean(np.abs(self.headroom.oracle)))
        if reach > _WIDE * scale:
            found.append(f"the interval is too wide to tell: [{room.low:.4g}, {room.high:.4g}]; more seeds narrow it")
        if len(self.budget.seeds) == 1:
            found.append("one seed says nothing of the spread of seeds")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        budget = dataclasses.asdict(self.budget) | {"config": self.budget.config and str(self.budget.config)}
        runs = {name: str(path) for name, path in self.runs.items()}
        return dataclasses.asdict(self) | {"budget": budget, "runs": runs, "doubts": self.doubts}


def headroom(
    family: str | type[Family],
    *,
    agent: str = "ppo",
    total_steps: int = 2_000_000,
    seeds: Sequence[int] = (1, 2),
    num_tasks: int = 100,
    tasks: str | Path | None = None,
    config: str | Path | None = None,
    output: str | Path | None = None,
    show: bool = False,
    trust_code: bool = False,
) -> FamilyHeadroom:
    """Measure what knowing the task is worth: train a memoryless policy and an oracle, which is shown the task.

    Args:
        family: A name of `families()`, `path/to/file.py:ClassName`, or a class from a file.
        agent: A learner that does not adapt; the oracle is the same one, shown the task.
        total_steps: Length of each training [control steps over all worlds].
        seeds: Seeds: two trainings of each.
        num_tasks: Test tasks to evaluate on.
        tasks: Or those of a file, as `metarl identify` writes one.
        config: A TOML file with other settings of the trainings.
        output: Folder of the runs, `runs/headroom-FAMILY` by default. What is trained in it already is used.
        show: Whether progress lines are printed.
        trust_code: Files of code that `config`, or a run in the folder, names may run, also such as this user never
            trained with.

    Returns:
        The headroom with its intervals, and `doubts`: why the budget may be too small to tell.

    Raises:
        UserError: A name is wrong, the learner adapts, or a run in the folder is of other settings or longer.
    """
    name = reference(family)
    budget = Budget(agent, total_steps, tuple(seeds), None if config is None else Path(config))
    folder = Path("runs") / f"headroom-{short(name).rpartition(':')[2]}" if output is None else Path(output)
    words = ["headroom", name, *words_of({"total_steps": total_steps, "seeds": list(seeds)})]
    console = Console(quiet=not show, highlight=False)
    on = num_tasks if tasks is None else Path(tasks)
    return family_headroom(name, budget, folder, on, console, words, trust_code)


def family_headroom(
    family: str, budget: Budget, folder: Path, on: int | Path, console: Console, argv: Sequence[str],
    trust_code: bool = False,
) -> FamilyHeadroom:  # fmt: skip
    """Train what is missing in `folder`, evaluate it, and write `headroom.json` beside the runs.

    It is evaluated `on` so many test tasks, or on those of a file. Runs that are there are used, and trained further
    where they are shorter. Raises `UserError` where one is of other settings or longer than asked for, where the
    learner adapts, and for an unknown family.
    """
    trust.named(budget.agent, family)
    make_family(family)
    returns: dict[str, list[Any]] = {"memoryless": [], "oracle": []}
    runs, spent = {}, {}
    for seed in budget.seeds:  # both of a seed first: a measurement cut short has a seed of each
        for role, rows in returns.items():
            name = f"{role}-s{seed}"
            fields = {"seed": seed, "total_steps": budget.total_steps, "task_visible": role == "oracle"}
            config = configure(budget.agent, family, fields, budget.config, trust_code)
            console.print(
                f"{name}: {config.agent} on {config.family}, {config.total_steps:,} steps, in {folder / name}"
            )
            runs[name] = _trained(config, folder / name, trust_code, console, argv)
            record = _evaluated(runs[name], role, on, argv)
            rows.append(record.returns[:, -1])
            spent[name] = record.gradient_steps
    low, high = (np.stack(rows) for rows in returns.values())
    room = statistics.headroom(low, high)
    found = FamilyHeadroom(
        family=short(family),
        budget=budget,
        headroom=room,
        runs={name: run.path for name, run in runs.items()},
        rising={name: still_rising(run.curve["last"], abs(room.value.value)) for name, run in runs.items()},
        gained={name: gained(run.curve["last"]) for name, run in runs.items()},
        gradient_steps=spent,
        num_tasks=low.shape[1],
    )
    write_json(folder / "headroom.json", found.to_json())
    return found


def _trained(config: TrainConfig[Any], path: Path, trust_code: bool, console: Console, argv: Sequence[str]) -> Run:
    """The run in a folder, trained for as long as the configuration says."""
    if not os.path.isfile(path / "config.toml"):
        return Run(sessions.train(config, path, console=console, argv=argv).path)
    there = Run.open(path, trust_code)
    ours, theirs = (_options(sessions.settled(each)) for each in (config, there.config()))
    for name in ours:
        if name not in _ANY_LENGTH and ours[name] != theirs.get(name):
            other = f"its {name} is {theirs.get(name)}, not {ours[name]}"
            raise UserError(f"{path} is of other settings: {other}; name another folder")
    done = there.manifest().total_steps if checkpoint.existing(there.checkpoints) else 0
    if there.config().total_steps != config.total_steps or done < config.total_steps:
        return sessions.resume(there, total_steps=config.total_steps, console=console, argv=argv)
    return there


def _options(config: TrainConfig[Any]) -> dict[str, Any]:
    """All options of a run, those of its learner last."""
    options = dataclasses.asdict(config)
    return {name: value for name, value in options.items() if name != "learner"} | dict(options["learner"])


def _evaluated(run: Run, role: str, on: int | Path, argv: Sequence[str]) -> EvaluationRecord:
    subject, split = trained(run), "test"
    if subject.origin.role != role:
        raise UserError(f"{subject.origin.agent} adapts: headroom is that of a learner that does not, as ppo or sac")
    if isinstance(on, Path):
        (subject, tasks), split = on_tasks(subject, on), f"list-{on.stem}"
    else:
        tasks = subject.family.space.fixed("test", on)
    record = evaluate_subject(subject, tasks, split, argv)
    run.write_evaluation(record)
    assert task_visible(run.config()) == (role == "oracle")
    return record
