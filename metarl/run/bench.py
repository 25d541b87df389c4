"""The benchmark: speed of stepping, collecting and training, as ratios to bare physics measured in turns in one run."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import gymnasium
import torch
from mujoco.batch import Batch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from metarl import seeding
from metarl.agents.configs import RL2Config
from metarl.agents.rl2 import RL2
from metarl.envs.half_cheetah import HalfCheetahBody
from metarl.rl.parallel import single_threaded_math
from metarl.run.collect import collect
from metarl.sim.trials import TrialEnv
from metarl.tasks import Tasks

_ROUNDS = 5
_GYM_ENVS = 8


@dataclass(frozen=True)
class Row:
    """One measurement."""

    name: str
    num_worlds: int
    steps_per_second: float
    """Control steps per second, all worlds together: median of the rounds."""
    ratio: float
    """To bare physics with as many worlds: median of the rounds' ratios. Gymnasium's rows: to the first bare row."""


def run_benchmark(worlds: tuple[int, ...], seconds: float, threads: int) -> list[Row]:
    """Measure every contender `_ROUNDS` times in turns, `seconds` per contender in all.

    Gymnasium's vector environments, a process or a Python loop per world, are measured last, with few worlds.
    """
    single_threaded_math()
    rows: list[Row] = []
    for num_worlds in worlds:
        contenders = _contenders(num_worlds, threads)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for work in contenders.values():
            work()  # warm up
        for _ in range(_ROUNDS):
            for name, work in contenders.items():
                rates[name].append(_rate(work, seconds / _ROUNDS))
        bare = rates["bare mujoco.batch"]
        for name, measured in rates.items():
            ratio = statistics.median(m / b for m, b in zip(measured, bare, strict=True))
            rows.append(Row(name, num_worlds, statistics.median(measured), ratio))
    bare_rate = rows[0].steps_per_second
    for name, vectorization in (("gymnasium SyncVectorEnv", "sync"), ("gymnasium AsyncVectorEnv", "async")):
        rate = _gymnasium_rate(vectorization, seconds)
        rows.append(Row(name, _GYM_ENVS, rate, rate / bare_rate))
    return rows


def print_benchmark(rows: list[Row], console: Console) -> None:
    """The rows as a table."""
    table = Table(title="half-cheetah with per-world masses, control steps", title_justify="left")
    for column in ("", "worlds", "steps/s", "of bare"):
        table.add_column(column, justify="left" if not column else "right")
    for row in rows:
        table.add_row(row.name, str(row.num_worlds), f"{row.steps_per_second:,.0f}", f"{row.ratio:.2f}")
    console.print(table)


def to_json(rows: list[Row]) -> list[dict[str, object]]:
    """Plain data."""
    return [asdict(row) for row in rows]


def _contenders(num_worlds: int, threads: int) -> dict[str, Callable[[], int]]:
    """What is measured: functions that do some work and return the control steps they took."""
    family = HalfCheetahBody()
    env = TrialEnv(family, num_worlds, episodes_per_trial=2, threads=threads)
    tasks = family.space.sample("train", num_worlds, seeding.rng(0, "bench"))
    actions = torch.rand(env.trial_steps, num_worlds, env.action_size, generator=seeding.generator(0, "bench")) * 2 - 1

    def stepping() -> int:
        env.begin(tasks, key=0)
        for action in actions:
            env.step(action)
        return len(actions) * num_worlds

    def learner(cell: str) -> RL2:
        config = RL2Config(cell=cell, hidden_size=128)  # type: ignore[arg-type]
        return RL2(config, env.observation_size, env.action_size, seeding.generator(0, "bench"))

    def collecting(agent: RL2) -> int:
        collect(env, agent.policy, tasks, seeding.generator(0, "bench"))
        return env.trial_steps * num_worlds

    def training(agent: RL2) -> int:
        agent.train_step(
            lambda policy: collect(env, policy, tasks, seeding.generator(0, "bench")),
            seeding.generator(0, "bench"),
            progress=0.0,
        )
        return env.trial_steps * num_worlds

    work: dict[str, Callable[[], int]] = {
        "bare mujoco.batch": _bare(env, tasks, actions, threads),
        "TrialEnv, random actions": stepping,
    }
    for cell in ("gru", "lstm"):
        agent = learner(cell)
        work[f"RL² {cell.upper()} 128: collection"] = partial(collecting, agent)
        work[f"RL² {cell.upper()} 128: training iteration"] = partial(training, agent)
    return work


def _bare(env: TrialEnv, tasks: Tasks, actions: Tensor, threads: int) -> Callable[[], int]:
    """MuJoCo's batch alone: same models, same motion, from the start again in each episode, nothing around it."""
    env.begin(tasks, key=0)
    start, substeps = env.physics.get_state().numpy(), env.family.num_substeps(env.physics.model)
    batch = Batch(env.physics.model, env.num_worlds, threads)
    for field in {field for variation in env.family.variations for field in variation.fields}:
        batch.expand(field)[:] = env.physics.expand(field).numpy()
    batch.set_const()
    ctrl, controls = batch.bind("ctrl"), actions.double().numpy()

    def work() -> int:
        for t, control in enumerate(controls):
            if t % env.family.episode_steps == 0:
                batch.state[:] = start
            ctrl[:] = control
            batch.step(nstep=substeps)
        return len(controls) * env.num_worlds

    return work


def _rate(work: Callable[[], int], seconds: float) -> float:
    """Steps per second of `work`, repeated for at least `seconds`."""
    steps, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        steps += work()
    return steps / (time.perf_counter() - begun)


def _gymnasium_rate(vectorization: str, seconds: float) -> float:
    """Control steps per second of Gymnasium's own vector environments, with the same model and substeps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        envs = gymnasium.make_vec("HalfCheetah-v5", num_envs=_GYM_ENVS, vectorization_mode=vectorization)
        envs.reset(seed=0)
        envs.action_space.seed(0)
        actions = [envs.action_space.sample() for _ in range(100)]

        def work() -> int:
            for action in actions:
                envs.step(action)
            return len(actions) * _GYM_ENVS

        work()
        rate = _rate(work, seconds)
        envs.close()
    return rate
