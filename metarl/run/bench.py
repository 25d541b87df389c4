"""The benchmark: speed of stepping, collecting and training, as ratios to bare physics measured in turns in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import gymnasium
import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from metarl import seeding
from metarl.agents.configs import RL2Config
from metarl.agents.rl2 import RL2
from metarl.errors import UserError
from metarl.registry import make_family
from metarl.rl.parallel import single_threaded_math
from metarl.run.collect import collect
from metarl.sim.family import Family
from metarl.sim.trials import TrialEnv
from metarl.tasks import Tasks

_ROUNDS = 5
_LEARNING_FAMILY = "half-cheetah-body"
"""Collection and training are measured here."""


@dataclass(frozen=True)
class Row:
    """One measurement."""

    family: str
    name: str
    num_worlds: int
    steps_per_second: float
    """Control steps per second, all worlds together: median of the rounds."""
    ratio: float
    """To bare physics of the same worlds: median of the rounds' ratios."""


def run_benchmark(families: tuple[str, ...], worlds: tuple[int, ...], seconds: float, threads: int) -> list[Row]:
    """Measure every contender `_ROUNDS` times in turns, `seconds` per contender in all.

    Each family is stepped with the largest number of worlds; the learner's collection and training with each of them.
    """
    single_threaded_math()
    made = {name: _mujoco_family(name) for name in families}
    rows: list[Row] = []
    for name, family in made.items():
        bare, *ours = _measure(name, max(worlds), _stepping(family, max(worlds), threads), seconds)
        rows += [bare, *ours, *_gymnasium_rows(name, bare, seconds)]
    for num_worlds in worlds:
        rows += _measure(_LEARNING_FAMILY, num_worlds, _learning(num_worlds, threads), seconds)
    return rows


def print_benchmark(rows: list[Row], console: Console) -> None:
    """The rows as a table."""
    table = Table(title="control steps per second", title_justify="left")
    for column in ("family", "", "worlds", "steps/s", "of bare"):
        table.add_column(column, justify="left" if column in ("family", "") else "right")
    for row in rows:
        table.add_row(row.family, row.name, str(row.num_worlds), f"{row.steps_per_second:,.0f}", f"{row.ratio:.2f}")
    console.print(table)


def to_json(rows: list[Row]) -> list[dict[str, object]]:
    """Plain data."""
    return [asdict(row) for row in rows]


# ------------------------------------------------------------------------------------------------ the contenders


def _mujoco_family(name: str) -> Family:
    family = make_family(name)
    if not isinstance(family, Family):
        raise UserError(f"'{name}' has a simulator of its own: only MuJoCo families are measured against bare MuJoCo")
    return family


Work = Callable[[], int]
"""Does something and returns the control steps it took."""


def _stepping(family: Family, num_worlds: int, threads: int) -> dict[str, Work]:
    """Bare physics, and our environment, on the same tasks with the same actions."""
    env = TrialEnv(family, num_worlds, episodes_per_trial=1, threads=threads)
    tasks = family.space.sample("train", num_worlds, seeding.rng(0, "bench"))
    generator = seeding.generator(0, "bench")
    actions = torch.rand(env.trial_steps, num_worlds, env.action_size, generator=generator) * 2 - 1

    def stepping() -> int:
        env.begin(tasks, key=0)
        for action in actions:
            env.step(action)
        return len(actions) * num_worlds

    return {"bare mujoco.batch": _bare(env, tasks, actions, threads), "TrialEnv, random actions": stepping}


def _learning(num_worlds: int, threads: int) -> dict[str, Work]:
    """As `_stepping`, and RL² on top: collecting a trial, and a whole iteration."""
    family = _mujoco_family(_LEARNING_FAMILY)
    env = TrialEnv(family, num_worlds, episodes_per_trial=2, threads=threads)
    tasks = family.space.sample("train", num_worlds, seeding.rng(0, "bench"))

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

    work = _stepping(family, num_worlds, threads)
    cells: tuple[Literal["gru", "lstm"], ...] = ("gru", "lstm")
    for cell in cells:
        config = RL2Config(cell=cell, hidden_size=128)
        agent = RL2(config, env.observation_size, env.action_size, seeding.generator(0, "bench"))
        work[f"RL² {cell.upper()} 128: collection"] = partial(collecting, agent)
        work[f"RL² {cell.upper()} 128: training iteration"] = partial(training, agent)
    return work


def _bare(env: TrialEnv, tasks: Tasks, actions: Tensor, threads: int) -> Work:
    """MuJoCo's batch alone: same models, same motion, with the states of restarted episodes written as ours restarts.

    The same motion matters: a robot that lies on the ground costs more than one that is put back on its feet.
    """
    env.begin(tasks, key=0)
    start, restarts = env.physics.get_state().numpy(), []
    for action in actions:
        worlds = env.step(action).ended.nonzero()[:, 0]
        restarts.append((worlds.numpy(), env.physics.get_state()[worlds].numpy()))
    batch = Batch(env.physics.model, env.num_worlds, threads)
    for field in {field for variation in env.family.variations for field in variation.fields}:
        batch.expand(field)[:] = env.physics.expand(field).numpy()
    batch.set_const()
    low, high = env.physics.model.actuator_ctrlrange.T
    ctrl, controls = batch.bind("ctrl"), low + (actions.double().numpy() + 1.0) * (high - low) / 2
    substeps = env.family.num_substeps(env.physics.model)

    def work() -> int:
        batch.state[:] = start
        for control, (worlds, states) in zip(controls, restarts, strict=True):
            ctrl[:] = control
            batch.step(nstep=substeps)
            batch.state[worlds] = states
        return len(controls) * env.num_worlds

    return work


class _PlainEnv(gymnasium.Env[Any, Any]):
    """The least a Gymnasium environment of a family's robot does: one world, stepped by plain MuJoCo."""

    def __init__(self, model: mujoco.MjModel, substeps: int, episode_steps: int) -> None:
        self._model, self._substeps, self._episode_steps = model, substeps, episode_steps
        self._data, self._steps = mujoco.MjData(model), 0
        low, high = model.actuator_ctrlrange.T
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float64)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (model.nq + model.nv,), np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        mujoco.mj_resetData(self._model, self._data)
        self._steps = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._data.ctrl[:] = action
        mujoco.mj_step(self._model, self._data, self._substeps)
        self._steps += 1
        return self._observation(), 0.0, False, self._steps >= self._episode_steps, {}

    def _observation(self) -> np.ndarray:
        return np.concatenate((self._data.qpos, self._data.qvel))


# --------------------------------------------------------------------------------------------------- measurement


def _measure(family: str, num_worlds: int, contenders: dict[str, Work], seconds: float) -> list[Row]:
    """A row per contender; the first is bare physics."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for work in contenders.values():
        work()  # warm up
    for _ in range(_ROUNDS):
        for name, work in contenders.items():
            rates[name].append(_rate(work, seconds / _ROUNDS))
    bare = next(iter(rates.values()))
    rows = []
    for name, measured in rates.items():
        ratio = statistics.median(m / b for m, b in zip(measured, bare, strict=True))
        rows.append(Row(family, name, num_worlds, statistics.median(measured), ratio))
    return rows


def _gymnasium_rows(family: str, bare: Row, seconds: float) -> list[Row]:
    """Gymnasium's vector environments, a Python loop and a process per world: they cannot take turns, so come last."""
    made = _mujoco_family(family)
    env = TrialEnv(made, 1, threads=1)
    env.begin(made.space.nominal(1), key=0)
    make = partial(_PlainEnv, env.physics.model_of(0), made.num_substeps(env.physics.model), made.episode_steps)
    rows = []
    for vector in (gymnasium.vector.SyncVectorEnv, gymnasium.vector.AsyncVectorEnv):
        envs = vector([make] * bare.num_worlds)
        envs.reset(seed=0)
        envs.action_space.seed(0)
        actions = [envs.action_space.sample() for _ in range(20)]

        def work(envs: gymnasium.vector.VectorEnv = envs, actions: list[Any] = actions) -> int:
            for action in actions:
                envs.step(action)
            return len(actions) * bare.num_worlds

        work()
        rate = _rate(work, seconds)
        envs.close()
        rows.append(Row(family, f"gymnasium {vector.__name__}", bare.num_worlds, rate, rate / bare.steps_per_second))
    return rows


def _rate(work: Work, seconds: float) -> float:
    """Steps per second of `work`, repeated for at least `seconds`."""
    steps, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        steps += work()
    return steps / (time.perf_counter() - begun)
