"""A family as a Gymnasium environment, one world or many. `metarl.gym` gives the families their ids.

An episode is one of `TrialEnv`. Each environment draws its tasks and initial states from its own generator, which
Gymnasium's seeds begin anew. In the render mode `rgb_array` they draw what `metarl video` films.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Float32, UInt8
from torch import Tensor

from metarl.core.errors import UserError, unknown_name
from metarl.core.tasks import Split, Tasks
from metarl.sim.adapters.posed import Given, Infos, asked_of, draw, infos_of
from metarl.sim.declarations import make
from metarl.sim.env import Cameras, TrialEnv
from metarl.sim.family import Family
from metarl.sim.make import make_env

Obs = Float32[np.ndarray, "O"]
ObsBatch = Float32[np.ndarray, "N O"]
Picture = UInt8[np.ndarray, "H W 3"]

_MODES = ["rgb_array"]
_WIDTH, _HEIGHT = 480, 320


class TaskEnv(gymnasium.Env):
    """One world of a family. Every `reset` poses a task: the one asked for, or a new one of the split.

    `reset(options={"task": {...}, "split": "test"})`: a task names some or all parameters, and the others are drawn
    from the split. The `info` of `reset` and `step` has the `task`; that of `step` also the `reward_terms`, whose sum
    is the reward, and whether the physics `diverged`, which ends the episode as terminated.
    """

    metadata: Infos = {"render_modes": _MODES}  # noqa: RUF012 (as Gymnasium has it)
    _spec: EnvSpec | None = None

    def __init__(
        self,
        family: Family | str,
        *,
        split: str = "train",
        render_mode: str | None = None,
        width: int = _WIDTH,
        height: int = _HEIGHT,
    ) -> None:
        """`family` may be its `module:Class`. `split` is the one of every reset without a split among its options.

        `width` and `height` [pixels] are those of the picture that `render` draws in the mode `rgb_array`.
        """
        self.family, self.render_mode = _family(family), _mode(render_mode)
        self.split, _ = asked_of(self.family.space, split, None)
        self.metadata = {**self.metadata, "render_fps": _fps(self.family)}
        self._worlds = make_env(self.family, 1, episodes_per_trial=1, threads=1, pictures=render_mode is not None)
        self._film = _Film(self._worlds, (width, height))
        self.observation_space, self.action_space = _spaces(self._worlds)
        self._over = True

    @property
    def spec(self) -> EnvSpec | None:
        """What it was made of. `max_episode_steps` is the family's: known here, not at registration, and kept to."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = spec and dataclasses.replace(spec, max_episode_steps=self.family.episode_steps)

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[Obs, Infos]:
        """Begin an episode; `UserError` for options that the family does not have."""
        split, given = asked_of(self.family.space, self.split, options)
        super().reset(seed=seed)
        tasks, stream = draw(self.family.space, split, given, self.np_random)
        self._film.close()
        obs = self._worlds.begin(tasks, 0, torch.tensor([stream]))
        self._over = False
        return obs[0].numpy(), {"task": self._task()}

    def step(self, action: np.ndarray) -> tuple[Obs, float, bool, bool, Infos]:
        """Apply `action` (A,), clipped to [-1, 1]; Gymnasium's `ResetNeeded` where no episode is running."""
        if self._over:
            raise ResetNeeded("no episode is running: call reset()")
        step = self._worlds.step(_actions(action, self.action_space.shape)[None])
        self._worlds.check()
        self._over = bool(step.ended[0])
        terms = {name: float(term[0]) for name, term in step.reward_terms.items()}
        info = {"task": self._task(), "reward_terms": terms, "diverged": bool(step.diverged[0])}
        obs = step.final_obs[0].numpy()
        return obs, float(step.reward[0]), bool(step.terminated[0]), bool(step.truncated[0]), info

    def render(self) -> Picture | None:
        """The world as it is now; None in no render mode. `UserError` where this machine cannot draw."""
        return self._film.draw()[0] if self.render_mode else None

    def close(self) -> None:
        """Free what draws, and what runs the world."""
        self._film.close()
        self._worlds.close()

    def _task(self) -> dict[str, float | np.ndarray]:
        """The task as plain values, which `options` take back; points are arrays."""
        values = {name: value[0].numpy() for name, value in self._worlds.tasks.values.items()}
        return {name: value.copy() if value.ndim else float(value) for name, value in values.items()}


class TaskVectorEnv(VectorEnv):
    """Worlds of a family, stepped together; ended episodes restart in the same step (`AutoresetMode.SAME_STEP`).

    With `autoreset_mode="NextStep"` they restart in the step after, whose action they ignore, as Gymnasium's own vector
    wrappers expect by default. There a world that has fallen, while others go on, is at rest for that control step.

    Observations and infos are those of Gymnasium's `SyncVectorEnv` over as many `TaskEnv`, with one difference: tasks
    change for all worlds at once, every `episode_steps` steps. A world whose episode terminates before that restarts
    on its task, and is truncated with the others. Where no episode terminates early, there is no difference.

    In `reset(options={"task": ...})` a task may be one for all worlds or a list of one per world. Options hold until
    the tasks change; the `split` given to `make_vec` holds for good.
    """

    metadata: Infos = {"render_modes": _MODES, "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        family: Family | str,
        num_envs: int,
        *,
        split: str = "train",
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        width: int = _WIDTH,
        height: int = _HEIGHT,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
    ) -> None:
        """See `TaskEnv`. `max_episode_steps` can only be the family's. One thread per CPU."""
        self.family, self.num_envs, self.render_mode = _family(family), num_envs, _mode(render_mode)
        self.split, _ = asked_of(self.family.space, split, None)
        known = {mode.value: mode for mode in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP)}
        asked = autoreset_mode.value if isinstance(autoreset_mode, AutoresetMode) else autoreset_mode
        if asked not in known:
            raise unknown_name("autoreset mode", asked, known)
        self._later = known[asked] is AutoresetMode.NEXT_STEP
        self.metadata = {**self.metadata, "render_fps": _fps(self.family), "autoreset_mode": known[asked]}
        if max_episode_steps not in (None, self.family.episode_steps):
            raise UserError(f"max_episode_steps is the family's, {self.family.episode_steps}, not {max_episode_steps}")
        self._worlds = make_env(self.family, num_envs, episodes_per_trial=1, pictures=render_mode is not None)
        self._film = _Film(self._worlds, (width, height))
        self.single_observation_space, self.single_action_space = _spaces(self._worlds)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators = [np_random() for _ in range(num_envs)]
        self._ready = False
        self._ended, self._over = np.zeros(num_envs, np.bool_), False  # in the last step, of worlds that restart later

    @property
    def np_random(self) -> tuple[np.random.Generator, ...]:
        """Generator of each world."""
        return tuple(generator for generator, _ in self._generators)

    @property
    def np_random_seed(self) -> tuple[int, ...]:
        """What each world's generator was seeded with."""
        return tuple(seed for _, seed in self._generators)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Infos | None = None
    ) -> tuple[ObsBatch, Infos]:
        """Begin an episode in every world. An int seeds them with `seed`, `seed` + 1, ...; a list one by one."""
        asked = self._asked_of_each(options)
        seed = range(seed, seed + self.num_envs) if isinstance(seed, int) else seed
        seeds = [None] * self.num_envs if seed is None else list(seed)
        if len(seeds) != self.num_envs:
            raise UserError(f"{self.num_envs} worlds need as many seeds, got {len(seeds)}")
        for i, own in enumerate(seeds):
            if own is not None:
                self._generators[i] = np_random(own)
        obs = self._start(asked)
        self._ready = True
        self._ended, self._over = np.zeros(self.num_envs, np.bool_), False
        return obs, infos_of({"task": self._task()}, np.ones(self.num_envs, np.bool_))

    def step(self, actions: np.ndarray) -> tuple[ObsBatch, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """Apply `actions` (N, A), clipped to [-1, 1]."""
        if not self._ready:
            raise ResetNeeded("no episode is running: call reset()")
        if self._later:
            return self._step_later(_actions(actions, self.action_space.shape))
        step = self._worlds.step(_actions(actions, self.action_space.shape))
        self._worlds.check()
        ended = step.ended.numpy()
        terms = {name: term.numpy() for name, term in step.reward_terms.items()}
        happened = {"reward_terms": terms, "diverged": step.diverged.numpy()}
        infos: Infos = {}
        if ended.any():
            infos = infos_of({"final_info": {"task": self._task(), **happened}}, ended)
            infos["final_obs"], infos["_final_obs"] = np.full(self.num_envs, None, dtype=object), ended.copy()
            for world in np.flatnonzero(ended):
                infos["final_obs"][world] = step.final_obs[world].numpy()
        obs = self._start([(self.split, {})] * self.num_envs) if bool(step.trial_start[0]) else step.obs.numpy()
        infos |= infos_of({"task": self._task()}, np.ones_like(ended))
        if not ended.all():
            infos |= infos_of(happened, ~ended)
        return obs, step.reward.double().numpy(), step.terminated.numpy().copy(), step.truncated.numpy().copy(), infos

    def _step_later(
        self, actions: Float32[Tensor, "N A"]
    ) -> tuple[ObsBatch, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """A step in which worlds restart whose episode ended in the one before; all of them where tasks change."""
        restarting, every, none = self._ended, np.ones(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_)
        if self._over:
            obs = self._start([(self.split, {})] * self.num_envs)
            self._ended, self._over = none, False
            return obs, np.zeros(self.num_envs), none.copy(), none.copy(), infos_of({"task": self._task()}, every)
        still = torch.from_numpy(restarting)[:, None]
        step = self._worlds.step(actions.masked_fill(still, 0.0))
        self._worlds.check()
        self._over = bool(step.trial_start[0])
        terminated = step.terminated.numpy() & ~restarting
        truncated = (step.truncated.numpy() & ~restarting) | (restarting & self._over)
        self._ended = terminated | truncated
        terms = {name: term.numpy() for name, term in step.reward_terms.items()}
        infos = infos_of({"task": self._task()}, every)
        if not restarting.all():
            infos |= infos_of({"reward_terms": terms, "diverged": step.diverged.numpy()}, ~restarting)
        obs = torch.where(still, step.obs, step.final_obs).numpy()
        return obs, np.where(restarting, 0.0, step.reward.double().numpy()), terminated, truncated, infos

    def render(self) -> tuple[Picture, ...] | None:
        """The worlds as they are now, as `SyncVectorEnv` shows its own; None in no render mode."""
        return tuple(self._film.draw()) if self.render_mode else None

    def close_extras(self, **kwargs: Any) -> None:
        """Free what draws, and what runs the worlds."""
        self._film.close()
        self._worlds.close()

    def _start(self, asked: Sequence[tuple[Split, Given]]) -> ObsBatch:
        """Pose every world a task; `asked` has the split and the given parameters of each."""
        self._film.close()
        space = self.family.space
        drawn = [draw(space, split, given, rng) for (split, given), rng in zip(asked, self.np_random, strict=True)]
        tasks = Tasks({name: torch.cat([tasks[name] for tasks, _ in drawn]) for name in space.parameters})
        return self._worlds.begin(tasks, 0, torch.tensor([stream for _, stream in drawn])).numpy()

    def _asked_of_each(self, options: Infos | None) -> list[tuple[Split, Given]]:
        options = options or {}
        task = options.get("task")
        tasks = task if isinstance(task, list | tuple) else [task] * self.num_envs
        if len(tasks) != self.num_envs:
            raise UserError(f"{self.num_envs} worlds need as many tasks, or one for all, got {len(tasks)}")
        return [asked_of(self.family.space, self.split, {**options, "task": task}) for task in tasks]

    def _task(self) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in self._worlds.tasks.values.items()}


class _Film:
    """Films all worlds of a trial. The next one has models of its own: close this, and it begins anew."""

    def __init__(self, worlds: TrialEnv, size: tuple[int, int]) -> None:
        self._worlds, self._size = worlds, size
        self._cameras: Cameras | None = None

    def draw(self) -> list[Picture]:
        """A picture of every world."""
        if self._cameras is None:
            self._cameras = self._worlds.cameras(range(self._worlds.num_worlds), self._size)
        return self._cameras.draw()

    def close(self) -> None:
        """Free the graphics memory."""
        if self._cameras is not None:
            self._cameras.close()
            self._cameras = None


def _mode(render_mode: str | None) -> str | None:
    if render_mode is not None and render_mode not in _MODES:
        raise unknown_name("render mode", render_mode, _MODES)
    return render_mode


def _fps(family: Family) -> int:
    """Pictures per second, as Gymnasium wants them: a whole number."""
    return max(1, round(1.0 / family.control_step))


def _family(family: Family | str) -> Family:
    if isinstance(family, Family):
        return family
    module, _, attribute = family.partition(":")
    return make(family, getattr(importlib.import_module(module), attribute))


def _spaces(env: TrialEnv) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    """Spaces of one world. Beyond the observations' bounds an episode has ended as diverged, with zeros returned."""
    bound, ones = np.full(env.observation_size, env.observation_bound, np.float32), np.ones(env.action_size, np.float32)
    return gymnasium.spaces.Box(-bound, bound), gymnasium.spaces.Box(-ones, ones)


def _actions(action: np.ndarray, shape: tuple[int, ...]) -> Float32[Tensor, "..."]:
    array = np.array(action, np.float32)  # a copy: torch wants memory that may be written
    if array.shape != shape:
        raise UserError(f"an action here has shape {shape}, not {array.shape}")
    return torch.from_numpy(array)
