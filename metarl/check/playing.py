"""Checks of how a family behaves: its model, what it observes and rewards, and how it is played.

A check takes what is tested, raises `CheckError` with one sentence where it does not hold, and may return a note.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from metarl.check.tested import RANDOM_STEPS, WORLDS, CheckError, Tested, numbers
from metarl.core import seeding
from metarl.core.errors import UserError, unknown_name
from metarl.sim.declarations import require_parameters
from metarl.sim.external.external_env import ExternalEnv
from metarl.sim.family import MujocoFamily, action_names
from metarl.sim.make import make_env
from metarl.sim.mujoco.rendering import gl_backend
from metarl.sim.observations import kind_of, require_declared, require_tensor

_REPLAYED = 100
_SPEED_SECONDS = 0.2
_PICTURE = (96, 64)  # width and height


def model(tested: Tested) -> None:
    """The model compiles and its actuators have ranges."""
    model = tested.model
    if model.nu == 0:
        raise CheckError("the model has no actuators: a policy needs at least one to act on")
    own_law = type(tested.family).control is not MujocoFamily.control
    for i in () if own_law else np.flatnonzero(model.actuator_ctrllimited == 0).tolist():
        name = model.actuator(i).name or i
        raise CheckError(f"actuator '{name}' has no ctrlrange, so actions in [-1, 1] have no range to map onto")


def names(tested: Tested) -> None:
    """The camera and the parameters of the variations exist."""
    model, camera = tested.model, tested.family.camera
    cameras = [model.cam(i).name for i in range(model.ncam)]
    if camera is not None and camera not in cameras:
        raise unknown_name("camera", camera, cameras)
    require_parameters(tested.family)


def control_step(tested: Tested) -> None:
    """The control step is a whole multiple of the timestep."""
    family, timestep = tested.family, float(tested.model.opt.timestep)
    substeps = family.num_substeps(tested.model)
    if abs(substeps * timestep - family.control_step) > 1e-9:
        steps = f"{substeps} timesteps of {timestep:g} s"
        raise CheckError(f"num_substeps: {steps} are not the control_step of {family.control_step:g} s")


def episode_length(tested: Tested) -> None:
    """An episode has a length."""
    if tested.family.episode_steps < 1:
        raise CheckError(f"episode_steps = {tested.family.episode_steps} must be at least 1")


def spaces(tested: Tested) -> str:
    """Observation, reward terms and termination are as declared, with one row per world.

    Asked ahead of everything that plays, of bare physics, so that a wrong shape is found where it arises.
    """
    family, physics, tasks = tested.family, tested.bare(), tested.tasks()
    require_declared(family, family.observe(physics, tasks), WORLDS, torch.float64)
    number, before = len(action_names(family, tested.model)), family.snapshot(physics)
    require_tensor("snapshot is", before, (WORLDS, None), torch.float64)
    terms: object = family.reward(physics, before, torch.zeros(WORLDS, number, dtype=torch.float64), tasks)
    if not isinstance(terms, Mapping):
        raise CheckError(f"reward is {kind_of(terms)}, it must be a mapping from names to terms, as {{'speed': ...}}")
    if not terms:
        raise CheckError("reward returns no terms, it must return at least one")
    for name, term in terms.items():
        if not isinstance(name, str):
            raise CheckError(f"a reward term is called {name!r}, its name must be a string")
        require_tensor(f"reward term '{name}' is", term, (WORLDS,), torch.float64)
    fallen = family.terminated(physics, tasks)
    if fallen is not None:
        require_tensor("terminated is neither None nor a mask, but", fallen, (WORLDS,), torch.bool)
    parts = ", ".join(f"{part.name} ({part.size})" for part in family.observation)
    return f"{sum(part.size for part in family.observation)} observations: {parts}; {number} actions"


def made(tested: Tested) -> str:
    """The environment can be made, and its spaces fit."""
    env = tested.env
    assert isinstance(env, ExternalEnv)
    python, gymnasium = env.description["python"], env.description["gymnasium"]
    return f"{env.observation_size} observations, {env.action_size} actions; Python {python}, Gymnasium {gymnasium}"


def posed(tested: Tested) -> None:
    """A task can be posed, and a step taken."""
    tested.env.begin(tested.family.space.nominal(WORLDS), key=0)
    tested.env.step(torch.zeros(WORLDS, tested.env.action_size))


def finite(tested: Tested) -> None:
    """Observation and reward stay finite in random play."""
    if tested.not_finite:
        raise CheckError(tested.not_finite)


def diverges(tested: Tested) -> None:
    """The physics never diverges in random play."""
    if bool(tested.random.each("diverged").any()):
        raise CheckError(f"the physics diverged {tested.divergence()}: try a smaller timestep, or milder tasks")


def ends(tested: Tested) -> str:
    """Episodes end, and can end by the family's own rules.

    `terminated` must be true somewhere if a family of ours defines it; of an external one, it is only told.
    """
    fallen = None
    if tested.is_robot:
        fallen = tested.family.terminated(tested.bare(), tested.tasks())
    if fallen is not None and (early := int(fallen.sum())):
        raise CheckError(f"terminated is already true where an episode begins, in {early} of {WORLDS} worlds")
    terminated, ended, steps = tested.random.terminated, tested.random.each("ended"), tested.family.episode_steps
    if steps <= RANDOM_STEPS and not bool(ended.any(dim=0).all()):
        raise CheckError(f"no episode ended in {RANDOM_STEPS:,} steps, although one lasts {steps}")
    note = f"{int(ended.sum())} episodes ended in random play, {int(terminated.sum())} by their own rules"
    if fallen is None or bool(terminated.any()):
        return note
    held = tested.held.terminated
    if not bool(held.any()):
        kinds = f"{RANDOM_STEPS:,} steps of random actions and {RANDOM_STEPS:,} of held extreme ones"
        raise CheckError(f"terminated was never true in {kinds}: loosen it, or return None if no episode ends early")
    return f"{note}; {int(held.sum())} under held extreme actions"


def constants(tested: Tested) -> str | None:
    """No element of the observation is constant.

    A further kind of play is played only where those before leave some elements constant.
    """
    declared, size = set(tested.family.constant_observations), tested.random.obs[0].shape[1]
    if outside := sorted(index for index in declared if not 0 <= index < size):
        raise CheckError(f"constant_observations names element {outside[0]}, there are elements 0 to {size - 1}")
    constant = set(range(size))
    for kind in tested.plays:
        if constant:
            seen = torch.cat(getattr(tested, kind).obs)
            constant &= set((seen == seen[0]).all(dim=0).nonzero()[:, 0].tolist())
    if unexpected := sorted(constant - declared):
        first = tested.random.obs[0][0]
        values = ", ".join(f"{tested.element(index)} = {first[index].item():g}" for index in unexpected[:8])
        more = f" and {len(unexpected) - 8} more" if len(unexpected) > 8 else ""
        declare = f"constant_observations = {tuple(sorted(constant))}"
        raise CheckError(f"{values}{more} of the observation never change: leave them out, or declare {declare}")
    if varying := sorted(declared - constant):
        raise CheckError(f"constant_observations has {tested.element(varying[0])}, which varies: take it out")
    return f"but for the declared {', '.join(map(str, sorted(declared)))}" if declared else None


def reward_sum(tested: Tested) -> str:
    """The reward is the sum of its terms.

    In double precision, rounded once; the terms are the same at every step.
    """
    names = list(tested.random.steps[0].reward_terms)
    for t, step in enumerate(tested.random.steps):
        if list(step.reward_terms) != names:
            raise CheckError(f"step {t} has the reward terms {list(step.reward_terms)}, the first step had {names}")
        total = torch.stack(list(step.reward_terms.values())).sum(dim=0).float()
        if not torch.equal(step.reward, total):
            world = int((step.reward != total).nonzero()[0])
            reward, of_terms = step.reward[world].item(), total[world].item()
            raise CheckError(f"in world {world} at step {t} the reward is {reward}, the sum of its terms {of_terms}")
    return ", ".join(names)


def memory(tested: Tested) -> None:
    """Consecutive observations share no memory."""
    env = tested.env
    kept, copies = [env.begin(tested.tasks(), key=0)], []
    for action in tested.actions(min(5, env.trial_steps)):
        copies.append(kept[-1].clone())
        kept.append(env.step(action).obs)
    addresses = {obs.untyped_storage().data_ptr() for obs in kept}
    if len(addresses) < len(kept) or not all(torch.equal(*pair) for pair in zip(kept, copies, strict=False)):
        raise CheckError("an observation changes when the next step is taken: it must be a new tensor")


def pure(tested: Tested) -> None:
    """Observing and rewarding only read.

    They change neither state and model nor what they are given, and say the same twice.
    """
    family, physics, tasks = tested.family, tested.bare(), tested.tasks()
    before, action = family.snapshot(physics), tested.actions(1)[0].double()
    calls: dict[str, Callable[[], list[Tensor]]] = {
        "observe": lambda: list(family.observe(physics, tasks).values()),
        "snapshot": lambda: [family.snapshot(physics)],
        "reward": lambda: list(family.reward(physics, before, action, tasks).values()),
        "terminated": lambda: [value for value in (family.terminated(physics, tasks),) if value is not None],
    }

    def given() -> dict[str, Tensor]:
        parameters = {f"the task parameter '{name}'": value for name, value in tasks.values.items()}
        return {"the state": physics.get_state(), "`before`": before, "`action`": action, **parameters}

    for call in calls.values():  # binds what they read
        call()
    physics.step(family.num_substeps(tested.model))
    models, results = numbers(physics.model_of(0)), {}
    for name, call in calls.items():
        earlier = {what: value.clone() for what, value in given().items()}
        results[name] = [value.clone() for value in call()]
        for what, value in given().items():
            if not torch.equal(value, earlier[what]):
                raise CheckError(f"{name} changes {what}: it may only read")
        if numbers(physics.model_of(0)) != models:
            raise CheckError(f"{name} changes the model: only variations may")
    for name, call in calls.items():
        if not all(torch.equal(*pair) for pair in zip(call(), results[name], strict=True)):
            raise CheckError(f"{name} returns something else when it is called again: it may draw and remember nothing")


def deterministic(tested: Tested) -> None:
    """The same seed gives the same trajectory.

    Bit for bit: again in the same environment, and in another one with more threads.
    """
    actions, first = tested.actions(RANDOM_STEPS)[:_REPLAYED], tested.random
    with make_env(tested.family, WORLDS, threads=2) as other:
        replays = {"the same environment": tested.env, "another environment with 2 threads": other}
        for where, env in replays.items():
            again = tested.play(env, actions)
            for t, (one, two) in enumerate(zip(again.obs, first.obs, strict=False)):
                if not torch.equal(one, two):
                    raise CheckError(f"the same seed gives another observation {t} in {where}: draw from `random`")
            for t, (step, past) in enumerate(zip(again.steps, first.steps, strict=False)):
                if not (torch.equal(step.reward, past.reward) and torch.equal(step.terminated, past.terminated)):
                    raise CheckError(f"the same seed gives another reward or termination at step {t} in {where}")


def starts(tested: Tested) -> str:
    """Episodes of one task start in different states.

    It is only told of an external environment, which may begin all episodes alike.
    """
    states = []
    for key in (1, 2):
        obs = tested.env.begin(tested.family.space.nominal(WORLDS), key=key)
        states.append(tested.env.physics.get_state() if tested.is_robot else obs)
    different = len({tuple(state) for state in torch.cat(states).tolist()})
    if tested.is_robot and different < 2 * WORLDS:
        own = f"only {different} of {2 * WORLDS} episodes start in a state of their own ({WORLDS} worlds, 2 trials)"
        raise CheckError(f"{own}: reset must draw from `random` for every world")
    return f"{different} different starts in {2 * WORLDS} episodes"


def renders(tested: Tested) -> str:
    """A picture can be drawn."""
    family = tested.family
    try:
        if tested.is_robot:
            gl_backend()
        with make_env(family, 1, threads=1, pictures=True) as env:
            env.begin(family.space.nominal(1), key=0)
            with closing(env.cameras([0], _PICTURE)) as cameras:
                pixels = cameras.draw()[0].reshape(-1, 3)
    except UserError as error:
        return f"not checked: {error}"
    if bool((pixels == pixels[0]).all()):
        raise CheckError(f"the picture is of one colour, {tuple(pixels[0].tolist())}: the camera sees nothing")
    if not tested.is_robot:
        return "by the environment's own render"
    return f"by {'a camera that follows the robot' if tested.family.camera is None else repr(tested.family.camera)}"


def speed(tested: Tested) -> str:
    """Speed."""
    num_worlds = 64 if tested.is_robot else 16
    with make_env(tested.family, num_worlds) as env:
        env.begin(tested.family.space.sample("train", num_worlds, seeding.rng(0, "check")), key=0)
        actions = tested.actions(num_worlds // WORLDS).flatten(0, 1)
        taken, begun = 0, time.perf_counter()
        while taken < env.trial_steps and time.perf_counter() - begun < _SPEED_SECONDS:
            env.step(actions.roll(taken, dims=0))
            taken += 1
        rate = taken * num_worlds / (time.perf_counter() - begun)
    return f"{rate:,.0f} steps/s with {num_worlds} worlds"
