"""The content of a report, as plain data: every number that its page shows, and its JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from metarl.core.errors import UserError
from metarl.core.registry import make_family
from metarl.report.axes import axes_of, trend
from metarl.report.methods import Method, Pooled, headline, improvement, methods_of, pooled
from metarl.run.run import Run, short
from metarl.sim.family import Family

_GRID = 100
"""Points of a method's mean learning curve."""


def content_of(runs: Sequence[Run], provenance: dict[str, Any]) -> dict[str, Any]:
    """Everything a report shows; `UserError` where there is nothing to show."""
    if not any(run.curve or run.evaluations for run in runs):
        raise UserError(f"{runs[0].path} has no iteration and no evaluation yet: there is nothing to report")
    panels: dict[str, list[Run]] = {}
    for run in runs:
        panels.setdefault(run.panel, []).append(run)
    remarks: list[str] = []
    families = [_family(name, panels[name], remarks) for name in sorted(panels)]
    labels = sorted({method["label"] for family in families for method in family["methods"]})
    return {
        "title": _title(runs),
        "provenance": provenance,
        "totals": {
            "runs": len(runs),
            "steps": sum(run.train_steps for run in runs),
            "seconds": sum(run.train_seconds for run in runs),
        },
        "labels": labels,
        "families": families,
        "runs": [_run(run) for run in runs],
        "remarks": remarks,
    }


def _title(runs: Sequence[Run]) -> str:
    """`maml-trpo and rl2 on half-cheetah-dir`."""
    agents, families = (sorted({short(run.config_values[key]) for run in runs}) for key in ("agent", "family"))
    on = _and(families) if len(families) <= 3 else f"{len(families)} families"
    return f"{_and(agents)} on {on}"


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _run(run: Run) -> dict[str, Any]:
    """One run's own record."""
    return {
        "name": run.name,
        "path": str(run.path),
        "agent": run.config_values["agent"],
        "family": run.config_values["family"],
        "seed": run.config_values["seed"],
        "train_steps": run.train_steps,
        "train_seconds": run.train_seconds,
        "provenance": run.provenance(),
        "config": run.config_values,
        "toml": run.toml(),
        "evaluations": [
            {
                "file": record.file,
                "split": record.split,
                "actions": record.actions,
                "train_steps": record.train_steps,
                "tasks": len(record.tasks),
                "mean": record.returns.mean(axis=0).tolist(),
                "command": str(record.provenance.get("command", "")),
            }
            for record in run.evaluations
        ],
    }


def _family(name: str, runs: Sequence[Run], remarks: list[str]) -> dict[str, Any]:
    """One family, or one family at one time limit: its methods and how they compare."""
    methods, left_out = methods_of(runs)
    remarks += left_out
    methods.sort(key=lambda method: method.label)
    try:
        family: Family | None = make_family(runs[0].config_values["family"])
    except UserError as error:
        family = None
        remarks.append(f"{name} cannot be loaded here, so that its training ranges are not known: {error}")
    pools = {method.label: pooled(method) for method in methods}
    for method in methods:
        if not pools[method.label]:
            remarks.append(f"{method.label} on {name} has no evaluation: only its learning curve is shown.")
    limit = runs[0].config_values["episode_steps"] or (family.episode_steps if family else 0)
    return {
        "name": name,
        "family": runs[0].config_values["family"],
        "summary": _summary(family),
        "episode_steps": limit or None,
        "episode_seconds": limit * family.control_step if family and limit else None,
        "methods": [_method(method, pools[method.label]) for method in methods],
        "parameters": _parameters(family, methods, pools),
        "comparisons": list(_comparisons(methods, pools)),
    }


def _summary(family: Family | None) -> str:
    return (type(family).__doc__ or "").strip().split("\n")[0] if family is not None else ""


# ------------------------------------------------------------------------------------------------------- methods


def _method(method: Method, pools: Sequence[Pooled]) -> dict[str, Any]:
    steps, seconds = (sum(getattr(run, name) for run in method.runs) for name in ("train_steps", "train_seconds"))
    return {
        "label": method.label,
        "agent": method.agent,
        "runs": [run.name for run in method.runs],
        "seeds": method.seeds,
        "differs": method.differs,
        "steps": [run.train_steps for run in method.runs],
        "minutes": [run.train_seconds / 60.0 for run in method.runs],
        "steps_per_second": steps / seconds if seconds else None,
        "time": _time(method.runs),
        "learning": _learning(method.runs),
        "evaluations": [_evaluation(pool) for pool in pools],
    }


def _evaluation(pool: Pooled) -> dict[str, Any]:
    return {
        "split": pool.one.split,
        "actions": pool.one.actions,
        "held_out": pool.one.held_out,
        "seeds": [run.config_values["seed"] for run in pool.runs],
        "files": [f"{run.name}/eval/{record.file}" for run, record in zip(pool.runs, pool.evaluations, strict=True)],
        "tasks": len(pool.one.tasks),
        "episodes": pool.one.returns.shape[1],
        "iqm": [point.to_json() for point in pool.curve()],
        "mean": [float(np.mean(pool.column(episode))) for episode in range(pool.one.returns.shape[1])],
        "gain": pool.gain().to_json(),
        "worst_decile": pool.worst(),
        "time_to_adapt": [
            record.time_to_adapt and vars(record.time_to_adapt)
            for record in pool.evaluations
            if record.reward_by_step is not None
        ],
    }


def _time(runs: Sequence[Run]) -> dict[str, float] | None:
    """Share of the training time by what it went to; None where it was not logged.

    A learner that times its own stages splits up the update; what of it they leave stays `update`.
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
    """Learning curves by control steps and by minutes: of each run, and their mean and range where all have data."""
    curves = {run.name: run.curve for run in runs if run.curve}
    if not curves:
        return {}
    return {
        "steps": _over([(name, curve["steps"], curve) for name, curve in curves.items()]),
        "minutes": _over([(name, curve["seconds"] / 60.0, curve) for name, curve in curves.items()]),
    }


def _over(
    curves: Sequence[tuple[str, Float64[np.ndarray, "_P"], dict[str, Float64[np.ndarray, "_P"]]]],
) -> dict[str, Any]:
    grid = np.linspace(max(x[0] for _, x, _ in curves), min(x[-1] for _, x, _ in curves), _GRID)
    last, first = (
        np.array([np.interp(grid, x, curve[episode]) for _, x, curve in curves]) for episode in ("last", "first")
    )
    return {
        "x": grid.tolist(),
        "last": last.mean(axis=0).tolist(),
        "low": last.min(axis=0).tolist(),
        "high": last.max(axis=0).tolist(),
        "first": first.mean(axis=0).tolist(),
        "runs": {name: {"x": x.tolist(), "last": curve["last"].tolist()} for name, x, curve in curves},
    }


# ------------------------------------------------------------------------------------------- tasks, and who is better


def _parameters(
    family: Family | None, methods: Sequence[Method], pools: dict[str, list[Pooled]]
) -> list[dict[str, Any]]:
    """Per task parameter, the returns of each method by task, `test` and `ood`."""
    shown = [
        (method.label, pool)
        for method in methods
        for split in ("test", "ood")
        if (pool := headline(pools[method.label], split)) is not None
    ]
    tasks = [task for _, pool in shown for task in pool.one.tasks.rows()]
    axes = axes_of(family.space if family is not None else None, tasks)
    return [vars(axis) | {"returns": [_returns(axis, label, pool) for label, pool in shown]} for axis in axes]


def _returns(axis: Any, label: str, pool: Pooled) -> dict[str, Any]:
    x = np.array([axis.value(task[axis.name]) for task in pool.one.tasks])
    first, last = pool.by_task(0), pool.by_task(-1)
    return {
        "label": label,
        "split": pool.one.split,
        "actions": pool.one.actions,
        "x": x.tolist(),
        "first": first.tolist(),
        "last": last.tolist(),
        "trend": trend(axis, x, first, last),
    }


def _comparisons(methods: Sequence[Method], pools: dict[str, list[Pooled]]) -> Any:
    """Probability of improvement of each method over each that follows it, in the last episode of a test task."""
    for number, method in enumerate(methods):
        for other in methods[number + 1 :]:
            ours, theirs = (headline(pools[label], "test") for label in (method.label, other.label))
            found = improvement(ours, theirs) if ours is not None and theirs is not None else None
            if found is not None and ours is not None and theirs is not None:
                actions = sorted({ours.one.actions, theirs.one.actions})
                yield {"better": method.label, "than": other.label, "actions": actions} | found.to_json("probability")
