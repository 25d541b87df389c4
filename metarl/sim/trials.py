"""TrialEnv: runs trials of a family's tasks in a batch of worlds.

A trial is K episodes on one task and lasts exactly K × `episode_steps` control steps. An episode that ends early
restarts at once on the same task, within the same step: that step returns the next episode's first observation as
`obs` and its own last one as `final_obs`. With K = 2 and `episode_steps` = 4, a fall at the second step:

    step            1     2     3     4     5     6     7     8
    episode         1  |  1  |  2     2     2     2  |  3     3
    terminated            ×
    truncated                                     ×           × (the trial ends)
    episode_start         ×                       ×           ×   of the observation the step returns
    trial_start                                               ×
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import mujoco
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from metarl.errors import UserError
from metarl.seeding import WorldRandom
from metarl.sim.cpu import CpuPhysics
from metarl.sim.family import Family
from metarl.sim.physics import Physics
from metarl.sim.variations import Variator
from metarl.tasks import Tasks
from metarl.types import Step

EXPLODED = 1e6
"""No robot's observation is this large [m, rad, m/s, rad/s, N]: beyond it the physics has diverged."""


class RewardError(UserError):
    """A family returned a reward that is not finite; the message names the term and the task."""


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


class TrialEnv:
    """A batch of worlds running trials: owns episodes, resets, truncation and divergence, never the choice of task."""

    def __init__(self, family: Family, num_worlds: int, *, episodes_per_trial: int = 2, threads: int = 0) -> None:
        """`threads` = 0 takes one per CPU; results do not depend on it."""
        model = compile_spec(family.spec())
        self.family = family
        self.num_worlds = num_worlds
        self.episodes_per_trial = episodes_per_trial
        self.physics: Physics = CpuPhysics(model, num_worlds, threads)
        self.action_size = int(model.nu)
        self._substeps = family.num_substeps(model)
        self._variator = Variator(self.physics, family.variations)
        self._ctrl = self.physics.bind("ctrl")
        self._all = self._streams = torch.arange(num_worlds)
        self._no = torch.zeros(num_worlds, dtype=torch.bool)
        self._low, self._high = _control_range(model)
        self._unit_range = bool((self._low == -1).all() and (self._high == 1).all())
        self._key = 0
        self._tasks: Tasks | None = None
        self._episode = torch.zeros(num_worlds, dtype=torch.long)
        self._episode_step = torch.zeros(num_worlds, dtype=torch.long)
        self._trial_step = 0
        # Until a world's episode ends early, all worlds share one episode clock and need no per-world test.
        self._in_step = True
        self._observation_size = self._measure_observation()

    @property
    def observation_size(self) -> int:
        """Length O of an observation."""
        return self._observation_size

    @property
    def trial_steps(self) -> int:
        """Control steps of a trial."""
        return self.episodes_per_trial * self.family.episode_steps

    @property
    def tasks(self) -> Tasks:
        """The tasks of the running trial."""
        if self._tasks is None:
            raise RuntimeError("no trial is running: call begin(tasks, key) first")
        return self._tasks

    def begin(self, tasks: Tasks, key: int, streams: Int64[Tensor, "N"] | None = None) -> Float32[Tensor, "N O"]:
        """Start a trial on `tasks`, one per world; `key` seeds all its resets. Returns the first observation.

        A world draws its resets from the random stream of its own number, or of that in `streams`.
        """
        if len(tasks) != self.num_worlds:
            raise ValueError(f"{self.num_worlds} worlds need as many tasks, got {len(tasks)}")
        self.family.space.check(tasks)
        self._tasks, self._key, self._trial_step, self._in_step = tasks, key, 0, True
        self._streams = self._all if streams is None else streams
        self._variator.apply(tasks)
        self._episode.fill_(-1)
        self._reset(self._all)
        return self._first_observation()

    def step(self, action: Float32[Tensor, "N A"]) -> Step:
        """Apply `action` (clipped to [-1, 1]) for one control step.

        Raises `RewardError` where the family's reward is not finite although the physics is.
        """
        tasks = self.tasks
        if self._trial_step >= self.trial_steps:
            raise RuntimeError("the trial is over: call begin(tasks, key)")
        applied = action.double().clamp(-1.0, 1.0)
        before = self.family.snapshot(self.physics)
        self._ctrl.copy_(applied if self._unit_range else self._low + (applied + 1.0) * (self._high - self._low) / 2)
        self.physics.step(self._substeps)
        self.family.advance(self.physics, tasks)
        self._trial_step += 1
        self._episode_step += 1

        obs = self._observe()
        diverged = self._diverged(obs)
        terms = self.family.reward(self.physics, before, applied, tasks)
        rows = torch.stack(tuple(terms.values()))  # a copy: a term may be a view of a state that is about to be reset
        terms, total = self._finite(dict(zip(terms, rows, strict=True)), rows.sum(dim=0), diverged)
        fallen = self.family.terminated(self.physics, tasks)
        terminated = diverged if fallen is None else fallen | diverged
        if bool(diverged.any()):
            obs = torch.where(
                diverged[:, None], torch.zeros_like(obs), obs
            )  # whatever it was, no one may learn from it
        return self._advance(obs, total.float(), terms, terminated, diverged)

    def _advance(
        self,
        final_obs: Float32[Tensor, "N O"],
        reward: Float32[Tensor, "N"],
        terms: Mapping[str, Tensor],
        terminated: Bool[Tensor, "N"],
        diverged: Bool[Tensor, "N"],
    ) -> Step:
        """Work out which episodes ended, restart them on their task, and assemble the step."""
        trial_over = self._trial_step >= self.trial_steps
        any_terminated = bool(terminated.any())
        on_time = self._trial_step % self.family.episode_steps == 0
        self._in_step &= on_time or not any_terminated
        if not (any_terminated or trial_over or (on_time if self._in_step else True)):
            return Step(final_obs, final_obs, reward, terms, self._no, self._no, self._no, self._no, self._no)

        timeout = self._episode_step >= self.family.episode_steps
        truncated = (timeout | trial_over) & ~terminated
        ended = terminated | truncated
        worlds = ended.nonzero()[:, 0]
        obs = final_obs
        if len(worlds) and not trial_over:
            self._reset(worlds)
            obs = torch.where(ended[:, None], self._first_observation(), final_obs)
        trial_start = torch.full_like(ended, trial_over)
        return Step(obs, final_obs, reward, terms, terminated, truncated, diverged, ended | trial_start, trial_start)

    def _reset(self, worlds: Tensor) -> None:
        """Begin the next episode of `worlds`, on their present tasks."""
        self._episode[worlds] += 1
        self._episode_step[worlds] = 0
        self.physics.reset(worlds)
        random = WorldRandom(self._key, self._streams[worlds], self._episode[worlds])
        self.family.reset(self.physics, worlds, self.tasks.select(worlds), random)
        self.physics.forward(worlds)

    def _observe(self) -> Float32[Tensor, "N O"]:
        return self.family.observe(self.physics, self.tasks).float()

    def _first_observation(self) -> Float32[Tensor, "N O"]:
        """Observation after a reset; `UserError` where the family's is not finite."""
        obs = self._observe()
        bad = (~torch.isfinite(obs)).nonzero().tolist()
        if bad:
            world, element = bad[0]
            value, task = obs[world, element].item(), self.tasks.rows()[world]
            raise UserError(f"element {element} of the first observation is {value} for the task {task}")
        return obs

    def _diverged(self, obs: Float32[Tensor, "N O"]) -> Bool[Tensor, "N"]:
        """Worlds whose physics went bad. MuJoCo notices at the next step; a state that exploded in this one shows."""
        diverged = self.physics.diverged()
        if not bool(obs.abs().amax() <= EXPLODED):
            diverged = diverged | ~(obs.abs() <= EXPLODED).all(dim=1)
        return diverged

    def _finite(
        self, terms: Mapping[str, Tensor], total: Tensor, diverged: Bool[Tensor, "N"]
    ) -> tuple[Mapping[str, Tensor], Tensor]:
        """Zero the reward of diverged worlds; raise where a healthy world's reward is not finite."""
        if diverged.any():
            terms = {name: torch.where(diverged, torch.zeros_like(term), term) for name, term in terms.items()}
            total = torch.where(diverged, torch.zeros_like(total), total)
        if not bool(torch.isfinite(total.sum())):
            for name, term in terms.items():
                bad = (~torch.isfinite(term)).nonzero()[:, 0]
                if len(bad):
                    world = int(bad[0])
                    raise RewardError(
                        f"reward term '{name}' is {term[world].item()} for the task {self.tasks.rows()[world]}"
                    )
        return terms, total

    def _measure_observation(self) -> int:
        """Length of an observation, after one step in which every field the family reads is bound."""
        obs = self.begin(self.family.space.nominal(self.num_worlds), key=0)
        self.step(torch.zeros(self.num_worlds, self.action_size))
        self._tasks = None
        return int(obs.shape[1])
