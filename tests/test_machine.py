"""What a process may use of the machine, and what is refused because it does not fit."""

import os
from pathlib import Path

import mujoco
import pytest
import torch

from metarl.core import machine
from metarl.core.config import configure
from metarl.core.errors import UserError
from metarl.run import checkpoint, fleet, train
from metarl.run.run import Run
from metarl.sim.external import external_env
from metarl.sim.mujoco import cpu


def test_cpus_are_those_that_the_process_may_run_on(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    allowed = os.sched_getaffinity(0)
    assert machine.num_cpus() == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert machine.num_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.num_cpus() == 64
    (tmp_path / "cpu.max").write_text("350000 100000\n")
    assert machine.num_cpus() == 4
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    assert machine.num_cpus() == 2


def test_worlds_and_workers_take_as_many(monkeypatch):
    asked = []

    class StopError(Exception):
        pass

    def stops(*words):
        asked.append(words[2])
        raise StopError

    for module, name in ((cpu, "Batch"), (external_env, "Workers")):
        monkeypatch.setattr(module, "num_cpus", lambda: 3)
        monkeypatch.setattr(module, name, stops)
    with pytest.raises(StopError):
        cpu.CpuPhysics(mujoco.MjModel.from_xml_string("<mujoco/>"), 8)
    from external_family import CartGoal

    with pytest.raises(StopError):
        external_env.ExternalEnv(CartGoal(), 8)
    assert asked == [3, 3]


def test_memory_is_the_machine_s_and_the_container_s(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    free = machine.available_memory()
    assert free > 2**20
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    assert machine.available_memory() == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.available_memory() > 2**20


@pytest.mark.parametrize(
    ("agent", "changes", "words"),
    [
        (
            "rl2",
            {"num_worlds": 2000, "episode_steps": 1000, "segment_steps": 0},
            r"at least 244 MiB of memory, and 100 MiB are left .* num_w",
        ),
        (
            "rl2",
            {"cell": "transformer", "window": 0, "num_worlds": 64, "episode_steps": 1000},
            r"at least 25\d MiB of memory, and 100 MiB are left .* most of it is for num_worlds",
        ),
        ("rl2", {"hidden_size": 8192}, "at least 256 MiB of memory.* most of it is for hidden_size"),
        ("pearl", {"replay_size": 4_000_000}, "at least .* most of it is for replay_size, which must be smaller"),
    ],
)
def test_what_does_not_fit_is_refused_before_physics(monkeypatch, agent, changes, words):
    monkeypatch.setattr(train, "available_memory", lambda: 100 * 2**20)
    monkeypatch.setattr(fleet, "make_env", None)
    with pytest.raises(UserError, match=words):
        train.Training(Run(Path()), configure(agent, "point-goal", changes))


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    path = checkpoint.save(tmp_path, {"a": torch.ones(100)}, iteration=1, total_steps=1, elapsed=1.0)
    monkeypatch.setattr(checkpoint, "available_memory", lambda: 100)
    with pytest.raises(
        checkpoint.CheckpointError, match=r"cannot be loaded here: it has .* and 100 bytes of memory are"
    ):
        checkpoint.load(path)
