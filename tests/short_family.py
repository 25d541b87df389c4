"""A user's own family in their own file: half-cheetah-dir with episodes of ten steps."""

from metarl.envs.half_cheetah import HalfCheetahDir


class ShortDir(HalfCheetahDir):
    episode_steps = 10


class NotFinite(ShortDir):
    """Its reward breaks for one of the tasks."""

    def reward(self, physics, before, action, tasks):
        terms = dict(super().reward(physics, before, action, tasks))
        terms["broken"] = 1.0 / (tasks["direction"] + 1.0)
        return terms
