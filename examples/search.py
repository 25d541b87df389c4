"""Search a learner's hyperparameters on training tasks, then train the best of them.

    python examples/search.py

`metarl tune` keeps the study in its folder: the same command goes on where it was stopped.
"""

from pathlib import Path

import metarl
from metarl.cli.main import main as command


def main(folder: str | Path = "runs/search", trials: int = 10, steps: int = 200_000, num_tasks: int = 50) -> metarl.Run:
    """Returns the run of the best configuration."""
    words = ["tune", "rl2", "point-goal", "--trials", trials, "--steps", steps, "--num-tasks", num_tasks]
    code = command([str(word) for word in [*words, "--search", "learning_rate", "--output", folder]])
    if code:
        raise SystemExit(code)
    best = Path(folder) / "best.toml"
    print(best.read_text())
    return metarl.train("rl2", "point-goal", config=best, output=Path(folder) / "final", total_steps=steps)


if __name__ == "__main__":
    main()
