"""Meta-World's ML1 as a family: a suite that pins MuJoCo 3.3, in a virtual environment of its own.

    python3 -m venv experiments/.metaworld
    experiments/.metaworld/bin/pip install metaworld==3.1.1 packaging
    metarl check experiments/plug_in_metaworld.py:Reach
    metarl train rl2 experiments/plug_in_metaworld.py:Reach --seed 1 --num-worlds 20 --output runs/reach
    metarl eval runs/reach
    metarl video runs/reach --output videos/reach.mp4

Without a GPU a picture takes a tenth of a second, and a second of the video has 80: it takes minutes.

reach-v3 of Meta-World 3.1.1 (which needs `packaging` besides what it declares), version 2 of its rewards: 0 to 10 per
step, 500 steps, goal hidden. Two things differ from ML1: goals are drawn from the ranges that its 50 training and 50
test goals are drawn from, so that there is no end of them; and where the object lies, which plays no part, is drawn
for every episode, not once per task. `metaworld_env.py` is the side that runs in the other Python.
"""

from metarl.core.tasks import Parameter, TaskSpace, Uniform
from metarl.sim.external.external_env import ExternalFamily


class Reach(ExternalFamily):
    """Bring the gripper to an unknown place, which only the reward tells."""

    space = TaskSpace(
        {
            "goal_x": Parameter(Uniform(-0.1, 0.1), unit="m", help="of the place to reach, to the right"),
            "goal_y": Parameter(Uniform(0.8, 0.9), unit="m", help="away from the robot"),
            "goal_z": Parameter(Uniform(0.05, 0.3), unit="m", help="height"),
        }
    )
    control_step, episode_steps = 0.0125, 500
    environment = "metaworld_env.py:Reach"
    python = ".metaworld/bin/python"
    constant_observations = (*range(11, 18), *range(29, 39))  # of a second object, and of the goal
