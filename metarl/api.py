"""What one does with metarl, as functions. A command of the command line parses its words and calls one of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarl.core.config import configure
from metarl.core.registry import family_names, learner_names, make_family, reference

if TYPE_CHECKING:
    from metarl.core.tasks import Split, Tasks
    from metarl.core.types import Metrics
    from metarl.rl.policy import Policy
    from metarl.run.control import Control
    from metarl.run.records import EvaluationRecord
    from metarl.run.run import Run
    from metarl.sim.env import TrialEnv
    from metarl.sim.family import Family

Callback = Callable[["Metrics"], bool | None]
"""Called with the metrics of each iteration once they are logged; returning False stops the training, saved."""


def families() -> list[str]:
    """Names of the families of tasks: metarl's own first, then those of installed plug-ins."""
    return family_names()


def learners() -> list[str]:
    """Names of the learners: metarl's own first, then those of installed plug-ins."""
    return learner_names()


def make(
    family: str | Family | type[Family],
    num_worlds: int = 1,
    *,
    episodes_per_trial: int = 2,
    episode_steps: int | None = None,
    task_visible: bool = False,
    physics: str | None = None,
    device: str = "cpu",
    threads: int = 0,
) -> TrialEnv:
    """Return `num_worlds` robots of a family, stepped together.

    Args:
        family: A name of `families()`, `path/to/file.py:ClassName`, a `Family` or its class.
        num_worlds: Robots in the batch, each on a task of its own.
        episodes_per_trial: Episodes on one task.
        episode_steps: Time limit of an episode [control steps]; the family's own by default.
        task_visible: Observations end with the task in numbers, as an oracle sees it.
        physics: `mujoco` (on the CPU) or `warp` (mujoco_warp); by default mujoco on the cpu and warp on cuda.
        device: Where the worlds are, `cpu` or `cuda`: ask `env.device`.
        threads: Threads of the physics, or processes of an external environment; 0 for one per CPU. Same results.

    Raises:
        UserError: The family is unknown, or what it declares is wrong.
    """
    from metarl.sim.declarations import make as declared
    from metarl.sim.make import make_env

    found = make_family(family) if isinstance(family, str) else family
    return make_env(
        declared(found.__name__, found) if isinstance(found, type) else found,
        num_worlds,
        episodes_per_trial=episodes_per_trial,
        episode_steps=episode_steps,
        task_visible=task_visible,
        physics=physics,
        device=device,
        threads=threads,
    )


def train(
    agent: str,
    family: str | type[Family],
    *,
    output: str | Path | None = None,
    config: str | Path | None = None,
    callback: Callback | None = None,
    show: bool = False,
    trust_code: bool = False,
    tasks: str | Path | None = None,
    track: str = "",
    **fields: Any,
) -> Run:
    """Meta-train a learner on a family of tasks, from the beginning.

    Args:
        agent: A name of `learners()`, or `path/to/file.py:ClassName`.
        family: A name of `families()`, `path/to/file.py:ClassName`, or a class from a file.
        output: The run's folder, which must be new or empty; `runs/FAMILY-AGENT-sSEED-TIME` by default.
        config: A TOML file to start from.
        callback: Called with the metrics of each iteration; returning False stops the training, saved.
        show: Whether a progress line is printed.
        trust_code: Files of code that `config` names may run, also such as this user never trained with.
        tasks: A file of tasks, as `identify` writes, to train around: `task_ranges` are its intervals, widened.
        track: A module that is told the numbers too, `wandb` or `trackio`; nothing is sent anywhere unless it is given.
        fields: Any field of `TrainConfig` or of the learner's configuration, as `seed=1` or `evaluate_every=5`.

    Returns:
        The run, which `evaluate`, `load`, `record`, `report` and `resume` take.

    Raises:
        UserError: A name or a field is wrong, or the folder is in use or cannot be written.
        Diverged: The losses are not finite any more; the message names the last good checkpoint.
    """
    from metarl.run import sessions
    from metarl.run.logs import console, words_of

    name = reference(family)
    if tasks is not None:
        name, fields["task_ranges"] = sessions.around(Path(tasks), name)
    made = configure(agent, name, fields, None if config is None else Path(config), trust_code)
    words = ["train", made.agent, made.family, *words_of(fields)]
    where, callbacks = None if output is None else Path(output), [callback] if callback else []
    return sessions.train(made, where, callbacks=callbacks, console=console(show), argv=words, track=track)


def resume(
    run: Run | str | Path,
    *,
    total_steps: int | None = None,
    max_minutes: float = 0.0,
    checkpoint: str | None = None,
    device: str = "",
    physics: str = "",
    callback: Callback | None = None,
    show: bool = False,
    trust_code: bool = False,
    track: str = "",
) -> Run:
    """Train on: exactly as if the run had never stopped, or further than was meant at first.

    Args:
        run: A run or its folder.
        total_steps: The new length of the whole training [control steps over all worlds], also of a finished run.
            Learning rates and a curriculum go on from the share of the new length that is done.
        max_minutes: Stop and save after this long [min]; 0 for no limit.
        checkpoint: The checkpoint to go on from; the newest by default.
        device: Where to go on, `cpu` or `cuda`; where the run was, by default.
        physics: What is to move the worlds there, `mujoco` or `warp`.
        callback: See `train`.
        show: Whether a progress line is printed.
        trust_code: Files of code that the run names may run, also such as this user never trained with.
        track: See `train`.

    Raises:
        UserError: The folder holds no run, is in use, or has trained for longer already.
    """
    from metarl.run import sessions
    from metarl.run.logs import console, words_of

    given = {"total_steps": total_steps, "device": device, "physics": physics}
    words = ["resume", str(run), *words_of({name: value for name, value in given.items() if value})]
    return sessions.resume(
        run,
        total_steps=total_steps,
        max_minutes=max_minutes,
        which=checkpoint,
        on=(device, physics),
        trust_code=trust_code,
        callbacks=[callback] if callback else [],
        console=console(show),
        argv=words,
        track=track,
    )


def evaluate(
    run: Run | str | Path,
    *,
    split: Split = "test",
    tasks: Tasks | str | Path | None = None,
    num_tasks: int = 100,
    episodes: int = 0,
    deterministic: bool = True,
    seed: int = 0,
    checkpoint: str | None = None,
    agent: str | None = None,
    device: str = "cpu",
    physics: str = "",
    controls: Sequence[Control | str] = (),
    disturbances: str | Path = "",
    trust_code: bool = False,
) -> EvaluationRecord:
    """Measure the return of each episode on fixed tasks, and keep the record in the run's folder.

    Args:
        run: A run, its folder, or `pretrained:NAME`; with `agent` the name of a family.
        split: `test` (held out, drawn as in training), `ood` (beyond the training range) or `train`.
        tasks: Tasks of your own in place of a split, or their file, as `identify` writes.
        num_tasks: How many of the split's fixed list, each in a world of its own.
        episodes: Episodes on each task; 0 for as many as in training.
        deterministic: Mean actions, wherever the policy need not explore; else sampled ones.
        seed: Seed of the initial states and of what is sampled.
        checkpoint: `iteration-000120`, or `best`; the newest by default.
        agent: `zero` or `random`: a policy that never trained.
        device: Where policy and worlds are, `cpu` or `cuda`. What is published is measured on the CPU.
        physics: What moves the worlds, `mujoco` or `warp`; what is usual on the device by default.
        controls: What else to play, as `wipe`, `swap`, `nominal` or a `Control`: an adaptation must lose by them.
        disturbances: A TOML file of what a real robot adds, or its text, upon what the policy was trained with.
        trust_code: Files of code that the run names may run, also such as this user never trained with.

    Raises:
        UserError: There is no such run, checkpoint or split, or the policy cannot be played on these tasks.
    """
    from metarl.run.control import Control
    from metarl.run.evaluate import evaluate_subject, split_name
    from metarl.run.logs import words_of
    from metarl.run.run import worlds_on
    from metarl.run.subject import on_tasks, subject_of

    subject, name = subject_of(run, agent, checkpoint, trust_code, device, str(disturbances)), "list-python"
    if isinstance(tasks, str | Path):
        name = f"list-{Path(tasks).stem}"
        subject, tasks = on_tasks(subject, Path(tasks), str(disturbances))
    chosen = subject.family.space.fixed(split, num_tasks) if tasks is None else tasks
    name = split_name(split if tasks is None else name, str(disturbances))
    words = ["eval", str(run), "--split", split, *words_of({"num_tasks": len(chosen), "seed": seed})]
    options: dict[str, Any] = {"episodes": episodes, "seed": seed, "deterministic": deterministic}
    options["worlds"] = worlds_on(device, physics)
    options["controls"] = [Control(one) if isinstance(one, str) else one for one in controls]
    record = evaluate_subject(subject, chosen, name, words + ["--stochastic"] * (not deterministic), **options)
    if subject.run is not None:
        subject.run.write_evaluation(record)
    return record


def load(
    run: Run | str | Path, *, checkpoint: str | None = None, device: str = "cpu", trust_code: bool = False
) -> Policy[Any]:
    """Return a trained policy; no simulator is built.

    Args:
        run: A run, its folder, or `pretrained:NAME`.
        checkpoint: `iteration-000120`, or `best`; the newest by default.
        device: Where its tensors are to be, `cpu` or `cuda`.
        trust_code: Files of code that the run names may run, also such as this user never trained with.

    Raises:
        UserError: There is no such run or checkpoint, or it is damaged.
    """
    from metarl.run.run import Run

    return Run.open(run, trust_code).policy(checkpoint, device)


def report(
    *runs: Run | str | Path,
    output: str | Path | None = None,
    evaluate_missing: bool = True,
    film: bool = True,
    say: Callable[[object], None] | None = None,
) -> Path:
    """Write one self-contained HTML file of one or several runs, with every number in a JSON file beside it.

    Args:
        runs: Runs, their folders, or `pretrained:NAME`. Runs that differ in their seed only are pooled.
        output: The HTML file; `RUN/report.html` by default for one run, else `report.html`.
        evaluate_missing: Evaluate runs that have a checkpoint on 100 `test` and `ood` tasks, where that is missing.
        film: Film runs that have a checkpoint, where that is missing and this machine can draw.
        say: Called with what is made on the way, as `print`.

    Returns:
        Path of the HTML file.

    Raises:
        UserError: One of them is no run, or a file cannot be written.
    """
    from metarl.reports import build

    tell = say or (lambda what: None)
    opened = build.open_runs(runs)
    for run in opened:
        if (evaluate_missing or film) and not run.is_trusted:
            tell(f"{run} is reported as it is: it names code that you have not trained with, and that is not run")
            continue
        if evaluate_missing:
            for split in build.missing_evaluations(run):
                tell(evaluate(run, split=split))
            build.find_beliefs(run)
        if film:
            build.film_missing(run, tell)
    path = build.default_path(opened) if output is None else Path(output)
    numbers = build.write_report(build.open_runs(opened), path, ["report", *map(str, runs)])
    tell(f"wrote {path} and {numbers}")
    return path
