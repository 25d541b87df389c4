"""The loop of a robot: a policy adapts at a fixed rate, whatever the robot is. Here a simulated one stands for it.

    python examples/deploy_loop.py

`read` and `command` are what you replace; docs/deploy.md has a runner that needs NumPy alone.
"""

import time

import metarl


class Robot:
    """A simulated quadruped of an unknown body behind the interface of a real one."""

    def __init__(self) -> None:
        self._env = metarl.make("quadruped-body", num_worlds=1)
        self._obs = self._env.begin(self._env.family.space.fixed("test", 1), key=0)[0]

    def read(self):
        """The observation, in the order of `policy.info.observation`."""
        return self._obs.numpy()

    def command(self, action) -> tuple[float, bool]:
        """Move; returns the reward, 0 where nobody can tell it, and whether it fell."""
        step = self._env.step(self._env.physics.bind("ctrl").new_tensor(action)[None].float())
        self._obs = step.obs[0]
        return float(step.reward[0]), bool(step.terminated[0])


def main(seconds: float = 5.0) -> float:
    """Returns the reward of the run."""
    policy, robot = metarl.load("pretrained:quadruped-body-rl2"), Robot()
    print("observes", [part.name for part in policy.info.observation], "commands", policy.info.actions)
    session, period, total = policy.session(), policy.info.control_step, 0.0
    session.new_task()
    due, late = time.monotonic(), 0
    for _ in range(round(seconds / period)):
        reward, fallen = robot.command(session.act(robot.read()))
        session.observe(reward, robot.read(), fallen)
        if fallen:
            session.new_episode()
        total, due = total + reward, due + period
        late += time.monotonic() > due
        time.sleep(max(0.0, due - time.monotonic()))
    print(f"reward {total:.1f} in {seconds:g} s; {late} steps came late")
    return total


if __name__ == "__main__":
    main()
