"""Meta-World as it is published: train on ML10, then adapt for 10 episodes on each test task and evaluate 3.

    metarl train rl2 metaworld:ML10 --seed 1 --num-worlds 20 --episodes-per-trial 10 --output runs/ml10
    python examples/metaworld_protocol.py runs/ml10

Success is that of any step of an episode. It is counted for each task (kind and variation) by itself, then averaged
over a kind's tasks, then over kinds; nothing is mixed between tasks of one name. An untrained policy may stand for a
run: `python examples/metaworld_protocol.py metaworld:ML10 random`.
"""

import sys
from collections import defaultdict

import numpy as np

import metarl

ADAPTATION, EVALUATED = 10, 3


def main(run: str, agent: str | None = None, num_tasks: int = 250) -> dict[int, float]:
    """Returns the success rate of each kind of test task; of ML1, whose tasks are of one kind, that of kind 0."""
    record = metarl.evaluate(run, agent=agent, split="ood", num_tasks=num_tasks, episodes=ADAPTATION + EVALUATED)
    assert record.success is not None
    per_task = record.success[:, ADAPTATION:].mean(axis=1)
    kinds = record.tasks.values.get("kind", np.zeros(num_tasks))
    found = defaultdict(list)
    for kind, share in zip(kinds, per_task, strict=True):
        found[int(kind)].append(float(share))
    rates = {kind: float(np.mean(shares)) for kind, shares in sorted(found.items())}
    for kind, rate in rates.items():
        print(f"kind {kind}: success {rate:.1%} of {EVALUATED} episodes on {len(found[kind])} tasks")
    print(f"mean over kinds: {np.mean(list(rates.values())):.1%}")
    return rates


if __name__ == "__main__":
    main(*sys.argv[1:])
