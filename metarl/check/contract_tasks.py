"""The contract every family fulfils, second part: its tasks, what they change, and who may know of them.

A check takes a `Probe`, raises `ContractError` with one sentence where the family breaks it, and may return a note.
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float32
from torch import Tensor

from metarl.check.probe import RANDOM_STEPS, WORLDS, ContractError, Played, Probe, derived, goals, numbers
from metarl.core import seeding
from metarl.core.tasks import Tasks
from metarl.core.types import Step
from metarl.sim.mujoco.physics import make_physics
from metarl.sim.variations import Variation, Variator

_DRAWS = 1000
_LISTED = 100
_SHORT = 50
_OTHERS = 100
_TRIALS = 8
_STATES = 3
_BATCHES = 100
_LONG = 200
_PLAYS = ("random", "thrown", "held")
_HINTS = {
    "geom_friction": "of two touching geoms MuJoCo takes the larger friction: vary the larger one, or both",
    "body_mass": "can the body move at all?",
    "dof_damping": "has the joint any damping to scale, and can it move?",
    "actuator_gainprm": "does the motor move anything?",
    "opt.gravity": "can anything fall?",
}
"""What may make the physics ignore a model field."""
_EXACT = 1e-6  # 1 − |correlation|: the rest is below a thousandth of the spread


def disjoint(probe: Played) -> str | None:
    """A finite space is exempt: there are no other tasks to test on."""
    space = probe.family.space
    if space.is_finite:
        return "a finite space: test holds the very tasks of train"
    test = [repr(row) for row in space.fixed("test", _LISTED)]
    drawn = {repr(row) for row in space.sample("train", _DRAWS, seeding.rng(0, "check"))}
    if shared := [row for row in test if row in drawn]:
        raise ContractError(f"{len(shared)} of {_LISTED} test tasks are also drawn for training, as {shared[0]}")
    if len(set(test)) < len(test):
        raise ContractError(f"the first {_LISTED} test tasks hold only {len(set(test))} different ones")
    return None


def outside(probe: Played) -> str | None:
    """Each parameter with an `ood` distribution, in every task of the split; draws must lie in their distribution."""
    space = probe.family.space
    rows = {split: space.sample(split, _DRAWS, seeding.rng(0, "check")).rows() for split in space.splits}
    for name, parameter in space.parameters.items():
        for split in space.splits:
            support = space.distribution(name, split)
            if stray := [row[name] for row in rows[split] if not support.contains(row[name])]:
                raise ContractError(
                    f"'{name}' is drawn as {stray[0]}, outside its own {split} range {support.describe()}"
                )
        if parameter.ood is not None:
            for row in [*rows["ood"], *space.fixed("ood", _LISTED)]:
                if parameter.train.contains(row[name]):
                    raise ContractError(
                        f"the ood value {row[name]} of '{name}' lies in its training range {parameter.train.describe()}"
                    )
    return None if "ood" in space.splits else "no ood split"


def playable(probe: Played) -> str:
    """A few random steps on tasks of each split; a reward that is not finite has its own sentence."""
    env = probe.env
    for split in probe.family.space.splits:
        env.begin(probe.tasks(split=split), key=0)
        for t, action in enumerate(probe.actions(min(_SHORT, env.trial_steps))):
            diverged = env.step(action).diverged
            env.check()
            if bool(diverged.any()):
                task = probe.tasks(split=split).rows()[int(diverged.nonzero()[0])]
                raise ContractError(f"the physics diverged at step {t} of random actions on the {split} task {task}")
    return ", ".join(probe.family.space.splits)


def matters(probe: Probe) -> str | None:
    """Those that a variation of the dynamics reads must tell in the motion or the reward: see `_tells`.

    The others must tell in the reward or, through `reset`, in the motion.
    """
    names, unseen = goals(probe.family), []
    for name in probe.family.space.parameters:
        if name not in names:
            if not _tells(probe, name):
                raise ContractError(_idle(probe, name))
            continue
        still = indifferent(probe, name)
        if still is None:
            continue
        if not still:
            raise ContractError(
                f"the task parameter '{name}' changes neither rewards nor motion in {_SHORT} random steps: "
                "let the reward or a variation read it"
            )
        unseen.append(f"'{name}', as the reward term '{still[0]}' stays constant in random play")
    return f"not checked: {'; '.join(unseen)}" if unseen else None


def indifferent(probe: Played, name: str) -> list[str] | None:
    """None where other values of a parameter change what random actions lead to; else the constant reward terms."""
    base, other = _trace(probe, probe.tasks()), _trace(probe, probe.with_other(probe.tasks(), name))
    if any(not torch.equal(*pair) for pair in zip(base, other, strict=True)):
        return None
    return [term for term, values in _terms(probe).items() if bool((values == values[0, 0]).all())]


def _tells(probe: Probe, name: str) -> bool:
    """Whether robots part whose tasks differ in `name` alone, from one start and under the same actions.

    Tried on ever new tasks, as a parameter may matter only together with others, and in three kinds of play by
    turns: random actions, robots thrown about, and held extreme actions; 1,000 steps of each, at most.
    """
    env, played = probe.env, dict.fromkeys(_PLAYS, 0)
    for number in range(_BATCHES):
        for kind in _PLAYS:
            if played[kind] >= RANDOM_STEPS:
                continue
            probe.twins(number, name, thrown=kind == "thrown")
            actions = probe.actions(min(_LONG, probe.family.episode_steps), number)
            for action in actions[:1].sign().expand_as(actions) if kind == "held" else actions:
                played[kind] += 1
                step = env.step(action[: WORLDS // 2].repeat(2, 1))
                if _parted(step, env.physics.get_state()):
                    return True
                if bool(step.ended.any()):
                    break
    return False


def _parted(step: Step, state: Tensor) -> bool:
    """Whether the first half of the worlds differs from the second; what ended has only its last observation left."""
    motion = torch.where(step.ended[:, None], 0.0, state)
    last = torch.where(step.ended[:, None], step.final_obs, 0.0)
    seen = (motion, last, step.reward, step.terminated)
    return any(not torch.equal(*half.chunk(2)) for half in seen)


def _idle(probe: Probe, name: str) -> str:
    """What to tell the author of a variation that the physics ignores, and where to look."""
    readers = [variation for variation in probe.family.variations if name in variation.parameters]
    kinds = ", ".join(type(variation).__name__ for variation in readers)
    fields = {field for variation in readers for field in variation.fields}
    hints = [hint for field, hint in _HINTS.items() if field in fields]
    return (
        f"the task parameter '{name}' changes neither motion nor reward: the physics ignores what the variation "
        f"{kinds} makes of it, in random, thrown and held play of up to {RANDOM_STEPS:,} steps each; "
        f"{' '.join(hints) or 'does the robot ever use what it changes?'}"
    )


def _terms(probe: Played) -> dict[str, Tensor]:
    """Each reward term (T, N) in random play."""
    steps = probe.random.steps
    return {name: torch.stack([step.reward_terms[name] for step in steps]) for name in steps[0].reward_terms}


def _trace(probe: Played, tasks: Tasks) -> list[Tensor]:
    env = probe.env
    trace = [env.begin(tasks, key=0)]
    for action in probe.actions(min(_SHORT, env.trial_steps)):
        step = env.step(action)
        trace += [step.obs, step.reward]
    return trace


def hidden(probe: Probe) -> None:
    """Two ways to leak: `observe` reads the task, or the physics it reads holds a parameter's value.

    The second: over many first observations an element that is a linear function of the parameter, to within a
    thousandth of its spread. A task may well change what a robot senses (the ground's height, an arm's reach), but
    no policy may read it off one element.
    """
    tasks = probe.tasks()
    physics = probe.bare()
    other = probe.with_other(tasks, *tasks.values)
    for _ in range(_STATES):
        changed = (probe.family.observe(physics, tasks) != probe.family.observe(physics, other)).any(dim=0)
        if bool(changed.any()):
            raise ContractError(
                f"element {int(changed.nonzero()[0])} of the observation is computed from the task: "
                "observe may read the physics only"
            )
        physics.step(_SHORT)
    for name, element in leaks(probe).items():
        raise ContractError(f"element {element} of the first observation tells the task parameter '{name}'")


def leaks(probe: Played) -> dict[str, int]:
    """Task parameters that an element of the first observation tells, and which."""
    batches, found = [probe.tasks(number) for number in range(_TRIALS)], {}
    obs = torch.cat([probe.env.begin(batch, key=number) for number, batch in enumerate(batches)])
    for name in probe.family.space.parameters:
        values = torch.cat([batch[name].reshape(WORLDS, -1) for batch in batches])
        telling = (_correlation(obs, values).abs() > 1 - _EXACT).nonzero()
        if len(telling):
            found[name] = int(telling[0, 0])
    return found


def _correlation(obs: Float32[Tensor, "n O"], values: Tensor) -> Tensor:
    """Pearson's (O, d) between elements of the observation and of a parameter; 0 where either is constant."""
    x, y = (z.double() - z.double().mean(dim=0) for z in (obs, values))
    norm = x.norm(dim=0)[:, None] * y.norm(dim=0)
    return torch.where(norm > 0, (x.T @ y) / norm.clamp(min=1e-300), 0.0)


def first_observation(probe: Probe) -> str:
    """From the same draws of `reset`, bit for bit, for parameters that change no dynamics; the others may be sensed."""
    names, tasks = goals(probe.family), probe.tasks()
    first = probe.env.begin(tasks, key=0)
    for name in names:
        changed = probe.env.begin(probe.with_other(tasks, name), key=0) != first
        if bool(changed.any()):
            raise ContractError(
                f"element {int(changed.nonzero()[0, 1])} of the first observation changes with '{name}', which "
                "changes no dynamics: a policy must find it out by its rewards"
            )
    return ", ".join(names) or "every parameter changes the dynamics"


def variations(probe: Probe) -> str | None:
    """Each alone: the tasks' models differ in fields it declares, and in what MuJoCo derives from them."""
    tasks = probe.family.space.sample("train", 2 * WORLDS, seeding.rng(0, "check"))
    for variation in probe.family.variations:
        kind = f"the variation {type(variation).__name__} of '{', '.join(variation.parameters)}'"
        changed = _changed(probe, variation, tasks, kind)
        if not changed & set(variation.fields):
            fields = ", ".join(variation.fields)
            raise ContractError(f"{kind} changes nothing: {fields} are the same for {len(tasks)} tasks")
        if stray := _written(changed) - set(variation.fields):
            raise ContractError(f"{kind} changes {', '.join(sorted(stray))}, which its `fields` do not declare")
    return None if probe.family.variations else "no variations"


def _written(changed: set[str]) -> set[str]:
    """Those of the changed model fields that MuJoCo does not derive from others."""
    return {name for name in changed - derived() if not name.startswith("stat.")}


def _changed(probe: Probe, variation: Variation, tasks: Tasks, kind: str) -> set[str]:
    """Model fields in which any two of the worlds differ under one variation alone."""
    shared = copy.copy(probe.model)
    physics, pristine = make_physics("mujoco", shared, len(tasks), 1), numbers(shared)
    variator = Variator(physics, (variation,))
    try:
        variator.apply(tasks)
    except KeyError as error:
        raise ContractError(f"{kind} looks up {error}, which its `fields` or `parameters` do not declare") from None
    if numbers(shared) != pristine:
        raise ContractError(f"{kind} writes to the model that all worlds share: only `live` belongs to the worlds")
    models = [numbers(physics.model_of(world)) for world in range(len(tasks))]
    return {name for model in models for name, value in model.items() if value != models[0][name]}


def restores(probe: Probe) -> None:
    """A trial on the unmodified robot (or, without a nominal value, a first draw), a hundred others, and it again."""
    env, nominal = probe.env, probe.family.space.nominal(WORLDS)
    ends = (0, WORLDS - 1)
    env.begin(nominal, key=0)
    first = [numbers(env.physics.model_of(world)) for world in ends]
    for number in range(_OTHERS):
        env.begin(probe.tasks(number), key=number)
    env.begin(nominal, key=0)
    for world, before in zip(ends, first, strict=True):
        after = numbers(env.physics.model_of(world))
        changed = {name for name, value in before.items() if value != after[name]}
        if changed:
            written = ", ".join(sorted(_written(changed) or changed))
            raise ContractError(
                f"after {_OTHERS} other tasks the nominal one does not restore {written} in world {world}: "
                "variations and reset must start from the pristine values"
            )


def slots(probe: Probe) -> None:
    """One task, start and actions in every world in turn, among other tasks: the trajectories agree bit for bit."""
    env, tasks = probe.env, probe.tasks()
    start: Tensor | None = None
    tracks: dict[int, list[tuple[Tensor, Tensor]]] = {world: [] for world in range(WORLDS)}
    for rows in ((0, 1, 2, 0), (1, 0, 0, 2)):
        env.begin(tasks.select(torch.tensor(rows)), key=3)
        state = env.physics.get_state()
        start = state[0].clone() if start is None else start
        mine = [world for world in range(WORLDS) if rows[world] == 0]
        state[mine] = start
        env.physics.set_state(state)
        own = torch.tensor(rows) == 0
        for actions in probe.actions(min(_SHORT, env.trial_steps)):
            step = env.step(torch.where(own[:, None], actions[0], actions))
            for world in mine:
                tracks[world].append((step.final_obs[world], step.reward[world]))
            if bool(step.ended[own].any()):
                break
    for world in range(1, WORLDS):
        pairs = list(zip(tracks[world], tracks[0], strict=False))
        for t, (one, two) in enumerate(pairs):
            if not (torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])):
                raise ContractError(
                    f"world {world} and world 0 part at step {t} on the same task, start and actions: what happens in "
                    "a world may depend on its own row only"
                )
        if len(tracks[world]) != len(tracks[0]):
            raise ContractError(
                f"world {world} and world 0 end after different times on the same task, start and actions"
            )
