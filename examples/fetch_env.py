"""Gymnasium-Robotics' side of `plug_in_fetch.py`: the Fetch arm, whose goal is the task's and hidden.

Runs in the Python that has gymnasium-robotics, and does not know metarl.
"""

import gymnasium
import gymnasium_robotics

gymnasium.register_envs(gymnasium_robotics)


class Reach(gymnasium.Wrapper):
    """FetchReach with its dense reward, −distance; where the goal is, a reset is told and an observation is not."""

    def __init__(self, render_mode=None):
        robot = gymnasium.make("FetchReachDense-v4", render_mode=render_mode, width=480, height=320)
        super().__init__(robot.unwrapped)  # without its time limit, which is the family's
        self.observation_space = robot.observation_space["observation"]

    def reset(self, *, seed=None, options=None):
        """The goal is the gripper's first place and the task's offset."""
        seen, info = self.env.reset(seed=seed)
        offset = [options["task"][name] for name in ("forward", "left", "up")]
        self.env.goal = self.env.initial_gripper_xpos[:3] + offset
        return seen["observation"], info

    def step(self, action):
        """Gymnasium-Robotics says `is_success`, metarl listens to `success`."""
        seen, reward, terminated, truncated, info = self.env.step(action)
        return seen["observation"], float(reward), terminated, truncated, {"success": float(info["is_success"])}
