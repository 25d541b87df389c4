"""Measure how a trained quadruped walks.

    python experiments/gait.py pretrained:quadruped-command-rl2 [runs/another ...]

Plays one episode, by the mean action, of 100 test tasks, and measures its second half: how well it follows the command,
cost of transport, steps, and which feet are on the ground together.
"""

from __future__ import annotations

import json
import sys

import torch
from torch import Tensor

from metarl.core import seeding
from metarl.envs.quadruped import CONTACT, FEET, Quadruped, to_trunk, upward
from metarl.rl.parallel import single_threaded_math
from metarl.run.run import Run, env_options
from metarl.sim.make import make_env
from metarl.sim.mujoco.mujoco_env import MujocoEnv

NUM_TASKS = 100
GRAVITY = 9.81  # [m/s²]


def series(run: Run) -> tuple[dict[str, Tensor], int, float]:
    """Quantities (T, N, ...) of the second half of an episode, how many robots fell in it, and a robot's weight [N]."""
    family = run.family()
    if not isinstance(family, Quadruped):
        sys.exit(f"{run.config().family} is no family of the quadruped, whose gait this measures")
    env = make_env(family, NUM_TASKS, episodes_per_trial=1, **env_options(run.config()))
    assert isinstance(env, MujocoEnv)
    session = run.policy().session(NUM_TASKS)
    obs = env.begin(family.space.fixed("test", NUM_TASKS), seeding.key(0, "evaluate"))
    bind = env.physics.bind
    qpos, qvel, force = bind("qpos"), bind("qvel"), bind("actuator_force", fresh=False)
    touch = bind("sensordata", fresh=False)[:, : len(FEET)]
    rows: list[dict[str, Tensor]] = []
    fell = torch.zeros(NUM_TASKS, dtype=torch.bool)
    for t in range(env.episode_steps - 1):
        step = env.step(session.act(obs))
        session.observe(step.reward, step.final_obs, step.terminated)
        obs, fell = step.obs, fell | step.terminated
        if t < env.episode_steps // 2:
            continue
        velocity, wanted = to_trunk(qpos, qvel[:, :3]), family.command(env.physics, env.tasks)
        rows.append(
            {
                "forward": velocity[:, 0],
                "velocity_error": velocity[:, 0] - wanted[:, 0],
                "turn_error": qvel[:, 5] - wanted[:, 1],
                "power": (force * qvel[:, 6:]).clamp(min=0.0).sum(dim=1),
                "height": qpos[:, 2].clone(),
                "lean": torch.asin(upward(qpos)[:, :2].norm(dim=1).clamp(max=1.0)),
                "contact": (touch > CONTACT).double(),
            }
        )
    weight = float(env.physics.model.body_mass.sum()) * GRAVITY
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}, int(fell.sum()), weight


def measure(run: Run) -> dict[str, float | list[float]]:
    """The figures of one policy; errors are of the mean over half an episode, by task."""
    values, fell, weight = series(run)
    mean = {name: value.mean(dim=0) for name, value in values.items()}
    down, walks = values["contact"], mean["forward"].abs() > 0.2
    switches = (down[1:] != down[:-1]).double().mean() / 2.0 / Quadruped.control_step
    # In a trot diagonal feet (FL, RR and FR, RL) are on the ground together: 1; neighbours alternate: -1.
    together = torch.corrcoef((down - down.mean(dim=0)).flatten(0, 1).T)
    return {
        "velocity_error": float(mean["velocity_error"].abs().mean()),
        "velocity_error_worst": float(mean["velocity_error"].abs().max()),
        "turn_error": float(mean["turn_error"].abs().mean()),
        "cost_of_transport": float((mean["power"] / (weight * mean["forward"].abs()))[walks].mean()),
        "height": float(mean["height"].mean()),
        "lean": float(mean["lean"].mean()),
        "strides_per_second": float(switches),
        "diagonal_correlation": float((together[0, 3] + together[1, 2]) / 2),
        "contact_by_foot": mean["contact"].mean(dim=0).tolist(),
        "fell": fell,
    }


if __name__ == "__main__":
    single_threaded_math()
    for name in sys.argv[1:]:
        print(name, json.dumps(measure(Run.open(name)), indent=1))
