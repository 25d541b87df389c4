"""FetchReach of Gymnasium-Robotics as a family, with its goal hidden.

    python3 -m venv examples/.fetch
    examples/.fetch/bin/pip install gymnasium-robotics==1.4.2 mujoco==3.3.0    # it does not run on MuJoCo 4
    metarl check examples/plug_in_fetch.py:Reach
    metarl train rl2 examples/plug_in_fetch.py:Reach --seed 1 --total-steps 2_000_000 --output runs/fetch
    metarl eval runs/fetch

An arm finds a place that only the reward tells, −distance at 25 Hz. `fetch_env.py` is the side that runs in the other
Python; evaluations also say how often the gripper was within 5 cm, which is Gymnasium-Robotics' success.
"""

import metarl
from metarl.core.distributions import Uniform

SIDE = metarl.Parameter(Uniform(-0.15, 0.15), unit="m", ood=Uniform(0.15, 0.2), help="from the gripper's first place")


class Reach(metarl.ExternalFamily):
    """Bring the gripper to an unknown place."""

    space = metarl.TaskSpace({"forward": SIDE, "left": SIDE, "up": SIDE})
    control_step, episode_steps = 0.04, 50
    environment = "fetch_env.py:Reach"
    python = ".fetch/bin/python"
