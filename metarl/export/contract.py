"""`contract.json`: everything that whoever runs the policy has to know, and nothing that has to be executed.

The keys that a runner reads are those of `runtime.py`, which checks them. What each tensor and function means is taken
from the docstrings of the policy's own classes.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from metarl.core.config import TrainConfig, task_visible
from metarl.core.distributions import Distribution
from metarl.core.info import PolicyInfo
from metarl.export.parity import Met
from metarl.export.program import STATE, Program
from metarl.export.robot import action_of, gravity_part, physics_step
from metarl.export.runtime import SCHEMA
from metarl.export.runtime.guard import LARGEST
from metarl.export.trace import Traced
from metarl.rl.policy import Believing, Policy
from metarl.run.run import Run
from metarl.sim.env import TrialEnv
from metarl.sim.family import Family, MujocoFamily

INITIAL = "initial."
"""Begins the names of the state's initial values."""
_CONSTANT = 1e-3
_UNIT = 1.2  # of a direction's numbers
_ASTRAY = 1.0  # [rad or m] outside its range no joint is: its encoder errs


def contract_of(run: Run, policy: Policy[Any], env: TrialEnv, written: Traced, terms: Sequence[str]) -> dict[str, Any]:
    """The contract of a run's policy, but for files, parity and provenance; `terms` are those of the reward."""
    info, config, family, programs = policy.info, run.config(), env.family, written.programs
    needed = programs["observe"].needs("reward")
    reward = _reward(family, needed, terms)
    made: dict[str, Any] = {
        "schema": SCHEMA,
        "control_step": info.control_step,
        "physics_step": physics_step(env),
        "episode_steps": info.episode_steps,
        "episodes_per_trial": info.episodes_per_trial,
        "adapts": info.adapts,
        "observation": _observation(policy, info),
        "history": 1,
        "action": action_of(env, info),
        "gravity": gravity_part(info),
        "state": _state(policy, written.state),
        "resets": {
            "new_task": "every tensor of the state takes its initial value",
            "new_episode": "the program end_episode is run: what was learnt of the task stays",
        },
        "noise": _noise(policy, programs["act"]),
        "reward": reward,
        "deployable": not (why := _objections(config, family, info, needed)),
        "objections": why,
        "learner": dataclasses.asdict(config.learner),
        "tasks": [dataclasses.asdict(one) for one in info.parameters],
        "disturbances": _disturbances(family),
        "read_out": read_out(policy, programs),
        "meaning": {name: _said(getattr(policy, name)) for name in programs},
        "programs": {name: program.to_json() for name, program in programs.items()},
    }
    return {key: value for key, value in made.items() if value is not None}


def bound(contract: dict[str, Any], met: Met) -> None:
    """Put into the contract within what a sound sensor's numbers lie, and how fast commands may change.

    Of joints and of gravity by the robot: beyond these limits it is no danger that is seen, but an error. Of all else
    what was met, and as much again as that spans, or ten standard deviations of those in training, where a policy's
    normaliser ends. A command may change twice as fast as the policy's fastest, or a twentieth of its range in a step.
    """
    first, action = 0, contract["action"]
    for part in contract["observation"]:
        low, high = (x[first : first + part["size"]] for x in (met.low, met.high))
        margin = np.maximum(high - low, 10.0 * np.array(part.get("std", 0.0)))
        margin[margin < _CONSTANT] = LARGEST  # one that never changed says nothing of its sensor
        low, high = low - margin, high + margin
        if part["name"] == contract.get("gravity"):
            low, high = np.full(3, -_UNIT), np.full(3, _UNIT)
        elif part["name"] == action.get("joint_position") and "position_low" in action and "position_high" in action:
            low, high = np.array(action["position_low"]) - _ASTRAY, np.array(action["position_high"]) + _ASTRAY
            low, high = low - action["default"], high - action["default"]
        elif part["name"] == action.get("joint_velocity") and "velocity_limit" in action:
            high = 3.0 * np.array(action["velocity_limit"])
            low = -high
        part |= {"low": low.tolist(), "high": high.tolist()}
        first += part["size"]
    change = np.clip(2.0 * met.change, 0.1, 2.0)
    action["rate_limit"] = (change * np.abs(action["scale"]) / contract["control_step"]).tolist()


def _observation(policy: Policy[Any], info: PolicyInfo) -> list[dict[str, Any]]:
    """Parts, with mean and deviation in training where the policy knows them by its normaliser."""
    norm, rows, first = getattr(policy, "obs_norm", None), [], 0
    for part in info.observation:
        row = {"name": part.name, "size": part.size, "unit": part.unit, "elements": list(part.elements)}
        row["help"] = part.help
        if norm is not None and float(norm.count) > 0:
            own = slice(first, first + part.size)
            row |= {"mean": norm.mean[own].tolist(), "std": norm.std[own].tolist()}
        rows.append(row)
        first += part.size
    return rows


def _state(policy: Policy[Any], state: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    said = _field_docs(type(policy.initial_state(1)))
    rows = []
    for key, value in state.items():
        name = key.removeprefix(STATE)
        row = {"name": name, "shape": list(value.shape), "dtype": value.dtype.name, "initial": INITIAL + name}
        rows.append(row | {"meaning": said.get(name, "")})
    return rows


def _noise(policy: Policy[Any], act: Program) -> dict[str, Any]:
    """How many standard normal numbers `act` takes, and which of them the mean action depends on."""
    used: set[int] = set()
    for one in act.operations:
        if "noise" in one.inputs:
            cut = one.attributes if one.op == "slice" and one.attributes["dim"] == 1 else {"start": 0}
            used.update(range(policy.noise_size)[cut["start"] : cut.get("end") : cut.get("step", 1)])
    when = _said(policy.act) if used else "never: the mean action needs no noise"
    return {"size": policy.noise_size, "deterministic": sorted(used), "when": when}


def read_out(policy: Policy[Any], programs: Mapping[str, Program]) -> list[dict[str, Any]]:
    """What can be watched, with its size; of a belief of the task, which is told as `task_code`, the range in training.

    Such a belief is of a task parameter, by whose name and meaning it goes.
    """
    if "read_out" not in programs:
        return []
    program, rows = programs["read_out"], []
    shapes = {x.name: x.shape for x in program.inputs} | {x.out: x.shape for x in program.operations}
    believed = {part.name: part.help for part in policy.info.privileged} if isinstance(policy, Believing) else {}
    for name, value in program.outputs.items():
        row: dict[str, Any] = {"name": name, "size": math.prod(shapes[value])}
        if name in believed:
            row |= {"meaning": believed[name], "low": -1.0, "high": 1.0}
        rows.append(row)
    return rows


def _reward(family: Family, needed: bool, terms: Sequence[str]) -> dict[str, Any]:
    """Whether the policy adapts by the reward, its terms, and of each quantity whether a robot measures it."""
    return {"needed": needed, "terms": list(terms), "quantities": dict(family.reward_needs or {})}


def _objections(config: TrainConfig[Any], family: Family, info: PolicyInfo, needed: bool) -> list[str]:
    """Why a robot cannot run it as it is, a sentence each."""
    found = []
    unmeasured = [name for name, measured in (family.reward_needs or {}).items() if not measured]
    if needed and (unmeasured or family.reward_needs is None):
        what = " and ".join(unmeasured) or "what its family does not tell"
        known = "no sensor of the robot measures" if unmeasured else "may not be measured on a robot"
        advice = "; train with --feedback action" if hasattr(config.learner, "feedback") else ""
        found.append(
            f"not deployable as it is: the policy adapts by its reward, which needs {what}, and that {known}{advice}"
        )
    if task_visible(config):
        found.append("not deployable as it is: the policy is shown the task, which a robot does not know")
    return found


def _disturbances(family: Family) -> list[dict[str, Any]]:
    """What a real robot adds, as it was trained with."""
    if not isinstance(family, MujocoFamily):
        return []
    return [
        {"kind": type(one).__name__}
        | {field.name: _plain(getattr(one, field.name)) for field in dataclasses.fields(one)}
        for one in family.disturbances
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, Distribution):
        return value.describe()
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _said(function: Any) -> str:
    """A function's docstring in one line; of one that refers to another, that one's."""
    return " ".join((inspect.getdoc(function) or "").split())


def _field_docs(kind: type[Any]) -> dict[str, str]:
    """What stands under each field of a class; empty where its source is not at hand."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    except (OSError, TypeError, SyntaxError):
        return {}
    rows, said = getattr(body, "body", []), {}
    for field, text in pairwise(rows):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            said[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return said
