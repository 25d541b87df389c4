"""Meta-World's side of `plug_in_metaworld.py`: ML1's reach, posed with Gymnasium's words.

Runs in the virtual environment that has Meta-World, and does not know metarl.
"""

import gymnasium
import metaworld
import numpy as np


class Reach(gymnasium.Wrapper):
    """Meta-World's reach-v3 with the goal that a reset asks for, and hidden."""

    def __init__(self, render_mode=None):
        kind = metaworld.ALL_V3_ENVIRONMENTS["reach-v3"]
        robot = kind(render_mode=render_mode, camera_name="corner2", width=480, height=320)
        robot.model.vis.quality.shadowsize = 1024  # a quarter of the time of a picture, on a CPU
        robot._set_task_called = robot._freeze_rand_vec = robot._partially_observable = True  # as `set_task` has it
        super().__init__(robot)

    def reset(self, *, seed=None, options=None):
        """The goal is the task's; where the object lies is the seed's, as far from the goal as ML1 has it."""
        rng, ranges = np.random.default_rng(seed), self.unwrapped._random_reset_space
        goal = np.array([options["task"][name] for name in ("goal_x", "goal_y", "goal_z")])
        place = goal
        while np.linalg.norm(place[:2] - goal[:2]) < 0.15:
            place = rng.uniform(ranges.low[:3], ranges.high[:3])
        self.unwrapped._last_rand_vec = np.concatenate((place, goal))
        return self.env.reset(seed=seed)

    def render(self):
        """The right way up: Meta-World's corner cameras hang upside down."""
        return np.rot90(self.env.render(), 2)
