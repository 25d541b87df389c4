"""Check of a declared left-right symmetry: robots and their mirror images, side by side."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metarl.check.tested import CheckError, Tested
from metarl.core import seeding
from metarl.core.mirror import reflect
from metarl.core.tasks import Tasks
from metarl.sim.make import make_env
from metarl.sim.mirror import mirror_of, mirrored_tasks
from metarl.sim.observations import to_vector
from metarl.sim.task_code import code_parts, task_code

_PAIRS = 8
_STEPS = 48
_EVERY = 6
_CLOSE = 1e-9


def symmetric(tested: Tested) -> str:
    """A robot's mirror image moves and earns as the robot does.

    From states of random play, in one step under mirrored actions: observation and reward agree to within 1e-9.
    """
    family, mirror = tested.family, mirror_of(tested.family, code_parts(tested.family.space), False)
    if mirror is None:
        return "no symmetry declared"
    tasks = family.space.sample("train", _PAIRS, seeding.rng(0, "check"))
    images = mirrored_tasks(family, tasks)
    code, expected = task_code(family.space, images), reflect(task_code(family.space, tasks), mirror.privileged)
    if not torch.allclose(code, expected, atol=1e-6):
        raise CheckError("mirror.parameters: the task_code of a mirrored task is not the mirrored task_code")
    both = Tasks({name: torch.cat((tasks[name], images[name])) for name in tasks.values})
    generator, worst = seeding.generator(0, "check/mirror"), 0.0
    with make_env(family, 2 * _PAIRS, threads=1) as made:
        env: Any = made
        env.begin(both, key=0, streams=torch.arange(_PAIRS).repeat(2))  # images are disturbed as their robots are
        for t in range(min(_STEPS, env.trial_steps)):
            action = torch.rand(_PAIRS, env.action_size, generator=generator) * 2 - 1
            if t % _EVERY == 0:
                _place_images(tested, env)
            step = env.step(torch.cat((action, reflect(action, mirror.action))))
            if t % _EVERY == 0:
                obs = to_vector(family, family.observe(env.physics, env.tasks))
                obs[_PAIRS:] = reflect(obs[_PAIRS:], mirror.observation)
                terms = torch.stack((*step.reward_terms.values(), step.terminated.double()), dim=1)
                goes_on = ~step.ended.view(2, -1).any(dim=0)
                names = [tested.element(index) for index in range(obs.shape[1])]
                names += [f"the reward term '{name}'" for name in step.reward_terms] + ["`terminated`"]
                apart = _apart(obs, goes_on), _apart(terms, torch.ones_like(goes_on))
                worst = max(worst, _small(torch.cat(apart), names))
    return f"to within {worst:.0e}"


def _apart(values: Tensor, worlds: Tensor) -> Tensor:
    """Largest difference between robots and images, of each column, in the pairs of `worlds`."""
    one, other = values.chunk(2)
    return (one - other).abs().masked_fill(~worlds[:, None], 0.0).amax(dim=0)


def _small(apart: Tensor, names: list[str]) -> float:
    """The largest of the differences; `CheckError` where it is none of rounding."""
    if not float(apart.max()) <= _CLOSE:
        index = int(apart.argmax())
        raise CheckError(f"{names[index]} differs by {apart[index].item():.2g} from that of the mirror image")
    return float(apart.max())


def _place_images(tested: Tested, env: Any) -> None:
    """Put the second half of the worlds where the mirror images of the first are, with no memory of the past."""
    states = {}
    for name, reflection in tested.family.mirror.state.items():
        own = env.physics.bind(name)[:_PAIRS]
        states[name] = torch.cat((own, reflect(own, reflection)))

    def write(worlds: Tensor) -> None:
        for name, state in states.items():
            env.physics.bind(name)[worlds] = state[worlds]

    env.physics.restart(torch.ones(2 * _PAIRS, dtype=torch.bool), write)
