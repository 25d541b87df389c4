"""Signals in every phase: nothing is lost, nothing lies about, and no traceback is shown."""

import itertools
import os
import pty
import shutil
import signal
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
from tiny import FAMILY, FULL, assert_goes_on, config, few, forked, signals_of_a_fresh_process, tensors, well

import metarl.cli.eval
import metarl.cli.main as cli
import metarl.run.tables  # noqa: F401
from metarl.core import trust
from metarl.core.config import to_toml
from metarl.run import checkpoint
from metarl.run.sessions import resume
from metarl.video.encoder import movie

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
COLLECTING = "metarl.run.collect:Stepper.segment"
TRAINING = {
    "collecting": COLLECTING,
    "updating": "metarl.agents.rl2:RL2.update",
    "logging": "metarl.run.logs:MetricsFile.write",
    "evaluating": "metarl.run.beside:evaluate",
    "saving": "metarl.run.checkpoint:dump_tensors",
    "renaming": "metarl.run.checkpoint:_swap",
}
"""Phases of an iteration, and a function that each calls once."""
BEFORE = {"making worlds": "metarl.run.fleet:make_env", "making the folder": "metarl.run.folder:provenance"}
READING = {"evaluating": "metarl.run.evaluate:trial_steps", "writing": "metarl.core.files:_replace"}


def interrupt(phase, *signals, call=1):
    """Have this process sent signals in the `call`th call of a function."""
    module, names = phase.split(":")
    *owners, name = names.split(".")
    owner = import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    function, left = getattr(owner, name), itertools.count(1 - call)

    def interrupted(*words, **options):
        if next(left) == 0:
            for number in signals:
                os.kill(os.getpid(), number)
        return function(*words, **options)

    setattr(owner, name, interrupted)


def command(tmp_path, *words, before=lambda: None):
    """The command line in a process of its own: its exit code and all it printed."""

    def act():
        for descriptor, stream in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(tmp_path / "printed", os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
            setattr(sys, stream, os.fdopen(descriptor, "w", buffering=1))
        sys.argv = ["metarl", *map(str, words)]
        before()
        try:
            raise SystemExit(cli.main())
        except KeyboardInterrupt:
            raise AssertionError("Traceback") from None

    (tmp_path / "printed").write_text("")
    code, said = forked(act)
    printed = (tmp_path / "printed").read_text() + said
    assert "Traceback" not in printed, printed
    return code, printed


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that no signal disturbed, with its configuration beside it."""
    place = tmp_path_factory.mktemp("signals")
    (place / "config.toml").write_text(to_toml(config(3)))
    trust.remember(FAMILY)
    assert cli.main(["train", "--config", str(place / "config.toml"), "--output", str(place / "run")]) == 0
    return place / "run"


def numbers(phase):
    return SIGNALS if FULL else SIGNALS[len(phase) % 3 : len(phase) % 3 + 1]


@pytest.mark.parametrize("phase", few(TRAINING, 3))
def test_a_signal_in_an_iteration_lets_it_finish_and_saves_it(whole, tmp_path, phase, figure):
    for number in numbers(phase):
        run = tmp_path / number.name
        words = ("train", "--config", whole.parent / "config.toml", "--output", run)
        code, printed = command(tmp_path, *words, before=lambda n=number: interrupt(TRAINING[phase], n, call=2))
        assert code == 128 + number, printed
        assert f"{number.name}: finishing iteration" in printed
        assert f"continue with: metarl resume {run}" in printed
        assert tensors(run)[0] == 2
        assert_goes_on(run, whole)
    figure(f"signals while {phase}: {len(numbers(phase))} of {len(numbers(phase))} saved, and go on bit for bit")


@pytest.mark.parametrize("phase", BEFORE)
def test_a_signal_before_the_first_iteration_leaves_no_folder(whole, tmp_path, phase, figure):
    for number in numbers(phase):
        words = ("train", "--config", whole.parent / "config.toml", "--output", tmp_path / "run")
        code, printed = command(tmp_path, *words, before=lambda n=number: interrupt(BEFORE[phase], n))
        assert code == 128 + number, printed
        assert not (tmp_path / "run").exists()
    figure(f"signals while {phase}: {len(numbers(phase))} of {len(numbers(phase))} leave no folder")


@pytest.mark.parametrize("phase", READING)
def test_a_signal_during_an_evaluation_leaves_nothing(whole, tmp_path, phase, figure):
    before = sorted(whole.rglob("*"))
    for number in numbers(phase):
        words = ("eval", whole, "--num-tasks", 2, "--split", "test", "--json", tmp_path / "x.json")
        code, printed = command(tmp_path, *words, before=lambda n=number: interrupt(READING[phase], n))
        assert code == 128 + number, printed
        assert sorted(path for path in whole.rglob("*") if path.name != "eval") == before
        assert not (tmp_path / "x.json").exists()
    figure(f"signals to eval while {phase}: {len(numbers(phase))} of {len(numbers(phase))} leave nothing")


def test_a_second_signal_before_the_first_iteration_says_how_to_go_on(whole, tmp_path):
    words = ("train", "--config", whole.parent / "config.toml", "--output", tmp_path / "run")
    twice = (signal.SIGTERM, signal.SIGTERM)
    code, printed = command(tmp_path, *words, before=lambda: interrupt(COLLECTING, *twice))
    assert code == 143
    assert "is removed, as no iteration was complete; the same command begins anew" in printed
    assert not (tmp_path / "run").exists()
    code, printed = command(tmp_path, *words, before=lambda: interrupt(COLLECTING, *twice, call=3))
    assert code == 143
    assert f"saved up to iteration 2; continue with: metarl resume {tmp_path / 'run'}" in printed
    assert_goes_on(tmp_path / "run", whole)


def test_under_nohup_a_dropped_connection_stops_nothing(whole, tmp_path):
    def drop():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        interrupt(COLLECTING, signal.SIGHUP, call=2)

    words = ("train", "--config", whole.parent / "config.toml", "--output", tmp_path / "run")
    assert command(tmp_path, *words, before=drop)[0] == 0
    assert tensors(tmp_path / "run") == tensors(whole)


def test_a_connection_that_drops_saves_the_run(tmp_path):
    """The terminal is gone with it: what is printed then must not be an error."""
    words = ["train", "rl2", FAMILY, "--total-steps", "100000000", "--num-worlds=4", "--chunk-steps=5", "--threads=1"]
    child, terminal = pty.fork()
    if child == 0:
        signals_of_a_fresh_process()
        os.execv(sys.executable, [sys.executable, "-m", "metarl.cli.main", *words, "--output", str(tmp_path / "run")])
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        os.read(terminal, 2**16)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    state, manifest = checkpoint.load(checkpoint.find(tmp_path / "run" / "checkpoints"))
    assert manifest.iteration >= 1
    assert state


IMPORTING = """
import itertools, os, sys, metarl.cli.main as m
number, at, answer = int(sys.argv.pop(1)), int(sys.argv.pop(1)), m._answer_signals

class Finder:
    left = itertools.count(1 - at)

    def find_spec(self, *_):
        if next(self.left) == 0:
            print("sent", flush=True)
            os.kill(os.getpid(), number)

m._answer_signals = lambda: (answer(), sys.meta_path.insert(0, Finder()))
sys.exit(m.main())
"""
"""The command line, which is sent a signal at the given one of its imports."""


def test_a_signal_while_it_starts_shows_no_traceback(whole, tmp_path, figure):
    pairs = list(zip((1, 30, 100, 300, 600, 1000, 1500, 2000), itertools.cycle(SIGNALS), strict=False)) * 2
    chosen = pairs if FULL else [(300, signal.SIGTERM)]
    words = ("train", "--config", whole.parent / "config.toml", "--output", tmp_path / "run")
    for at, number in chosen:
        run = [sys.executable, "-c", IMPORTING, str(int(number)), str(at), *map(str, words)]
        done = subprocess.run(run, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert "Traceback" not in done.stderr, (at, number)
        if "sent" in done.stdout:
            assert done.returncode == 128 + number, (at, number, done.stderr)
            if (tmp_path / "run").exists():  # an import after the folder was made: it is a run that begins when resumed
                well(lambda: resume(tmp_path / "run", callbacks=[lambda _: False]))
                shutil.rmtree(tmp_path / "run")
    figure(f"signals at {len(chosen)} imports of the start: no traceback, no folder or one that resumes")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_film_that_is_stopped_leaves_no_part_of_it(tmp_path, number):
    def film(words):
        with movie(tmp_path / "films" / "x.mp4", 30.0) as file:
            file.write(np.zeros((64, 64, 3), np.uint8), 10)
            assert list((tmp_path / "films").iterdir())
            os.kill(os.getpid(), number)

    code, _ = command(tmp_path, "video", before=lambda: setattr(cli, "_run_of", lambda verb: film))
    assert code == 128 + number
    assert not list((tmp_path / "films").iterdir())
