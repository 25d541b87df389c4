"""`metarl gap`: policies in physics that they were not trained in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from metarl.cli.parsing import parse
from metarl.core.errors import UserError
from metarl.core.parameters import Checked, number


@dataclass(frozen=True)
class GapOptions(Checked):
    """Play policies in physics that they were not trained in: what is lost of the return, and how often they fall."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders, pretrained:NAME, or bundles of `metarl export`, of one family: several are shown side by side."""
    sweep: tuple[str, ...] = ()
    """What to sweep, as latency, or at which values, as friction=0.3,0.6; all that makes sense by default."""
    quick: bool = False
    """Only what tells most, at few values."""
    fail_below: float = number(0.0, least=0, most=1)
    """Exit with 1 where a return is below this share of the nominal one, at any value swept."""
    split: Literal["train", "test", "ood"] | None = None
    """Tasks: test (a fixed list, as in training; the default), ood (outside its range) or train."""
    tasks: Path | None = None
    """Or those of a file: a JSON list, as `metarl identify` writes one."""
    num_tasks: int = number(20, least=2, most=4096)
    """Tasks, each in a world of its own at each value."""
    episodes: int = number(0, least=0, most=1000)
    """Episodes per task; 0 for as many as in training (of several runs, the most)."""
    seed: int = number(0, least=0, below=2**32)
    """Seed of the initial states, and of what is drawn."""
    disturbances: str = ""
    """A TOML file of what a real robot adds throughout: see docs/disturbances.md."""
    output: Path | None = None
    """The page to write, with its numbers beside it; RUN/gap.html for one run, else gap.html."""
    trust_code: bool = False
    """Run files of code that a run names, also such as you have not trained with, or that were changed since."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.runs:
            raise UserError("gap needs a run: metarl gap RUN, or metarl gap pretrained:NAME")
        if self.tasks and self.split:
            raise UserError(f"--tasks {self.tasks} takes the place of --split {self.split}: leave one of the two out")


def run(words: list[str]) -> int:
    """Sweep, print the table, write page and numbers; 1 where the gate is closed."""
    options = parse(GapOptions, "gap", words)
    from metarl.reports.gap import gap
    from metarl.run.logs import console

    alone = len(options.runs) == 1 and options.runs[0].is_dir()
    output = options.output or (options.runs[0] / "gap.html" if alone else Path("gap.html"))
    say = console().print
    record = gap(
        *options.runs,
        sweeps=options.sweep,
        quick=options.quick,
        split=options.split or "test",
        tasks=options.tasks,
        num_tasks=options.num_tasks,
        episodes=options.episodes,
        seed=options.seed,
        disturbances=options.disturbances,
        output=output,
        trust_code=options.trust_code,
        say=lambda what: print(what, flush=True),
    )
    say(record)
    print(f"wrote {output} and {output.with_suffix('.json')}")
    below = record.below(options.fail_below) if options.fail_below else []
    for sentence in below:
        print(sentence)
    if options.fail_below:
        print(
            f"{'failed' if below else 'passed'}: {len(below)} points below {options.fail_below:g} of the nominal return"
        )
    return 1 if below else 0
