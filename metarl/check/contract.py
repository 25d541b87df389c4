"""The contract every family fulfils, first part: its model, its spaces, and how it behaves when it is played.

A check takes a `Probe`, raises `ContractError` with one sentence where the family breaks it, and may return a note.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

import mujoco
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from metarl.check.probe import RANDOM_STEPS, WORLDS, ContractError, Play, Played, Probe, numbers, play
from metarl.core import seeding
from metarl.core.errors import UserError, unknown_name
from metarl.sim.declarations import require_parameters
from metarl.sim.make import make_env
from metarl.sim.mujoco.rendering import gl_backend

_REPLAYED = 100
_SPEED_WORLDS = 64
_SPEED_SECONDS = 0.2
PICTURE = (96, 64)
"""Width and height of the picture that is tried."""


def model(probe: Probe) -> None:
    """Every actuator needs a range for actions in [-1, 1] to be mapped onto."""
    model = probe.model
    if model.nu == 0:
        raise ContractError("the model has no actuators: a policy needs at least one to act on")
    unlimited = np.flatnonzero(~model.actuator_ctrllimited.astype(bool))
    if len(unlimited):
        name = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_ACTUATOR, int(unlimited[0])) or unlimited[0]
        raise ContractError(f"actuator '{name}' has no ctrlrange, so actions in [-1, 1] have no range to map onto")


def names(probe: Probe) -> None:
    """The camera is the model's, and variations read parameters of the space."""
    model, camera = probe.model, probe.family.camera
    cameras = [model.cam(i).name for i in range(model.ncam)]
    if camera is not None and camera not in cameras:
        raise unknown_name("camera", camera, cameras)
    require_parameters(probe.family)


def control_step(probe: Probe) -> None:
    """Also where a family computes its substeps itself."""
    family, timestep = probe.family, float(probe.model.opt.timestep)
    substeps = family.num_substeps(probe.model)
    if abs(substeps * timestep - family.control_step) > 1e-9:
        raise ContractError(
            f"num_substeps is {substeps}, but {substeps} timesteps of {timestep:g} s are not the control_step "
            f"of {family.control_step:g} s"
        )


def episode_length(probe: Played) -> None:
    """At least one step."""
    if probe.family.episode_steps < 1:
        raise ContractError(f"episode_steps = {probe.family.episode_steps} must be at least 1")


def spaces(probe: Probe) -> str:
    """Asked ahead of everything that plays, of bare physics, so that a wrong shape is found where it arises."""
    family, physics, tasks = probe.family, probe.bare(), probe.tasks()
    obs, before = family.observe(physics, tasks), family.snapshot(physics)
    for name, value in (("observe", obs), ("snapshot", before)):
        _require(f"{name} returns", value, torch.float64, dims=2)
    terms: object = family.reward(physics, before, torch.zeros(WORLDS, probe.model.nu, dtype=torch.float64), tasks)
    if not isinstance(terms, Mapping):
        raise ContractError(
            f"reward returns {_kind(terms)}, it must be a mapping from names to terms, as {{'speed': ...}}"
        )
    if not terms:
        raise ContractError("reward returns no terms, it must return at least one")
    for name, term in terms.items():
        if not isinstance(name, str):
            raise ContractError(f"a reward term is called {name!r}, its name must be a string")
        _require(f"reward term '{name}' is", term, torch.float64, dims=1)
    fallen = family.terminated(physics, tasks)
    if fallen is not None:
        _require("terminated returns", fallen, torch.bool, dims=1, otherwise=", or None")
    return f"{obs.shape[1]} observations, {probe.model.nu} actions"


def _require(what: str, value: object, dtype: torch.dtype, dims: int, otherwise: str = "") -> None:
    """A tensor of numbers of one kind, with one row per world."""
    if not (isinstance(value, Tensor) and value.dim() == dims and len(value) == WORLDS and value.dtype == dtype):
        tensor = "" if isinstance(value, Tensor) else "a torch tensor, "
        shape = f"({WORLDS},)" if dims == 1 else f"({WORLDS}, size)"
        kind = str(dtype).removeprefix("torch.")
        raise ContractError(f"{what} {_kind(value)} for {WORLDS} worlds, it must be {tensor}{kind} {shape}{otherwise}")


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    module, name = type(value).__module__, type(value).__qualname__
    return "None" if value is None else f"a {name if module == 'builtins' else f'{module}.{name}'}"


def finite(probe: Probe) -> None:
    """A reward that is not finite stops the play with its own sentence."""
    assert probe.random  # play
    if probe.not_finite:
        raise ContractError(probe.not_finite[0])


def diverges(probe: Probe) -> None:
    """On tasks of the train split."""
    diverged = probe.random.diverged
    if bool(diverged.any()):
        step, world = diverged.nonzero()[0].tolist()
        raise ContractError(
            f"the physics diverged {int(diverged.sum())} times in {RANDOM_STEPS:,} random steps of {WORLDS} worlds, "
            f"first at step {step} in world {world}: a smaller timestep or weaker extremes of the tasks may help"
        )


def ends(probe: Probe) -> str:
    """Time limits are the environment's; `terminated` must be true somewhere if the family defines it."""
    family = probe.family
    fallen = family.terminated(probe.bare(), probe.tasks())
    if fallen is not None and bool(fallen.any()):
        raise ContractError(
            f"terminated is already true where an episode begins, in {int(fallen.sum())} of {WORLDS} worlds"
        )
    terminated, ended = probe.random.terminated, probe.random.ended
    if family.episode_steps <= RANDOM_STEPS and not bool(ended.any(dim=0).all()):
        raise ContractError(f"no episode ended in {RANDOM_STEPS:,} steps, although one lasts {family.episode_steps}")
    note = f"{int(ended.sum())} episodes ended in random play, {int(terminated.sum())} by their own rules"
    if fallen is None or bool(terminated.any()):
        return note
    held = probe.held.terminated
    if not bool(held.any()):
        raise ContractError(
            f"terminated was never true in {RANDOM_STEPS:,} steps of random actions and {RANDOM_STEPS:,} of held "
            "extreme ones: loosen its condition, or return None if an episode never ends early"
        )
    return f"{note}; {int(held.sum())} under held extreme actions"


def constants(probe: Probe) -> str | None:
    """Over worlds and time in random play; where that leaves some, held extreme actions and throws must leave them."""
    return constants_in(probe, ("random", "held", "thrown"))


def constants_in(probe: Played, plays: Sequence[str]) -> str | None:
    """Elements constant in all of the named plays; a further one is played only where those before leave some."""
    declared, size = set(probe.family.constant_observations), probe.random.obs.shape[2]
    if outside := sorted(index for index in declared if not 0 <= index < size):
        raise ContractError(f"constant_observations names element {outside[0]}, there are elements 0 to {size - 1}")
    constant = set(range(size))
    for kind in plays:
        if constant:
            constant &= _constant(getattr(probe, kind))
    if unexpected := sorted(constant - declared):
        values = ", ".join(f"{index} ({probe.random.obs[0, 0, index].item():g})" for index in unexpected[:8])
        more = f" and {len(unexpected) - 8} more" if len(unexpected) > 8 else ""
        raise ContractError(
            f"observation elements {values}{more} never change, in any world: leave them out, or declare "
            f"constant_observations = {tuple(sorted(constant))}"
        )
    if varying := sorted(declared - constant):
        raise ContractError(f"constant_observations declares element {varying[0]}, which varies in play: take it out")
    return f"but for the declared {', '.join(map(str, sorted(declared)))}" if declared else None


def _constant(play: Play) -> set[int]:
    seen = play.obs.flatten(0, 1)
    return set((seen == seen[0]).all(dim=0).nonzero()[:, 0].tolist())


def reward_sum(probe: Played) -> str:
    """In double precision, rounded once; the terms are the same at every step."""
    names = list(probe.random.steps[0].reward_terms)
    for t, step in enumerate(probe.random.steps):
        if list(step.reward_terms) != names:
            raise ContractError(f"step {t} has the reward terms {list(step.reward_terms)}, the first step had {names}")
        total = torch.stack(list(step.reward_terms.values())).sum(dim=0).float()
        if not torch.equal(step.reward, total):
            world = int((step.reward != total).nonzero()[0])
            raise ContractError(
                f"at step {t} in world {world} the reward is {step.reward[world].item()}, "
                f"the sum of its terms {total[world].item()}"
            )
    return ", ".join(names)


def memory(probe: Played) -> None:
    """A learner keeps observations: the next one must not overwrite them."""
    env = probe.env
    kept, copies = [env.begin(probe.tasks(), key=0)], []
    for action in probe.actions(min(5, env.trial_steps)):
        copies.append(kept[-1].clone())
        kept.append(env.step(action).obs)
    addresses = {obs.untyped_storage().data_ptr() for obs in kept}
    if len(addresses) < len(kept) or not all(torch.equal(*pair) for pair in zip(kept, copies, strict=False)):
        raise ContractError("an observation changes when the next step is taken: observe must return a new tensor")


def pure(probe: Probe) -> None:
    """They change neither the state and the model nor what they are given, and say the same twice."""
    family, physics, tasks = probe.family, probe.bare(), probe.tasks()
    before, action = family.snapshot(physics), probe.actions(1)[0].double()
    calls: dict[str, Callable[[], list[Tensor]]] = {
        "observe": lambda: [family.observe(physics, tasks)],
        "snapshot": lambda: [family.snapshot(physics)],
        "reward": lambda: list(family.reward(physics, before, action, tasks).values()),
        "terminated": lambda: [value for value in (family.terminated(physics, tasks),) if value is not None],
    }

    def given() -> dict[str, Tensor]:
        parameters = {f"the task parameter '{name}'": value for name, value in tasks.values.items()}
        return {"the state": physics.get_state(), "`before`": before, "`action`": action, **parameters}

    for call in calls.values():  # binds what they read
        call()
    physics.step(family.num_substeps(probe.model))
    models, results = numbers(physics.model_of(0)), {}
    for name, call in calls.items():
        earlier = {what: value.clone() for what, value in given().items()}
        results[name] = [value.clone() for value in call()]
        for what, value in given().items():
            if not torch.equal(value, earlier[what]):
                raise ContractError(f"{name} changes {what}: it may only read")
        if numbers(physics.model_of(0)) != models:
            raise ContractError(f"{name} changes the model: only variations may")
    for name, call in calls.items():
        if not all(torch.equal(*pair) for pair in zip(call(), results[name], strict=True)):
            raise ContractError(
                f"{name} returns something else when it is called again in the same state: it may change and draw "
                "nothing, and remembers nothing"
            )


def deterministic(probe: Played) -> None:
    """Bit for bit: again in the same environment, and in another one with more threads."""
    actions = probe.actions(RANDOM_STEPS)[:_REPLAYED]
    with make_env(probe.family, WORLDS, threads=2) as other:
        again_here, again_there = play(probe.env, probe, actions), play(other, probe, actions)
    for again, where in (
        (again_here, "the same environment"),
        (again_there, "another environment with 2 threads"),
    ):
        for t, obs in enumerate(again.obs):
            if not torch.equal(obs, probe.random.obs[t]):
                raise ContractError(
                    f"the same seed gives another observation number {t} in {where}: draw from `random`"
                )
        for t, (one, two) in enumerate(zip(again.steps, probe.random.steps, strict=False)):
            if not (torch.equal(one.reward, two.reward) and torch.equal(one.terminated, two.terminated)):
                raise ContractError(f"the same seed gives another reward or termination at step {t} in {where}")


def starts(probe: Probe) -> None:
    """On one task, so that only `reset` can tell the worlds apart."""
    states = []
    for key in (1, 2):
        probe.env.begin(probe.family.space.nominal(WORLDS), key=key)
        states.append(probe.env.physics.get_state())
    different = len({tuple(state) for state in torch.cat(states).tolist()})
    if different < 2 * WORLDS:
        raise ContractError(
            f"only {different} of {2 * WORLDS} episodes start in a state of their own ({WORLDS} worlds, 2 trials): "
            "reset must draw from `random` for every world"
        )


def renders(probe: Probe) -> str:
    """One small picture, by the camera that films the robot."""
    try:
        gl_backend()
    except UserError as error:
        return f"not checked: {error}"
    probe.env.begin(probe.tasks(), key=0)
    with closing(probe.env.cameras([0], PICTURE)) as cameras:
        require_contrast(cameras.draw()[0])
    return f"by {'a camera that follows the robot' if probe.family.camera is None else repr(probe.family.camera)}"


def require_contrast(picture: UInt8[np.ndarray, "H W 3"]) -> None:
    """A picture of one colour shows nothing."""
    pixels = picture.reshape(-1, 3)
    if bool((pixels == pixels[0]).all()):
        raise ContractError(f"the picture is of one colour, {tuple(pixels[0].tolist())}: the camera sees nothing")


def speed(probe: Played, num_worlds: int = _SPEED_WORLDS) -> str:
    """A report, with all CPUs; nothing fails."""
    with make_env(probe.family, num_worlds) as env:
        env.begin(probe.family.space.sample("train", num_worlds, seeding.rng(0, "check")), key=0)
        actions = probe.actions(num_worlds // WORLDS).flatten(0, 1)
        taken, begun = 0, time.perf_counter()
        while taken < env.trial_steps and time.perf_counter() - begun < _SPEED_SECONDS:
            env.step(actions.roll(taken, dims=0))
            taken += 1
        rate = taken * num_worlds / (time.perf_counter() - begun)
    return f"{rate:,.0f} steps/s with {num_worlds} worlds"
