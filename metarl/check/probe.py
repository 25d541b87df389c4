"""What the checks of a family's contract share: an environment, random play in it, and its models as numbers."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property

import mujoco
import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.seeding import WorldRandom
from metarl.core.tasks import Split, Tasks
from metarl.core.types import Step
from metarl.sim.env import TrialEnv
from metarl.sim.family import Family, MujocoFamily
from metarl.sim.make import make_env
from metarl.sim.mujoco.mujoco_env import MujocoEnv, compile_spec
from metarl.sim.mujoco.physics import Physics, make_physics
from metarl.sim.variations import Variator

WORLDS = 4
RANDOM_STEPS = 1000
_HOLD_STEPS = 100
_THROWN_STEPS = 50
_THROW = 5.0  # [m/s, rad/s]: standard deviation of every velocity
_APPEARANCE = ("site_", "cam_", "light_", "mat_", "tex_")


class ContractError(UserError):
    """The family breaks its contract; the message says what, where and what is allowed."""


@dataclass(frozen=True)
class Play:
    """What an environment returned while it was played, over several trials."""

    obs: Float32[Tensor, "T N O"]
    """Every observation: the trials' first ones and those each step led to."""
    steps: list[Step]
    """What each step returned."""

    @property
    def terminated(self) -> Bool[Tensor, "T N"]:
        """An episode ended in the step by the family's rules, not by divergence."""
        return torch.stack([step.terminated & ~step.diverged for step in self.steps])

    @property
    def ended(self) -> Bool[Tensor, "T N"]:
        """An episode ended in the step, for whatever reason."""
        return torch.stack([step.ended for step in self.steps])

    @property
    def diverged(self) -> Bool[Tensor, "T N"]:
        """The physics diverged in the step."""
        return torch.stack([step.diverged for step in self.steps])


class Played:
    """One family under test, seen from outside: as it is played, whatever simulates it.

    What several checks need is made when first asked for, and kept.
    """

    def __init__(self, family: Family) -> None:
        self.family = family

    @cached_property
    def env(self) -> TrialEnv:
        """`WORLDS` worlds on one thread."""
        return make_env(self.family, WORLDS, threads=1)

    def close(self) -> None:
        """End what runs the worlds, if there were any."""
        if "env" in vars(self):
            self.env.close()

    def tasks(self, number: int = 0, split: Split = "train") -> Tasks:
        """Batch `number` of random tasks, one per world."""
        return self.family.space.sample(split, WORLDS, seeding.rng(0, "check", number))

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

    @cached_property
    def random(self) -> Play:
        """1,000 steps of random actions."""
        return play(self.env, self, self.actions(RANDOM_STEPS))

    @cached_property
    def held(self) -> Play:
        """1,000 steps of extreme actions, each held for up to 100: all low, all high, none, and mixtures."""
        hold = min(_HOLD_STEPS, self.family.episode_steps)
        corners = self.actions(-(-RANDOM_STEPS // hold)).sign()
        corners[0, :3] = torch.tensor([-1.0, 1.0, 0.0])[:, None]
        return play(self.env, self, corners.repeat_interleave(hold, dim=0)[:RANDOM_STEPS])


class Probe(Played):
    """One MuJoCo family under test: its model, its physics, and how it is played."""

    family: MujocoFamily

    def __init__(self, family: MujocoFamily) -> None:
        super().__init__(family)
        self.not_finite: list[str] = []
        """Observations that were not finite although the state was, one sentence each; filled by play."""

    @cached_property
    def model(self) -> mujoco.MjModel:
        """The family's model."""
        return compile_spec(self.family.spec())

    @cached_property
    def env(self) -> MujocoEnv:
        """As everyone's, which also notes observations that are not finite."""
        watched = copy.copy(self.family)
        object.__setattr__(watched, "observe", self._observe)
        return MujocoEnv(watched, WORLDS, threads=1)

    def _observe(self, physics: Physics, tasks: Tasks) -> Tensor:
        obs = self.family.observe(physics, tasks)
        if not bool(torch.isfinite(obs).all()):
            sound, diverged = torch.isfinite(physics.get_state()).all(dim=1), physics.diverged()
            sound = sound if diverged is None else sound & ~diverged
            for world, element in (~torch.isfinite(obs) & sound[:, None]).nonzero().tolist()[:1]:
                value, task = obs[world, element].item(), tasks.rows()[world]
                self.not_finite.append(f"element {element} of the observation is {value} for the task {task}")
        return obs

    @cached_property
    def thrown(self) -> Play:
        """1,000 random steps of robots thrown about at the start of each trial, so that they tumble and hit things."""
        steps: list[Step] = []
        obs: list[Tensor] = []
        actions = self.actions(min(_THROWN_STEPS, self.env.trial_steps))
        for number in range(RANDOM_STEPS // _THROWN_STEPS):
            obs.append(self.env.begin(self.tasks(number), key=number))
            self.throw(number)
            for action in actions:
                _take(self.env, action, obs, steps)
        return Play(torch.stack(obs), steps)

    def throw(self, number: int) -> None:
        """Give every robot of the environment random velocities, others for each `number`."""
        velocity = self.env.physics.bind("qvel")
        generator = seeding.generator(0, "check/throw", number)
        velocity += _THROW * torch.randn(velocity.shape, generator=generator, dtype=torch.float64)

    def twins(self, number: int, name: str, *, thrown: bool) -> None:
        """Begin a trial in which the first worlds have twins, the last ones: one start, but for `name` one task."""
        tasks, mirror = self.tasks(number), torch.arange(WORLDS // 2).repeat(2)
        self.env.begin(Tasks({**tasks.select(mirror).values, name: tasks[name]}), key=number)
        if thrown:
            self.throw(number)
        self.env.physics.set_state(self.env.physics.get_state()[mirror])

    def bare(self) -> Physics:
        """Physics whose worlds stand at the start of an episode of `tasks()`, without an environment around them."""
        physics, every = make_physics("mujoco", self.model, WORLDS, 1), torch.ones(WORLDS, dtype=torch.bool)
        Variator(physics, self.family.variations).apply(self.tasks())

        def write(worlds: Tensor) -> None:
            self.family.reset(physics, worlds, self.tasks(), WorldRandom(0, worlds, torch.zeros_like(worlds)))

        physics.restart(every, write)
        return physics


def play(env: TrialEnv, probe: Played, actions: Float32[Tensor, "T N A"]) -> Play:
    """Play `actions`, in trials on ever new tasks that are the same in every call."""
    steps: list[Step] = []
    obs = [env.begin(probe.tasks(0), key=0)]
    for action in actions:
        if steps and bool(steps[-1].trial_start[0]):
            obs.append(env.begin(probe.tasks(len(steps)), key=len(steps)))
        _take(env, action, obs, steps)
    return Play(torch.stack(obs), steps)


def _take(env: TrialEnv, action: Float32[Tensor, "N A"], obs: list[Tensor], steps: list[Step]) -> None:
    """One step, kept; what a diverged world observes is no observation."""
    steps.append(env.step(action))
    env.check()
    obs.append(torch.where(steps[-1].diverged[:, None], obs[-1], steps[-1].final_obs))


def goals(family: MujocoFamily) -> list[str]:
    """Parameters that no variation of the dynamics reads: they are known by their rewards alone."""
    physical = set()
    for variation in family.variations:
        if not all(field.startswith(_APPEARANCE) or field.endswith("_rgba") for field in variation.fields):
            physical |= set(variation.parameters)
    return [name for name in family.space.parameters if name not in physical]


def numbers(model: mujoco.MjModel) -> dict[str, bytes]:
    """Every number of a model, its options and its statistics, field by field, for comparison bit by bit."""
    parts = {"": model, "opt.": model.opt, "stat.": model.stat}
    names = [(prefix, name) for prefix, part in parts.items() for name in dir(part) if not name.startswith("_")]
    values = {prefix + name: getattr(parts[prefix], name) for prefix, name in names}
    return {name: np.array(value).tobytes() for name, value in values.items() if isinstance(value, _NUMBERS)}


def derived() -> set[str]:
    """Model fields that MuJoCo computes from others (`mj_setConst`), beside its statistics."""
    return {*mujoco.MjModel._setconst_outputs, *mujoco.MjModel._setconst_scalars}


_NUMBERS = (np.ndarray, float, int)
