"""Measure how trained half-cheetahs move and when within an episode they adapt, for results/NOTES.md.

    python experiments/gait.py runs/dir-s1 runs/vel-s1

Prints, for 100 test tasks and the deterministic policy, the mean reward per step over windows of each episode, and
the posture in the second half of the last episode: an upright cheetah has a mean |sin(pitch)| below 0.2.
"""

from __future__ import annotations

import sys
from pathlib import Path

from metarl.core import seeding
from metarl.rl.parallel import single_threaded_math
from metarl.run.collect import collect
from metarl.run.run import Run, env_options
from metarl.sim.make import make_env

WINDOWS = ((0, 5), (5, 10), (10, 20), (20, 30), (30, 40), (40, 200))
PITCH, FORWARD_VELOCITY = 1, 8  # elements of the observation


def describe(run: Path) -> None:
    """Print one run's table."""
    family, config = Run.open(run).family(), Run.open(run).config()
    length = config.episode_steps or family.episode_steps
    env = make_env(family, 100, episodes_per_trial=config.episodes_per_trial, **env_options(config))
    tasks = family.space.fixed("test", 100)
    segment = collect(env, Run.open(run).policy(), tasks, seeding.key(0, "evaluate"), deterministic=True)
    print(f"{run}, {config.family}: mean reward per step over steps {WINDOWS}")
    for number, reward in enumerate(segment.reward.mean(dim=1).reshape(config.episodes_per_trial, length), start=1):
        print(f"  episode {number}: " + ", ".join(f"{reward[a:b].mean():.2f}" for a, b in WINDOWS))
    last = segment.obs[-length // 2 :]
    pitch, velocity = last[..., PITCH].sin().abs().mean(dim=0), last[..., FORWARD_VELOCITY].mean(dim=0)
    print(f"  mean |sin(pitch)|: {pitch.mean():.2f}, worst task {pitch.max():.2f}")
    print(f"  mean velocity: {velocity.min():.1f} to {velocity.max():.1f} m/s")


if __name__ == "__main__":
    single_threaded_math()
    for name in sys.argv[1:]:
        describe(Path(name))
