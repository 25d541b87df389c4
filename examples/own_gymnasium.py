"""A Gymnasium environment of your own as a family: a pendulum of unknown length; and a policy that adapts in it.

    metarl check examples/own_gymnasium.py:UnknownPendulum
    python examples/own_gymnasium.py

`reset(options={"task": {...}})` is all that metarl asks of an environment beside Gymnasium's own interface.
"""

from pathlib import Path

import gymnasium

import metarl
from metarl.core.distributions import Uniform


class Pendulum(gymnasium.Wrapper):
    """Gymnasium's own, whose length is the task's."""

    def __init__(self, render_mode=None):
        super().__init__(gymnasium.make("Pendulum-v1", render_mode=render_mode).unwrapped)

    def reset(self, *, seed=None, options=None):
        """Begin an episode with the pendulum that is asked for."""
        self.env.l = options["task"]["length"]
        return self.env.reset(seed=seed)


class UnknownPendulum(metarl.ExternalFamily):
    """Swing up a pendulum whose length has to be found out."""

    space = metarl.TaskSpace({"length": metarl.Parameter(Uniform(0.7, 1.3), unit="m", ood=Uniform(1.3, 1.6))})
    control_step, episode_steps = 0.05, 100
    environment = "own_gymnasium.py:Pendulum"


def main(output: str | Path = "runs/pendulum", total_steps: int = 400_000, num_worlds: int = 32) -> list[float]:
    """Returns what each episode of a trial in the bare environment earned."""
    family = f"{Path(__file__).resolve()}:UnknownPendulum"
    metarl.train("rl2", family, seed=1, output=output, total_steps=total_steps, num_worlds=num_worlds)

    session, env, returns = metarl.load(output).session(), Pendulum(), []
    low, high = env.action_space.low, env.action_space.high
    session.new_task()
    for episode in range(2):
        obs, _ = env.reset(seed=episode, options={"task": {"length": 1.2}})
        returns.append(0.0)
        for _ in range(UnknownPendulum.episode_steps):
            action = low + (session.act(obs) + 1.0) * (high - low) / 2
            obs, reward, terminated, _, _ = env.step(action)
            session.observe(reward, obs, terminated)
            returns[-1] += float(reward)
        session.new_episode()
    print("returns of the episodes:", returns)
    return returns


if __name__ == "__main__":
    main()
