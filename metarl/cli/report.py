"""`metarl report`: what runs have shown, as one self-contained HTML file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from metarl.cli.parsing import parse
from metarl.core.errors import UserError


@dataclass(frozen=True)
class ReportOptions:
    """One self-contained HTML file of one or several runs, and every number in it as JSON beside it.

    What is missing of a run that has a checkpoint is made first: evaluations on 100 test and ood tasks, and a video.
    Recorded results, as in experiments/results, and pretrained:NAME are reported as they are; of a run that still
    trains, what there is.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, or pretrained:NAME. Runs that differ in their seed only are pooled."""
    output: Path | None = None
    """The HTML file; RUN/report.html by default for one run, else report.html."""
    no_eval: bool = False
    """Do not evaluate: report what there is."""
    no_videos: bool = False
    """Do not film: embed what lies in RUN/videos/."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise UserError("report needs at least one run folder: metarl report RUN...")


def run(words: list[str]) -> int:
    """Evaluate and film what is missing, then write the report."""
    options = parse(ReportOptions, "report", words)
    from metarl.api import report
    from metarl.run.logs import console

    tables = console()

    def say(what: object) -> None:
        if isinstance(what, str):
            print(what, flush=True)
        else:
            tables.print(what)

    report(
        *options.runs,
        output=options.output,
        evaluate_missing=not options.no_eval,
        film=not options.no_videos,
        say=say,
    )
    return 0
