"""`metarl eval`: returns per episode on held-out tasks, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from metarl.cli.parsing import parse, require_untrained
from metarl.core.errors import UserError
from metarl.core.parameters import require

if TYPE_CHECKING:
    from metarl.core.tasks import Tasks
    from metarl.rl.parallel import Shares
    from metarl.run.control import Control
    from metarl.run.records import EvaluationRecord, Role
    from metarl.run.subject import Subject

_PATIENCE = 3600.0
"""Time for which processes wait for the one whose tasks take the longest [s]."""


@dataclass(frozen=True)
class EvalOptions:
    """Returns per episode on fixed lists of tasks, with 95 % bootstrap intervals over tasks."""

    run: Path
    """Run folder, or pretrained:NAME; with --agent a family: a name of `metarl list`, or path/to/file.py:ClassName."""
    agent: str | None = None
    """Look at a family before any training: `zero` (actions all zero) or `random` (each drawn anew)."""
    against: Path | None = None
    """Another run of the same family, to evaluate on the same tasks: how likely is the first better?"""
    memoryless: tuple[Path, ...] = ()
    """Runs of a policy that does not adapt, a seed each: with --oracle, how much of the headroom is recovered?"""
    oracle: tuple[Path, ...] = ()
    """Runs of an oracle, which is shown the task, a seed each: see `metarl headroom`."""
    control: Literal["wipe", "swap", "nominal"] | None = None
    """Also play with the adaptation state wiped, or swapped between worlds, or with all on the nominal task."""
    controls: bool = False
    """Also play all three controls: an adaptation to the task must cost return by them."""
    control_seconds: float = 0.5
    """Time between two wipes or swaps [s]."""
    control_once: bool = False
    """Wipe or swap once in a trial, after that time, and not again and again."""
    split: Literal["train", "test", "ood"] | None = None
    """Tasks: test (a fixed list, as in training), ood (outside its range) or train; both test and ood by default."""
    num_tasks: int = 100
    """Tasks of each split, each in a world of its own."""
    episodes: int = 0
    """Episodes per task; 0 for as many as in training (of two runs, the more), or 2 with --agent."""
    stochastic: bool = False
    """Sample actions instead of taking the policy's mean."""
    seed: int = 0
    """Seed of the initial states and actions."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where policy and worlds are."""
    physics: Literal["", "mujoco", "warp"] = ""
    """What moves the worlds; by default mujoco on the cpu and warp on cuda."""
    tasks: Path | None = None
    """Task list (JSON) to evaluate on instead of a split: of `metarl identify`, or the JSON of an evaluation."""
    disturbances: str = ""
    """A TOML file of what a real robot adds, upon what the policy was trained with: see docs/disturbances.md."""
    checkpoint: str | None = None
    """Checkpoint, as iteration-000120, or best; the newest by default."""
    json: Path | None = None
    """Also write the result to FILE.json (with a second split, its own to FILE-ood.json); RUN/eval/ always has it."""
    processes: int = 1
    """Processes on this machine that share lists of more than 128 tasks; the result is the same."""
    trust_code: bool = False
    """Run files of code that a run names, also such as you have not trained with, or that were changed since."""

    def __post_init__(self) -> None:
        given: dict[str, object] = {
            "--checkpoint": self.checkpoint,
            "--stochastic": self.stochastic,
            "--against": self.against,
        }
        given |= {"--control": self.control or self.controls, "--memoryless": self.memoryless, "--oracle": self.oracle}
        require_untrained(self.agent, given)
        require(self, "control_seconds", self.control_seconds > 0.0, "above 0")
        if self.oracle and not self.memoryless:
            raise UserError("--oracle needs --memoryless beside it: the headroom is the difference of the two")
        if self.tasks and self.split:
            raise UserError(f"--tasks {self.tasks} takes the place of --split {self.split}: leave one of the two out")
        require(self, "num_tasks", 1 <= self.num_tasks <= 65536, "in [1, 65536]")
        require(self, "processes", self.processes >= 1, "at least 1")
        require(self, "episodes", 0 <= self.episodes <= 1000, "in [0, 1000]")
        require(self, "seed", 0 <= self.seed < 2**32, "in [0, 2^32)")


def run(words: list[str]) -> int:
    """Evaluate, print the tables, and write every return as JSON."""
    options = parse(EvalOptions, "eval", words)
    if options.processes > 1:
        from metarl.cli.resume import launched

        return launched(["eval", *words], options.processes)
    from metarl.run.launch import as_one
    from metarl.run.ranks import num_ranks, together, with_versions

    def work() -> int:
        with together(options.device, num_ranks(), with_versions(repr(options)), patience=_PATIENCE) as shares:
            return _evaluate_all(options, words, shares)

    return as_one(work)


def _evaluate_all(options: EvalOptions, words: list[str], shares: Shares) -> int:
    from metarl.run.calibration import calibration
    from metarl.run.control import KINDS, Control
    from metarl.run.evaluate import compared, split_name
    from metarl.run.logs import console
    from metarl.run.placing import placed
    from metarl.run.subject import on_tasks, subject_of
    from metarl.run.tables import comparison_table, control_table, record_table, standing_lines

    chosen = (options.checkpoint, options.trust_code, options.device, options.disturbances)
    subject = subject_of(options.run, options.agent, *chosen)
    lists = []
    if options.tasks is not None:
        subject, tasks = on_tasks(subject, options.tasks, options.disturbances)
        lists = [(split_name(f"list-{options.tasks.stem}", options.disturbances), tasks)]
    other = None if options.against is None else _other(options.against, subject, options)
    low = [_other(path, subject, options, "memoryless") for path in options.memoryless]
    high = [_other(path, subject, options, "oracle") for path in options.oracle]
    all_of_them = [each for each in (subject, other, *low, *high) if each]
    episodes = options.episodes or max(each.episodes for each in all_of_them)
    kinds = KINDS if options.controls else [kind for kind in KINDS if kind == options.control]
    controls = [Control(kind, options.control_seconds, options.control_once) for kind in kinds]
    say = console().print
    for number, (split, tasks) in enumerate(lists or _task_lists(options, subject)):
        record = _evaluate(subject, tasks, episodes, split, options, words, shares, controls)
        nominal = [control for control in controls if control.kind == "nominal"]
        yardsticks = []
        for group, theirs_too in ((low, nominal), (high, [])):
            found = [_evaluate(each, tasks, episodes, split, options, words, shares, theirs_too) for each in group]
            for each, one in zip(group, found, strict=True):
                _write(each, one, None)
            yardsticks.append([(str(each.run), one) for each, one in zip(group, found, strict=True)])
        if high:
            record = placed(record, *yardsticks)
            assert record.standing is not None
            say(*standing_lines(record.standing), sep="\n")
        say(record_table(record, str(options.run) if other else ""))
        if record.controls:
            say(control_table(record, [one for _, one in yardsticks[0]]))
        believed = calibration(
            subject.policy, subject.family, tasks, episodes, seed=options.seed, origin=subject.origin
        )
        if believed is not None:
            say(believed.table())
        if other is not None:
            theirs = _evaluate(other, tasks, episodes, split, options, words, shares)
            say(record_table(theirs, str(options.against)))
            _write(other, theirs, None)
            record = compared(record, theirs, str(options.against))
            say(comparison_table(record, theirs, str(options.run)))
        json = options.json
        _write(subject, record, json.with_stem(f"{json.stem}-{split}") if json is not None and number else json)
    return 0


def _task_lists(options: EvalOptions, subject: Subject) -> list[tuple[str, Tasks]]:
    """What to evaluate on where no file says: name and tasks of each split."""
    from metarl.run.evaluate import split_name

    space = subject.family.space
    splits = [options.split] if options.split else [split for split in space.splits if split != "train"]
    return [(split_name(split, options.disturbances), space.fixed(split, options.num_tasks)) for split in splits]


def _other(path: Path, subject: Subject, options: EvalOptions, role: Role | None = None) -> Subject:
    """A run to compare with; `UserError` where its tasks or episodes are not those of the subject, or its role is not.

    Without a role it is the one of --against.
    """
    from metarl.run.subject import subject_of

    other = subject_of(path, None, None, options.trust_code, options.device, options.disturbances)
    option = f"--{role or 'against'} {path}"
    for what, ours, theirs in (
        ("family", subject.origin.family, other.origin.family),
        ("episode_steps", _limit(subject), _limit(other)),
    ):
        if ours != theirs:
            raise UserError(f"{option} cannot be compared: its {what} is {theirs}, not {ours}")
    if role not in (None, other.origin.role):
        kinds = {
            "memoryless": "does not adapt and is not shown the task",
            "oracle": "is shown the task",
            "adapting": "adapts within a trial",
        }
        raise UserError(f"{option}: this policy {kinds[other.origin.role]}; name one that {kinds[role]}")
    return other


def _limit(subject: Subject) -> int:
    return subject.origin.episode_steps or subject.family.episode_steps


def _evaluate(
    subject: Subject,
    tasks: Tasks,
    episodes: int,
    split: str,
    options: EvalOptions,
    words: list[str],
    shares: Shares,
    controls: Sequence[Control] = (),
) -> EvaluationRecord:
    from metarl.run.evaluate import evaluate_subject
    from metarl.run.run import worlds_on

    return evaluate_subject(
        subject,
        tasks,
        split,
        ["eval", *words],
        episodes=episodes,
        seed=options.seed,
        deterministic=not (options.stochastic or options.agent == "random"),
        controls=controls,
        worlds=worlds_on(options.device, options.physics),
        shares=shares,
    )


def _write(subject: Subject, record: EvaluationRecord, json: Path | None) -> None:
    """Into the run's folder, and to the file the user named, by the leading process."""
    from metarl.core.files import write_json
    from metarl.run.ranks import rank

    if rank():
        return
    if json is not None:
        write_json(json, record.to_json())
    written = None
    try:
        written = subject.run.write_evaluation(record) if subject.run is not None else None
    except UserError as error:  # a run that somebody else may write only
        if json is None:
            raise
        print(f"{error}: only {json} has the result")
    for path in (written, json):
        if path is not None:
            print(f"wrote {path}")
