"""The contract every family fulfils: for a newcomer's own robot, and over all of ours in the tests."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
import torch

from metarl import seeding
from metarl.errors import UserError
from metarl.sim.family import Family
from metarl.sim.trials import TrialEnv, compile_spec
from metarl.tasks import Tasks

_WORLDS = 8


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    check: str
    """What must hold."""
    problem: str | None
    """What is wrong, in one sentence; None where it holds."""


def check_family(family: Family) -> list[Finding]:
    """Run every check; a family that cannot even run its first steps gets the sentence that says why."""
    return [Finding(description, _problem(check, family)) for description, check in CHECKS.items()]


def _problem(check: Callable[[Family], str | None], family: Family) -> str | None:
    try:
        return check(family)
    except UserError as error:
        return str(error)
    except Exception as error:  # whatever a user's family raises is a finding, with the place in their file
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename == inspect.getfile(type(family))]
        frame = (own or frames)[-1]
        return f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno}, in {frame.name})"


def _model(family: Family) -> str | None:
    model = compile_spec(family.spec())
    family.num_substeps(model)
    if model.nu == 0:
        return "the model has no actuators"
    if not bool(np.all(model.actuator_ctrllimited)):
        unlimited = int(np.flatnonzero(~model.actuator_ctrllimited.astype(bool))[0])
        name = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_ACTUATOR, unlimited) or unlimited
        return f"actuator '{name}' has no ctrlrange, so actions in [-1, 1] have no range to map onto"
    return None


def _episode_length(family: Family) -> str | None:
    if family.episode_steps < 1:
        return f"episode_steps = {family.episode_steps} must be at least 1"
    return None


def _shapes(family: Family) -> str | None:
    env, tasks = _begin(family)
    obs = family.observe(env.physics, tasks)
    if obs.dim() != 2 or obs.shape[0] != _WORLDS:
        return f"observe returns shape {tuple(obs.shape)} for {_WORLDS} worlds, it must be ({_WORLDS}, O)"
    before, action = family.snapshot(env.physics), torch.zeros(_WORLDS, env.action_size, dtype=torch.float64)
    for name, term in family.reward(env.physics, before, action, tasks).items():
        if term.shape != (_WORLDS,):
            return f"reward term '{name}' has shape {tuple(term.shape)} for {_WORLDS} worlds, it must be ({_WORLDS},)"
    fallen = family.terminated(env.physics, tasks)
    if fallen is not None and (fallen.shape != (_WORLDS,) or fallen.dtype != torch.bool):
        return f"terminated returns {fallen.dtype} {tuple(fallen.shape)}, it must be torch.bool ({_WORLDS},)"
    return None


def _finite(family: Family) -> str | None:
    env, _ = _begin(family)
    for t, action in enumerate(_actions(env, family.episode_steps)):
        step = env.step(action)
        if not bool(torch.isfinite(step.obs).all()):
            return f"the observation has elements that are not finite after {t + 1} steps"
    return None


def _diverges(family: Family) -> str | None:
    env, _ = _begin(family)
    diverged = sum(int(env.step(action).diverged.sum()) for action in _actions(env, family.episode_steps))
    return f"the physics diverged {diverged} times under random actions on training tasks" if diverged else None


def _reproducible(family: Family) -> str | None:
    runs = []
    for _ in range(2):
        env, _ = _begin(family)
        runs.append(torch.stack([env.step(action).obs for action in _actions(env, min(50, family.episode_steps))]))
    return (
        None if torch.equal(runs[0], runs[1]) else "two runs with the same seed differ: some draw is not from `random`"
    )


def _initial_states(family: Family) -> str | None:
    env = TrialEnv(family, _WORLDS, threads=1)
    obs = env.begin(family.space.nominal(_WORLDS), key=1)
    return "every world starts in the same state: reset draws nothing" if bool((obs == obs[0]).all()) else None


def _task_is_hidden(family: Family) -> str | None:
    """Constant columns aside, a task parameter must not stand in the observation."""
    env, tasks = _begin(family)
    obs = env.begin(tasks, key=1)
    for name in family.space.parameters:
        for column in tasks[name].reshape(_WORLDS, -1).T:
            leaks = (obs == column.float()[:, None]).all(dim=0) & bool((column != column[0]).any())
            if bool(leaks.any()):
                return f"element {int(leaks.nonzero()[0])} of the observation is the task parameter '{name}'"
    return None


def _restores(family: Family) -> str | None:
    env = TrialEnv(family, _WORLDS, threads=1)
    nominal = family.space.nominal(_WORLDS)
    env.begin(nominal, key=0)
    first = _fields(env.physics.model_of(0))
    for number in range(10):
        env.begin(family.space.sample("train", _WORLDS, seeding.rng(0, "check", number)), key=0)
    env.begin(nominal, key=0)
    after = _fields(env.physics.model_of(0))
    changed = [name for name, value in first.items() if not np.array_equal(value, after[name])]
    return f"the nominal task does not restore the model: {', '.join(changed)} differ" if changed else None


def _ood_is_outside(family: Family) -> str | None:
    space = family.space
    if "ood" not in space.splits:
        return None
    for row in space.fixed("ood", 50):
        for name, parameter in space.parameters.items():
            if parameter.ood is not None and parameter.train.contains(row[name]):
                return f"the ood value {row[name]} of '{name}' lies in its training range {parameter.train.describe()}"
    return None


CHECKS: dict[str, Callable[[Family], str | None]] = {
    "the model compiles and its actuators have ranges": _model,
    "an episode has a length": _episode_length,
    "observation, reward terms and termination have one row per world": _shapes,
    "observation and reward stay finite for an episode of random actions": _finite,
    "the physics stays sound under random actions": _diverges,
    "the same seed gives the same trajectory": _reproducible,
    "worlds start in different states": _initial_states,
    "the task is not in the observation": _task_is_hidden,
    "the nominal task restores the model": _restores,
    "the ood split lies outside the training range": _ood_is_outside,
}


def _begin(family: Family) -> tuple[TrialEnv, Tasks]:
    env = TrialEnv(family, _WORLDS, episodes_per_trial=2, threads=1)
    tasks = family.space.sample("train", _WORLDS, seeding.rng(0, "check"))
    env.begin(tasks, key=1)
    return env, tasks


def _actions(env: TrialEnv, num_steps: int) -> torch.Tensor:
    return torch.rand(num_steps, env.num_worlds, env.action_size, generator=seeding.generator(0, "check")) * 2 - 1


def _fields(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    """Every number of a model, its options and its statistics."""
    parts = {"": model, "opt.": model.opt, "stat.": model.stat}
    names = [(prefix, name) for prefix, part in parts.items() for name in dir(part) if not name.startswith("_")]
    values = {prefix + name: getattr(parts[prefix], name) for prefix, name in names}
    return {name: np.array(value) for name, value in values.items() if isinstance(value, np.ndarray | float | int)}
