"""Signals in every phase: nothing is lost, nothing lies about, and no traceback is shown."""

import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from tiny import FAMILY

from metarl.run import checkpoint

HANGING = 900
"""Limit against hanging for good [s], on a machine however busy."""
TRAIN = ["train", "rl2", FAMILY, "--total-steps", "100000000", "--num-worlds=4", "--chunk-steps=5", "--threads=1"]
ENTERED = """
import sys, metarl.cli.main as m
answer = m._answer_signals
m._answer_signals = lambda: (answer(), print('entered', flush=True))
sys.exit(m.main())
"""


def entered(*words, **options):
    """The command line in a process that has reached `main`."""
    command = [sys.executable, "-c", ENTERED, *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    assert process.stdout.readline() == "entered\n"
    return process


@pytest.fixture(autouse=True)
def _nothing_left_running(monkeypatch):
    started, popen = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    yield
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("delay", [0.0, 0.15, 0.5, 1.2])
def test_ctrl_c_while_it_starts_shows_no_traceback(tmp_path, delay):
    process = entered(*TRAIN, "--output", tmp_path / "run")
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)  # the first may have asked an iteration to finish
    _, error = process.communicate(timeout=HANGING)
    assert process.returncode in (130, -signal.SIGINT)  # the second may meet an interpreter that is shutting down
    assert "Traceback" not in error
    assert "interrupted" in error or "continue with" in error


def test_a_second_signal_before_the_first_iteration_says_how_to_go_on(tmp_path):
    words = ["--episode-steps", "100000"]  # an iteration of minutes
    process = entered(*TRAIN, *words, "--output", tmp_path / "run")
    while process.poll() is None and not (tmp_path / "run" / "policy.json").exists():
        time.sleep(0.05)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
    _, error = process.communicate()
    assert process.returncode in (143, -signal.SIGTERM)
    assert "is removed, as no iteration was complete; the same command begins anew" in error
    assert not (tmp_path / "run").exists()


def test_a_connection_that_drops_saves_the_run(tmp_path):
    """The terminal is gone with it: what is printed then must not be an error."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-m", "metarl.cli.main", *TRAIN, "--output", str(tmp_path / "run")])
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        os.read(terminal, 2**16)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    state, manifest = checkpoint.load(checkpoint.find(tmp_path / "run" / "checkpoints"))
    assert manifest.iteration >= 1
    assert state


def test_under_nohup_a_dropped_connection_stops_nothing(tmp_path):
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = entered(*TRAIN, "--output", tmp_path / "run", preexec_fn=ignore)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    before = metrics.read_text().count("\n")
    while process.poll() is None and metrics.read_text().count("\n") < before + 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=HANGING)
    assert process.returncode == 143


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_film_that_is_stopped_leaves_no_part_of_it(tmp_path, number):
    program = (
        "import sys, time, pathlib, numpy as np, metarl.cli.main as m\n"
        "from metarl.video.encoder import movie\n"
        "def film(words):\n"
        "    with movie(pathlib.Path(words[0]), 30.0) as file:\n"
        "        file.write(np.zeros((64, 64, 3), np.uint8), 10)\n"
        "        print('filming', flush=True)\n"
        "        time.sleep(900)\n"
        "m._run_of = lambda verb: film\n"
        "sys.argv = ['metarl', 'video', sys.argv[1]]\n"
        "sys.exit(m.main())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "x.mp4")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "filming\n"
    assert list(tmp_path.iterdir())
    process.send_signal(number)
    _, error = process.communicate(timeout=HANGING)
    assert process.returncode == 128 + number
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())
