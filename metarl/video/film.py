"""`metarl.record`: whose film it is, and on what tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from metarl.core.errors import UserError
from metarl.core.tasks import Split, Tasks
from metarl.rl.parallel import single_threaded_math
from metarl.run.logs import console, share_view
from metarl.run.pretrained import PREFIX, pretrained_names, recorded_evaluation
from metarl.run.records import Origin
from metarl.run.run import Run
from metarl.run.subject import on_tasks, subject_of
from metarl.video import recorder
from metarl.video.recorder import Performer, Recording, VideoConfig


def record(
    run: Run | str | Path,
    output: str | Path = "videos/adaptation.mp4",
    *,
    beside: Sequence[Run | str | Path] | None = None,
    layout: Literal["side-by-side", "sequence", "wall"] = "side-by-side",
    split: Split = "test",
    tasks: Tasks | str | Path | None = None,
    num_tasks: int = 0,
    episodes: int = 0,
    show: Sequence[int] = (),
    seconds: float = math.inf,
    plot: bool = True,
    size: tuple[int, int] = (0, 0),
    megabytes: float = 2.0,
    seed: int = 0,
    checkpoint: str | None = None,
    agent: str | None = None,
    device: str = "cpu",
    physics: str = "",
    disturbances: str | Path = "",
    trust_code: bool = False,
    progress: bool = False,
) -> Recording:
    """Film a robot that adapts, as an mp4 file or, for a page, a gif or webp.

    Args:
        run: A run, its folder, or `pretrained:NAME`; with `agent` the name of a family.
        output: The file to write: its ending is mp4, gif or webp.
        beside: Other runs of the same family, shown beside it on the same tasks: without memory, say, or told the task.
            Side by side a pretrained policy without memory by default, where there is one; `()` for none.
        layout: First and last episode beside each other from the same start, one after the other, or the last episode
            of many tasks on a wall.
        split: Tasks of this split's fixed list.
        tasks: Tasks of your own in place of a split, or their file.
        num_tasks: Tasks at once; 0 for 4, or 1 side by side or beside others, or 9 on the wall.
        episodes: Episodes of the trial; 0 for as many as in training.
        show: Episodes to show, from 1; by default all, or the first and last side by side, or the last on the wall.
        seconds: The longest that is shown of an episode [s].
        plot: Draw the return, and what can be read out of the policy's state, under each picture, not on a wall.
        size: Width and height of one robot's picture [pixels], multiples of 16; 0 for the layout's own.
        megabytes: Largest size of a gif or webp [MB], which gets smaller, and has fewer pictures, until it fits.
        seed: Seed of the initial states; with that of an evaluation the film shows the evaluation's first tasks.
        checkpoint: `iteration-000120`, or `best`; the newest by default.
        agent: `zero` or `random`: a policy that never trained.
        device: Where policy and worlds are, `cpu` or `cuda`.
        physics: What moves the worlds, `mujoco` or `warp`; what is usual on the device by default.
        disturbances: See `evaluate`.
        trust_code: Files of code that the run names may run, also such as this user never trained with.
        progress: Whether a progress line is printed.

    Raises:
        UserError: An argument is out of range, the file cannot be written, or this machine cannot draw.
    """
    single_threaded_math()
    subject, wall = subject_of(run, agent, checkpoint, trust_code, device, str(disturbances)), layout == "wall"
    if beside is None:
        beside = memoryless(subject.origin) if layout == "side-by-side" else ()
    subjects = [subject, *(subject_of(other, None, None, trust_code, device, str(disturbances)) for other in beside)]
    for other in subjects[1:]:
        if other.origin.family != subject.origin.family:
            raise UserError(
                f"{other.origin.family} cannot be shown beside {subject.origin.family}: its tasks are others"
            )
    usual = 9 if layout == "wall" else 1 if beside or layout == "side-by-side" else 4
    shown = f"{split} tasks" if tasks is None else "tasks of a list"
    if isinstance(tasks, str | Path):
        subject, tasks = on_tasks(subject, Path(tasks), str(disturbances))
    if tasks is None:
        tasks = subject.family.space.fixed(split, num_tasks or usual)
    tasks = tasks.select(torch.arange(min(len(tasks), num_tasks or usual)))
    played = episodes or max(each.episodes for each in subjects)
    settings = VideoConfig(
        size=(size[0] or (288 if wall else 480), size[1] or (192 if wall else 320)),
        seed=seed,
        title=f"{subject.origin.family}: {shown}" if beside else subject.origin.title(shown),
        layout="side-by-side" if layout == "side-by-side" else "sequence",
        episodes=tuple(show) or ((played,) if wall else ()),
        seconds=seconds,
        plot=plot and not wall,
        megabytes=megabytes,
        device=device,
        physics=physics,
    )
    performers = [Performer(each.policy, each.origin) for each in subjects]
    with share_view("filming", console(progress)) as tell:
        return recorder.record(performers, subject.family, tasks, played, Path(output), settings, tell)


def memoryless(origin: Origin) -> list[str]:
    """A pretrained policy of the same family that does not adapt, beside one that does; none where there is none."""
    if origin.role != "adapting":
        return []
    found = [name for name in pretrained_names() if recorded_evaluation(name).family == origin.family]
    roles = {name: Run.open(PREFIX + name).origin().role for name in found}
    return [PREFIX + name for name in found if roles[name] == "memoryless"][:1]
