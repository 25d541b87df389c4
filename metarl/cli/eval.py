"""`metarl eval`: returns per episode on held-out tasks, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from metarl.cli.parsing import parse
from metarl.cli.subject import require_untrained, subject_of
from metarl.core.errors import UserError
from metarl.core.parameters import require

if TYPE_CHECKING:
    from metarl.core.tasks import Tasks
    from metarl.run.evaluate import Evaluation
    from metarl.run.subject import Subject


@dataclass(frozen=True)
class EvalOptions:
    """Returns per episode on fixed lists of tasks, with 95 % bootstrap intervals over tasks."""

    run: Path
    """Run folder, or pretrained:NAME; with --agent a family: a name of `metarl list`, or path/to/file.py:ClassName."""
    agent: str | None = None
    """Look at a family before any training: `zero` (actions all zero) or `random` (each drawn anew)."""
    against: Path | None = None
    """Another run of the same family, to evaluate on the same tasks: how likely is the first better?"""
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
    tasks: Path | None = None
    """Task list (JSON) to evaluate on instead of a split; the JSON of an evaluation is one."""
    checkpoint: str | None = None
    """Checkpoint, as iteration-000120; the newest by default."""
    json: Path | None = None
    """Also write the result to FILE.json (with a second split, its own to FILE-ood.json); RUN/eval/ always has it."""

    def __post_init__(self) -> None:
        given = {"--checkpoint": self.checkpoint, "--stochastic": self.stochastic, "--against": self.against}
        require_untrained(self.agent, given)
        if self.tasks and self.split:
            raise UserError(f"--tasks {self.tasks} takes the place of --split {self.split}: leave one of the two out")
        require(self, "num_tasks", 1 <= self.num_tasks <= 65536, "in [1, 65536]")
        require(self, "episodes", 0 <= self.episodes <= 1000, "in [0, 1000]")
        require(self, "seed", 0 <= self.seed < 2**32, "in [0, 2^32)")


def run(words: list[str]) -> int:
    """Evaluate, print the tables, and write every return as JSON."""
    options = parse(EvalOptions, "eval", words)
    from metarl.rl.parallel import single_threaded_math

    single_threaded_math()
    subject = subject_of(options)
    other = None if options.against is None else _other(options.against, subject)
    for number, (split, tasks) in enumerate(_task_lists(options, subject)):
        json = options.json
        if json is not None and number:
            json = json.with_stem(f"{json.stem}-{split}")
        _Evaluator(options, words, split, tasks).run(subject, other, json)
    return 0


def _task_lists(options: EvalOptions, subject: Subject) -> list[tuple[str, Tasks]]:
    """What to evaluate on: name and tasks of each list."""
    from metarl.core.tasks import load_tasks

    space = subject.family.space
    if options.tasks is not None:
        return [(f"list-{options.tasks.stem}", load_tasks(options.tasks, subject.family_name, space))]
    splits = [options.split] if options.split else [split for split in space.splits if split != "train"]
    return [(split, space.fixed(split, options.num_tasks)) for split in splits]


def _other(path: Path, subject: Subject) -> Subject:
    """The run to compare with; `UserError` where its tasks or episodes are not those of the subject."""
    from metarl.run.subject import trained

    other = trained(path)
    for what, ours, theirs in (
        ("family", subject.family_name, other.family_name),
        ("episode_steps", subject.family.episode_steps, other.family.episode_steps),
    ):
        if ours != theirs:
            raise UserError(f"--against {path} cannot be compared: its {what} is {theirs}, not {ours}")
    return other


@dataclass(frozen=True)
class _Evaluator:
    """Evaluates on one list of tasks, prints, and writes."""

    options: EvalOptions
    words: list[str]
    split: str
    tasks: Tasks

    def run(self, subject: Subject, other: Subject | None, json: Path | None) -> None:
        """The subject alone, or both and how they compare."""
        from metarl.run.evaluate import improvement, print_comparison
        from metarl.run.logs import console

        episodes = self.options.episodes or max(each.episodes for each in (subject, other) if each)
        ours = self._evaluate(subject, episodes, self.options.run)
        against: dict[str, Any] = {}
        if other is not None and self.options.against is not None:
            path = self.options.against
            theirs = self._evaluate(other, episodes, path)
            self._write(other, theirs, {}, None)
            chances = improvement(ours, theirs)
            print_comparison((self.options.run, path), (ours, theirs), chances, console())
            found = [chance.to_json() for chance in chances]
            against = {"against": {"run": str(path), **other.summary, "probability_of_improvement": found}}
        self._write(subject, ours, against, json)

    @property
    def deterministic(self) -> bool:
        """The policy's mean actions."""
        return not (self.options.stochastic or self.options.agent == "random")

    def _evaluate(self, subject: Subject, episodes: int, path: Path) -> Evaluation:
        """Evaluate and print the table."""
        from metarl.run.evaluate import evaluate, print_table
        from metarl.run.logs import console

        evaluation = evaluate(
            subject.policy,
            subject.family,
            self.tasks,
            episodes,
            seed=self.options.seed,
            deterministic=self.deterministic,
        )
        note = ", the same as in training" if self._shared(subject) and subject.iteration else ""
        title = subject.title(f"{len(self.tasks)} {self.split} tasks{note}")
        if self.options.against:
            title = f"{path}: {title}"
        print_table(evaluation, title, console())
        return evaluation

    def _shared(self, subject: Subject) -> bool:
        """The test tasks are the very tasks of training."""
        return self.split == "test" and subject.family.space.is_finite

    def _write(self, subject: Subject, evaluation: Evaluation, more: dict[str, Any], json: Path | None) -> None:
        """Into the run's folder, and to the file the user named."""
        from metarl.run.logs import provenance, write_json

        content = {
            **provenance(["eval", *self.words]),
            **subject.summary,
            "split": self.split,
            "held_out": self.split in ("test", "ood") and not self._shared(subject),
            "seed": self.options.seed,
            "deterministic": self.deterministic,
            **more,
            **evaluation.to_json(),
        }
        mode = "deterministic" if self.deterministic else "stochastic"
        size = f"{len(self.tasks)}x{evaluation.returns.shape[1]}"
        name = f"{self.split}-{size}-{mode}-seed{self.options.seed}-iteration{subject.iteration}.json"
        for path in (subject.run.evaluations / name if subject.run else None, json):
            if path is not None:
                write_json(path, content)
                print(f"wrote {path}")
