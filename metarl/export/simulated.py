"""A robot in simulation behind the runner's three methods: the family that a bundle was trained on, one world of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from metarl.core.errors import UserError, unknown_name
from metarl.core.seeding import key
from metarl.core.tasks import Split, Tasks, TaskSpace
from metarl.export.robot import action_of
from metarl.export.runtime.guard import Command, Observation
from metarl.export.runtime.runner import Clock, Robot
from metarl.sim.family import Family
from metarl.sim.make import make_env

_TRIALS = 64  # tasks that are drawn at once


class SimulatedRobot:
    """Moves by one control step with each command; a stop holds the pose that it starts from.

    A fall or the time limit puts it back on its feet, and K episodes later it is on its next task.
    """

    def __init__(
        self,
        family: Family,
        clock: Clock,
        episodes_per_trial: int,
        *,
        task: Mapping[str, float] | None = None,
        split: Split = "test",
        seed: int = 0,
    ) -> None:
        """`task` fixes some parameters of every task; the others are those of the split's fixed list."""
        self._env = env = make_env(family, 1, episodes_per_trial=episodes_per_trial, threads=1)
        self._clock = clock
        self._tasks = _tasks(family.space, split, task or {})
        own = action_of(env, env.info)
        self._scale, self._offset = np.array(own["scale"]), np.array(own["offset"])
        rest = np.array(own["default"]) if "default" in own else np.zeros(len(self._scale))
        self._rest = self._normalised(rest) if own["kind"] == "position" else torch.zeros(1, env.action_size)
        parts = tuple((part.name, part.size, part.unit) for part in env.info.observation)
        self.robot = Robot(parts, env.info.actions, own["kind"], own["unit"], env.info.control_step)
        self._trial, self._number = 0, 0
        first = env.begin(self._next(), key=key(seed, "deploy"))
        self._seen: Observation | None = Observation(0, clock.now(), first[0].double().numpy())

    def receive(self) -> Observation | None:
        """What the last step led to, once."""
        seen, self._seen = self._seen, None
        return None if seen is None else seen._replace(time=self._clock.now())

    def send(self, command: Command) -> None:
        """Move by one control step."""
        assert command.target is not None
        self._move(self._normalised(command.target))

    def stop(self) -> None:
        """Move by one control step, towards the pose that it starts from."""
        self._move(self._rest)

    def close(self) -> None:
        """Free what simulates."""
        self._env.close()

    def _normalised(self, target: np.ndarray) -> torch.Tensor:
        return torch.from_numpy((target - self._offset) / self._scale)[None].float()

    def _next(self) -> Tasks:
        place = torch.tensor([self._trial % len(self._tasks)])
        self._trial += 1
        return self._tasks.select(place)

    def _move(self, action: torch.Tensor) -> None:
        if self._number % self._env.trial_steps == 0:
            self._env.queue(self._next())
        step = self._env.step(action)
        self._number += 1
        ended = bool(step.ended[0])
        self._seen = Observation(
            self._number,
            0.0,
            step.obs[0].double().numpy(),
            float(step.reward[0]),
            bool(step.terminated[0]),
            step.final_obs[0].double().numpy() if ended else None,
            bool(step.trial_start[0]),
        )


def _tasks(space: TaskSpace, split: Split, task: Mapping[str, float]) -> Tasks:
    """The split's fixed list, with the given parameters in every row; `UserError` for one that there is not."""
    drawn = space.fixed(split, _TRIALS)
    values = dict(drawn.values)
    for name, value in task.items():
        if name not in values:
            raise unknown_name("task parameter", name, values)
        if values[name].dim() > 1:
            raise UserError(
                f"task parameter '{name}' is a point of {values[name].shape[1]} numbers: it cannot be given"
            )
        values[name] = torch.full_like(values[name], value)
    made = Tasks(values)
    space.check(made)
    return made
