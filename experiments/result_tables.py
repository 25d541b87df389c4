"""The tables of docs/tables.md, section by section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import believing
import interference
import learning_speed
import numpy as np
from comparison import RESULTS, ByFamily, Compared, by_headroom, by_steps, kinds, paired, recorded
from formatting import as_interval, as_number, as_rounded, as_share

from metarl.run.headroom import Recovered
from metarl.run.run import Run
from metarl.run.statistics import bootstrap_interval, mean

_PAYING = "Families whose headroom may be a quarter of the oracle's return or more, the largest first."
_ROBUST = (
    "Less than a quarter of the oracle's return, or none: these are benchmarks of robustness. Where the oracle itself "
    "has not learnt the task, nothing is told."
)
_UNKNOWN = "Without an oracle, or a policy that does not adapt, headroom is not known."
_CONTROLS = (
    "What it costs in the last episode to wipe a policy's adaptation state every half a second, or to "
    "swap it between worlds; and its lead over the best memoryless policy on its own tasks and on the nominal one."
)
_ON_GPU = (
    "With RL²'s network and PPO for all three: `python experiments/compare.py experiments/gpu.toml "
    "--runs runs/gpu --results experiments/results/gpu`."
)
_BELIEFS = (
    "Of their task, on the test tasks by mean action: the error of the mean, 1 for knowing "
    "nothing, and the share of truths that 90 % intervals hold, a second after the task began or changed and at "
    "the last time that was looked at: the trial's end, or what a tenth of the tasks come to unchanged (on "
    "quadruped-signs the 12 s are of seven tasks of a hundred). Mean over the task's parameters and the seeds. "
    "`rl2-mirror` on quadruped-faults (first seed) and -hidden-actuation says it by an estimator, all other RL² by the "
    "policy's own memory."
)
_SPEED = (
    "Control steps until the return in training is where nine tenths of the rise of `rl2` are made, as a "
    "share of those that `rl2` takes, which is told nothing of the task in training. Where a curve never gets there, "
    "it says so."
)
OPTIONS = {
    "ablations": (
        "One option changed",
        "1.5 M steps, one or two seeds, of RL² with all worlds in step, and one option changed: `untold` is told "
        "nothing of the task in training, `no-prediction` shows it to the critic alone, the others have another "
        "memory, or policy head",
    ),
    "updates": (
        "When RL² updates",
        "1.5 M steps, one seed, of 32 worlds: `rl2-segments` has all of them in step, `rl2-staggered` at different "
        "places of their trials, and the others are `rl2-told`, one update per trial, with one option "
        "changed (so `rl2-gru` is not that of the other tables)",
    ),
    "gradients": (
        "MAML and its kin",
        "3 M steps on point-goal and 5 M on half-cheetah-dir, one seed yet; of `maml-trpo` on half-cheetah-dir there "
        "are two in the comparison above",
    ),
}
"""Comparisons of options by their folder, which is the name of their TOML too: title, and what they are."""
_HEAD = (
    "| agent | training | episode 1 | last episode | gain | recovered | `ood`, last |\n|---|---|---|---|---|---|---|"
)


def row(label: str, runs: Sequence[Run], recovered: Recovered | None = None) -> str:
    """A line of the table: the runs are the seeds of one agent on one family."""
    tests = [kinds(run)["test", True] for run in runs]
    steps, minutes = np.mean([(test.train_steps, test.train_seconds / 60) for test in tests], axis=0)
    learned, seeds = min(test.gradient_steps for test in tests), f", {len(runs)} seeds" if len(runs) > 1 else ""
    updates = f"{as_rounded(learned / 1e3)} k updates, " * bool(learned)
    training = f"{as_rounded(steps / 1e6)} M steps, {updates}{minutes:.0f} min{seeds}"
    pairs = [returns for run in runs if (returns := paired(run).paired) is not None]
    last = [test.returns[:, -1] for test in tests]
    single = tests[0].returns.shape[1] == 1
    outside = [found.returns[:, -1] for run in runs if (found := kinds(run).get(("ood", True)))]
    cells = (
        label,
        training,
        as_interval(bootstrap_interval([returns[:, 0] for returns in pairs], mean)) + _seeds(last if single else []),
        "" if single else as_interval(bootstrap_interval(last, mean)) + _seeds(last),
        ""
        if single
        else as_interval(bootstrap_interval([returns[:, -1] - returns[:, 0] for returns in pairs], mean), "+"),
        "" if recovered is None else as_share(recovered.value) if recovered.value else "no headroom",
        as_interval(bootstrap_interval(outside, mean)) if outside else "",
    )
    return "| " + " | ".join(cells) + " |"


def _seeds(columns: Sequence[Any]) -> str:
    """The mean of each seed, where there are several."""
    means = [float(column.mean()) for column in columns]
    return f" ({', '.join(as_number(value, max(map(abs, means))) for value in means)})" if len(means) > 1 else ""


def _headroom(family: Compared) -> str:
    """What knowing the task is worth on a family, in a sentence."""
    found = family.placing
    if found is None:
        return "Its headroom is not known."
    room = found.headroom
    words = f"Headroom ({found.oracle} − {found.memoryless}): {as_interval(room.value, '+')}"
    if not room.measured:
        return f"{words}: none was measured."
    if not family.tells:
        return f"{words}, next to nothing of what the oracle gained in training."
    return f"{words}, {as_share(room.share)} of the oracle's return."


def tables(
    families: Mapping[str, Compared], on_gpu: Mapping[str, Compared], options: Mapping[str, ByFamily]
) -> Iterator[str]:
    """The comparison, a table per family, those first where adapting pays; what else was measured; the longer runs."""
    known = {place: family for place, family in families.items() if family.placing is not None}
    paying = {place: family for place, family in known.items() if family.pays}
    yield "## Where adapting pays"
    yield _PAYING
    yield from _tables(paying)
    yield "## Where it pays little, or nothing"
    yield _ROBUST
    yield from _tables({place: family for place, family in known.items() if place not in paying})
    if unknown := {place: family for place, family in families.items() if place not in known}:
        yield "## Where nobody knows"
        yield _UNKNOWN
        yield from _tables(unknown)
    yield "## Controls"
    yield _CONTROLS
    yield interference.table({**families, **by_steps(on_gpu)})
    yield "## What they believe"
    yield _BELIEFS
    yield believing.table({place: family.agents for place, family in {**families, **by_steps(on_gpu)}.items()})
    yield "## How soon"
    yield _SPEED
    yield learning_speed.table({place: family.agents for place, family in families.items()})
    yield "## On a GPU"
    yield _ON_GPU
    yield from _tables(on_gpu)
    for folder, (title, words) in OPTIONS.items():
        if found := options[folder]:
            yield f"## {title}"
            yield (
                f"Last episode after {words}: `python experiments/compare.py experiments/{folder}.toml "
                f"--runs runs/{folder} --results experiments/results/{folder}`."
            )
            yield by_option(found)
    yield "## Longer runs"
    yield "Each named as under [experiments/results](../experiments/results):"
    longer = [run for run in recorded(RESULTS) if ("test", True) in kinds(run)]
    longer.sort(key=lambda run: (run.panel, run.config_values["agent"]))
    labels = [f"{run.name}: {run.config_values['agent']}, {run.panel}" for run in longer]
    yield "\n".join((_HEAD, *(row(label, [run]) for label, run in zip(labels, longer, strict=True))))


def _tables(families: Mapping[str, Compared]) -> Iterator[str]:
    """The largest headroom first."""
    for place, family in by_headroom(families).items():
        agents, found = family.agents, family.placing
        shares = found.recovered if found is not None and family.tells else {}
        first = next(kinds(run)["test", True] for runs in agents.values() for run in runs)
        seen = "" if first.held_out else " Its test tasks are those of training."
        yield f"**{place}**. {_headroom(family)}{seen}"
        yield "\n".join((_HEAD, *(row(agent, runs, shares.get(agent)) for agent, runs in agents.items())))


def by_option(families: ByFamily) -> str:
    """A row per option, a column per family: the return of the last episode, and each seed's of several."""
    names = list(dict.fromkeys(label for agents in families.values() for label in agents))
    rows = []
    for name in names:
        lasts = [
            [kinds(run)["test", True].returns[:, -1] for run in agents.get(name, [])] for agents in families.values()
        ]
        cells = (name, *(as_interval(bootstrap_interval(last, mean)) + _seeds(last) if last else "" for last in lasts))
        rows.append("| " + " | ".join(cells) + " |")
    head = "| option | " + " | ".join(families) + " |"
    return "\n".join((head, "|---" * (1 + len(families)) + "|", *rows))
