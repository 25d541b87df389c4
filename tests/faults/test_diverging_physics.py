"""Physics that diverges in one world: noticed at once, ended, and felt by no other world."""

import pytest
import torch
from tiny import FULL

from metarl.core import seeding
from metarl.core.registry import family_names, make_family
from metarl.sim.make import make_env

WORLDS = 8
CASES = ("half-cheetah-dir", "quadruped-crippled")
BLOWS = {"a speed of 1e15": 1e15, "a speed that is no number": float("nan")}


def played(family, blow=None, steps=6):
    """Steps of random actions; the `blow` is the speed of the third world ahead of the third step."""
    with make_env(family, WORLDS, threads=1) as env:
        env.begin(family.space.sample("train", WORLDS, seeding.rng(0, "tasks")), key=0)
        actions = torch.rand(steps, WORLDS, env.action_size, generator=seeding.generator(0, "actions")) * 2 - 1
        taken = []
        for number, action in enumerate(actions):
            if number == 2 and blow is not None:
                env.physics.bind("qvel")[2] = blow
            taken.append(env.step(action))
            env.check()
    return taken


@pytest.mark.parametrize("name", family_names() if FULL else CASES)
def test_a_world_that_diverges_ends_its_episode_alone(name, figure):
    family = make_family(name)
    calm, others = played(family), torch.arange(WORLDS) != 2
    for what, blow in BLOWS.items():
        steps = played(family, blow)
        assert [int(step.diverged.sum()) for step in steps] == [0, 0, 1, 0, 0, 0], what
        assert steps[2].diverged[2] and steps[2].terminated[2] and steps[2].reward[2] == 0
        for step, quiet in zip(steps, calm, strict=True):
            assert all(bool(torch.isfinite(value).all()) for value in (step.obs, step.final_obs, step.reward))
            for field in ("obs", "final_obs", "reward", "terminated", "truncated", "ended"):
                assert torch.equal(getattr(step, field)[others], getattr(quiet, field)[others]), (what, field)
    figure(f"divergence in one world of {name}: noticed in the same step, {WORLDS - 1} others bit for bit the same")
