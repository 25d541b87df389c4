"""Checks that no policy is told its task: neither by where an episode begins, nor by what it observes, then or later.

What the dynamics reveal is what adaptation is about. So each suspect is held against a control without the leak: the
same play with `reset` and `advance` told other tasks, the same states observed of the unmodified robot, the same draws
and actions with another goal. Where both agree bit for bit, nothing is told; where not, regression measures how much.
"""

from __future__ import annotations

import copy
from contextlib import closing
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.check.tested import WORLDS, CheckError, Tested
from metarl.core import seeding
from metarl.core.seeding import WorldRandom
from metarl.core.tasks import Tasks
from metarl.sim.family import MujocoFamily
from metarl.sim.make import make_env
from metarl.sim.mujoco.physics import Physics, make_physics
from metarl.sim.observations import to_vector

_STEPS = 50
_SEEN = (0, 1, 5, 20, 49)  # steps after which an observation is looked at
_STATES = 3
_BATCHES = 16
_PROBED = 64  # worlds
_RIDGE = 0.1
_TOLD = 0.15  # of the variance of a parameter, that is explained beyond what is without the leak
_ELEMENT = 0.5  # the same by one element, where a robot may sense the task, as the ground's height or an arm's reach
_FIRST = 0.5  # the same by the first observation of an external environment, which has no control
_LINEAR = 1 - 1e-6  # the same of an exact function, single precision apart
_EVERY = torch.ones(WORLDS, dtype=torch.bool)
_MOTION = ("qpos", "qvel", "act", "mocap_pos", "mocap_quat", "xfrc_applied", "qfrc_applied")


def hidden(tested: Tested) -> str:
    """The task is not in the observation.

    `observe` does not read it. Where observations are others than those of the unmodified robot in the same states, as
    of what senses the ground or an arm's reach, no single element tells it, at the start and after 20 steps.
    """
    family, tasks, physics = tested.family, tested.tasks(), tested.bare()
    other = tested.with_other(tasks, *tasks.values)
    for _ in range(_STATES):
        one, two = (to_vector(family, family.observe(physics, posed)) for posed in (tasks, other))
        changed = (one != two).any(dim=0)
        if bool(changed.any()):
            element = tested.element(int(changed.nonzero()[0]))
            raise CheckError(f"{element} of the observation is computed from the task: observe may not read it")
        physics.step(_STEPS)
    _exact(tested)
    physics = make_physics("mujoco", tested.model, WORLDS, 1)
    own, plain, rows = list[Tensor](), list[Tensor](), list[Tensor]()
    for number in range(_BATCHES):
        tasks = tested.tasks(number)
        tested.env.begin(tasks, key=number)
        for action in tested.actions(min(20, tested.env.trial_steps - 1), number) if number % 2 else ():
            tested.env.step(action)
        state = tested.env.physics.get_state()
        for where, seen in ((tested.env.physics, own), (physics, plain)):
            where.set_state(state)
            where.forward(_EVERY)
            seen.append(to_vector(tested.family, tested.family.observe(where, tasks)))
        rows.append(_columns(tasks)[0])
        if number == 1 and all(torch.equal(*pair) for pair in zip(own, plain, strict=True)):
            return "no sensor depends on it"
    names = _columns(tasks)[1]
    for when, part in (("first observation", slice(0, None, 2)), ("observation", slice(1, None, 2))):
        shares, without = (_shares(torch.cat(seen[part]), torch.cat(rows[part])) for seen in (own, plain))
        for index, column in ((shares > _ELEMENT) & (shares - without > _TOLD)).nonzero().tolist():
            if (name := names[column]) not in tested.family.sensed:
                raise CheckError(
                    f"{tested.element(index)} of the {when} tells the task parameter '{name}': it explains "
                    f"{shares[index, column]:.0%} of it, and {without[index, column]:.0%} on the unmodified robot in "
                    f"the same states; a robot's own sensor may, where the family declares sensed = ('{name}',)"
                )
    declared = f", but for {', '.join(tested.family.sensed)}" if tested.family.sensed else ""
    return f"sensors depend on it; no element explains {_ELEMENT:.0%}{declared}"


def _exact(tested: Tested) -> None:
    """No element of the first observation is a linear function of a parameter, or of a part of `privileged`."""
    begun = [(tested.env.begin(tested.tasks(n), key=n), tested.env.privileged()) for n in range(_BATCHES)]
    obs, known = (torch.cat(seen) for seen in zip(*begun, strict=True))
    parts = tested.env.info.privileged
    names = [part.name for part in parts for _ in range(part.size)]
    for index, column in (_shares(obs, known) > _LINEAR).nonzero().tolist():
        if names[column] not in tested.family.sensed:
            raise CheckError(f"{tested.element(index)} of the first observation tells '{names[column]}'")


def placed(tested: Tested) -> str:
    """Where an episode begins does not tell the task.

    Initial states are held against those of the same draws on the unmodified robot.
    """
    family, own, plain, rows = tested.family, list[Tensor](), list[Tensor](), list[Tensor]()
    physics = make_physics("mujoco", tested.model, WORLDS, 1)
    for number in range(4 * _BATCHES):
        tasks = tested.tasks(number)
        tested.env.begin(tasks, key=number)

        def write(worlds: Tensor, tasks: Tasks = tasks, number: int = number) -> None:
            family.reset(physics, worlds, tasks.select(worlds), WorldRandom(number, worlds, torch.zeros_like(worlds)))

        physics.restart(_EVERY, write)
        for where, seen in ((tested.env.physics, own), (physics, plain)):
            seen.append(torch.cat((where.bind("qpos"), where.bind("qvel"), where.bind("userdata")), dim=1))
        rows.append(_columns(tasks)[0])
        if number == 1 and all(torch.equal(*pair) for pair in zip(own, plain, strict=True)):
            return "no initial state depends on the model"
    shares, without = (_explained(torch.cat(seen), torch.cat(rows)) for seen in (own, plain))
    for column in (shares - without > _TOLD).nonzero()[:, 0].tolist()[:1]:
        raise CheckError(
            f"the initial state tells the task parameter '{_columns(tasks)[1][column]}': it explains "
            f"{shares[column]:.0%} of it, and {without[column]:.0%} where `reset` finds the unmodified robot"
        )
    return f"initial states depend on the model, and explain {shares.max():.0%} of a parameter at most"


def passed_on(tested: Tested) -> str:
    """What reset and advance remember does not tell the task.

    Random play is held against the same with both told the tasks of other worlds.
    """
    family = tested.family
    steers = type(family).advance is not MujocoFamily.advance and _steers(tested)
    with _misled(family, WORLDS, steers) as control:
        plays = [_track(env, tested.tasks(), 0) for env in (tested.env, control)]
    about = "advance moves the robot by it, which was not judged" if steers else "reset and advance tell nothing of it"
    if all(torch.equal(*pair) for pair in zip(*plays, strict=True)):
        return about
    seen: tuple[list[list[Tensor]], list[list[Tensor]]] = ([], [])
    values = []
    with make_env(family, _PROBED, threads=1) as env, _misled(family, _PROBED, steers) as control:
        for number in range(8):
            tasks = family.space.sample("train", _PROBED, seeding.rng(0, "check/leaks", number))
            values.append(_columns(tasks)[0])
            for tracks, each in zip(seen, (env, control), strict=True):
                tracks.append(_track(each, tasks, number))
    y, names = torch.cat(values), _columns(tasks)[1]
    for t in [t for t in _SEEN if t < len(seen[0][0])]:
        own, without = (_explained(torch.cat([track[t] for track in tracks]), y) for tracks in seen)
        for column in (own - without > _TOLD).nonzero()[:, 0].tolist()[:1]:
            raise CheckError(
                f"`reset` or `advance` tells the task parameter '{names[column]}': after {t} steps of random play the "
                f"observation explains {own[column]:.0%} of it, {without[column]:.0%} where they are told other tasks"
            )
    return f"{about} that a linear probe finds"


def first_observation(tested: Tested) -> str:
    """No observation depends on a goal.

    From the same draws of `reset` under the same actions, bit for bit, for parameters that change no dynamics.
    """
    steers = type(tested.family).advance is not MujocoFamily.advance and _steers(tested)
    base = _track(tested.env, tested.tasks(), 0, ends=True)
    for name in tested.goals:
        other = _track(tested.env, tested.with_other(tested.tasks(), name), 0, ends=True)
        for t, (one, two) in enumerate(zip(base, other, strict=False)):
            changed = one != two
            if bool(changed.any()) and not (t and steers):
                element = tested.element(int(changed.nonzero()[0, 1]))
                when = f"observation after {t} steps" if t else "first observation"
                raise CheckError(f"{element} of the {when} changes with '{name}', which changes no dynamics")
    note = ", ".join(tested.goals) or "every parameter changes the dynamics"
    return f"{note}; of later ones not judged, as advance moves the robot by the task" if steers else note


def told(tested: Tested) -> str:
    """The task is not told where an episode begins, nor by one element later."""
    env, steps = tested.env, min(20, tested.env.trial_steps - 1)
    first, later, values = [], [], []
    for number in range(_BATCHES):
        tasks = tested.tasks(number)
        first.append(env.begin(tasks, key=number))
        for action in tested.actions(steps, number):
            last = env.step(action).final_obs
        later.append(last)
        values.append(_columns(tasks)[0])
    y, names = torch.cat(values), _columns(tasks)[1]
    begun = _explained(torch.cat(first), y)
    for column in (begun > _FIRST).nonzero()[:, 0].tolist():
        index = int(_shares(torch.cat(first), y)[:, column].argmax())
        raise CheckError(
            f"the first observation explains {begun[column]:.0%} of the task parameter '{names[column]}', most of it "
            f"by {tested.element(index)}: before the first action nothing may tell the task"
        )
    shares = _shares(torch.cat(later), y)
    for index, column in (shares > 0.99).nonzero().tolist()[:1]:
        raise CheckError(
            f"{tested.element(index)} tells the task parameter '{names[column]}' after {steps} random steps"
        )
    found = {name: share for name, share in zip(names, _explained(torch.cat(later), y).tolist(), strict=True)}
    shown = ", ".join(f"{share:.0%} of '{name}'" for name, share in found.items())
    return f"after {steps} random steps it explains {shown}: whether by the dynamics alone was not judged"


def _track(env: Any, tasks: Tasks, number: int, ends: bool = False) -> list[Tensor]:
    """Observations of a short trial under random actions; `ends` with the first episode."""
    generator = seeding.generator(0, "check/leaks", number)
    track = [env.begin(tasks, key=number)]
    for _ in range(min(_STEPS, env.trial_steps)):
        step = env.step(torch.rand(env.num_worlds, env.action_size, generator=generator) * 2 - 1)
        track.append(step.final_obs if ends else step.obs)
        if ends and bool(step.ended.any()):
            break
    return track


def _misled(family: Any, num_worlds: int, steers: bool) -> Any:
    """An environment whose `reset`, and `advance` unless it `steers`, are told the task of the next world."""
    watched, made = copy.copy(family), list[Any]()

    def others(tasks: Tasks, worlds: Tensor) -> Tasks:
        return made[0].tasks.select((worlds + 1) % num_worlds) if made else tasks

    def reset(physics: Physics, worlds: Tensor, tasks: Tasks, random: Any) -> None:
        family.reset(physics, worlds, others(tasks, worlds), random)

    def advance(physics: Physics, tasks: Tasks) -> None:
        family.advance(physics, tasks if steers else others(tasks, torch.arange(num_worlds)))

    for name, function in (("reset", reset), ("advance", advance)):
        object.__setattr__(watched, name, function)
    made.append(make_env(watched, num_worlds, threads=1))
    return closing(made[0])


def _steers(tested: Tested) -> bool:
    """Whether `advance` moves the robot by the task, as a wind does: that is dynamics, not a leak."""
    family, watched, found = tested.family, copy.copy(tested.family), list[bool]()
    tasks = tested.tasks()

    def advance(physics: Physics, told: Tasks) -> None:
        state, motions = physics.get_state(), []
        for each in (told.select(torch.arange(WORLDS).roll(1)), told):
            physics.set_state(state)
            family.advance(physics, each)
            motions.append([physics.bind(name).clone() for name in _MOTION])
        found.append(any(not torch.equal(*pair) for pair in zip(*motions, strict=True)))

    object.__setattr__(watched, "advance", advance)
    with make_env(watched, WORLDS, threads=1) as env:
        _track(env, tasks, 0)
    return any(found)


def _columns(tasks: Tasks) -> tuple[Tensor, list[str]]:
    """Parameters as columns, and the name of each."""
    parts = {name: value.double().reshape(len(tasks), -1) for name, value in tasks.values.items()}
    return torch.cat(list(parts.values()), dim=1), [name for name, part in parts.items() for _ in range(part.shape[1])]


def _shares(x: Float[Tensor, "N O"], y: Float[Tensor, "N P"]) -> Float[Tensor, "O P"]:
    """Squared correlation of each element with each parameter."""
    x, y = (z.double() - z.double().mean(dim=0) for z in (x, y))
    norm = x.norm(dim=0)[:, None] * y.norm(dim=0)  # 0 where either is constant
    correlation: Tensor = (x.T @ y) / norm.clamp(min=1e-300)
    return correlation.square()


def _explained(x: Float[Tensor, "N O"], y: Float[Tensor, "N P"]) -> Float[Tensor, "P"]:
    """Share of each parameter's variance that ridge regression on x explains, in rows that it was not fitted to."""
    half, x = len(x) // 2, x.double()
    x = (x - x[:half].mean(dim=0)) / x[:half].std(dim=0).clamp(min=1e-12)
    x = torch.where(x.abs() < 1e6, x, 0.0)  # elements that are constant where it was fitted
    mean = y[:half].mean(dim=0)
    fitted = x[:half].T @ x[:half] + _RIDGE * half * torch.eye(x.shape[1], dtype=torch.float64)
    guess = mean + x[half:] @ torch.linalg.solve(fitted, x[:half].T @ (y[:half] - mean))
    missed, spread = (y[half:] - guess).square().mean(dim=0), (y[half:] - y[half:].mean(dim=0)).square().mean(dim=0)
    return torch.where(spread > 0, 1 - missed / spread.clamp(min=1e-300), 0.0).clamp(min=0.0)
