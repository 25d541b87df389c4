"""The command line: `metarl VERB ...`. Each verb is a dataclass of options and a function; torch loads only to work."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarl.errors import UserError, unknown_name

if TYPE_CHECKING:
    from metarl.options import EvalOptions, VideoOptions
    from metarl.run.subject import Subject
    from metarl.run.train import Outcome, Training

HELP = """\
usage: metarl VERB ...

Train robot policies that adapt to a task they have never met within a few episodes.

  train AGENT FAMILY   meta-train a learner on a family of tasks
  resume RUN           continue a training exactly where it stopped
  eval RUN             returns per episode on held-out tasks, with intervals
  video RUN            film the robot adapting to held-out tasks
  list [FAMILY]        families with their task parameters, and agents
  check FAMILY         test a family against the contract every family fulfils, or a MJCF file
  bench                speed of environments and training, against bare physics

`metarl VERB --help` shows a verb's options with units and defaults. For example:

  metarl train rl2 half-cheetah-vel --seed 1 --total-steps 20_000_000 --output runs/vel
  metarl eval runs/vel
  metarl video runs/vel --output videos/vel.mp4
  metarl video half-cheetah-body --agent random --output videos/look.mp4
"""


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 2 for a user's mistake, 130 or 143 when stopped by a signal."""
    if "MUJOCO_GL" in os.environ:  # a wrong value would fail MuJoCo's import; only videos need it, and say so
        os.environ["METARL_GL"] = os.environ.pop("MUJOCO_GL")
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if words[0] == "--version":
        from metarl import __version__

        print(__version__)
        return 0
    verb = VERBS.get(words[0])
    try:
        if verb is None:
            raise unknown_name("verb", words[0], VERBS)
        return verb(words[1:])
    except UserError as error:
        print(f"metarl: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains once more at exit
        return 141
    except KeyboardInterrupt:
        print("metarl: interrupted", file=sys.stderr)
        return 130


def _train(words: list[str]) -> int:
    from metarl.options import TrainOptions, parse

    options = parse(*_train_parser(words, TrainOptions))
    from metarl.registry import absolute, make_family
    from metarl.run import folder
    from metarl.run.train import Training

    config = options.training
    make_family(config.family)
    config = dataclasses.replace(config, agent=absolute(config.agent), family=absolute(config.family))
    run = folder.RunFolder(options.output or folder.default_path(config))
    training = Training(run, config)
    folder.create(run.path, config, ["train", *words])
    print(f"training {config.agent} on {config.family}, seed {config.seed}, in {run.path}", flush=True)
    try:
        return _execute(training, config.max_minutes)
    except (UserError, KeyboardInterrupt):
        if training.iteration == 0:  # nothing is lost, and the corrected command can use the same folder
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def _train_parser(words: list[str], options: Any) -> tuple[Any, str, list[str], Any]:
    """What to parse `train`'s words with: the agent decides which options there are, a file what their defaults are."""
    from metarl.config import TrainConfig, load_config, train_defaults
    from metarl.registry import family_names, learner_config_class, learner_names

    named = list(takewhile(lambda word: not word.startswith("-"), words[:2]))
    rest = words[len(named) :]
    changes: dict[str, Any] = dict(zip(("agent", "family"), named, strict=False))
    changes |= {key: value for key in ("agent", "family") if (value := _value_of(rest, f"--{key}"))}
    file = _value_of(rest, "--config")
    if file:
        base = load_config(Path(file))
    elif len(changes) < 2 and not {"-h", "--help"} & set(rest):
        raise UserError(
            "train needs AGENT FAMILY ahead of its options, or --config FILE; "
            f"agents: {', '.join(learner_names())}; families: {', '.join(family_names())}"
        )
    else:
        base = TrainConfig(agent="rl2", family="half-cheetah-vel", learner=None)
    config_class = learner_config_class(changes.get("agent", base.agent))
    if not isinstance(base.learner, config_class):
        changes["learner"] = config_class()
    if not file:
        changes |= train_defaults(config_class)
    base = dataclasses.replace(base, **changes)
    return options[config_class], "train", rest, options(training=base)


def _value_of(words: list[str], flag: str) -> str | None:
    """Value of `--flag VALUE` or `--flag=VALUE`, if it is there."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.split("=", 1)[1]
    return None


def _resume(words: list[str]) -> int:
    from metarl.options import ResumeOptions, parse

    options = parse(ResumeOptions, "resume", words)
    from metarl.run.folder import RunFolder, note_resumption
    from metarl.run.train import Training

    run = RunFolder(options.run)
    training = Training(run, run.read_config())
    training.restore(options.checkpoint)
    note_resumption(run, ["resume", *words], training.iteration)
    print(f"resuming {run.path} after iteration {training.iteration} of {training.num_iterations}", flush=True)
    return _execute(training, options.max_minutes)


def _execute(training: Training, max_minutes: float) -> int:
    """Train, then say how it ended and what to do next."""
    from metarl.rl.learner import Remarking
    from metarl.run.folder import locked
    from metarl.run.logs import console

    if isinstance(training.learner, Remarking):
        print(*training.learner.remarks(), sep="\n", flush=True)
    with locked(training.run):
        outcome: Outcome = training.execute(console(), max_minutes)
    path = shlex.quote(str(training.run.path))
    print(f"{outcome.total_steps:,} steps in {outcome.elapsed / 60:.1f} min, saved in {path}")
    if not outcome.finished:
        print(f"{training.num_iterations - outcome.iteration} iterations left; continue with: metarl resume {path}")
    else:
        print(f"next: metarl eval {path}, or: metarl video {path}")
    return 0 if outcome.signal is None or outcome.finished else 128 + outcome.signal


def _eval(words: list[str]) -> int:
    from metarl.options import EvalOptions, parse

    options = parse(EvalOptions, "eval", words)
    from metarl.rl.parallel import single_threaded_math
    from metarl.run.evaluate import evaluate, print_table
    from metarl.run.logs import console, provenance, write_json
    from metarl.tasks import load_tasks

    single_threaded_math()
    subject = _subject(options)
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
    note = ", the same as in training" if shared and subject.run else ""
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


def _video(words: list[str]) -> int:
    from metarl.options import VideoOptions, parse

    options = parse(VideoOptions, "video", words)
    from metarl.rl.parallel import single_threaded_math
    from metarl.run.video import VideoConfig, record

    single_threaded_math()
    subject = _subject(options)
    tasks = subject.family.space.fixed(options.split, options.grid)
    recording = record(
        subject.policy,
        subject.family,
        tasks,
        options.episodes or subject.episodes,
        options.output or Path("videos/look.mp4" if options.agent else "videos/adaptation.mp4"),
        VideoConfig((options.width, options.height), options.seed, subject.title(f"{options.split} tasks")),
    )
    print(f"wrote {recording.path}: {recording.seconds:.0f} s, {len(tasks)} tasks")
    return 0


def _subject(options: EvalOptions | VideoOptions) -> Subject:
    """The run's policy, or an untrained one on the family in its place."""
    from metarl.run.subject import trained, untrained

    return untrained(options.agent, str(options.run)) if options.agent else trained(options.run, options.checkpoint)


def _list(words: list[str]) -> int:
    from metarl.options import ListOptions, parse

    options = parse(ListOptions, "list", words)
    from metarl.run.catalogue import catalogue, print_catalogue
    from metarl.run.logs import console, write_json

    content = catalogue(options.family)
    print_catalogue(content, console())
    if options.json is not None:
        write_json(options.json, content)
    return 0


def _check(words: list[str]) -> int:
    from metarl.options import CheckOptions, parse

    options = parse(CheckOptions, "check", words)
    from metarl.registry import make_family
    from metarl.run.check import check_family, check_mjcf, verdict
    from metarl.run.logs import write_json

    path = Path(options.family)
    if path.suffix.lower() in (".xml", ".mjcf"):
        findings = check_mjcf(path, options.folder)
    else:
        findings = check_family(make_family(options.family))
    for line in verdict(options.family, findings):
        print(line)
    if options.json is not None:
        write_json(options.json, [dataclasses.asdict(finding) for finding in findings])
    return 2 if any(finding.problem is not None for finding in findings) else 0


def _bench(words: list[str]) -> int:
    from metarl.options import BenchOptions, parse

    options = parse(BenchOptions, "bench", words)
    from metarl.run.bench import print_benchmark, run_benchmark, to_json
    from metarl.run.logs import console, provenance, write_json

    rows = run_benchmark(options.families, options.worlds, options.seconds, options.threads)
    print_benchmark(rows, console())
    if options.json is not None:
        write_json(options.json, provenance(["bench", *words]) | {"rows": to_json(rows)})
    return 0


VERBS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "resume": _resume,
    "eval": _eval,
    "video": _video,
    "list": _list,
    "check": _check,
    "bench": _bench,
}


if __name__ == "__main__":
    sys.exit(main())
