"""What `gpu.sh` measures. Each part runs in a process of its own, with a limit of time: one that fails fails alone.

python benchmarks/gpu.py all FILE     all parts, or those of the variable PARTS
python benchmarks/gpu.py PART         one part; its figures are printed as lines of JSON
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEVICE = os.environ.get("DEVICE", "cuda")
TINY = DEVICE == "cpu"
LIMITS = {
    "half-cheetah": 120,
    "quadruped": 110,
    "train-half-cheetah": 120,
    "train-quadruped": 120,
    "pearl": 60,
    "maml": 60,
    "tests": 60,
    "pearl-compiled": 90,
}
"""Parts in their order, with the time that each may take [s]."""
LEAST = 20.0  # a part that has less time left is not begun [s]
FAMILY = {"half-cheetah": "half-cheetah-vel", "quadruped": "quadruped-body"}


def tell(**figures: Any) -> None:
    """One line for the process that asked."""
    print("FIGURES " + json.dumps(figures), flush=True)


def wait() -> None:
    """For all that was launched."""
    import torch

    if DEVICE == "cuda":
        torch.cuda.synchronize()


def rate(work: Callable[[], Any], steps: int, seconds: float = 3.0, rounds: int = 3, warm_up: int = 1) -> float:
    """Steps per second of `work`, which takes `steps`: the median of rounds."""
    for _ in range(warm_up):
        work()
    wait()
    found = []
    for _ in range(1 if TINY else rounds):
        begun, count = time.perf_counter(), 0
        while count == 0 or (not TINY and time.perf_counter() - begun < seconds / rounds):
            work()
            wait()
            count += steps
        found.append(count / (time.perf_counter() - begun))
    return statistics.median(found)


# ------------------------------------------------------------------------------------------------------ the parts


def worlds(part: str) -> None:
    """Bare mujoco_warp, our environment, and RL² on top of it: collection, and whole iterations."""
    number = 4 if TINY else 4096
    stepping(FAMILY[part], number)
    rl2(FAMILY[part], number, iterations=True)
    if part == "half-cheetah" and not TINY:
        rl2(FAMILY[part], 16384, iterations=False)


def stepping(name: str, number: int) -> None:
    """Bare mujoco_warp, and our environment, launched operation by operation and replayed."""
    import mujoco_warp
    import torch

    from metarl.core import seeding
    from metarl.core.graphs import Replay
    from metarl.core.registry import make_family
    from metarl.sim.make import make_env

    family, block = make_family(name), 4 if TINY else 50
    begun = time.perf_counter()
    env: Any = make_env(family, number, physics="warp", device=DEVICE)
    wait()
    tell(seconds_to_make=time.perf_counter() - begun)
    tasks = family.space.sample("train", number, seeding.rng(0, "bench"))
    random = seeding.generator(0, "bench")
    actions = (torch.rand(block, number, env.action_size, generator=random) * 2 - 1).to(env.device)
    env.begin(tasks, key=0)
    start, ctrl, substeps = (
        env.physics.get_state(),
        env.physics.bind("ctrl"),
        env.family.num_substeps(env.physics.model),
    )
    run, physics = env.physics._run, env.physics

    def bare_step() -> None:
        for _ in range(substeps):
            mujoco_warp.step(physics._models.device, physics._data)

    def bare() -> None:
        physics.set_state(start)
        for action in actions:
            ctrl.copy_(action)
            run("bare", bare_step)

    tell(bare=rate(bare, block * number))
    place = torch.zeros(1, dtype=torch.long, device=env.device)
    env.begin(tasks, key=0)
    env.queue(tasks)

    def advance() -> None:
        env.advance(actions.index_select(0, place % block)[0])
        env.settle()
        place.add_(1)

    replay = Replay(advance, env.device, "the environment's step")

    def stepped(call: Callable[[], None]) -> Callable[[], None]:
        def work() -> None:
            for _ in range(block):
                env.count()
                (advance if env.trial_ended else call)()
                if env.trial_ended:
                    env.queue(tasks)

        return work

    env.settle()
    tell(trial_env_eager=rate(stepped(advance), block * number))
    if env.replayable:
        tell(trial_env_replayed=rate(stepped(replay), block * number), captured=replay.replays)
    tell(dropped=dataclasses.asdict(env.dropped()))


def rl2(family: str, number: int, iterations: bool) -> None:
    """RL² with its settings for a GPU."""
    training = training_of(family, number, 20_000_000)
    learner, steps = training.learner, training.steps_per_iteration

    def collect() -> None:
        training._begun(learner.policy).segment(
            learner.behaviour, learner.segment_steps or 0, learner.record, every=learner.kept_every
        )

    def iterate() -> None:
        training.iteration = 0
        training._iterate()

    training._stepper = training._begun(learner.policy)
    tell(**{f"rl2_collection_{number}": rate(collect, steps)})
    rollouts = training._stepper._rollouts
    tell(**{f"rl2_captured_{number}": all(one._replay.replays for one in rollouts.values()) and bool(rollouts)})
    if iterations:
        tell(**{f"rl2_iteration_{number}": rate(iterate, steps)})
        begun = time.perf_counter()
        metrics = training._iterate()
        wait()
        tell(iteration_seconds=time.perf_counter() - begun, update_seconds=metrics["time/update"])
    if DEVICE == "cuda":
        import torch

        tell(**{f"memory_GiB_{number}": torch.cuda.max_memory_allocated() / 2**30})


def training_of(family: str, number: int, total_steps: int, **fields: Any) -> Any:
    """A training with rl2's settings for a GPU, that is not on disk."""
    from metarl.core.config import configure
    from metarl.run.run import Run
    from metarl.run.train import Training

    return Training(Run(Path()), configure("rl2", family, settings(number, total_steps) | fields))


def settings(number: int, total_steps: int) -> dict[str, Any]:
    """Those for a GPU, or on the CPU some like them."""
    if not TINY:
        return {"device": "cuda", "num_worlds": number, "total_steps": total_steps, "validation_tasks": 0}
    small = {"segment_steps": 4, "chunk_steps": 4, "minibatch_chunks": 2, "hidden_size": 8, "episode_steps": 8}
    return {"physics": "warp", "num_worlds": 4, "total_steps": 64, "validation_tasks": 0, "staggered": True} | small


def train(part: str) -> None:
    """A short training from nothing, evaluated on the CPU with MuJoCo's physics and mean actions."""
    import metarl

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


def pearl(part: str) -> None:
    """Gradient steps per second at the published size: launched one by one, as graphs, and compiled."""
    import torch

    from metarl.agents.configs import PearlConfig
    from metarl.agents.pearl import Pearl
    from metarl.core import seeding
    from metarl.core.graphs import SWITCH, own_stream
    from metarl.core.info import Part, PolicyInfo
    from metarl.rl.parallel import device_math

    own_stream(DEVICE)

    size = {"hidden_size": 300, "hidden_layers": 3, "encoder_size": 200, "encoder_layers": 3, "context_size": 100}
    size |= {"meta_batch": 16, "batch_size": 256, "replay_size": 1000, "num_updates": 200}
    if TINY:
        size |= {"hidden_size": 8, "encoder_size": 8, "batch_size": 4, "context_size": 4, "num_updates": 40}
    info = PolicyInfo((Part("observation", 20, "1"),), tuple("abcdef"), 0.05, 200, 5)

    def steps(name: str, **environment: str) -> None:
        os.environ.update(environment)
        random = seeding.generator(0, "bench")
        agent: Any = Pearl(PearlConfig(**size), info, random, DEVICE)  # type: ignore[arg-type]
        held = agent.config.replay_size
        rows = torch.randn(agent.config.num_slots, held, agent.replay.rows.shape[2], generator=random)
        rows[..., -1] = 0.0  # no falls
        slots = torch.arange(agent.config.num_slots, device=DEVICE)
        for buffer in (agent.replay, agent.context):
            buffer.add(slots.repeat_interleave(held), rows.flatten(0, 1).to(DEVICE))
        draws = seeding.generator(0, "draws")
        found = rate(lambda: agent._update(draws), agent.config.num_updates, warm_up=2)
        captured = all(block._replay.replays for block in agent._blocks.values()) and bool(agent._blocks)
        tell(**{name: found, f"{name}_captured": captured, f"{name}_skipped": agent._guard.skipped})

    if part == "pearl":
        steps("float32_eager", **{SWITCH: "0"})
        steps("float32_graph", **{SWITCH: "1"})
        device_math(DEVICE)
        steps("tf32_graph")
    else:
        device_math(DEVICE)
        steps("tf32_compiled_graph", METARL_COMPILE="1")


def maml(part: str) -> None:
    """A meta-update of the published size, 40 tasks x (20 + 20) episodes x 100 steps, of a trial played on the CPU."""
    import torch

    from metarl.agents.configs import MamlTrpoConfig
    from metarl.agents.maml_trpo import MamlTrpo
    from metarl.core import seeding
    from metarl.core.graphs import own_stream
    from metarl.core.registry import make_family
    from metarl.rl.parallel import device_math
    from metarl.run.collect import collect
    from metarl.sim.make import make_env

    own_stream(DEVICE)

    tasks, shots, horizon = (3, 2, 10) if TINY else (40, 20, 100)
    family = make_family("half-cheetah-body")
    env = make_env(family, tasks, episodes_per_trial=2 * shots, episode_steps=horizon)
    near = MamlTrpo(MamlTrpoConfig(shots=shots), env.info, seeding.generator(0, "bench"))
    some = family.space.sample("train", tasks, seeding.rng(0, "bench"))
    segment = collect(env, near.behaviour, some, seeding.key(0, "bench"), record=near.record)
    moved = {k: v.to(DEVICE) for k, v in vars(segment).items() if isinstance(v, torch.Tensor) and k != "task_number"}
    moved["extras"] = {name: value.to(DEVICE) for name, value in segment.extras.items()}
    there = dataclasses.replace(segment, **moved)
    for name, agent, data in (
        ("float32", MamlTrpo(near.config, env.info, seeding.generator(0, "bench"), DEVICE), there),
        ("tf32", MamlTrpo(near.config, env.info, seeding.generator(0, "bench"), DEVICE), there),
        ("cpu_one_thread", near, segment),
    ):
        if name == "tf32":
            device_math(DEVICE)
        if name == "cpu_one_thread":
            torch.set_num_threads(1)
        state, last = agent.state_dict(), {}

        def work(agent: Any = agent, state: Any = state, data: Any = data, last: Any = last) -> None:
            agent.load_state_dict(state)
            last.update(agent.update(data, seeding.generator(0, "bench"), 0.0))

        found = rate(work, segment.reward.numel(), seconds=2.0, rounds=1 if agent is near else 3)
        times = {key: value for key, value in last.items() if key.startswith(("time/", "train/kl", "train/step"))}
        tell(**{name: found, f"{name}_parts": times})


def tests(part: str) -> None:
    """The tests that need CUDA; on the CPU those that work it as a GPU."""
    word = "as_on_a_gpu" if TINY else "cuda"
    files = ["tests/agents/test_pearl.py", "tests/agents/test_maml_trpo.py", "tests/run/test_device.py"]
    files += [str(path) for path in sorted(Path("tests/sim").glob("test_warp*.py"))]
    words = [sys.executable, "-m", "pytest", "-n", "0", "-k", word, *files]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
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
        if rates := [value for key, value in kind.items() if key.startswith("rl2_iteration")]:
            environment["RATE"] = str(rates[0])
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
    "tests": tests,
    "pearl-compiled": pearl,
}

if __name__ == "__main__":
    if sys.argv[1] == "all":
        sys.exit(run_all(Path(sys.argv[2])))
    if TINY:
        __import__("torch").set_num_threads(1)
    PARTS[sys.argv[1]](sys.argv[1])
