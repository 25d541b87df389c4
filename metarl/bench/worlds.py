"""What `metarl bench` steps: our environments, bare physics, and Gymnasium's vector environments."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from torch import Tensor

from metarl.bench.measure import Done, Work
from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.registry import make_family
from metarl.core.tasks import Tasks
from metarl.sim.family import MujocoFamily
from metarl.sim.mujoco.mujoco_env import MujocoEnv


def mujoco_family(name: str) -> MujocoFamily:
    """The family called `name`; `UserError` for one with a simulator of its own."""
    family = make_family(name)
    if not isinstance(family, MujocoFamily):
        raise UserError(f"'{name}' has a simulator of its own: only MuJoCo families are measured against bare MuJoCo")
    return family


def stepping(family: MujocoFamily, num_worlds: int, threads: int) -> dict[str, Work]:
    """Bare physics, and our environment, on the same tasks with the same actions."""
    env = MujocoEnv(family, num_worlds, episodes_per_trial=1, threads=threads)
    tasks = family.space.sample("train", num_worlds, seeding.rng(0, "bench"))
    generator = seeding.generator(0, "bench")
    actions = torch.rand(env.trial_steps, num_worlds, env.action_size, generator=generator) * 2 - 1

    def work() -> Done:
        env.begin(tasks, key=0)
        for action in actions:
            env.step(action)
        return Done(len(actions) * num_worlds)

    return {"bare mujoco.batch": _bare(env, tasks, actions, threads), "TrialEnv, random actions": work}


def _bare(env: MujocoEnv, tasks: Tasks, actions: Tensor, threads: int) -> Work:
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

    def work() -> Done:
        batch.state[:] = start
        for control, (worlds, states) in zip(controls, restarts, strict=True):
            ctrl[:] = control
            batch.step(nstep=substeps)
            batch.state[worlds] = states
        return Done(len(controls) * env.num_worlds)

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


def gymnasium_vectors(family: MujocoFamily, num_worlds: int) -> Iterator[tuple[str, Work]]:
    """Gymnasium's vector environments, a Python loop and a process per world, one open at a time."""
    env = MujocoEnv(family, 1, threads=1)
    env.begin(family.space.nominal(1), key=0)
    make = partial(_PlainEnv, env.physics.model_of(0), family.num_substeps(env.physics.model), family.episode_steps)
    for vector in (gymnasium.vector.SyncVectorEnv, gymnasium.vector.AsyncVectorEnv):
        envs = vector([make] * num_worlds)
        envs.reset(seed=0)
        envs.action_space.seed(0)
        actions = [envs.action_space.sample() for _ in range(20)]

        def work(envs: gymnasium.vector.VectorEnv = envs, actions: list[Any] = actions) -> Done:
            for action in actions:
                envs.step(action)
            return Done(len(actions) * num_worlds)

        yield f"gymnasium {vector.__name__}", work
        envs.close()
