"""Several processes of one training: killed, hung, stopped and refused, and nothing is lost."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from of_ranks import environment
from tiny import FAMILY, FULL, tensors
from waiting import wait_for

from metarl.core.config import configure
from metarl.run.sessions import train

ITERATIONS = 30
FIELDS = {"cell": "gru", "hidden_size": 8, "chunk_steps": 5, "minibatch_chunks": 16, "num_epochs": 1, "seed": 3}
FIELDS |= {"num_worlds": 4, "threads": 1, "validation_tasks": 0, "checkpoint_minutes": 0.0, "shards": 2}
FIELDS |= {"total_steps": ITERATIONS * 80}
WORDS = ["train", "rl2", FAMILY, *(f"--{name.replace('_', '-')}={value}" for name, value in FIELDS.items())]

pytestmark = pytest.mark.skipif(not FULL, reason="its moments are of the clock: make faults")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The training in one process, never disturbed."""
    return train(configure("rl2", FAMILY, FIELDS), tmp_path_factory.mktemp("whole") / "run").path


def iterations(path):
    log = path / "metrics.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def begun(path, **variables):
    """A training in two processes, some iterations old: its launcher, and its processes by their number."""
    words = [sys.executable, "-m", "metarl", *WORDS, "--processes", "2", "--output", str(path)]
    launcher = subprocess.Popen(words, env=os.environ | variables, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: iterations(path) >= 3)
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile, or is another user's
            if (entry / "stat").read_text().rsplit(")", 1)[1].split()[1] == str(launcher.pid):
                own = dict(part.partition("=")[::2] for part in (entry / "environ").read_text().split("\0"))
                found[int(own["RANK"])] = int(entry.name)
    assert sorted(found) == [0, 1]
    return launcher, found


def ended(launcher):
    """Its exit status and what it said, once it has ended."""
    said = launcher.communicate()[1]
    return launcher.returncode, said


def gone(process):
    return not Path(f"/proc/{process}").exists()


@pytest.mark.parametrize("which", [0, 1])
def test_a_killed_process_is_replaced_and_the_result_is_the_same(tmp_path, whole, which, figure):
    launcher, processes = begun(tmp_path / "run")
    os.kill(processes[which], signal.SIGKILL)
    killed = time.monotonic()
    wait_for(lambda: gone(processes[1 - which]))
    noticed = time.monotonic() - killed
    assert noticed < 30.0
    assert ended(launcher)[0] == 0
    assert tensors(tmp_path / "run") == tensors(whole)
    assert all(map(gone, processes.values()))
    figure(f"kill -9 of process {which} of 2: noticed after {noticed:.1f} s, bit for bit a run never disturbed")


def test_a_hung_process_is_named_and_replaced(tmp_path, whole, figure):
    launcher, processes = begun(tmp_path / "run", METARL_TIMEOUT="5")
    os.kill(processes[1], signal.SIGSTOP)
    status, said = ended(launcher)
    assert status == 0 and "process 1 of this training has not answered for 5 s" in said
    assert tensors(tmp_path / "run") == tensors(whole)
    assert all(map(gone, processes.values()))
    figure("a hung process: named after its time, replaced, bit for bit a run never disturbed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_stopped_launcher_leaves_no_process_and_the_run_goes_on(tmp_path, whole, number, figure):
    launcher, processes = begun(tmp_path / "run")
    launcher.send_signal(number)
    assert ended(launcher)[0] == (-number if number == signal.SIGKILL else 128 + number)
    wait_for(lambda: all(map(gone, processes.values())))
    reached = tensors(tmp_path / "run")[0]
    assert 3 <= reached < ITERATIONS
    subprocess.run([sys.executable, "-m", "metarl", "resume", str(tmp_path / "run")], check=True)
    assert tensors(tmp_path / "run") == tensors(whole)
    figure(f"{number.name} to the launcher of 2 processes: saved, none left, goes on bit for bit")


def test_two_trainings_at_once_do_not_meet(tmp_path, whole):
    words = [sys.executable, "-m", "metarl", *WORDS, "--processes", "2", "--output"]
    started = [subprocess.Popen([*words, str(tmp_path / name)]) for name in ("a", "b")]
    assert [process.wait() for process in started] == [0, 0]
    assert tensors(tmp_path / "a") == tensors(tmp_path / "b") == tensors(whole)


FULL_DISK = """
import errno, os, sys
from metarl.cli.main import main
left, fsync = 40, os.fsync
def full(descriptor):
    global left
    left -= os.environ["RANK"] == "0"
    if left < 0:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    fsync(descriptor)
os.fsync = full
sys.exit(main(sys.argv[1:]))
"""
"""The leading process's disk is full after some checkpoints."""


def test_a_full_disk_of_the_leading_process_ends_all_in_a_sentence(tmp_path, whole, figure):
    words = [sys.executable, "-c", FULL_DISK, *WORDS, "--output", str(tmp_path / "run")]
    (tmp_path / "meeting").mkdir()
    started = [subprocess.Popen(words, env=environment(tmp_path / "meeting", rank, 2)) for rank in range(2)]
    assert [process.wait() for process in started] == [0, 0], "the launcher says it"
    told = (tmp_path / "meeting" / "ending").read_text()
    assert told.startswith("2 cannot save ") and "No space left on device" in told and told.endswith(" is intact")
    assert 0 < tensors(tmp_path / "run")[0] < ITERATIONS
    subprocess.run([sys.executable, "-m", "metarl", "resume", str(tmp_path / "run")], check=True)
    assert tensors(tmp_path / "run") == tensors(whole)
    figure("a full disk of process 0 of 2: all end in a sentence, and go on bit for bit")


def test_a_process_of_another_configuration_is_refused(tmp_path):
    """As torchrun on two machines would start them, with another seed on one."""
    words = [sys.executable, "-m", "metarl", *WORDS, "--output", str(tmp_path / "run")]
    (tmp_path / "meeting").mkdir()
    started = [
        subprocess.Popen([*words, f"--seed={rank}"], env=environment(tmp_path / "meeting", rank, 2))
        for rank in range(2)
    ]
    assert [process.wait() for process in started] == [0, 0], "the launcher says it"
    told = (tmp_path / "meeting" / "ending").read_text()
    assert told == "2 processes 0 and 1 differ in version or configuration: they cannot train together"
    assert not (tmp_path / "run").exists()
