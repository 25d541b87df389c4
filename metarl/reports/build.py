"""Builds a report of runs: one HTML file that needs no network, with every number in a JSON file beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from metarl.core.errors import UserError
from metarl.core.files import write_atomic, write_json
from metarl.core.tasks import Split
from metarl.reports.content import content_of
from metarl.reports.gap_section import gap_section, gaps_of
from metarl.reports.moments import BELIEFS
from metarl.reports.page import page
from metarl.run import checkpoint
from metarl.run.calibration import calibration
from metarl.run.logs import provenance
from metarl.run.pretrained import PREFIX
from metarl.run.run import Run
from metarl.video.recorder import Performer, VideoConfig, record

_VIDEO = VideoConfig(size=(320, 240), layout="side-by-side", seconds=10.0)
_FILM = "adaptation-after-"
"""Prefix of the names of videos that a report films; the checkpoint's name follows."""
_INSTANTS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # [s] at which beliefs are looked at
_BELIEVED = 100  # tasks on which they are
_LARGEST = 8 * 2**20
"""Videos larger than this are not embedded [bytes]."""


def default_path(runs: Sequence[Run]) -> Path:
    """A single run's report is written into its folder, another into the working directory."""
    return runs[0].path / "report.html" if len(runs) == 1 and not runs[0].pretrained else Path("report.html")


def open_runs(sources: Sequence[Run | str | Path]) -> list[Run]:
    """Read the runs anew, each once; `UserError` where one is no run folder."""
    if not sources:
        raise UserError("a report needs at least one run")
    opened = [Run.open(_place(source) if isinstance(source, Run) else source) for source in sources]
    return list({run.path.resolve(): run for run in opened}.values())


def _place(run: Run) -> str | Path:
    return f"{PREFIX}{run.pretrained}" if run.pretrained else run.path


def missing_evaluations(run: Run) -> Iterator[Split]:
    """Splits on which a run's newest checkpoint was not evaluated; none where there is no checkpoint."""
    if checkpoint.existing(run.checkpoints) and not run.pretrained:
        newest = run.manifest().iteration
        done = {record.split for record in run.evaluations if record.iteration == newest}
        yield from (split for split in run.family().space.splits if split not in {"train", *done})


def find_beliefs(run: Run) -> None:
    """Measure how wrong a run's policy's beliefs of its task are over a trial, and keep it in the run's folder.

    Nothing is done for a policy without beliefs, nor where there is a file younger than the checkpoint.
    """
    found, file = checkpoint.existing(run.checkpoints), run.path / BELIEFS
    if run.pretrained or not found or (file.is_file() and file.stat().st_mtime > found[-1].stat().st_mtime):
        return
    policy, family = run.policy(), run.family()
    tasks, episodes = family.space.fixed("test", _BELIEVED), run.config().episodes_per_trial
    measured = calibration(policy, family, tasks, episodes, seconds=_INSTANTS, origin=run.origin())
    if measured is not None:
        write_json(file, measured.to_json(), parents=False)


def film(run: Run) -> Path | None:
    """Film a run's first and last episode on a held-out task side by side into its folder, unless that is done.

    Returns None if there is nothing to film: no checkpoint, or one that was filmed before. Raises `UserError` if this
    machine cannot draw.
    """
    found = () if run.pretrained else checkpoint.existing(run.checkpoints)
    target = run.path / "videos" / f"{_FILM}{found[-1].name}.mp4" if found else None
    if target is None or target.exists():
        return None
    family, episodes = run.family(), run.config().episodes_per_trial
    record([Performer(run.policy(), run.origin())], family, family.space.fixed("test", 1), episodes, target, _VIDEO)
    for old in set(target.parent.glob(f"{_FILM}*.mp4")) - {target}:
        old.unlink()
    return target


def film_missing(run: Run, tell: Callable[[str], None]) -> None:
    """`film`, and tell what was written, or why there is none."""
    try:
        filmed = film(run)
    except UserError as error:
        tell(f"{run} is reported without a video: {error}")
    else:
        if filmed is not None:
            tell(f"wrote {filmed}")


def write_report(runs: Sequence[Run], output: Path, argv: Sequence[str]) -> Path:
    """Write the page and NAME-report.json beside it, and return the path of the latter; `UserError` if that fails."""
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"a report is an HTML file: '{output}' does not end in .html")
    content = content_of(runs, provenance(argv))
    videos = []
    for run in runs:
        for path in run.videos:
            if path.stat().st_size > _LARGEST:
                content["remarks"].append(f"{path} is larger than {_LARGEST // 2**20} MiB and is not embedded.")
                continue
            caption = path.stem.replace("-", " ").replace("_", " ")
            if path.stem.startswith(_FILM):
                caption = "First and last episode of a trial on the same test task, side by side; at most 10 s of each."
            videos.append((run.name, caption, path))
    content["videos"] = [{"run": name, "caption": caption, "path": str(path)} for name, caption, path in videos]
    stem = output.stem if output.stem.endswith("report") else f"{output.stem}-report"
    content["gaps"] = gaps_of(runs, output)
    more = {"Gap": gap_section(content["gaps"])}
    text, numbers = page(content, videos, more), output.with_name(f"{stem}.json")  # NAME.json may be an evaluation
    own = output.parent.resolve() not in [run.path.resolve() for run in runs]  # a run's folder may be a stranger's
    write_json(numbers, content, parents=own)
    write_atomic(output, text, parents=own)
    return numbers
