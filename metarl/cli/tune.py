"""`metarl tune`: search a learner's hyperparameters on a family."""

from __future__ import annotations

import dataclasses
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl.cli.parsing import parse
from metarl.core import trust
from metarl.core.config import TrainConfig, load_config, train_defaults
from metarl.core.errors import UserError
from metarl.core.parameters import Checked, number
from metarl.core.registry import absolute, family_names, learner_config_class, learner_names


@dataclass(frozen=True)
class TuneOptions(Checked):
    """Search where a learner's configuration says so (`metarl list` names learners) for the best hyperparameters.

    A trial trains one configuration in a run folder of its own and is judged by the deterministic policy's return in
    the last episode on a fixed list of training tasks; held-out tasks are never looked at. The first trial is the
    default. Trials that are behind three quarters of the complete ones after as many control steps are given up.
    Interrupted in any way, the same command goes on where it was.
    """

    agent: str
    """Learner: a name from `metarl list`, or path/to/file.py:ClassName."""
    family: str
    """Family of tasks: a name from `metarl list`, or path/to/file.py:ClassName."""
    trials: int = number(20, least=1, most=100_000)
    """Trials in all, those of earlier sessions and the given-up included."""
    steps: int = number(0, least=0, most=10**15)
    """Length of each training [control steps over all worlds]; 0 for what `metarl train` would take."""
    max_minutes: float = number(0.0, least=0)
    """Stop after this long [min]; the same command goes on. 0 for no limit."""
    trial_minutes: float = number(0.0, least=0)
    """Judge each training after this long even if steps are left [min]; 0 for no limit."""
    config: Path | None = None
    """The default configuration (TOML, as for train). What it puts outside its range is not searched."""
    search: tuple[str, ...] = ()
    """Fields to search; all that the learner declares by default."""
    num_tasks: int = number(50, least=1, most=65536)
    """Training tasks on which each trained policy is judged."""
    seed: int = number(0, least=0, below=2**32)
    """Seed of the study and of every training."""
    jobs: int = number(1, least=1, most=1024)
    """Trainings at once, each in a process of its own. What is tried then depends on which ends first."""
    threads: int = number(0, least=0, most=1024)
    """Threads of the physics; 0 for one per CPU. Results are the same."""
    output: Path | None = None
    """Study folder; runs/tune-FAMILY-AGENT by default. Each trial is a run folder in it."""
    trust_code: bool = False
    """Run files of code that FILE names, also such as you have not trained with, or that were changed since."""


def run(words: list[str]) -> int:
    """Tune, then say what was found and how to train it."""
    options = parse(TuneOptions, "tune", words)
    base = _base(options)
    from metarl.core.registry import make_family
    from metarl.run.folder import locked
    from metarl.run.logs import console
    from metarl.run.study import Plan, declared_ranges, value_of
    from metarl.run.tune import Tuner

    make_family(base.family, base.disturbances)
    declared = declared_ranges(base, options.search)
    ranges = {name: support for name, support in declared.items() if support.contains(value_of(base, name))}
    if not ranges:
        raise UserError(f"nothing to search: {options.config} puts every field outside its range")
    path = _folder(options)
    print(f"tuning {base.agent} on {base.family}, seed {base.seed}, in {path}")
    for name, support in declared.items():
        print(f"  {name}: {support}" if name in ranges else f"  {name}: {value_of(base, name)}, outside {support}")
    with locked(path):
        plan = Plan(base, ranges, options.num_tasks, options.trial_minutes)
        tuner = Tuner(path, plan, ["tune", *words], console())
        print(f"{len(tuner.study.trials)} of {options.trials} trials done", flush=True)
        try:
            ended = tuner.run(options.trials, options.max_minutes, options.jobs)
            code = 0 if ended.signal is None else 128 + ended.signal
        except KeyboardInterrupt:  # between two trainings
            code = 130
        print(*tuner.verdict(), sep="\n")
    if (left := options.trials - len(tuner.study.trials)) > 0:
        print(f"{left} trials left; go on with: {shlex.join(['metarl', *tuner.command])}")
    if tuner.study.best is not None:
        best = path / "best.toml"
        print(f"wrote {best}")
        print("the best of many is flattered by the choice: confirm it with other seeds, and on held-out tasks")
        print(f"next: metarl train --config {shlex.quote(str(best))} --seed {base.seed + 1}")
    return code


def _base(options: TuneOptions) -> TrainConfig[Any]:
    """The default configuration: a run's as `metarl train` would make it, or the file's."""
    if options.agent in family_names() and options.family in learner_names():
        raise UserError(f"tune takes AGENT FAMILY, as train does: metarl tune {options.family} {options.agent}")
    trust.named(options.agent)
    config_class = learner_config_class(options.agent)
    agent, family = absolute(options.agent), absolute(options.family)
    if options.config is None:
        defaults: dict[str, Any] = dict(train_defaults(config_class))
        base: TrainConfig[Any] = TrainConfig(agent, family, config_class(), **defaults)
    else:
        base = load_config(options.config, options.trust_code)
        if not isinstance(base.learner, config_class):
            raise UserError(f"{options.config} is for the agent {base.agent}, not for {options.agent}")
    base = dataclasses.replace(base, agent=agent, family=family, seed=options.seed, threads=options.threads)
    return dataclasses.replace(base, total_steps=options.steps or base.total_steps)


def _folder(options: TuneOptions) -> Path:
    """The study's folder, made if it is not there; `UserError` where something else is in it."""
    family, agent = (name.rsplit(":", 1)[-1] for name in (options.family, options.agent))
    path = options.output or Path("runs") / f"tune-{family}-{agent}"
    known = os.path.isfile(path / "journal.log")  # unlike Path's, False too for a name that cannot be
    if os.path.exists(path) and not known and (not path.is_dir() or any(p.name != ".lock" for p in path.iterdir())):
        raise UserError(f"{path} exists and holds no study: choose another --output")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # the latter of a NUL in the name
        raise UserError(f"cannot write to {str(path)!r}: {getattr(error, 'strerror', error)}") from None
    return path
