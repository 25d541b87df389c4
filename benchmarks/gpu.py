"""What `gpu.sh` measures. Each part runs in a process of its own, with a limit of time: one that fails fails alone.

python benchmarks/gpu.py all FILE     all parts, or those of the variable PARTS
python benchmarks/gpu.py PART         one part; its figures are printed as lines of JSON
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import metarl
from metarl.agents.pearl_blocks import COMPILED
from metarl.bench import measure
from metarl.bench.learners import gradient_steps, learning, meta_updates
from metarl.bench.measure import Work
from metarl.bench.worlds import Place, mujoco_family, stepping
from metarl.core.graphs import SWITCH, own_stream
from metarl.core.seeding import generator, rng
from metarl.rl.parallel import device_math, single_threaded_math

DEVICE = os.environ.get("DEVICE", "cuda")
TINY = DEVICE == "cpu"
LIMITS = {
    "half-cheetah": 120,
    "quadruped": 110,
    "train-half-cheetah": 120,
    "train-quadruped": 120,
    "pearl": 60,
    "maml": 60,
    "tests": 120,
    "train-pearl": 260,
    "deterministic": 100,
    "pearl-compiled": 90,
    "pearl-tuned": 150,
}
"""Parts in their order, with the time that each may take [s]."""
LEAST = 20.0  # a part that has less time left is not begun [s]
TINY_FIELDS = {"segment_steps": 4, "chunk_steps": 4, "minibatch_chunks": 2, "hidden_size": 8, "episode_steps": 8}
PUBLISHED = Path("experiments/pearl_half_cheetah_vel_published.toml")
FAMILY = {"half-cheetah": "half-cheetah-vel", "quadruped": "quadruped-body"}


def tell(**figures: Any) -> None:
    """One line for the process that asked."""
    print("FIGURES " + json.dumps(figures), flush=True)


def rates(prefix: str, work: dict[str, Work], seconds: float = 3.0) -> None:
    """Tell the steps per second of each contender, the median of rounds in turns, and where its time goes."""
    if TINY:
        measure.ROUNDS, seconds = 1, 1e-6
    for row in measure.compare(prefix, 0, work, seconds):
        name = f"{prefix}{row.name}"
        tell(**{name: row.steps_per_second}, **({f"{name}, shares": row.shares} if row.shares else {}))


# ------------------------------------------------------------------------------------------------------ the parts


def prepare() -> None:
    """As a training does."""
    single_threaded_math()
    device_math(DEVICE)
    own_stream(DEVICE)


def worlds(part: str) -> None:
    """Bare mujoco_warp, our environment, and RL² on top of it: collection, and whole iterations."""
    prepare()
    name, number = FAMILY[part], 4 if TINY else 4096
    family, place = mujoco_family(name), Place(device=DEVICE, physics="warp")
    begun = time.perf_counter()
    steps = stepping(family, number, place)
    tell(seconds_to_make=time.perf_counter() - begun)
    rates("", steps)
    for count in (number,) if part == "quadruped" or TINY else (number, 16384):
        fields = {"staggered": True} | TINY_FIELDS if TINY else {}
        work = learning("RL² LSTM 128", name, count, place, **fields)
        rates(f"{count} worlds, ", work if count == number else dict(list(work.items())[:1]))
        if not TINY:
            tell(**{f"memory_GiB_{count}": torch.cuda.max_memory_allocated() / 2**30})


def settings(number: int, total_steps: int) -> dict[str, Any]:
    """Those for a GPU, or on the CPU some like them."""
    if not TINY:
        return {"device": "cuda", "num_worlds": number, "total_steps": total_steps, "validation_tasks": 0}
    return {
        "physics": "warp",
        "num_worlds": 4,
        "total_steps": 64,
        "validation_tasks": 0,
        "staggered": True,
    } | TINY_FIELDS


def train(part: str) -> None:
    """A short training from nothing, evaluated on the CPU with MuJoCo's physics and mean actions."""
    family = FAMILY[part.removeprefix("train-")]
    seconds = float(os.environ.get("TRAIN_SECONDS", "50"))
    speed = float(os.environ.get("RATE", "0")) or 400_000.0
    fields = settings(4096, round(0.95 * speed * seconds)) | json.loads(os.environ.get("FIELDS", "{}"))
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        run = metarl.train("rl2", family, output=Path(folder) / "run", max_minutes=seconds / 60, **fields)
        rows = run.metrics
        tell(
            wall_seconds=time.perf_counter() - begun,
            train_seconds=run.train_seconds,
            steps=run.train_steps,
            iterations=len(rows),
            settings=fields,
        )
        every = max(1, len(rows) // 20)
        tell(
            curve=[
                [round(row["time/elapsed"], 2), row["total_steps"], round(row["rollout/return_last"], 2)]
                for row in [*rows[::every], rows[-1]]
            ]
        )
        begun = time.perf_counter()
        record = metarl.evaluate(run, num_tasks=4 if TINY else 100)
        tell(
            returns=[float(x) for x in record.returns.mean(axis=0)],
            diverged=record.num_diverged,
            eval_seconds=time.perf_counter() - begun,
        )


def train_pearl(part: str) -> None:
    """The beginning of PEARL's published training: its curve, and how long collection and updates take."""
    fields = tomllib.loads(PUBLISHED.read_text())
    agent, family, learner = fields.pop("agent"), fields.pop("family"), fields.pop("learner")
    fields |= learner | {"device": DEVICE, "physics": "warp", "validation_tasks": 0}
    if TINY:
        fields |= {"total_steps": 400, "episode_steps": 4, "num_updates": 3, "initial_steps": 150, "batch_size": 8}
    seconds = float(os.environ.get("TRAIN_SECONDS", "80"))
    with tempfile.TemporaryDirectory() as folder:
        run = metarl.train(agent, family, output=Path(folder) / "run", max_minutes=seconds / 60, **fields)
        rows = run.metrics
        learnt = [row for row in rows if "train/gradient_steps" in row]
        for name, some in (("before updates", [row for row in rows if row not in learnt]), ("with updates", learnt)):
            for what in ("collect", "update"):
                tell(**{f"{name}, seconds to {what}": statistics.median(row[f"time/{what}"] for row in some)})
        curve = [
            [round(row["time/elapsed"], 1), row["total_steps"], round(row["rollout/return_last"], 1)] for row in rows
        ]
        tell(train_seconds=run.train_seconds, steps=run.train_steps, curve=[*curve[::5], curve[-1]])
        record = metarl.evaluate(run, num_tasks=4 if TINY else 30)
        tell(returns=[float(x) for x in record.returns.mean(axis=0)])


def pearl(part: str) -> None:
    """Gradient steps per second at the published size: launched one by one, as graphs, and compiled."""
    size = {"hidden_size": 8, "encoder_size": 8, "batch_size": 4, "context_size": 4, "num_updates": 40} if TINY else {}

    def steps(name: str, **environment: str) -> None:
        os.environ.update(environment)
        rates(f"{name}, ", dict(list(gradient_steps(DEVICE, **size).items())[1:]))

    own_stream(DEVICE)
    if part == "pearl":
        os.environ[COMPILED] = "0"
        steps("float32, eager", **{SWITCH: "0"})
        steps("float32, graphs", **{SWITCH: "1"})
        device_math(DEVICE)
        steps("TF32, graphs")
    else:
        device_math(DEVICE)
        mode = "1" if part == "pearl-compiled" else "max-autotune-no-cudagraphs"
        steps(f"TF32, graphs, {COMPILED}={mode}", **{COMPILED: mode})


def maml(part: str) -> None:
    """A meta-update of the published size, 40 tasks x (20 + 20) episodes x 100 steps, of a trial played on the CPU."""
    size = {"num_worlds": 3, "shots": 2, "episodes_per_trial": 4, "episode_steps": 10} if TINY else {}
    prepare()
    for device in (DEVICE, "cpu"):
        work = meta_updates("half-cheetah-body", Place(device=device, physics="mujoco"), **size)
        rates(f"{device}, ", dict(list(work.items())[-1:]), seconds=2.0)
        measure.ROUNDS = 1  # on the CPU each takes seconds


def deterministic(part: str) -> None:
    """Whether the same actions lead to the same states twice, and what it costs to ask mujoco_warp for that."""
    prepare()
    number, place = 4 if TINY else 4096, Place(device=DEVICE, physics="warp")
    family = mujoco_family(FAMILY["half-cheetah"])
    tasks = family.space.sample("train", number, rng(0, "bench"))
    actions = torch.rand(4 if TINY else 100, number, 6, generator=generator(0, "bench")).to(DEVICE) * 2 - 1
    for asked in (False, True):
        torch.use_deterministic_algorithms(asked, warn_only=True)
        env, ends = place.env(family, number), []
        for _ in range(2):
            env.begin(tasks, key=0)
            for action in actions:
                env.step(action)
            ends.append(env.physics.get_state().clone())
        name = "asked for" if asked else "not asked for"
        tell(**{f"{name}, worlds that end alike": float((ends[0] == ends[1]).all(dim=1).float().mean())})
        rates(f"{name}, ", stepping(family, number, place))


def tests(part: str) -> None:
    """The tests that need CUDA, and those of Warp's worlds; on the CPU those that work it as a GPU."""
    word = "as_on_a_gpu" if TINY else "cuda or warp"
    files = [
        "tests/agents/test_pearl.py",
        "tests/agents/test_maml_trpo.py",
        "tests/run/test_device.py",
        "tests/test_seeding.py",
        "tests/rl/test_meta_objective.py",
    ]
    files += [str(path) for path in sorted(Path("tests/sim").glob("test_warp*.py"))]
    words = [sys.executable, "-m", "pytest", "-p", "no:benchmark", "-n", "1" if TINY else "4", "-k", word, *files]
    environment = {**os.environ, COMPILED: "0"}  # it takes longer than the tests
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    tell(code=done.returncode, tail=done.stdout.splitlines()[-25:] + done.stderr.splitlines()[-5:])


# ----------------------------------------------------------------------------------------------------- all of them


def run_all(file: Path) -> int:
    """Run the parts, one after the other, and write what is known after each."""
    begun, limit = time.monotonic(), float(os.environ.get("SECONDS_IN_ALL", "360"))
    results: dict[str, Any] = {"machine": machine(), "parts": {}}
    for name in os.environ.get("PARTS", " ".join(LIMITS)).split():
        left = limit - (time.monotonic() - begun)
        if left < LEAST:
            results["parts"][name] = {"error": "no time left"}
            continue
        environment = dict(os.environ)
        kind = results["parts"].get(name.removeprefix("train-"), {})
        if found := [value for key, value in kind.items() if key.endswith("training iteration")]:
            environment["RATE"] = str(found[0])
        results["parts"][name] = one(name, min(left, LIMITS[name]), environment)
        results["seconds"] = time.monotonic() - begun
        file.write_text(json.dumps(results, indent=1) + "\n")
        print(name, json.dumps(results["parts"][name]), flush=True)
    file.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def one(name: str, limit: float, environment: dict[str, str]) -> dict[str, Any]:
    """A part's figures, and how it ended."""
    begun = time.monotonic()
    found: dict[str, Any] = {}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        words = [sys.executable, __file__, name]
        process = subprocess.Popen(words, stdout=out, stderr=err, env=environment, text=True)
        try:
            code = process.wait(limit)
            ended = "" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            ended = f"stopped after {limit:.0f} s"
        out.seek(0)
        err.seek(0)
        for line in out:
            if line.startswith("FIGURES "):
                found |= json.loads(line.removeprefix("FIGURES "))
        said = err.read().splitlines()
    found["seconds"] = time.monotonic() - begun
    if ended:
        found["error"] = ended
    noted = [line for line in said if line.startswith(("metarl:", "Warp"))]
    return found | ({"said": (said[-12:] if ended else noted)[:20]} if ended or noted else {})


def machine() -> dict[str, Any]:
    """Card and versions, asked of a process that ends: the parts are to have the card for themselves."""
    program = (
        "import json, os, platform, torch, mujoco\n"
        "cuda = torch.cuda.is_available()\n"
        "print(json.dumps({'card': torch.cuda.get_device_name() if cuda else 'none', 'torch': torch.__version__,"
        " 'cuda': torch.version.cuda, 'mujoco': mujoco.__version__, 'python': platform.python_version(),"
        " 'cores': os.cpu_count()}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr.splitlines()[-1:]}


PARTS: dict[str, Callable[[str], None]] = {
    "half-cheetah": worlds,
    "quadruped": worlds,
    "train-half-cheetah": train,
    "train-quadruped": train,
    "pearl": pearl,
    "maml": maml,
    "train-pearl": train_pearl,
    "tests": tests,
    "deterministic": deterministic,
    "pearl-compiled": pearl,
    "pearl-tuned": pearl,
}

if __name__ == "__main__":
    if sys.argv[1] == "all":
        sys.exit(run_all(Path(sys.argv[2])))
    if TINY:
        torch.set_num_threads(1)
    PARTS[sys.argv[1]](sys.argv[1])
