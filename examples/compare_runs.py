"""Evaluate two policies on the same held-out tasks: how likely one is better, and how much its memory does.

    python examples/compare_runs.py

With runs of your own, give a list of records per method, a seed each: one run tells nothing of another seed.
"""

import metarl
from metarl.run.statistics import probability_of_improvement


def main(one="pretrained:quadruped-body-rl2", other="pretrained:quadruped-body-ppo", num_tasks: int = 40) -> float:
    """Returns the probability that the first is better than the second on a task."""
    first, second = (metarl.evaluate(run, split="test", num_tasks=num_tasks) for run in (one, other))
    for name, record in ((one, first), (other, second)):
        print(name, "last episode:", record.summary.adaptation_curve[-1])
    better = probability_of_improvement([first.returns[:, -1]], [second.returns[:, -1]])
    print(f"P({one} is better on a task) = {better.value:.2f} [{better.low:.2f}, {better.high:.2f}]")
    wiped = metarl.evaluate(one, split="test", num_tasks=num_tasks, controls=("wipe",))
    print(wiped)
    return better.value


if __name__ == "__main__":
    main()
