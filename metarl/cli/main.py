"""The command line: `metarl VERB ...`. Finds the verb's module; each imports torch only to work."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import cast

from metarl.core.errors import UserError, missing_package, printable, unknown_name

HELP = """\
usage: metarl VERB ...

Train robot policies that adapt to a task they have never met within a few episodes.

  train AGENT FAMILY   meta-train a learner on a family of tasks
  resume RUN           continue a training exactly where it stopped
  eval RUN             returns per episode on held-out tasks, with intervals
  headroom FAMILY      what knowing the task is worth: a memoryless policy beside an oracle
  gap RUN...           what is lost in physics that a policy was not trained in
  video RUN            film the robot adapting to held-out tasks
  view RUN|FAMILY      watch robots adapt in a browser, and interfere
  export RUN -o DIR    a policy as a folder that stands by itself: contract, weights, C header, ONNX
  identify FAMILY LOG  which task parameters explain a robot's log, with intervals
  tune AGENT FAMILY    search a learner's hyperparameters, on training tasks only
  report RUN...        what runs have shown, as one HTML file
  list [FAMILY]        families with their task parameters, and agents
  deploy BUNDLE        run an exported policy on a robot, or in simulation, guarded
  push RUN USER/NAME   publish a policy on the Hugging Face Hub, with a model card
  pull USER/NAME       fetch one from there, as data
  new ROBOT.xml        write a family of tasks for a robot of your own
  check FAMILY         test a family against the contract every family fulfils, or a MJCF file
  bench                speed of environments and training, against bare physics

`metarl VERB --help` shows a verb's options with units and defaults. For example:

  metarl train rl2 half-cheetah-vel --seed 1 --total-steps 20_000_000 --output runs/vel
  metarl eval runs/vel
  metarl video runs/vel --output videos/vel.mp4
  metarl video pretrained:half-cheetah-dir-maml --layout side-by-side --grid 2 --plot
  metarl video half-cheetah-body --agent random --output videos/look.mp4
"""

VERBS = {
    "train": "train",
    "resume": "resume",
    "eval": "eval",
    "headroom": "headroom",
    "gap": "gap",
    "video": "video",
    "view": "view",
    "export": "export",
    "identify": "identify",
    "tune": "tune",
    "report": "report",
    "list": "list",
    "deploy": "deploy",
    "push": "push",
    "pull": "pull",
    "new": "new",
    "check": "check",
    "bench": "bench",
}
"""A verb's module in `metarl.cli`."""


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 2 for a user's mistake, 130 or 143 when stopped by a signal."""
    try:
        if argv is None:  # a process of our own
            _answer_signals()
        return _main(list(sys.argv[1:] if argv is None else argv))
    except (UserError, ModuleNotFoundError) as error:
        said = missing_package(error) if isinstance(error, ModuleNotFoundError) else error
        if said is None:
            raise
        print(*map(printable, f"metarl: {said}".split("\n")), sep="\n", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains once more at exit
        return 141
    except KeyboardInterrupt:
        if argv is None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # another one must not interrupt this
        print("metarl: interrupted", file=sys.stderr)
        return 130


def _main(words: list[str]) -> int:
    if "MUJOCO_GL" in os.environ:  # a wrong value would fail MuJoCo's import; only videos need it, and say so
        os.environ["METARL_GL"] = os.environ.pop("MUJOCO_GL")
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if words[0] == "--version":
        from metarl import __version__

        print(__version__)
        return 0
    if words[0] not in VERBS:
        raise unknown_name("verb", words[0], VERBS)
    return _run_of(VERBS[words[0]])(words[1:])


def _answer_signals() -> None:
    """Let a stop from outside clean up as Ctrl-C does; a SIGHUP that is ignored, as under nohup, stays so."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)
    if signal.getsignal(signal.SIGINT) in (
        signal.default_int_handler,
        signal.SIG_IGN,
    ):  # ignored in a shell's background
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """At once while modules are imported: nothing is at stake, and a library may take the exception for its own."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, b"metarl: interrupted\n")
            os._exit(128 + number)
        frame = frame.f_back
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def _run_of(module: str) -> Callable[[list[str]], int]:
    """What runs a verb."""
    return cast(Callable[[list[str]], int], importlib.import_module(f"metarl.cli.{module}").run)


if __name__ == "__main__":
    sys.exit(main())
