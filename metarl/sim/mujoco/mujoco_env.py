"""MujocoEnv: trials in a batch of MuJoCo worlds; `TrialEnv` says what a trial is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import mujoco
import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from torch import Tensor

from metarl.core.errors import UserError
from metarl.core.seeding import WorldRandom
from metarl.core.tasks import Tasks
from metarl.sim.env import Moved, RewardError as RewardError, TrialEnv
from metarl.sim.family import MujocoFamily
from metarl.sim.mujoco.cpu import CpuPhysics
from metarl.sim.mujoco.physics import Physics
from metarl.sim.mujoco.rendering import Camera, gl_backend
from metarl.sim.observations import require_declared, to_vector
from metarl.sim.variations import Variator

EXPLODED = 1e6
"""No robot's observation is this large [m, rad, m/s, rad/s, N]: beyond it the physics has diverged."""


def compile_spec(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """Compile a family's model; MuJoCo's deprecation notices about third-party files are not the user's concern."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*deprecated", category=UserWarning)
        return spec.compile()


def _control_range(model: mujoco.MjModel) -> tuple[Float64[Tensor, "A"], Float64[Tensor, "A"]]:
    """Lowest and highest control of every actuator; `UserError` names one without a range."""
    low, high = torch.from_numpy(model.actuator_ctrlrange.T.copy())
    for i in range(model.nu):
        if not low[i] < high[i]:
            name = model.actuator(i).name or i
            raise UserError(f"actuator '{name}' needs a ctrlrange: actions in [-1, 1] are mapped onto it")
    return low, high


class MujocoEnv(TrialEnv):
    """A batch of MuJoCo worlds running trials. A world whose physics diverges ends its episode as terminated."""

    family: MujocoFamily
    observation_bound = EXPLODED

    def __init__(
        self,
        family: MujocoFamily,
        num_worlds: int,
        *,
        episodes_per_trial: int = 2,
        episode_steps: int | None = None,
        task_visible: bool = False,
        threads: int = 0,
    ) -> None:
        """`threads` = 0 takes one per CPU; results do not depend on it."""
        super().__init__(family, num_worlds, episodes_per_trial, episode_steps, task_visible)
        model = compile_spec(family.spec())
        self.physics: Physics = CpuPhysics(model, num_worlds, threads)
        self.action_size = int(model.nu)
        self._substeps = family.num_substeps(model)
        self._variator = Variator(self.physics, family.variations)
        self._ctrl = self.physics.bind("ctrl")
        self._low, self._high = _control_range(model)
        self._unit_range = bool((self._low == -1).all() and (self._high == 1).all())
        self.sensed_size = self._measure_observation()

    def cameras(self, worlds: Sequence[int], size: tuple[int, int]) -> WorldCameras:
        """The family's camera, in each world."""
        return WorldCameras(self.physics, worlds, self.family.camera, size)

    def _pose(self, tasks: Tasks) -> None:
        self._variator.apply(tasks)

    def _restart(self, worlds: Int64[Tensor, "n"], episodes: Int64[Tensor, "n"]) -> None:
        self.physics.reset(worlds)
        random = WorldRandom(self._key, self._streams[worlds], episodes)
        self.family.reset(self.physics, worlds, self.tasks.select(worlds), random)
        self.physics.forward(worlds)

    def _observe(self) -> Float32[Tensor, "N S"]:
        return to_vector(self.family, self.family.observe(self.physics, self.tasks)).float()

    def _move(self, action: Float64[Tensor, "N A"], tasks: Tasks) -> Moved:
        before = self.family.snapshot(self.physics)
        self._ctrl.copy_(action if self._unit_range else self._low + (action + 1.0) * (self._high - self._low) / 2)
        self.physics.step(self._substeps)
        self.family.advance(self.physics, tasks)
        obs = self._observe()
        diverged = self._diverged(obs)
        terms = self.family.reward(self.physics, before, action, tasks)
        fallen = self.family.terminated(self.physics, tasks)
        return Moved(obs, terms, self._no if fallen is None else fallen, self._no, diverged)

    def _diverged(self, obs: Float32[Tensor, "N S"]) -> Bool[Tensor, "N"]:
        """Worlds whose physics went bad. MuJoCo notices at the next step; a state that exploded in this one shows."""
        diverged = self.physics.diverged()
        if not bool(obs.abs().amax() <= EXPLODED):
            diverged = diverged | ~(obs.abs() <= EXPLODED).all(dim=1)
        return diverged

    def _measure_observation(self) -> int:
        """Length of what is observed, after one step in which every field the family reads is bound."""
        self.begin(self.family.space.nominal(self.num_worlds), key=0)
        require_declared(self.family, self.family.observe(self.physics, self.tasks), self.num_worlds)
        size = self._observe().shape[1]
        self.step(torch.zeros(self.num_worlds, self.action_size))
        self._tasks = None
        return int(size)


class WorldCameras:
    """Films worlds of a running trial by the family's camera."""

    def __init__(self, physics: Physics, worlds: Sequence[int], name: str | None, size: tuple[int, int]) -> None:
        """`name` and `size` as of `Camera`."""
        self._physics, self._worlds = physics, worlds
        self._cameras: list[Camera] = []
        backend = gl_backend()
        try:
            for world in worlds:
                self._cameras.append(Camera(physics.model_of(world), name, size, backend))
        except BaseException:
            self.close()
            raise

    def draw(self) -> list[UInt8[np.ndarray, "H W 3"]]:
        """A picture of each world as it is now; valid until the next ones."""
        for world, camera in zip(self._worlds, self._cameras, strict=True):
            self._physics.data_of(world, camera.data)
        return [camera.draw() for camera in self._cameras]

    def close(self) -> None:
        """Free the graphics memory."""
        while self._cameras:
            self._cameras.pop().close()
