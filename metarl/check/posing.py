"""Checks of a family's tasks: what they change, and who may know of them.

A check takes what is tested, raises `CheckError` with one sentence where it does not hold, and may return a note.
"""

from __future__ import annotations

import copy

import mujoco
import torch
from torch import Tensor

from metarl.check.tested import RANDOM_STEPS, WORLDS, CheckError, Tested, numbers
from metarl.core import seeding
from metarl.core.tasks import Tasks
from metarl.sim.mujoco.physics import make_physics
from metarl.sim.variation import Variation, Variator, called

_DRAWS = 1000
_LISTED = 100
_SHORT = 50
_OTHERS = 100
_BATCHES = 100
_LONG = 200
_HINTS = {
    "geom_friction": "of two touching geoms MuJoCo takes the larger friction: vary the larger one, or both",
    "body_mass": "can the body move at all?",
    "dof_damping": "has the joint any damping to scale, and can it move?",
    "actuator_gainprm": "does the motor move anything?",
    "opt.gravity": "can anything fall?",
    "opt.wind": "has the air a density, as <option density='1.2'/> gives it?",
}
"""What may make the physics ignore a model field."""
_READ = "let the reward or a variation read it"
_POSED = "does the environment's reset read options['task']?"
_HINT = "does the robot ever use what it changes?"


def disjoint(tested: Tested) -> str | None:
    """The train and test tasks are disjoint."""
    space = tested.family.space
    if space.is_finite:
        return "a finite space: test holds the very tasks of train"
    test = [repr(row) for row in space.fixed("test", _LISTED)]
    drawn = {repr(row) for row in space.sample("train", _DRAWS, seeding.rng(0, "check"))}
    if shared := [row for row in test if row in drawn]:
        raise CheckError(f"{len(shared)} of {_LISTED} test tasks are also drawn for training, as {shared[0]}")
    if len(set(test)) < len(test):
        raise CheckError(f"the first {_LISTED} test tasks hold only {len(set(test))} different ones")
    return None


def outside(tested: Tested) -> str | None:
    """The ood split lies outside the training range.

    That of each parameter with an `ood` distribution, in every task; draws must lie in their distribution.
    """
    space = tested.family.space
    rows = {split: space.sample(split, _DRAWS, seeding.rng(0, "check")).rows() for split in space.splits}
    for name, parameter in space.parameters.items():
        for split in space.splits:
            support = space.distribution(name, split)
            if stray := [row[name] for row in rows[split] if not support.contains(row[name])]:
                raise CheckError(f"'{name}' is drawn as {stray[0]}, outside its own {split} range {support.describe()}")
        if parameter.ood is not None:
            for row in [*rows["ood"], *space.fixed("ood", _LISTED)]:
                if parameter.train.contains(row[name]):
                    trained = f"its training range {parameter.train.describe()}"
                    raise CheckError(f"the ood value {row[name]} of '{name}' lies in {trained}")
    return None if "ood" in space.splits else "no ood split"


def playable(tested: Tested) -> str:
    """Every split can be played."""
    env = tested.env
    for split in tested.family.space.splits:
        env.begin(tested.tasks(split=split), key=0)
        for t, action in enumerate(tested.actions(min(_SHORT, env.trial_steps))):
            diverged = env.step(action).diverged
            env.check()
            if bool(diverged.any()):
                task = tested.tasks(split=split).rows()[int(diverged.nonzero()[0])]
                raise CheckError(f"the physics diverged at step {t} of random actions on the {split} task {task}")
    return ", ".join(tested.family.space.splits)


def matters(tested: Tested) -> str | None:
    """Every task parameter matters.

    What a variation of the dynamics reads must tell in motion or reward, in play of several kinds: see `_tells`. The
    others must tell in observations or rewards of random play, unless a reward that is constant there hides them.
    """
    goals, unseen = tested.goals, []
    for name in tested.family.space.parameters:
        if name not in goals:
            if tested.is_robot and not _tells(tested, name):
                raise CheckError(_idle(tested, name))
            continue
        base, other = (_trace(tested, tasks) for tasks in (tested.tasks(), tested.with_other(tested.tasks(), name)))
        if any(not torch.equal(*pair) for pair in zip(base, other, strict=True)):
            continue
        steps = tested.random.steps
        terms = {term: torch.stack([step.reward_terms[term] for step in steps]) for term in steps[0].reward_terms}
        still = [term for term, values in terms.items() if bool((values == values[0, 0]).all())]
        if not still:
            advice = _READ if tested.is_robot else _POSED
            what = f"the task parameter '{name}' changes neither observations nor rewards"
            raise CheckError(f"{what} in {_SHORT} random steps: {advice}")
        unseen.append(f"'{name}', as the reward term '{still[0]}' stays constant in random play")
    return f"not checked: {'; '.join(unseen)}" if unseen else None


def _trace(tested: Tested, tasks: Tasks) -> list[Tensor]:
    env = tested.env
    trace = [env.begin(tasks, key=0)]
    for action in tested.actions(min(_SHORT, env.trial_steps)):
        step = env.step(action)
        trace += [step.obs, step.reward]
    return trace


def _tells(tested: Tested, name: str) -> bool:
    """Whether robots part whose tasks differ in `name` alone, from one start and under the same actions.

    Tried on ever new tasks, as a parameter may matter only together with others, and in all kinds of play by turns,
    1,000 steps of each at most. The first half of the worlds have twins in the second.
    """
    env, played, mirror = tested.env, dict.fromkeys(tested.plays, 0), torch.arange(WORLDS // 2).repeat(2)
    for number in range(_BATCHES):
        for kind in tested.plays:
            if played[kind] >= RANDOM_STEPS:
                continue
            tasks = tested.tasks(number)
            env.begin(Tasks({**tasks.select(mirror).values, name: tasks[name]}), number, streams=mirror)
            if kind == "thrown":
                tested.throw(number)
            env.physics.set_state(env.physics.get_state()[mirror])
            actions = tested.actions(min(_LONG, tested.family.episode_steps), number)
            for action in actions[:1].sign().expand_as(actions) if kind == "held" else actions:
                played[kind] += 1
                step = env.step(action[mirror])
                # What ended has only its last observation left.
                motion = torch.where(step.ended[:, None], 0.0, env.physics.get_state())
                last = torch.where(step.ended[:, None], step.final_obs, 0.0)
                if any(not torch.equal(*seen.chunk(2)) for seen in (motion, last, step.reward, step.terminated)):
                    return True
                if bool(step.ended.any()):
                    break
    return False


def _idle(tested: Tested, name: str) -> str:
    """What to tell the author of a variation that the physics ignores, and where to look."""
    readers = [variation for variation in tested.family.variations if name in variation.parameters]
    if not readers:
        return f"the task parameter '{name}', which a disturbance reads, changes neither motion nor what is observed"
    fields = {field for variation in readers for field in variation.fields}
    return (
        f"the task parameter '{name}' changes neither motion nor reward: the physics ignores what the variation "
        f"{', '.join(type(variation).__name__ for variation in readers)} makes of it, in three kinds of play of up to "
        f"{RANDOM_STEPS:,} steps; {' '.join(hint for field, hint in _HINTS.items() if field in fields) or _HINT}"
    )


def variations(tested: Tested) -> str | None:
    """Each variation changes the model, where it says.

    Each alone: the tasks' models differ in fields it declares, and in what MuJoCo derives from them.
    """
    tasks = tested.family.space.sample("train", 2 * WORLDS, seeding.rng(0, "check"))
    for variation in tested.family.variations:
        kind = called(variation)
        changed = _changed(tested, variation, tasks, kind)
        if not changed & set(variation.fields):
            raise CheckError(
                f"{kind} changes nothing: {', '.join(variation.fields)} are the same for {len(tasks)} tasks"
            )
        if stray := _written(changed) - set(variation.fields):
            raise CheckError(f"{kind} changes {', '.join(sorted(stray))}, which its `fields` do not declare")
    return None if tested.family.variations else "no variations"


def _written(changed: set[str]) -> set[str]:
    """Those of the changed model fields that MuJoCo does not derive from others (`mj_setConst`)."""
    derived = {*mujoco.MjModel._setconst_outputs, *mujoco.MjModel._setconst_scalars}
    return {name for name in changed - derived if not name.startswith("stat.")}


def _changed(tested: Tested, variation: Variation, tasks: Tasks, kind: str) -> set[str]:
    """Model fields in which any two of the worlds differ under one variation alone."""
    shared = copy.copy(tested.model)
    physics, pristine = make_physics("mujoco", shared, len(tasks), 1), numbers(shared)
    variator = Variator(physics, (variation,))
    try:
        variator.apply(tasks)
    except KeyError as error:
        raise CheckError(f"{kind} looks up {error}, which its `fields` or `parameters` do not declare") from None
    if numbers(shared) != pristine:
        raise CheckError(f"{kind} writes to the model that all worlds share: only `live` belongs to the worlds")
    models = [numbers(physics.model_of(world)) for world in range(len(tasks))]
    return {name for model in models for name, value in model.items() if value != models[0][name]}


def restores(tested: Tested) -> None:
    """The same task gives the same model after 100 others.

    The unmodified robot or, without a nominal value, a first draw.
    """
    env, nominal, ends = tested.env, tested.family.space.nominal(WORLDS), (0, WORLDS - 1)
    env.begin(nominal, key=0)
    first = [numbers(env.physics.model_of(world)) for world in ends]
    for number in range(_OTHERS):
        env.begin(tested.tasks(number), key=number)
    env.begin(nominal, key=0)
    for world, before in zip(ends, first, strict=True):
        after = numbers(env.physics.model_of(world))
        changed = {name for name, value in before.items() if value != after[name]}
        if changed:
            written = ", ".join(sorted(_written(changed) or changed))
            what = f"after {_OTHERS} other tasks the nominal one does not restore {written} in world {world}"
            raise CheckError(f"{what}: variations and reset must start from the pristine values")


def slots(tested: Tested) -> None:
    """The same task gives the same dynamics in every world.

    One task, start and actions in every world in turn, among other tasks, while no other world restarts and while
    others begin episodes and trials: the trajectories agree bit for bit.
    """
    env, tasks = tested.env, tested.tasks()
    ends = env.episode_steps - 2, env.trial_steps - 3  # an episode of some world ends at step 2, a trial at step 3
    late = [max(0, end) for end in ends]
    start: Tensor | None = None
    tracks: list[tuple[str, int, list[Tensor]]] = []
    for rows, clock in (((0, 1, 2, 0), (0, 0, 0, 0)), ((1, 0, 0, 2), (*late[:1], 0, 0, *late[1:])),
                        ((0, 1, 2, 0), (0, *late[::-1], 0))):  # fmt: skip
        worlds = torch.tensor(rows)  # as their streams, too: the same task is disturbed alike
        env.begin(tasks.select(worlds), 3, worlds, torch.tensor(clock))
        env.queue(tasks.select(torch.tensor(rows[::-1])))
        state, own = env.physics.get_state(), worlds == 0
        start = state[0].clone() if start is None else start
        state[own] = start
        env.physics.set_state(state)
        found: dict[int, list[Tensor]] = {world: [] for world in own.nonzero()[:, 0].tolist()}
        for actions in tested.actions(min(_SHORT, env.trial_steps)):
            step = env.step(torch.where(own[:, None], actions[0], actions))
            for world, track in found.items():
                track.append(torch.cat((step.final_obs[world], step.reward[world : world + 1])))
            if bool(step.ended[own].any()):
                break
        beside = " while others begin episodes" if any(clock) else ""
        tracks += [(f"world {world}{beside}", world, track) for world, track in found.items()]
    for name, _, track in tracks[1:]:
        first = tracks[0][2]
        parted = [t for t, pair in enumerate(zip(track, first, strict=False)) if not torch.equal(*pair)]
        if parted or len(track) != len(first):
            raise CheckError(
                f"{name} and world 0 part at step {min([*parted, len(track), len(first)])} on the same task, start "
                "and actions: what happens in a world may depend on its own row only"
            )
