"""Tables of results in README.md, docs/families.md and docs/results.md, from what experiments/results holds.

    python experiments/record.py    # or `make results`: redraws everything, this too

Runs of the comparison stand together, a row per family and agent over its seeds; longer ones have rows of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import believing
import learning_speed
import numpy as np
from formatting import as_interval, as_mean, as_number, as_percent, as_share

from metarl.core.files import write_atomic
from metarl.envs import FAMILIES
from metarl.run.headroom import Recovered
from metarl.run.placing import Placing, placing
from metarl.run.records import EvaluationRecord
from metarl.run.run import Run, short
from metarl.run.statistics import bootstrap_interval, mean, mean_interval
from metarl.run.tables import LEADS, leads

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "results"
BEGIN, END = "<!-- written by `make results` -->", "<!-- end of what `make results` writes -->"
_CONTROLS = (
    "**Controls**: what it costs in the last episode to wipe a policy's adaptation state every half a second, or to "
    "swap it between worlds; and its lead over the best memoryless policy on its own tasks and on the nominal one. "
    "One seed each."
)
_ON_GPU = (
    "**On a GPU**, with RL²'s network and PPO for all three: `python experiments/compare.py experiments/gpu.toml "
    "--runs runs/gpu --results experiments/results/gpu`."
)
_BELIEFS = (
    "**What they believe** of their task, on the test tasks by mean action: the error of the mean, 1 for knowing "
    "nothing, and the share of truths that 90 % intervals hold, a second after the task began or changed and at the "
    "trial's last step. Mean over the task's parameters and the seeds."
)
_SPEED = (
    "**How soon**: control steps until the return in training is where nine tenths of the rise of `rl2` are made, as a "
    "share of those that `rl2` takes, which is told nothing of the task in training. Where a curve never gets there, "
    "it says so."
)
_ABLATIONS = (
    "**RL²'s options**, last episode after 1.5 M steps, one seed: `rl2-segments` is the default with 32 worlds instead "
    "of 64, `rl2-staggered` has worlds at different places of their trials, and the others are `rl2-told`, one update "
    "per trial, with one option changed: `python experiments/compare.py experiments/ablations.toml --runs "
    "runs/ablations --results experiments/results/ablations`."
)
PAYS = 0.25
"""Headroom, as a share of the oracle's return, from which on adapting pays: that a family may have, by its interval."""
_GRADIENTS = (
    "**MAML and its kin**, last episode, three seeds: `python experiments/compare.py experiments/gradients.toml --runs "
    "runs/gradients --results experiments/results/gradients`."
)
ByFamily = Mapping[str, Mapping[str, Sequence[Run]]]
"""Runs, one per seed, by family and agent."""
ROLES = ("memoryless", "adapting", "oracle")
"""The order in a table: what does not adapt, what does, and what is told the task."""
_HEAD = (
    "| agent | training | episode 1 | last episode | gain | recovered | `ood`, last |\n|---|---|---|---|---|---|---|"
)


def recorded(folder: Path) -> list[Run]:
    """The runs recorded directly in `folder`, by name."""
    return [Run(path.parent) for path in sorted(folder.glob("*/run.json"))]


def kinds(run: Run) -> dict[tuple[str, bool], EvaluationRecord]:
    """A run's evaluations by split and whether actions were the mean.

    Of several the one after the longest training, of most tasks, of most episodes.
    """
    found = sorted(run.evaluations, key=lambda record: (record.train_steps, *record.returns.shape))
    return {(record.split, record.deterministic): record for record in found}


def compared(results: Path = RESULTS, folder: str = "compare") -> dict[str, dict[str, list[Run]]]:
    """A comparison: its runs, one per seed, by family and agent, or the name that the comparison has for it."""
    found: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in recorded(results / folder):
        found[run.panel][label(run)].append(run)
    return {place: dict(sorted(agents.items(), key=_rank)) for place, agents in found.items()}


def label(run: Run) -> str:
    """`ppo` of `ant-dir-ppo-s1`; a run of another name has its agent's."""
    config = run.config_values
    prefix, suffix = f"{short(str(config['family']))}-", f"-s{config['seed']}"
    named = run.name.startswith(prefix) and run.name.endswith(suffix)
    return run.name[len(prefix) : -len(suffix)] if named else str(config["agent"])


def _rank(item: tuple[str, list[Run]]) -> tuple[int, str]:
    agent, runs = item
    roles = [record.role for run in runs for record in run.evaluations]
    return ROLES.index(roles[0] if roles else "adapting"), agent


def paired(run: Run) -> EvaluationRecord:
    """The evaluation on test tasks whose first and last episode are comparable: sampled where the agent samples."""
    found = kinds(run)
    return found["test", True] if found["test", True].paired is not None else found["test", False]


def row(label: str, runs: Sequence[Run], recovered: Recovered | None = None) -> str:
    """A line of the table: the runs are the seeds of one agent on one family."""
    tests = [kinds(run)["test", True] for run in runs]
    steps, minutes = np.mean([(test.train_steps, test.train_seconds / 60) for test in tests], axis=0)
    learned, seeds = min(test.gradient_steps for test in tests), f", {len(runs)} seeds" if len(runs) > 1 else ""
    training = (
        f"{steps / 1e6:.2g} M steps, {f'{learned / 1e3:.2g} k updates, ' * bool(learned)}{minutes:.0f} min{seeds}"
    )
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


def _headroom(found: Placing | None) -> str:
    """What knowing the task is worth on a family, in a sentence."""
    if found is None:
        return "Its headroom is not known: there is no oracle here, or no policy that does not adapt."
    room = found.headroom
    words = f"Headroom ({found.oracle} − {found.memoryless}): {as_interval(room.value, '+')}"
    if not room.measured:
        return f"{words}: none was measured. It says how robust a policy is, and nothing of adaptation."
    return f"{words}, {as_share(room.share)} of the oracle's return."


@dataclass(frozen=True)
class Compared:
    """A family's runs of the comparison, and what they say of its headroom."""

    agents: Mapping[str, Sequence[Run]]
    """One run per seed, by agent."""
    placing: Placing | None
    """None without a memoryless policy or an oracle."""

    def steps_of(self, agent: str) -> int:
        """What a training of an agent took [control steps]."""
        return max(kinds(run)["test", True].train_steps for run in self.agents[agent])

    @property
    def steps(self) -> int:
        """What its longest training took [control steps]."""
        return max(map(self.steps_of, self.agents))


def places(folder: str = "compare") -> dict[str, Compared]:
    """Every family of a comparison."""
    found = {}
    for place, agents in compared(folder=folder).items():
        tests = {agent: [kinds(run)["test", True] for run in runs] for agent, runs in agents.items()}
        found[place] = Compared(agents, placing(tests))
    return found


def tables(
    families: Mapping[str, Compared], on_gpu: Mapping[str, Compared], ablated: ByFamily, gradients: ByFamily
) -> Iterator[str]:
    """The comparison, a table per family; that on a GPU; RL²'s options; MAML's kin; then the longer runs."""
    yield from _tables(families)
    yield _CONTROLS
    yield controls({**families, **_by_steps(on_gpu)})
    yield _BELIEFS
    yield believing.table({place: family.agents for place, family in {**families, **_by_steps(on_gpu)}.items()})
    yield _SPEED
    yield learning_speed.table({place: family.agents for place, family in families.items()})
    yield _ON_GPU
    yield from _tables(on_gpu)
    yield _ABLATIONS
    yield options(ablated)
    if gradients:
        yield _GRADIENTS
        yield options(gradients)
    yield "**Longer runs**, each named as under [experiments/results](../experiments/results):"
    longer = [run for run in recorded(RESULTS) if ("test", True) in kinds(run)]
    longer.sort(key=lambda run: (run.panel, run.config_values["agent"]))
    labels = [f"{run.name}: {run.config_values['agent']}, {run.panel}" for run in longer]
    yield "\n".join((_HEAD, *(row(label, [run]) for label, run in zip(labels, longer, strict=True))))


def _tables(families: Mapping[str, Compared]) -> Iterator[str]:
    for place, family in families.items():
        agents, found = family.agents, family.placing
        shares = {} if found is None else found.recovered
        first = next(kinds(run)["test", True] for runs in agents.values() for run in runs)
        seen = "" if first.held_out else " Its test tasks are those of training."
        yield f"**{place}**. {_headroom(found)}{seen}"
        yield "\n".join((_HEAD, *(row(agent, runs, shares.get(agent)) for agent, runs in agents.items())))


def options(families: ByFamily) -> str:
    """A row per option, a column per family: the return of the last episode."""
    names = list(dict.fromkeys(label for agents in families.values() for label in agents))
    rows = []
    for name in names:
        lasts = [
            [kinds(run)["test", True].returns[:, -1] for run in agents.get(name, [])] for agents in families.values()
        ]
        cells = (name, *(as_interval(bootstrap_interval(last, mean)) if last else "" for last in lasts))
        rows.append("| " + " | ".join(cells) + " |")
    head = "| option | " + " | ".join(families) + " |"
    return "\n".join((head, "|---" * (1 + len(families)) + "|", *rows))


def _by_steps(families: Mapping[str, Compared]) -> dict[str, Compared]:
    """Named by what their training took too, to stand beside those of another comparison."""
    return {f"{place}, {family.steps / 1e6:.0f} M steps": family for place, family in families.items()}


def controls(families: Mapping[str, Compared]) -> str:
    """A row per policy whose adaptation was interfered with: what that costs, and its lead with and without a task."""
    rows = []
    for place, family in families.items():
        lowest = [name for name in family.agents if family.placing is None or name == family.placing.memoryless]
        memoryless = [kinds(run)["test", True] for name in lowest for run in family.agents[name]]
        memoryless = [record for record in memoryless if record.role == "memoryless"]
        for agent, runs in family.agents.items():
            for record in (kinds(run)["test", True] for run in runs):
                if record.role != "adapting" or not record.controls or record.paired is None:
                    continue
                plain = record.paired[:, -1]
                costs = {one.kind: mean_interval(plain - one.returns[:, -1]) for one in record.controls}
                lead = {where: mean_interval(ahead) for where, ahead in leads(record, memoryless)}
                found = (*(costs.get(kind) for kind in ("wipe", "swap")), *map(lead.get, LEADS))
                cells = (
                    place,
                    agent,
                    as_mean(plain),
                    *("" if each is None else as_interval(each, "+") for each in found),
                )
                rows.append("| " + " | ".join(cells) + " |")
    head = "| family | policy | last episode | wiped | swapped | lead on its tasks | lead on the nominal one |"
    return "\n".join((head, "|---" * 7 + "|", *rows))


def overview(families: Mapping[str, Compared], on_gpu: Mapping[str, Compared]) -> str:
    """A row per family in which adapting pays, the largest headroom first; then the others' names.

    On a GPU by itself. Of those that adapt, the best is of trainings at least half as long as the oracle's.
    """
    rows, others = [], []
    for place, family in {**families, **_by_steps(on_gpu)}.items():
        found = family.placing
        if found is None:
            continue
        room = found.headroom
        if not pays(found):
            others.append((-room.share.value, f"{place} ({as_percent(room.share.value) if room.measured else 'none'})"))
            continue
        long_enough = [
            agent for agent in found.recovered if 2 * family.steps_of(agent) >= family.steps_of(found.oracle)
        ]
        best = max(long_enough, key=lambda agent: np.mean(found.recovered[agent].ours), default="")
        ours = found.recovered.get(best)
        cells = (
            place,
            as_mean(room.memoryless),
            "" if ours is None else f"{as_mean(ours.ours)} ({best})",
            as_mean(room.oracle),
            as_share(room.share),
            as_share(ours.value) if ours is not None and ours.value else "",
            f"{family.steps_of(found.oracle) / 1e6:.2g} M",
            str(min(len(room.memoryless), len(room.oracle), *([] if ours is None else [len(ours.ours)]))),
        )
        rows.append((-room.share.value, "| " + " | ".join(cells) + " |"))
    heads = ("family", "memoryless", "best that adapts", "oracle", "headroom", "recovered", "steps", "seeds")
    table = ("| " + " | ".join(heads) + " |", "|---" * len(heads) + "|", *(row for _, row in sorted(rows)))
    names = ", ".join(name for _, name in sorted(others))
    return "\n".join((*table, *(("", f"A smaller share, or none, was measured on {names}.") if names else ())))


def pays(found: Placing | None) -> bool:
    """Whether a family's headroom may be large enough that adapting pays."""
    return found is not None and found.headroom.measured and found.headroom.share.high >= PAYS


def worth_adapting(families: Mapping[str, Compared]) -> str:
    """A row per family of the suite: what knowing its task is worth, or that nobody has measured it."""
    rows = []
    for name in FAMILIES:
        found = families[name].placing if name in families else None
        if found is None:
            cells = ("not measured", "", "", "")
        else:
            room = found.headroom
            share = as_share(room.share) if room.measured else "none: a benchmark of robustness"
            steps = {kinds(run)["test", True].train_steps for run in families[name].agents[found.oracle]}
            budget = f"{max(steps) / 1e6:.2g} M steps, {len(room.oracle)} seed{'s' * (len(room.oracle) > 1)}"
            cells = (share, as_mean(room.memoryless), as_mean(room.oracle), budget)
        rows.append("| " + " | ".join((name, *cells)) + " |")
    return "\n".join(("| family | headroom | memoryless | oracle | each |", "|---" * 5 + "|", *rows))


def pages() -> dict[str, str]:
    """What belongs between the two marks of each page, by its path."""
    families, on_gpu = places(), places("gpu")
    ablated, gradients = compared(folder="ablations"), compared(folder="gradients")
    return {
        "README.md": overview(families, on_gpu),
        "docs/families.md": worth_adapting(families | on_gpu),
        "docs/results.md": "\n\n".join(tables(families, on_gpu, ablated, gradients)),
    }


def update(root: Path = ROOT) -> None:
    """Write the tables between the two marks of each page."""
    for name, content in pages().items():
        path = root / name
        before, rest = path.read_text().split(BEGIN)
        _, after = rest.split(END)
        write_atomic(path, before + BEGIN + "\n\n" + content + "\n\n" + END + after)
