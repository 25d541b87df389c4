"""What `metarl bench` steps: our environments, bare physics, and Gymnasium's vector environments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from metarl.core.graphs import Replay
from metarl.core.registry import make_family
from metarl.core.tasks import Tasks
from metarl.run.run import worlds_on
from metarl.sim.family import MujocoFamily
from metarl.sim.make import make_env
from metarl.sim.mujoco.mujoco_env import MujocoEnv

_UPRIGHT = 50  # control steps, after which bare worlds on a device are put back on their feet


def mujoco_family(name: str, disturbances: str = "") -> MujocoFamily:
    """The family called `name`; `UserError` for one with a simulator of its own."""
    family = make_family(name, disturbances)
    if not isinstance(family, MujocoFamily):
        raise UserError(f"'{name}' has a simulator of its own: only MuJoCo families are measured against bare MuJoCo")
    return family


@dataclass(frozen=True)
class Place:
    """Where the worlds are."""

    threads: int = 0
    """Of the physics; 0 for one per CPU."""
    device: str = "cpu"
    physics: str = ""
    """See `TrainConfig.physics`."""

    def env(self, family: MujocoFamily, num_worlds: int) -> MujocoEnv:
        """Worlds of trials of one episode."""
        there = worlds_on(self.device, self.physics)
        env = make_env(family, num_worlds, episodes_per_trial=1, threads=self.threads, **there)
        assert isinstance(env, MujocoEnv)
        return env


def stepping(family: MujocoFamily, num_worlds: int, place: Place) -> dict[str, Work]:
    """Bare physics, and our environment, on the same tasks with the same actions."""
    env = place.env(family, num_worlds)
    tasks = family.space.sample("train", num_worlds, seeding.rng(0, "bench"))
    generator = seeding.generator(0, "bench")
    actions = torch.rand(env.trial_steps, num_worlds, env.action_size, generator=generator) * 2 - 1
    actions = actions.to(env.device)
    number = torch.zeros(1, dtype=torch.long, device=env.device)

    def advance() -> None:
        env.advance(actions.index_select(0, number)[0])
        env.settle()
        number.add_(1)

    replay = Replay(advance, env.device, "the environment's step")

    def work() -> Done:
        env.begin(tasks, key=0)
        if not env.replayable:
            for action in actions:
                env.step(action)
            return Done(len(actions) * num_worlds)
        env.settle()
        number.zero_()
        for _ in actions:
            env.count()
            (advance if env.trial_ended else replay)()
        env.check()  # waits for the device
        return Done(len(actions) * num_worlds)

    if plain := getattr(env.physics, "plain_step", None):
        return {"bare mujoco_warp": _bare_warp(env, plain, tasks, actions), "TrialEnv, random actions": work}
    return {"bare mujoco.batch": _bare(env, tasks, actions, place.threads), "TrialEnv, random actions": work}


def _bare_warp(env: MujocoEnv, plain_step: Callable[[int], None], tasks: Tasks, actions: Tensor) -> Work:
    """mujoco_warp's step alone, on the same models; all worlds are put back on their feet now and then."""
    env.begin(tasks, key=0)
    physics = env.physics
    start, ctrl, substeps = physics.get_state(), physics.bind("ctrl"), env.family.num_substeps(physics.model)
    low, high = torch.from_numpy(physics.model.actuator_ctrlrange.T).to(actions)
    controls = low + (actions + 1.0) * (high - low) / 2

    def work() -> Done:
        for step, control in enumerate(controls):
            if step % _UPRIGHT == 0:
                physics.set_state(start)
            ctrl.copy_(control)
            plain_step(substeps)
        physics.dropped()  # waits for the device
        return Done(len(controls) * env.num_worlds)

    return work


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
