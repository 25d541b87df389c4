"""A family under test: an environment of its own, how it is played, and its models as numbers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import mujoco
import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.info import element_names
from metarl.core.seeding import WorldRandom
from metarl.core.tasks import Split, Tasks
from metarl.core.types import Step
from metarl.sim.disturbances import reads
from metarl.sim.env import TrialEnv
from metarl.sim.family import Family, MujocoFamily
from metarl.sim.make import make_env
from metarl.sim.mujoco.mujoco_env import compile_spec
from metarl.sim.mujoco.physics import Physics, make_physics
from metarl.sim.observations import to_vector
from metarl.sim.variations import Variator

WORLDS = 4
RANDOM_STEPS = 1000
_HOLD_STEPS = 100
_THROWN_STEPS = 50
_TOUCHING_STEPS = 200
_THROW = 5.0  # [m/s, rad/s]: standard deviation of every velocity
_APPEARANCE = ("site_", "cam_", "light_", "mat_", "tex_")


Pose: TypeAlias = tuple[np.ndarray, ...]
"""`qpos`, `mocap_pos` and `mocap_quat`."""


class CheckError(UserError):
    """The family does not fulfil a check; the message says what, where and what is allowed."""


@dataclass(frozen=True)
class Play:
    """What an environment returned while it was played, over several trials."""

    obs: list[Float32[Tensor, "N O"]] = field(default_factory=list)
    """Every observation: the trials' first ones and those each step led to, of a diverged world the one before."""
    steps: list[Step] = field(default_factory=list)
    """What each step returned."""

    def take(self, env: TrialEnv, action: Float32[Tensor, "N A"]) -> None:
        """One more step, kept."""
        step = env.step(action)
        env.check()
        self.obs.append(torch.where(step.diverged[:, None], self.obs[-1], step.final_obs))
        self.steps.append(step)

    @property
    def terminated(self) -> Bool[Tensor, "T N"]:
        """Episodes that ended by the family's rules, not by divergence."""
        return self.each("terminated") & ~self.each("diverged")

    def each(self, name: str) -> Bool[Tensor, "T N"]:
        """`terminated`, `diverged` or `ended` of every step."""
        return torch.stack([getattr(step, name) for step in self.steps])


class Tested:
    """A family under test, as it is played; of a robot also its model and its physics.

    What several checks need is made when first asked for, and kept.
    """

    def __init__(self, family: Family) -> None:
        self.family: Any = family
        self.is_robot = isinstance(family, MujocoFamily)
        """Simulated by MuJoCo; else all is seen from outside."""
        self.plays = ("random", "thrown", "held") if self.is_robot else ("random", "held")
        self._not_finite: list[str] = []

    @cached_property
    def env(self) -> Any:
        """`WORLDS` worlds on one thread; those of a robot note what is not finite although the state is."""
        watched = copy.copy(self.family)
        if self.is_robot:
            object.__setattr__(watched, "observe", self._observe)
        return make_env(watched, WORLDS, threads=1)

    def _observe(self, physics: Physics, tasks: Tasks) -> Mapping[str, Tensor]:
        seen: Mapping[str, Tensor] = self.family.observe(physics, tasks)
        obs = to_vector(self.family, seen)
        if not bool(torch.isfinite(obs).all()):
            sound, diverged = torch.isfinite(physics.get_state()).all(dim=1), physics.diverged()
            sound = sound if diverged is None else sound & ~diverged
            for world, element in (~torch.isfinite(obs) & sound[:, None]).nonzero().tolist()[:1]:
                value, task = obs[world, element].item(), tasks.rows()[world]
                self._not_finite.append(f"{self.element(element)} of the observation is {value} for the task {task}")
        return seen

    @cached_property
    def random(self) -> Play:
        """1,000 steps of random actions."""
        return self.play(self.env, self.actions(RANDOM_STEPS))

    @cached_property
    def held(self) -> Play:
        """1,000 steps of extreme actions, each held for up to 100: all low, all high, none, and mixtures."""
        hold = min(_HOLD_STEPS, self.family.episode_steps)
        corners = self.actions(-(-RANDOM_STEPS // hold)).sign()
        corners[0, :3] = torch.tensor([-1.0, 1.0, 0.0])[:, None]
        return self.play(self.env, corners.repeat_interleave(hold, dim=0)[:RANDOM_STEPS])

    @cached_property
    def thrown(self) -> Play:
        """1,000 random steps of robots thrown about at the start of each trial, so that they tumble and hit things."""
        played = Play()
        for number in range(RANDOM_STEPS // _THROWN_STEPS):
            played.obs.append(self.env.begin(self.tasks(number), key=number))
            self.throw(number)
            for action in self.actions(min(_THROWN_STEPS, self.env.trial_steps)):
                played.take(self.env, action)
        return played

    @cached_property
    def touching(self) -> list[Pose]:
        """Poses of robots in random play in which things touch: for each pair of geoms the first one."""
        fields = [self.env.physics.bind(name) for name in ("qpos", "mocap_pos", "mocap_quat")]
        data, found, seen = mujoco.MjData(self.model), [], set[tuple[int, ...]]()
        self.env.begin(self.tasks(), key=0)
        for action in self.actions(min(_TOUCHING_STEPS, self.env.trial_steps)):
            for world in range(WORLDS):
                pose = tuple(values[world].numpy().copy() for values in fields)
                data.qpos[:], data.mocap_pos[:], data.mocap_quat[:] = pose
                mujoco.mj_fwdPosition(self.model, data)
                pairs = {tuple(pair) for pair in data.contact.geom.tolist()}
                if pairs - seen:
                    seen |= pairs
                    found.append(pose)
            self.env.step(action)
        return found

    def throw(self, number: int) -> None:
        """Give every robot of the environment random velocities, others for each `number`."""
        velocity = self.env.physics.bind("qvel")
        generator = seeding.generator(0, "check/throw", number)
        velocity += _THROW * torch.randn(velocity.shape, generator=generator, dtype=torch.float64)

    @property
    def not_finite(self) -> str | None:
        """What was not finite in random play, in a sentence."""
        diverged = self.random.each("diverged")
        if self.is_robot:
            return self._not_finite[0] if self._not_finite else None
        return f"an observation was not finite {self.divergence()}" if bool(diverged.any()) else None

    def divergence(self) -> str:
        """How often random play diverged, and where first."""
        diverged = self.random.each("diverged")
        step, world = diverged.nonzero()[0].tolist()
        often = f"{int(diverged.sum())} times in {RANDOM_STEPS:,} random steps of {WORLDS} worlds"
        return f"{often}, first at step {step} in world {world}"

    @property
    def goals(self) -> list[str]:
        """Task parameters that no variation of a robot's dynamics and no disturbance reads; of others, all."""
        physical = reads(self.family.disturbances) if self.is_robot else set()
        for variation in self.family.variations if self.is_robot else ():
            if not all(name.startswith(_APPEARANCE) or name.endswith("_rgba") for name in variation.fields):
                physical |= set(variation.parameters)
        return [name for name in self.family.space.parameters if name not in physical]

    def element(self, index: int) -> str:
        """An element of the observation by its number and, where that is declared, its name."""
        names = element_names(self.family.observation)
        return f"element {index} ({names[index]})" if index < len(names) else f"element {index}"

    def tasks(self, number: int = 0, split: Split = "train") -> Tasks:
        """Batch `number` of random tasks, one per world."""
        drawn: Tasks = self.family.space.sample(split, WORLDS, seeding.rng(0, "check", number))
        return drawn

    def with_other(self, tasks: Tasks, *names: str) -> Tasks:
        """`tasks` with other values of the parameters `names`, in one world at least."""
        values = dict(tasks.values)
        for name in names:
            drawn = (self.tasks(number)[name] for number in range(1, 20))
            values[name] = next((value for value in drawn if not torch.equal(value, tasks[name])), tasks[name])
        return Tasks(values)

    def actions(self, num_steps: int, *number: int) -> Float32[Tensor, "T N A"]:
        """Uniform in [-1, 1]; others for each `number`."""
        shape = (num_steps, WORLDS, self.env.action_size)
        return torch.rand(shape, generator=seeding.generator(0, "check", *number)) * 2 - 1

    def play(self, env: TrialEnv, actions: Float32[Tensor, "T N A"]) -> Play:
        """Play `actions`, in trials on ever new tasks that are the same in every call."""
        played = Play()
        for number, action in enumerate(actions):
            if number == 0 or bool(played.steps[-1].trial_start[0]):
                played.obs.append(env.begin(self.tasks(number), key=number))
            played.take(env, action)
        return played

    @cached_property
    def model(self) -> mujoco.MjModel:
        """The robot's model."""
        return compile_spec(self.family.spec())

    def bare(self) -> Physics:
        """Physics whose worlds stand at the start of an episode of `tasks()`, without an environment around them."""
        physics = make_physics("mujoco", self.model, WORLDS, 1)
        Variator(physics, self.family.variations).apply(self.tasks())

        def write(worlds: Tensor) -> None:
            self.family.reset(physics, worlds, self.tasks(), WorldRandom(0, worlds, torch.zeros_like(worlds)))

        physics.restart(torch.ones(WORLDS, dtype=torch.bool), write)
        return physics


def numbers(model: mujoco.MjModel) -> dict[str, bytes]:
    """Every number of a model, its options and its statistics, field by field, for comparison bit by bit."""
    parts = {"": model, "opt.": model.opt, "stat.": model.stat}
    names = [(head, name) for head, part in parts.items() for name in dir(part) if not name.startswith("_")]
    values = {head + name: getattr(parts[head], name) for head, name in names}
    return {name: np.array(x).tobytes() for name, x in values.items() if isinstance(x, np.ndarray | float | int)}
