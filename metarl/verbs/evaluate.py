"""`metarl eval`: returns per episode on held-out tasks, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metarl.config import require
from metarl.verbs.parsing import parse
from metarl.verbs.subject import require_untrained, subject_of


@dataclass(frozen=True)
class EvalOptions:
    """Returns per episode on a fixed list of tasks, with 95 % bootstrap intervals over tasks."""

    run: Path
    """Run folder, or pretrained:NAME; with --agent a family: a name of `metarl list`, or path/to/file.py:ClassName."""
    agent: str | None = None
    """Look at a family before any training: `zero` (actions all zero) or `random` (each drawn anew)."""
    split: Literal["train", "test", "ood"] = "test"
    """Tasks: test (a fixed list, drawn as in training), ood (outside the training range) or train."""
    num_tasks: int = 100
    """Tasks, each in a world of its own."""
    episodes: int = 0
    """Episodes per task; 0 for as many as in training, or 2 with --agent."""
    stochastic: bool = False
    """Sample actions instead of taking the policy's mean."""
    seed: int = 0
    """Seed of the initial states and actions."""
    tasks: Path | None = None
    """Task list (JSON) to evaluate on instead of a split; the JSON of an evaluation is one."""
    checkpoint: str | None = None
    """Checkpoint, as iteration-000120; the newest by default."""
    json: Path | None = None
    """Also write the result to this file; that of a run folder is always kept in RUN/eval/."""

    def __post_init__(self) -> None:
        require_untrained(self.agent, {"--checkpoint": self.checkpoint, "--stochastic": self.stochastic})
        require(self, "num_tasks", 1 <= self.num_tasks <= 65536, "in [1, 65536]")
        require(self, "episodes", 0 <= self.episodes <= 1000, "in [0, 1000]")
        require(self, "seed", 0 <= self.seed < 2**32, "in [0, 2^32)")


def run(words: list[str]) -> int:
    """Evaluate, print the table, and write every return as JSON."""
    options = parse(EvalOptions, "eval", words)
    from metarl.rl.parallel import single_threaded_math
    from metarl.run.evaluate import evaluate, print_table
    from metarl.run.logs import console, provenance, write_json
    from metarl.tasks import load_tasks

    single_threaded_math()
    subject = subject_of(options)
    space = subject.family.space
    if options.tasks is None:
        tasks, split = space.fixed(options.split, options.num_tasks), options.split
    else:
        tasks, split = load_tasks(options.tasks, subject.family_name, space), f"list-{options.tasks.stem}"
    episodes, deterministic = (
        options.episodes or subject.episodes,
        not (options.stochastic or options.agent == "random"),
    )
    evaluation = evaluate(
        subject.policy, subject.family, tasks, episodes, seed=options.seed, deterministic=deterministic
    )
    shared = split == "test" and space.is_finite
    note = ", the same as in training" if shared and subject.iteration else ""
    print_table(evaluation, subject.title(f"{len(tasks)} {split} tasks{note}"), console())
    content = {
        **provenance(["eval", *words]),
        **subject.summary,
        "split": split,
        "held_out": split in ("test", "ood") and not shared,
        "seed": options.seed,
        "deterministic": deterministic,
        **evaluation.to_json(),
    }
    mode = "deterministic" if deterministic else "stochastic"
    name = f"{split}-{len(tasks)}x{episodes}-{mode}-seed{options.seed}-iteration{subject.iteration}.json"
    for path in (subject.run.evaluations / name if subject.run else None, options.json):
        if path is not None:
            write_json(path, content)
            print(f"wrote {path}")
    return 0
