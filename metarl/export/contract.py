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
from torch import Tensor

from metarl.core.config import TrainConfig, task_visible
from metarl.core.distributions import Distribution
from metarl.core.info import PolicyInfo
from metarl.export.program import Program
from metarl.export.robot import action_of, gravity_part, physics_step
from metarl.export.runtime import SCHEMA
from metarl.export.trace import fixed_of
from metarl.rl.policy import Believing, Policy
from metarl.run.run import Run
from metarl.sim.env import TrialEnv
from metarl.sim.family import Family, MujocoFamily

INITIAL = "initial."
"""Begins the names of the state's initial values."""


def contract_of(
    run: Run, policy: Policy[Any], env: TrialEnv, programs: Mapping[str, Program], terms: Sequence[str]
) -> dict[str, Any]:
    """The contract of a run's policy, but for files, parity and provenance; `terms` are those of the reward."""
    info, config, family = policy.info, run.config(), env.family
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
        "state": _state(policy),
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
        "read_out": _read_out(policy, programs),
        "meaning": {name: _said(getattr(policy, name)) for name in programs},
        "programs": {name: program.to_json() for name, program in programs.items()},
    }
    return {key: value for key, value in made.items() if value is not None}


def initial_tensors(policy: Policy[Any]) -> dict[str, Tensor]:
    """The state where nothing is known of the task, by the names in the file; what holds no numbers is left out."""
    rows = fixed_of(policy).initial_state(1)._asdict()
    return {INITIAL + name: value.contiguous().clone() for name, value in rows.items() if value.numel()}


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


def _state(policy: Policy[Any]) -> list[dict[str, Any]]:
    state = fixed_of(policy).initial_state(1)
    said = _field_docs(type(state))
    return [
        {
            "name": name,
            "shape": list(value.shape),
            "dtype": str(value.dtype).removeprefix("torch."),
            "initial": INITIAL + name,
            "meaning": said.get(name, ""),
        }
        for name, value in state._asdict().items()
        if value.numel()
    ]


def _noise(policy: Policy[Any], act: Program) -> dict[str, Any]:
    """How many standard normal numbers `act` takes, and which of them the mean action depends on."""
    used: set[int] = set()
    for one in act.operations:
        if "noise" in one.inputs:
            cut = one.attributes if one.op == "slice" and one.attributes["dim"] == 1 else {"start": 0}
            used.update(range(policy.noise_size)[cut["start"] : cut.get("end") : cut.get("step", 1)])
    when = _said(policy.act) if used else "never: the mean action needs no noise"
    return {"size": policy.noise_size, "deterministic": sorted(used), "when": when}


def _read_out(policy: Policy[Any], programs: Mapping[str, Program]) -> list[dict[str, Any]]:
    """Names of what can be watched; of a belief of the task, which is told as `task_code`, the range in training."""
    names = programs["read_out"].outputs if "read_out" in programs else ()
    believed = {part.name for part in policy.info.privileged} if isinstance(policy, Believing) else set()
    return [{"name": name} | ({"low": -1.0, "high": 1.0} if name in believed else {}) for name in names]


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


def array_of(tensor: Tensor) -> np.ndarray:
    """The tensor as NumPy's, contiguous; one without dimensions stays so."""
    return np.asarray(tensor.detach().cpu().contiguous().numpy())
