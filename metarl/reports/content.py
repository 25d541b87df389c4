"""The content of a report as plain data: every number that its page and its JSON file show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from metarl.core.errors import UserError
from metarl.core.registry import family_names, make_family
from metarl.core.tasks import Parameter
from metarl.reports.axes import Axis, axes_of, trend
from metarl.reports.methods import Method, Pooled, improvement, methods_of
from metarl.reports.moments import errors, recoveries, rewards, surface
from metarl.run.described import Described
from metarl.run.placing import placing
from metarl.run.run import Run, short
from metarl.run.statistics import bootstrap_interval, interquartile_mean, mean, worst_decile

_GRID = 100
"""Number of points of a method's mean learning curve."""


def content_of(runs: Sequence[Run], provenance: dict[str, Any]) -> dict[str, Any]:
    """Collect everything that a report shows; raises `UserError` if there is nothing to show."""
    if not any(run.curve or run.evaluations for run in runs):
        raise UserError(f"{runs[0].path} has no iteration and no evaluation yet: there is nothing to report")
    panels: dict[str, list[Run]] = {}
    for run in runs:  # returns over other horizons cannot be compared
        panels.setdefault(run.panel, []).append(run)
    remarks: list[str] = []
    families = [_family(name, panels[name], remarks) for name in sorted(panels)]
    agents, names = (sorted({short(run.config_values[key]) for run in runs}) for key in ("agent", "family"))
    return {
        "title": f"{_and(agents)} on {_and(names) if len(names) <= 3 else f'{len(names)} families'}",
        "provenance": provenance,
        "totals": {
            "runs": len(runs),
            "steps": sum(run.train_steps for run in runs),
            "seconds": sum(run.train_seconds for run in runs),
        },
        "labels": sorted({method["label"] for family in families for method in family["methods"]}),
        "families": families,
        "runs": [_run(run) for run in runs],
        "remarks": remarks,
    }


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _run(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "path": str(run.path),
        **{key: run.config_values[key] for key in ("agent", "family", "seed")},
        **{key: getattr(run, key) for key in ("train_steps", "train_seconds")},
        "provenance": run.provenance(),
        "config": run.config_values,
        "toml": run.toml(),
        "evaluations": [
            {key: getattr(evaluation, key) for key in ("file", "split", "actions", "train_steps")}
            | {
                "command": str(evaluation.provenance.get("command", "")),
                "tasks": len(evaluation.tasks),
                "mean": evaluation.returns.mean(axis=0).tolist(),
            }
            for evaluation in run.evaluations
        ],
    }


def _family(name: str, runs: Sequence[Run], remarks: list[str]) -> dict[str, Any]:
    """The methods of one family at one time limit, and how they compare."""
    methods, left_out = methods_of(runs)
    remarks += left_out
    family = _described(runs)
    if family is None:
        remarks.append(f"{name} is not described in its runs' folders: its training ranges are not known.")
    remarks += [
        f"{method.label} on {name} has no evaluation: only its learning curve is shown."
        for method in methods
        if not method.pools
    ]
    limit = runs[0].config_values["episode_steps"] or (family.episode_steps if family else 0)
    axes = _axes(family.parameters if family else {}, methods)
    parameters = [vars(axis) | {"returns": _over(axis, methods)} for axis in axes]
    return {
        "name": name,
        "family": runs[0].config_values["family"],
        "summary": family.summary if family else "",
        "episode_steps": limit or None,
        "episode_seconds": limit * family.control_step if family and limit else None,
        "methods": [_method(method) for method in methods],
        "headroom": _headroom(methods),
        "parameters": parameters,
        "surface": surface(axes, parameters, methods),
        "rewards": rewards(methods, family.control_step if family else None),
        "recoveries": recoveries(methods),
        "errors": errors(methods),
        "comparisons": list(_comparisons(methods)),
    }


def _described(runs: Sequence[Run]) -> Described | None:
    """The family: as it describes itself where it is installed, else as a run's folder does, whose code is not run."""
    name = str(runs[0].config_values["family"])
    if name in family_names():
        return Described.of(make_family(name))
    return next((found for run in runs if (found := run.described) is not None), None)


def _headroom(methods: Sequence[Method]) -> dict[str, Any] | None:
    """Oracle − memoryless on the test tasks, and what each adapting method recovers of it; None without the two."""
    found = placing({m.label: pool.evaluations for m in methods if (pool := m.headline("test")) is not None})
    if found is None:
        return None
    named = {"value": found.headroom.value.to_json(), "share": found.headroom.share.to_json()}
    recovered = {
        label: {"ours": own.ours, "by_seed": own.by_seed, "value": own.value and own.value.to_json()}
        for label, own in found.recovered.items()
    }
    return asdict(found) | {"headroom": asdict(found.headroom) | named, "recovered": recovered}


# ------------------------------------------------------------------------------------------------------- methods


def _method(method: Method) -> dict[str, Any]:
    steps, seconds = [run.train_steps for run in method.runs], [run.train_seconds for run in method.runs]
    return {
        "label": method.label,
        "agent": method.agent,
        "samples_first": method.runs[0].samples_first,
        "runs": [run.name for run in method.runs],
        "seeds": [run.config_values["seed"] for run in method.runs],
        "differs": method.differs,
        "steps": steps,
        "minutes": [length / 60.0 for length in seconds],
        "steps_per_second": sum(steps) / sum(seconds) if sum(seconds) else None,
        "time": _time(method.runs),
        "learning": _learning(method.runs),
        "evaluations": [_evaluation(pool) for pool in method.pools],
    }


def _evaluation(pool: Pooled) -> dict[str, Any]:
    episodes = range(pool.one.returns.shape[1])
    pairs = [evaluation.paired for evaluation in pool.evaluations]
    gains = [paired[:, -1] - paired[:, 0] for paired in pairs if paired is not None]
    alike = len(gains) == len(pairs)
    return {
        **{key: getattr(pool.one, key) for key in ("split", "actions", "held_out")},
        "seeds": [run.config_values["seed"] for run in pool.runs],
        "files": [f"{run.name}/eval/{e.file}" for run, e in zip(pool.runs, pool.evaluations, strict=True)],
        "tasks": len(pool.one.tasks),
        "episodes": len(episodes),
        "iqm": [bootstrap_interval(pool.column(k), interquartile_mean).to_json() for k in episodes],
        "mean": [float(np.mean(pool.column(k))) for k in episodes],
        "by_seed": [float(column.mean()) for column in pool.column(-1)],
        "gain": bootstrap_interval(gains, interquartile_mean).to_json() if alike else None,
        "failed": sum(int(evaluation.failed.sum()) for evaluation in pool.evaluations),
        "gradient_steps": [evaluation.gradient_steps for evaluation in pool.evaluations],
        "controls": _controls(pool),
        "worst_decile": worst_decile(np.concatenate(pool.column(-1))),
        "time_to_adapt": [
            evaluation.time_to_adapt and vars(evaluation.time_to_adapt)
            for evaluation in pool.evaluations
            if evaluation.reward_by_step is not None
        ],
    }


def _controls(pool: Pooled) -> list[dict[str, Any]]:
    """The controls that were played with every run: the return of the last episode, and what they cost."""
    by_label = [{one.label: one for one in evaluation.controls} for evaluation in pool.evaluations]
    rows = []
    for label, one in by_label[0].items():
        if not all(label in found for found in by_label):
            continue
        last = [found[label].returns[:, -1] for found in by_label]
        row = {"label": label, "return": bootstrap_interval(last, mean).to_json(), "cost": None}
        plain = [evaluation.paired for evaluation in pool.evaluations]
        if one.kind != "nominal":
            costs = [own[:, -1] - other for own, other in zip(plain, last, strict=True) if own is not None]
            row["cost"] = bootstrap_interval(costs, mean).to_json()
        rows.append(row)
    return rows


def _time(runs: Sequence[Run]) -> dict[str, float] | None:
    """Shares of the training time by what it was spent on; None if it was not logged.

    A learner that times its own stages splits up the update; the rest of the update stays `update`.
    """
    total = sum(run.train_seconds for run in runs)
    times = [run.times() for run in runs]
    if not total or not all(times):
        return None
    names = dict.fromkeys(name for seconds in times for name in seconds)
    shares = {name: sum(seconds.get(name, 0.0) for seconds in times) / total for name in names}
    if "update" in shares:
        stages = sum(share for name, share in shares.items() if name not in ("collect", "update"))
        shares["update"] = max(0.0, shares["update"] - stages)
    return shares | {"else": max(0.0, 1.0 - sum(shares.values()))}


def _learning(runs: Sequence[Run]) -> dict[str, Any]:
    """Learning curves by control steps and by minutes: each run's, and mean and range where all have data."""
    curves = {run.name: run.curve for run in runs if run.curve}
    learning = {}
    for over, key, unit in (("steps", "steps", 1.0), ("minutes", "seconds", 60.0)) if curves else ():
        xs = [curve[key] / unit for curve in curves.values()]
        grid = np.linspace(max(x[0] for x in xs), min(x[-1] for x in xs), _GRID)
        last, first = (
            np.array([np.interp(grid, x, curve[name]) for x, curve in zip(xs, curves.values(), strict=True)])
            for name in ("last", "first")
        )
        learning[over] = {
            "x": grid.tolist(),
            "last": last.mean(axis=0).tolist(),
            "low": last.min(axis=0).tolist(),
            "high": last.max(axis=0).tolist(),
            "first": first.mean(axis=0).tolist(),
            "runs": {
                name: {"x": x.tolist(), "last": curve["last"].tolist()}
                for x, (name, curve) in zip(xs, curves.items(), strict=True)
            },
        }
    return learning


# ------------------------------------------------------------------------------------------- tasks, and who is better


def _axes(known: Mapping[str, Parameter], methods: Sequence[Method]) -> list[Axis]:
    """The task parameters of all that was evaluated."""
    pools = [pool for m in methods for split in ("test", "ood") if (pool := m.headline(split)) is not None]
    return axes_of(known, [task for pool in pools for task in pool.one.tasks.rows()])


def _over(axis: Axis, methods: Sequence[Method]) -> list[dict[str, Any]]:
    """The returns of each method by task, on `test` and `ood`."""
    shown = [(m.label, pool) for m in methods for split in ("test", "ood") if (pool := m.headline(split)) is not None]
    return [_returns(axis, label, pool) for label, pool in shown]


def _returns(axis: Axis, label: str, pool: Pooled) -> dict[str, Any]:
    x = np.array([axis.value(task[axis.name]) for task in pool.one.tasks.rows()])
    first, last = (np.asarray(np.mean(pool.column(episode), axis=0)) for episode in (0, -1))  # over runs
    return {
        "label": label,
        "split": pool.one.split,
        "actions": pool.one.actions,
        "x": x.tolist(),
        "first": first.tolist(),
        "last": last.tolist(),
        "trend": trend(axis, x, first, last),
    }


def _comparisons(methods: Sequence[Method]) -> Iterator[dict[str, Any]]:
    """Probability of improvement of each method over each that follows it, in the last episode of a test task."""
    for method, other in combinations(methods, 2):
        ours, theirs = method.headline("test"), other.headline("test")
        found = improvement(ours, theirs)
        if found is not None and ours is not None and theirs is not None:
            actions = sorted({ours.one.actions, theirs.one.actions})
            yield {"better": method.label, "than": other.label, "actions": actions} | found.to_json("probability")
