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
    Recorded results, as in experiments/results, are reported as they are.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders. Runs that differ in their seed only are pooled."""
    output: Path | None = None
    """The HTML file; RUN/report.html by default for one run, report.html for several."""
    no_eval: bool = False
    """Do not evaluate: report what there is."""
    no_videos: bool = False
    """Do not film: embed what lies in RUN/videos/."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise UserError("report needs at least one run folder: metarl report RUN...")
        if self.output is not None and self.output.suffix.lower() not in (".html", ".htm"):
            raise UserError(f"a report is an HTML file: '{self.output}' does not end in .html")


def run(words: list[str]) -> int:
    """Evaluate and film what is missing, then write the report."""
    options = parse(ReportOptions, "report", words)
    from metarl.report.build import default_path, film, missing_evaluations, open_runs, write_report
    from metarl.rl.parallel import single_threaded_math
    from metarl.run.evaluate import evaluate_run
    from metarl.run.logs import console, provenance
    from metarl.run.pretrained import require_run

    for path in options.runs:
        require_run(path, "report")
    single_threaded_math()
    runs = open_runs(options.runs)
    for run in runs:
        if not options.no_eval:
            for split in missing_evaluations(run):
                record = evaluate_run(run, split)
                console().print(record)
                print(f"wrote {run.write_evaluation(record)}")
        if not options.no_videos:
            try:
                filmed = film(run)
            except UserError as error:
                print(f"{run} is reported without a video: {error}", flush=True)
            else:
                if filmed is not None:
                    print(f"wrote {filmed}", flush=True)
    output = options.output or default_path(options.runs)
    numbers = write_report(runs, output, provenance(["report", *words]))
    print(f"wrote {output} and {numbers}")
    return 0
