"""MujocoEnv: trials in a batch of MuJoCo worlds; `TrialEnv` says what a trial is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache

import mujoco
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor

from metarl.core.seeding import WorldRandom, generator, rng
from metarl.core.tasks import Tasks
from metarl.core.types import Trial
from metarl.sim.altered import all_variations, extremes
from metarl.sim.disturbances import Disturbance
from metarl.sim.disturbing import Disturber
from metarl.sim.env import Moved, RewardError as RewardError, TrialEnv
from metarl.sim.family import MujocoFamily, Wanted, action_names
from metarl.sim.motors import Motors
from metarl.sim.mujoco.marks import Marks, marks_of
from metarl.sim.mujoco.physics import Counts, Dropped, Physics, make_physics
from metarl.sim.mujoco.rendering import Camera, gl_backend
from metarl.sim.observations import require_declared, to_vector
from metarl.sim.variations import Variator

_PROBED, _PROBE_STEPS, _HELD = 16, 60, 5  # worlds and control steps in which contacts are counted, and steps per action
EXPLODED = 1e6
"""No robot's observation is this large [m, rad, m/s, rad/s, N]: beyond it the physics has diverged."""


def compile_spec(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """Compile a family's model; MuJoCo's deprecation notices about third-party files are not the user's concern."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*deprecated", category=UserWarning)
        return spec.compile()


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
        trial: Trial | None = None,
        physics: str = "mujoco",
        device: str = "cpu",
        threads: int = 0,
    ) -> None:
        """Take the arguments of `make_env`."""
        model = compile_spec(family.spec())
        place = None if physics == "mujoco" else device
        self.physics = make_physics(physics, model, num_worlds, threads, place, lambda: counted(family))
        super().__init__(
            family,
            num_worlds,
            episodes_per_trial=episodes_per_trial,
            episode_steps=episode_steps,
            task_visible=task_visible,
            trial=trial,
            device=self.physics.device,
            dtype=self.physics.dtype,
        )
        self.replayable = physics != "mujoco" and not self._looks
        self._substeps = family.num_substeps(model)
        self._variator = Variator(self.physics, all_variations(family.variations, family.disturbances))
        disturbed = bool(family.disturbances)
        self._motors = Motors(self.physics, family)
        self._disturber = Disturber(self.physics, family, self._variator, self._motors) if disturbed else None
        self._drawn = 0  # numbers that the last reset drew, of each world
        # After one step every field that the family reads is bound: it must not first be so within a trial.
        self.begin(family.space.nominal(num_worlds), key=0)
        require_declared(family, family.observe(self.physics, self.tasks), num_worlds, self.dtype)
        hidden = (*(self._disturber.parts() if self._disturber else ()), *family.hidden_parts)
        self._describe(self._observe().shape[1], action_names(family, model), hidden)
        self.step(torch.zeros(num_worlds, self.action_size, device=self.device))
        self.check()
        self._tasks = None

    def dropped(self) -> Dropped:
        """See `TrialEnv.dropped`."""
        return self.physics.dropped()

    @property
    def seconds_to_compile(self) -> float:
        """See `TrialEnv.seconds_to_compile`."""
        return self.physics.seconds_to_compile

    def change(self, tasks: Tasks) -> None:
        """Go on under other tasks, one per world: the robots and their world become another, where they are.

        What takes effect at a reset (where a robot stands, when a fault begins) does so at the next one.
        """
        self._tasks, self._code = self._taken(tasks)
        self._faults.on(self._tasks)
        if self._disturber:
            self._disturber.change(self._every, self._tasks)
        else:
            self._pose(self._every)

    def hold(self, kind: type[Disturbance], name: str, value: float) -> None:
        """Set a fixed magnitude of the family's disturbances of a kind, as a latency, to another number."""
        if self._disturber:
            self._disturber.hold(kind, name, value)

    def cameras(self, worlds: Sequence[int], size: tuple[int, int]) -> WorldCameras:
        """The family's camera, in each world."""
        wanted = lambda: self.family.wanted(self.physics, self._present)  # noqa: E731
        return WorldCameras(self.physics, worlds, self.family.camera, size, wanted, bool(self._disturber))

    def _taken(self, tasks: Tasks) -> tuple[Tasks, Float32[Tensor, "N C"]]:
        taken = super()._taken(tasks)
        for posed in extremes(tasks, self.family.disturbances, self.family.space):
            self._variator.require(posed)
        return taken

    @property
    def _present(self) -> Tasks:
        """The tasks as they are now, where disturbances change them within an episode."""
        return self._disturber.tasks if self._disturber else self.tasks

    def _hidden(self) -> list[Tensor]:
        family, found = self.family, self._disturber.hidden() if self._disturber else []
        if not family.hidden_parts:
            return found
        own = family.hidden(self.physics, self._present)
        return found + [own[part.name] for part in family.hidden_parts]

    def _pose(self, mask: Bool[Tensor, "N"]) -> None:
        if not (self._disturber and self._disturber.poses):  # else at the restart that follows
            self._variator.apply(self.tasks, mask)

    def _restart(self, mask: Bool[Tensor, "N"]) -> None:
        if self._disturber:
            self._disturber.begin(self._keys, self._streams, self._number, mask, self.tasks)
        self.physics.restart(mask, self._write)
        if self._disturber:
            self._disturber.rest(mask)

    def _write(self, worlds: Int64[Tensor, "n"]) -> None:
        drawn = self._roots, self._number
        if len(worlds) == self.num_worlds:  # in their order
            tasks = self.tasks
        else:
            drawn, tasks = (self._roots[worlds], self._number[worlds]), self.tasks.select(worlds)
        random = WorldRandom.rooted(*drawn, self.dtype, self._drawn)
        self.family.reset(self.physics, worlds, tasks, random)
        self._drawn = random.used

    def _observe(self) -> Float32[Tensor, "N S"]:
        seen = self.family.observe(self.physics, self._present)
        return to_vector(self.family, self._disturber.sense(seen) if self._disturber else seen).float()

    def _move(self, action: Float[Tensor, "N A"], tasks: Tasks) -> Moved:
        disturber, present = self._disturber, self._present
        before = self.family.snapshot(self.physics)
        command = self._motors.command(action)
        if disturber:
            disturber.act(command, self._looks)
        else:
            self._motors.drive(command, self._substeps, present)
        self.family.advance(self.physics, present)
        terms = self.family.reward(self.physics, before, action, present)
        terminated = self.family.terminated(self.physics, present)
        if disturber:
            disturber.tick(tasks, self._looks)
        obs, diverged = self._observe(), self.physics.diverged()
        # MuJoCo notices a bad state at the next step; one that exploded in this step shows.
        seen = obs.numpy() if self._looks else None
        if seen is None or not (seen.max() <= EXPLODED and seen.min() >= -EXPLODED):
            exploded = ~(torch.linalg.vector_norm(obs, ord=torch.inf, dim=1) <= EXPLODED)
            diverged = exploded if diverged is None else diverged | exploded
        return Moved(obs, terms, terminated, None, diverged)


@lru_cache(maxsize=16)
def counted(family: MujocoFamily) -> Counts:
    """How much room a world of the family needs, played on the CPU: its tasks, easy and extreme, under wild actions.

    Half as much again as the most that was seen, in multiples of 16: Warp compiles kernels for each size.
    """
    space, most = family.space, np.zeros(2, np.int64)
    env = MujocoEnv(family, _PROBED, episodes_per_trial=1, threads=1)
    for split in space.splits:
        env.begin(space.sample(split, _PROBED, rng(0, "counts")), key=0)
        actions = torch.rand(_PROBE_STEPS // _HELD, _PROBED, env.action_size, generator=generator(0, "counts"))
        for step in range(min(_PROBE_STEPS, env.trial_steps)):
            env.step(2.0 * actions[step // _HELD].round() - 1.0)
            if step % _HELD == 0:
                for world in range(_PROBED):
                    data = env.physics.data_of(world)
                    most = np.maximum(most, (data.ncon, data.nefc))
    contacts, constraints = (-(-int(count * 3 // 2 + 8) // 16) * 16 for count in most)
    return Counts(contacts, constraints)


class WorldCameras:
    """Films worlds of a running trial by the family's camera."""

    def __init__(
        self,
        physics: Physics,
        worlds: Sequence[int],
        name: str | None,
        size: tuple[int, int],
        wanted: Callable[[], Wanted | None],
        changes: bool,
    ) -> None:
        """`name` and `size` as of `Camera`; `changes`: models may become others within an episode."""
        self._physics, self._worlds, self._wanted, self._changes = physics, worlds, wanted, changes
        self._marks: dict[int, Marks] = {}
        self._cameras: list[Camera] = []
        backend = gl_backend()
        try:
            for world in worlds:
                self._cameras.append(Camera(physics.model_of(world), name, size, backend))
        except BaseException:
            self.close()
            raise

    def aim(self, eyes: Float[np.ndarray, "n 3"], targets: Float[np.ndarray, "n 3"], fov: float) -> None:
        """Leave the family's camera: look from these places [m], with a vertical angle of view [rad]."""
        for camera, eye, target in zip(self._cameras, eyes, targets, strict=True):
            camera.aim(eye, target, fov)

    def draw(self, which: Sequence[int] | None = None) -> list[UInt8[np.ndarray, "H W 3"]]:
        """A picture of each world, or of those at these places among them, as it is now; valid until the next ones."""
        physics, wanted = self._physics, self._wanted()
        going, wind = self._velocities(wanted) if wanted is not None else (None, None)
        pictures = []
        for place in range(len(self._worlds)) if which is None else which:
            world, camera = self._worlds[place], self._cameras[place]
            physics.data_of(world, camera.data)
            if self._changes or place not in self._marks:
                self._marks[place] = marks_of(physics.model_of(world), physics.model)
            own = (None if going is None else going[world], None if wind is None else wind[world])
            pictures.append(camera.draw(self._marks[place], *own))
        return pictures

    @staticmethod
    def _velocities(wanted: Wanted) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, "N 2"] | None]:
        speed = 1.0 if wanted.speed is None else wanted.speed[:, None]
        return (wanted.direction * speed).cpu().numpy(), None if wanted.wind is None else wanted.wind.cpu().numpy()

    def close(self) -> None:
        """Free the graphics memory."""
        while self._cameras:
            self._cameras.pop().close()
