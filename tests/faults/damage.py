"""Damages a run's folder in ways that repeat by their seed, and says what came of reading it.

`python tests/faults/damage.py 0 500` tries the seeds 0 to 499, on runs of three learners, and prints what came of it.
"""

import hashlib
import json
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load as load_tensors, save as dump_tensors
from tiny import config

import metarl
from metarl.core.config import configure
from metarl.core.errors import UserError
from metarl.core.files import sealed
from metarl.reports.content import content_of
from metarl.run import checkpoint, sessions
from metarl.run.run import Run

ODD = (
    *(-5, 0, 10**30, -(10**30), 1e308, 1e-320, True, False, None, "", "x" * 300, "\0", "\ud800", [], {}, [[]], [None]),
    *(float("nan"), float("inf"), 0.5, 2**63, {"a": 1}, [1.0] * 3, "../..", "/dev/zero", 10**15),
)


AGENTS = ("rl2", "maml-trpo", "pearl")


def make_runs(folder, agents=AGENTS):
    """Runs of three learners with checkpoints and evaluations, each of two iterations."""
    made = {"rl2": replace(config(2), family="point-goal", episode_steps=10)}
    shared = {"num_worlds": 2, "episode_steps": 6, "threads": 1, "checkpoint_minutes": 0.0, "validation_tasks": 2}
    maml = {"hidden_size": 8, "shots": 2, "episodes_per_trial": 4, "total_steps": 2 * 2 * 4 * 6}
    pearl = {"hidden_size": 8, "train_tasks": 4, "replay_size": 1000, "total_steps": 2 * 2 * 3 * 6}
    for agent, own in (("maml-trpo", maml), ("pearl", pearl)):
        made[agent] = configure(agent, "point-goal", shared | own)
    for agent in agents:
        metarl.evaluate(sessions.train(made[agent], folder / agent), num_tasks=2)
    return [folder / agent for agent in agents]


def damaged(run, rng):
    """Damage one file of a run's folder; returns what was done, and whether its checksum was made anew."""
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.name not in (".lock",) and path.suffix)
    files = [path for path in files if "tfevents" not in path.name]
    path = rng.choice(files)
    kinds = [flip, cut, blank, double, insert, delete]
    if path.suffix == ".json":
        kinds += [odd_leaf] * 6
    if path.suffix == ".toml":
        kinds += [odd_line] * 4
    if path.suffix == ".safetensors":
        kinds += [odd_tensor] * 6
    kind = rng.choice(kinds)
    signed = kind(path, rng)
    return f"{kind.__name__} {path.relative_to(run)}", bool(signed)


def flip(path, rng):
    blob = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 8))):
        blob[rng.randrange(len(blob))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(blob))


def cut(path, rng):
    blob = path.read_bytes()
    path.write_bytes(blob[: rng.randrange(len(blob))])


def blank(path, rng):
    blob = bytearray(path.read_bytes())
    start, length = rng.randrange(len(blob)), rng.randrange(1, 64)
    end = min(len(blob), start + length)
    blob[start:end] = bytes(end - start)
    path.write_bytes(bytes(blob))


def double(path, rng):
    blob = path.read_bytes()
    start, end = sorted(rng.randrange(len(blob) + 1) for _ in range(2))
    path.write_bytes(blob[:end] + blob[start:])


def insert(path, rng):
    blob = path.read_bytes()
    place = rng.randrange(len(blob) + 1)
    path.write_bytes(blob[:place] + rng.randbytes(rng.randrange(1, 40)) + blob[place:])


def delete(path, rng):
    path.unlink()


def odd_leaf(path, rng):
    """Put another value into JSON, and sign it anew half the time, as somebody who means it would."""
    content = json.loads(path.read_text())
    place, key = content, rng.choice(sorted(content))
    while isinstance(place[key], dict | list) and place[key] and rng.random() < 0.7:
        place = place[key]
        key = rng.choice(sorted(place)) if isinstance(place, dict) else rng.randrange(len(place))
    place[key] = rng.choice(ODD)
    signs = rng.random() < 0.5
    path.write_text(json.dumps(sealed(content) if signs else content))
    return signs or "checksum" not in content or content["checksum"] is None


def odd_line(path, rng):
    lines = path.read_text().splitlines()
    number = rng.randrange(len(lines))
    values = ["-5", "1" + "0" * 30, "9" * 5000, "true", '"x"', "[" * 5000, "nan", "inf", "{}", '"\\u0000"', "1e300", ""]
    lines[number] = lines[number].split("=")[0] + "= " + rng.choice(values)
    path.write_text("\n".join(lines))


def odd_tensor(path, rng):
    """Another tensor in a checkpoint that is signed anew."""
    state = load_tensors(path.read_bytes())
    name = rng.choice(sorted(state))
    value = state[name]
    state[name] = rng.choice(
        [
            *(value.double(), value.half(), value.int(), value.bool(), value[..., None], value.flatten()[:0]),
            *(value.ravel(), value.to(torch.complex64), -value.float(), value.float() * float("nan")),
            torch.full_like(value, 2**20 + 1),
        ]
    ).contiguous()
    if rng.random() < 0.3:
        state[f"{name}x"] = state.pop(name)
    blob = dump_tensors(state)
    path.write_bytes(blob)
    manifest = json.loads((path.parent / "manifest.json").read_text())
    manifest |= {"sha256": hashlib.sha256(blob).hexdigest(), "size": len(blob)}
    (path.parent / "manifest.json").write_text(json.dumps(sealed(manifest)))
    return True


def read(path):
    """Everything that a run's folder is read for: by name, what it holds or the sentence that refuses it."""
    found = {}
    for name, act in READERS.items():
        try:
            found[name] = act(Run(path))
        except UserError as error:
            found[name] = error
            assert "\n" not in str(error), f"{name}: {error}"
            assert len(str(error)) < 1500, f"{name}: {error}"
    return found


def _plain(state):
    return {name: hashlib.sha256(state[name].contiguous().numpy().tobytes()).hexdigest() for name in sorted(state)}


def _policy(run):
    policy = run.policy()
    state, noise = policy.initial_state(1), torch.zeros(1, policy.noise_size)
    return policy.act(torch.zeros(1, policy.info.observation_size), state, noise)[0].tolist()


def _learner(run):
    with sessions.resumed(run, ["resume"]) as training:
        state = training.learner.state_dict()
        metrics = training._iterate()
        assert metrics
        return _plain(state)


READERS = {
    "config": lambda run: (run.toml(), run.config())[1],
    "values": lambda run: run.config_values,
    "provenance": lambda run: run.provenance(),
    "info": lambda run: run.info,
    "described": lambda run: run.described,
    "manifest": lambda run: run.manifest(),
    "best": lambda run: run.manifest("best"),
    "checkpoint": lambda run: _plain(checkpoint.load(checkpoint.find(run.checkpoints))[0]),
    "policy": _policy,
    "learner": _learner,
    "metrics": lambda run: run.metrics,
    "evaluations": lambda run: [record.to_json() for record in run.evaluations],
    "report": lambda run: content_of([run], {}) and None,
}


def outcome(run, before, number, scratch):
    """Damage a copy of a run by a seed: what was done, which readings were refused, and which are other than `before`.

    Left out is what may be other: what somebody signed anew or deleted, a log without its end, and a configuration,
    which people edit. A `run.json` that is lost or damaged is read as an empty one, without which a run resumes.
    """
    copy = scratch / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    what, signed = damaged(copy, random.Random(number))
    after = read(copy)
    refused = [name for name, value in after.items() if isinstance(value, UserError)]
    others = {name for name, value in after.items() if name not in refused and repr(value) != before[name]}
    file = what.split()[1]
    if signed or what.startswith("delete") or file in ("config.toml", "metrics.jsonl"):
        others.clear()
    if after["provenance"] == {}:
        others -= {"provenance"}
    return what, refused, sorted(others)


def try_all(folder, numbers, agents=AGENTS):
    """What came of damage by each seed, on runs of these agents; what is wrong with it is printed."""
    found, runs = Counter(), make_runs(folder, agents)
    before = {run: {name: repr(value) for name, value in read(run).items()} for run in runs}
    for number in numbers:
        run = runs[number % len(runs)]
        try:
            what, refused, others = outcome(run, before[run], number, folder)
        except Exception:
            print(f"seed {number}:", traceback.format_exc())
            found["traceback"] += 1
            continue
        if others:
            print(f"seed {number}: {what}: other {', '.join(others)}")
        found["other" if others else "refused" if refused else "read"] += 1
    return found


if __name__ == "__main__":
    first, last = map(int, sys.argv[1:])
    with tempfile.TemporaryDirectory() as scratch:
        print(dict(try_all(Path(scratch), range(first, last))))
