"""The contract of an `ExternalFamily`: what can be seen of an environment from outside, in worker processes.

A check takes a `Played`, raises `ContractError` with one sentence where the family breaks it, and may return a note.
"""

from __future__ import annotations

import torch

from metarl.check import contract, contract_tasks
from metarl.check.probe import RANDOM_STEPS, WORLDS, ContractError, Played
from metarl.core.errors import UserError
from metarl.sim.external.external_env import ExternalEnv
from metarl.sim.make import make_env

_SPEED_WORLDS = 16


def made(probe: Played) -> str:
    """Says where it runs; an environment that cannot be used has a sentence of its own."""
    env = probe.env
    assert isinstance(env, ExternalEnv)
    python, gymnasium = env.description["python"], env.description["gymnasium"]
    return f"{env.observation_size} observations, {env.action_size} actions; Python {python}, Gymnasium {gymnasium}"


def posed(probe: Played) -> None:
    """Begins and takes one step, on the nominal task of every world."""
    probe.env.begin(probe.family.space.nominal(WORLDS), key=0)
    probe.env.step(torch.zeros(WORLDS, probe.env.action_size))


def finite(probe: Played) -> None:
    """A reward that is not finite stops the play with its own sentence."""
    diverged = probe.random.diverged
    if bool(diverged.any()):
        step, world = diverged.nonzero()[0].tolist()
        raise ContractError(
            f"an observation was not finite {int(diverged.sum())} times in {RANDOM_STEPS:,} random steps of {WORLDS} "
            f"worlds, first at step {step} in world {world}"
        )


def ends(probe: Played) -> str:
    """Time limits are the family's; the environment may have rules, and limits, of its own."""
    terminated, ended = probe.random.terminated, probe.random.ended
    if probe.family.episode_steps <= RANDOM_STEPS and not bool(ended.any(dim=0).all()):
        raise ContractError(f"no episode ended in {RANDOM_STEPS:,} steps")
    return f"{int(ended.sum())} episodes ended in random play, {int(terminated.sum())} by their own rules"


def constants(probe: Played) -> str | None:
    """In random play and under held extreme actions."""
    return contract.constants_in(probe, ("random", "held"))


def starts(probe: Played) -> str:
    """Of one task, as the seeds have it: a suite may begin all its episodes alike."""
    tasks = probe.family.space.nominal(WORLDS)
    first = torch.cat([probe.env.begin(tasks, key=key) for key in (1, 2)])
    different = len({tuple(obs) for obs in first.tolist()})
    return f"{different} different first observations in {2 * WORLDS} episodes of one task"


def matters(probe: Played) -> str | None:
    """Each must tell in observations or rewards, unless a reward that is constant in random play may hide it."""
    unseen = []
    for name in probe.family.space.parameters:
        still = contract_tasks.indifferent(probe, name)
        if still is None:
            continue
        if not still:
            raise ContractError(
                f"the task parameter '{name}' changes neither observations nor rewards in random play: does the "
                "environment's reset read options['task']?"
            )
        unseen.append(f"'{name}', as the reward term '{still[0]}' stays constant in random play")
    return f"not checked: {'; '.join(unseen)}" if unseen else None


def told(probe: Played) -> str:
    """A suite may show a part of its tasks, as where an object lies; what is to be found out should not be here."""
    leaks = contract_tasks.leaks(probe)
    return ", ".join(f"'{name}' (element {element})" for name, element in leaks.items()) or "nothing"


def renders(probe: Played) -> str:
    """One small picture, of an environment made to draw."""
    try:
        with make_env(probe.family, 1, threads=1, pictures=True) as env:
            env.begin(probe.family.space.nominal(1), key=0)
            contract.require_contrast(env.cameras([0], contract.PICTURE).draw()[0])
    except ContractError:
        raise
    except UserError as error:
        return f"not checked: {error}"
    return "by the environment's own render"


def speed(probe: Played) -> str:
    """A report, with all CPUs; nothing fails."""
    return contract.speed(probe, _SPEED_WORLDS)
