"""Builds a report of runs: one HTML file that needs no network, with every number in a JSON file beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from metarl.core.errors import UserError
from metarl.report.content import content_of
from metarl.report.page import page
from metarl.report.recorded import Run, read_run
from metarl.run import checkpoint
from metarl.run.logs import write_json
from metarl.run.run import RunFolder, family_of
from metarl.run.subject import trained
from metarl.video.recorder import VideoConfig, record

_VIDEO = VideoConfig(size=(320, 240), layout="side-by-side", seconds=10.0)
_FILM = "adaptation-after-"
"""Prefix of the names of videos that a report films; the checkpoint's name follows."""
_LARGEST = 8 * 2**20
"""Videos larger than this are not embedded [bytes]."""


def default_path(runs: Sequence[Path]) -> Path:
    """A single run's report is written into its folder, one of several runs into the working directory."""
    return runs[0] / "report.html" if len(runs) == 1 else Path("report.html")


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read the runs, each once; raises `UserError` if one is no run folder."""
    return [read_run(path) for path in {path.resolve(): path for path in paths}.values()]


def missing_evaluations(path: Path) -> Iterator[str]:
    """Yield the splits on which a run's newest checkpoint was not evaluated; a run without checkpoint yields none."""
    run = RunFolder(path)
    found = checkpoint.existing(run.checkpoints)
    if found:
        iteration = int(found[-1].name.rsplit("-", 1)[-1])
        for split in family_of(run.read_config()).space.splits:
            if split != "train" and not list(run.evaluations.glob(f"{split}-*-iteration{iteration}.json")):
                yield split


def film(path: Path) -> Path | None:
    """Film a run's first and last episode on a held-out task, side by side, into the run's folder.

    Returns None if there is nothing to film: no checkpoint, or one that was filmed before. Raises `UserError` if this
    machine cannot draw.
    """
    found = checkpoint.existing(RunFolder(path).checkpoints)
    target = path / "videos" / f"{_FILM}{found[-1].name}.mp4" if found else None
    if target is None or target.exists():
        return None
    subject = trained(path)
    record(subject.policy, subject.family, subject.family.space.fixed("test", 1), subject.episodes, target, _VIDEO)
    for old in set(target.parent.glob(f"{_FILM}*.mp4")) - {target}:
        old.unlink()
    return target


def write_report(runs: Sequence[Run], output: Path, provenance: dict[str, Any]) -> Path:
    """Write the page and NAME-report.json beside it, and return the path of the latter; `UserError` if that fails."""
    content = content_of(runs, provenance)
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
    text, numbers = page(content, videos), output.with_name(f"{stem}.json")  # NAME.json may be an evaluation
    write_json(numbers, content)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}") from None
    return numbers
