"""`metarl headroom`: what knowing the task is worth on a family."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metarl.cli.parsing import parse
from metarl.core.parameters import require


@dataclass(frozen=True)
class HeadroomOptions:
    """Train a memoryless policy and an oracle, which is shown the task, and say how far apart they are.

    Families without headroom need no adaptation. What is trained in the output folder already is used, and trained
    further where it is shorter; an interrupted measurement goes on by the same command.
    """

    family: str
    """Family: a name of `metarl list`, or path/to/file.py:ClassName."""
    agent: str = "ppo"
    """A learner that does not adapt; the oracle is the same one, shown the task."""
    total_steps: int = 2_000_000
    """Length of each training [control steps over all worlds]."""
    seeds: tuple[int, ...] = (1, 2)
    """Seeds: two trainings of each."""
    num_tasks: int = 100
    """Test tasks to evaluate on."""
    tasks: Path | None = None
    """Or those of a file: a JSON list, as `metarl identify` writes one."""
    config: Path | None = None
    """A TOML file with other settings of the trainings."""
    output: Path | None = None
    """Folder of the runs and of headroom.json; runs/headroom-FAMILY by default."""
    trust_code: bool = False
    """Run files of code that --config or a run in the folder names, also such as you have not trained with."""

    def __post_init__(self) -> None:
        require(self, "total_steps", self.total_steps >= 1, "at least 1")
        require(self, "num_tasks", 1 <= self.num_tasks <= 65536, "in [1, 65536]")


def run(words: list[str]) -> int:
    """Train, evaluate, print the headroom and what speaks against the measurement."""
    options = parse(HeadroomOptions, "headroom", words)
    from metarl.run.logs import console
    from metarl.run.tables import headroom_lines
    from metarl.run.yardsticks import headroom

    found = headroom(
        options.family,
        agent=options.agent,
        total_steps=options.total_steps,
        seeds=options.seeds,
        num_tasks=options.num_tasks,
        tasks=options.tasks,
        config=options.config,
        output=options.output,
        show=True,
        trust_code=options.trust_code,
    )
    gradient = sorted(set(found.gradient_steps.values()))
    learned = " to ".join(f"{number:,}" for number in (gradient[0], gradient[-1])[-len(gradient) :])
    budget = f"{found.budget.agent}, {found.budget.total_steps:,} control steps and {learned} gradient steps"
    title = f"{found.family}, {found.num_tasks} test tasks; {budget}"
    console().print(title, *headroom_lines(found.headroom), *found.doubts, sep="\n")
    return 0
