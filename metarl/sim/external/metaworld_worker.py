"""Meta-World's side of `metaworld_suite.py`: its benchmarks in the words of Gymnasium.

Runs in the Python that has Meta-World, and does not know metarl. Any other suite whose tasks are kinds with variations
can be written like this.
"""

import functools
from collections import defaultdict

import gymnasium
import metaworld
import numpy as np

SEED = 1
"""Of the tasks: every process draws the same."""


class Benchmark(gymnasium.Env):
    """A world that is posed any task of a benchmark, by its kind and variation; test tasks are numbered on."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (Gymnasium's)
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (39,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)

    def __init__(self, name, render_mode=None):
        self._tasks, self._classes, self._spare = tasks_of(name)
        self._held, self._robot = "", None
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        """The task's robot, goal and object; nothing of an episode is the seed's."""
        super().reset(seed=seed)
        posed = options["task"]
        task = self._tasks[int(posed.get("kind", 0))][int(posed["variation"])]
        if task.env_name != self._held:
            self._hand_back()
            spare = self._spare[task.env_name]
            self._held, self._robot = task.env_name, spare.pop() if spare else self._made(task.env_name)
        self._robot.set_task(task)
        return self._robot.reset()

    def step(self, action):
        """Meta-World's own; `info` has its "success"."""
        return self._robot.step(action)

    def render(self):
        """The right way up: Meta-World's corner cameras hang upside down."""
        return np.rot90(self._robot.render(), 2)

    def close(self):
        """Let another world have the robot."""
        self._hand_back()

    def _made(self, name):
        robot = self._classes[name](render_mode=self.render_mode, camera_name="corner2", width=480, height=320)
        robot.model.vis.quality.shadowsize = 1024  # a quarter of the time of a picture, on a CPU
        return robot

    def _hand_back(self):
        if self._robot is not None:
            self._spare[self._held].append(self._robot)
            self._held, self._robot = "", None


@functools.cache
def tasks_of(name):
    """Tasks of each kind, training kinds first, the robots' classes, and robots that no world of the process holds."""
    first, _, task = name.partition("_")
    one = first == "ML1"
    found = metaworld.ML1(f"{task.replace('_', '-')}-v3", seed=SEED) if one else getattr(metaworld, first)(seed=SEED)
    by_kind = {kind: [] for kind in found.train_classes}
    for task in found.train_tasks:
        by_kind[task.env_name].append(task)
    held_out = {} if one else {kind: [] for kind in found.test_classes}
    for task in found.test_tasks:
        (by_kind if one else held_out)[task.env_name].append(task)
    classes = {**found.train_classes, **found.test_classes}
    return [*by_kind.values(), *held_out.values()], classes, defaultdict(list)


def __getattr__(name):
    """`ML10`, `ML45` or `ML1_reach`: what makes a world."""
    if name.split("_")[0] not in ("ML1", "ML10", "ML45"):
        raise AttributeError(name)

    def make(render_mode=None):
        return Benchmark(name, render_mode)

    return make
