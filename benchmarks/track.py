"""Speed over time, as ratios to bare physics measured in turns with it.

    python benchmarks/track.py [--seconds 3]

A line is added to benchmarks/history.jsonl with what was measured, where and at which commit. The exit code is 1 where
a ratio is below its floor: ratios, since machines differ more than versions do.
"""

import json
import sys
from pathlib import Path

from metarl.bench.bench import run_benchmark
from metarl.bench.worlds import Place
from metarl.run.logs import provenance

HISTORY = Path(__file__).parent / "history.jsonl"
FLOORS = {
    "TrialEnv, random actions": 0.70,
    "RL² LSTM 128: collection": 0.40,
    "RL² LSTM 128: training iteration": 0.17,
    "MAML-TRPO, 1 shot: training iteration": 0.22,
    "PEARL gradient step": 0.90,
}
"""The least that is accepted of each, about four fifths of the first measurements (docs/performance.md)."""


def below(ratios: dict[str, float]) -> list[str]:
    """A sentence for each ratio that is below its floor; keys are `family, contender, worlds`."""
    floors = {key: FLOORS[key.split(" | ")[1]] for key in ratios if key.split(" | ")[1] in FLOORS}
    return [
        f"{key}: {ratios[key]:.2f} of bare, at least {least:.2f} expected"
        for key, least in floors.items()
        if ratios[key] < least
    ]


def main(seconds: float = 3.0) -> int:
    """Measure, note, and judge."""
    rows = run_benchmark(("half-cheetah-body", "quadruped-body"), (64,), seconds, Place(0, "cpu", ""))
    ratios = {f"{row.family} | {row.name} | {row.num_worlds}": round(row.ratio, 3) for row in rows}
    how = provenance(["benchmarks/track.py"])
    kept = {key: how[key] for key in ("started", "git_commit", "machine", "versions") if key in how}
    with HISTORY.open("a") as file:
        file.write(json.dumps({**kept, "ratios": ratios}, ensure_ascii=False) + "\n")
    slow = below(ratios)
    print(*(f"{key}: {ratio:.2f}" for key, ratio in ratios.items()), *slow, sep="\n")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[2])) if sys.argv[1:2] == ["--seconds"] else main())
