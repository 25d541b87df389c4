"""Small trainings of every learner, and processes that are some of several as those that torchrun starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

from metarl.core.config import configure
from metarl.run import checkpoint
from metarl.run.ranks import MEETING, digest
from metarl.run.run import Run
from metarl.run.sessions import train

FAMILY = f"{Path(__file__).parent}/short_family.py:ShortDir"
SHARDS = 3
"""Of 8 worlds: 2, 3 and 3."""
STEPS = 8 * 20
"""Control steps of an iteration of whole trials."""
_PEARL = {"prior_episodes": 1, "initial_steps": 0, "num_updates": 2, "meta_batch": 4, "batch_size": 8}
_PEARL |= {"context_size": 8, "num_slots": 24, "replay_size": 200, "latent_size": 2}
_RL2 = {"cell": "gru", "chunk_steps": 5, "minibatch_chunks": 12, "num_epochs": 1}
CASES = {
    "rl2": _RL2,
    "rl2 segments": _RL2 | {"segment_steps": 10, "privileged_critic": True, "staggered": True},
    "maml-trpo": {"shots": 1},
    "pearl": _PEARL,
    "pearl prototypes": _PEARL | {"belief": "prototype"},
    "varibad": {
        "mirror": True,
        "encoder_size": 8,
        "latent_size": 2,
        "num_epochs": 1,
        "batch_size": 64,
        "encoder_steps": 2,
    },
    "rma": {
        "mirror": True,
        "chunk_steps": 5,
        "num_epochs": 1,
        "batch_size": 40,
        "student_share": 0.7,
        "student_size": 8,
    },
    "ppo": {"num_epochs": 1, "batch_size": 64},
}
ANY_ORDER = "rl2 in any order"
"""Gradients added by all-reduce."""


def config(case, iterations=2, **changes):
    values = {"num_worlds": 8, "seed": 3, "threads": 1, "validation_tasks": 0, "hidden_size": 8, "shards": SHARDS}
    iterations += case == "rma"  # whose student learns in the last
    own = CASES["rl2"] | {"all_reduce": True} if case == ANY_ORDER else CASES[case]
    fields = values | own | {"total_steps": iterations * STEPS} | changes
    return configure(case.split()[0], FAMILY, fields)


def trained(place, cases, **changes):
    """SHA-256 of all that each learner holds after its training."""
    for case in cases:
        train(config(case, **changes), folder(place, case))
    return {case: digest(learned(place, case)).hex() for case in cases}


def folder(place, case):
    return Path(place) / case.replace(" ", "-")


def learned(place, case):
    return checkpoint.load(checkpoint.find(Run(folder(place, case)).checkpoints))[0]


def environment(meeting, rank, size, **more):
    """That of one of several processes on this machine."""
    ours = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    ours |= {"TORCHELASTIC_RUN_ID": "test", MEETING: meeting, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": 1}
    return os.environ | {name: str(value) for name, value in (ours | more).items()}


def in_processes(size, place, cases, **changes):
    """`trained` in so many processes: what the leading one wrote."""
    meeting = Path(place) / "meeting"
    meeting.mkdir(parents=True)
    words = [sys.executable, __file__, str(place), json.dumps(changes), *cases]
    started = [
        subprocess.Popen(words, env=environment(meeting, rank, size), stdout=-1, text=True) for rank in range(size)
    ]
    printed = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0] * size
    return dict(line.split("\t") for line in printed[0].splitlines())


if __name__ == "__main__":
    for case, value in trained(sys.argv[1], sys.argv[3:], **json.loads(sys.argv[2])).items():
        print(case, value, sep="\t")
