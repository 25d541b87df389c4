"""How far one control step in another back end of the physics is from MuJoCo's own on the CPU, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.types import Step
from metarl.sim.family import Family, MujocoFamily
from metarl.sim.mujoco.mujoco_env import MujocoEnv

WORLDS, STEPS = 4, 25


@dataclass(frozen=True)
class Difference:
    """Of one field, over worlds, steps and elements."""

    field: str
    median: float
    """Of the absolute differences."""
    largest: float
    size: float
    """Mean absolute value on the CPU, to compare them with."""


def agreement(family: Family, physics: str, device: str) -> list[Difference]:
    """Play random actions on tasks of the training split; before each step both continue from the CPU's state.

    So both sides differ in one control step only. Steps after which either world begins a new episode count for what
    was observed and earned, not for the state.
    """
    if not isinstance(family, MujocoFamily):
        raise UserError(f"{type(family).__name__} has a simulator of its own: there is nothing to compare")
    found: dict[str, list[Tensor]] = {}
    plain, other = MujocoEnv(family, WORLDS, threads=1), MujocoEnv(family, WORLDS, physics=physics, device=device)
    tasks = family.space.sample("train", WORLDS, seeding.rng(0, "agreement"))
    for env in (plain, other):
        env.begin(tasks, key=0)
    actions = torch.rand(STEPS, WORLDS, plain.action_size, generator=seeding.generator(0, "agreement"))
    for action in 2.0 * actions - 1.0:
        state = plain.physics.get_state()
        for env in (plain, other):  # both, so that what is derived from it is as old in both
            env.physics.set_state(state.to(env.device, env.dtype))
        steps = plain.step(action), other.step(action.to(other.device))
        for name, pair in _pairs(plain, other, *steps):
            found.setdefault(name, []).append(torch.stack(pair).double().flatten(1))
    dropped = other.dropped()
    if dropped.lost:
        raise UserError(f"contacts or constraints found no room in {dropped.lost} of {WORLDS * STEPS} steps")
    return [_difference(name, torch.cat(parts, dim=1)) for name, parts in found.items()]


def _pairs(plain: MujocoEnv, other: MujocoEnv, one: Step, two: Step) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    going = ~(one.episode_start | two.episode_start.cpu())
    for field in ("qpos", "qvel"):
        yield field, (plain.physics.bind(field)[going], other.physics.bind(field).cpu()[going])
    sizes = [part.size for part in plain.info.observation]
    seen = (torch.split(step.final_obs.cpu(), sizes, dim=1) for step in (one, two))
    for part, *pair in zip(plain.info.observation, *seen, strict=True):
        yield part.name, (pair[0], pair[1])
    yield "reward", (one.reward, two.reward.cpu())
    yield "ended", (one.terminated, two.terminated.cpu())


def _difference(field: str, pair: Tensor) -> Difference:
    gaps = (pair[0] - pair[1]).abs()
    if not gaps.numel():
        return Difference(field, 0.0, 0.0, 0.0)
    return Difference(field, float(gaps.median()), float(gaps.max()), float(pair[0].abs().mean()))


def table(differences: list[Difference]) -> Iterator[str]:
    """One line per field, to print."""
    yield f"{'one control step':24} {'median':>10} {'largest':>10} {'of about':>10}"
    for each in differences:
        yield f"{each.field:24} {each.median:10.1e} {each.largest:10.1e} {each.size:10.1e}"
