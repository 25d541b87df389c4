"""Plays policies along the axes of a sweep: all of its worlds at once, wherever one simulator can hold them.

Every point of an axis is the same tasks with the same draws, so that two points differ by what is swept, and by nothing
else.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mujoco
import torch

from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.tasks import Tasks
from metarl.rl.parallel import single_threaded_math
from metarl.run.collect import trial_steps
from metarl.run.evaluate import evaluate
from metarl.run.logs import provenance
from metarl.run.subject import Subject
from metarl.sim.altered import Altered
from metarl.sim.disturbance_files import with_disturbances
from metarl.sim.disturbances import ActionLatency, Disturbance, EachWorld
from metarl.sim.family import Family, MujocoFamily
from metarl.sim.make import make_env
from metarl.sim.mujoco.mujoco_env import MujocoEnv, compile_spec
from metarl.sweeps.axes import Axis, Knob, axes_of
from metarl.sweeps.record import GapRecord, Point, Swept

_SPREAD_STEPS = 100  # control steps in which it is found out how much each part of the observation varies

Say = Callable[[str], None]
Place = tuple[Axis | None, int]
"""A value of an axis, by its place; or the family as it is."""


@dataclass(frozen=True)
class Plan:
    """What is to be swept, on what."""

    sweeps: tuple[str, ...] = ()
    """See `axes_of`; all of them if empty."""
    quick: bool = False
    split: str = "test"
    tasks: Tasks | None = None
    """In place of the split's."""
    num_tasks: int = 20
    episodes: int = 0
    """On each task; 0 for as many as in training."""
    seed: int = 0


def swept(named: Mapping[str, Subject], plan: Plan, argv: Sequence[str], say: Say) -> GapRecord:
    """Sweep policies side by side, by their names; `UserError` where they are not of one family of MuJoCo's."""
    subjects = list(named.values())
    if not subjects:
        raise UserError("gap needs at least one run")
    first = subjects[0]
    family = first.family
    if not isinstance(family, MujocoFamily):
        raise UserError(f"'{first.origin.family}' has a simulator of its own, whose physics cannot be swept")
    for name, other in named.items():
        for what, ours, theirs in (
            ("family", first.origin.family, other.origin.family),
            ("episode_steps", _limit(first), _limit(other)),
        ):
            if ours != theirs:
                raise UserError(f"{name} cannot be compared: its {what} is {theirs}, not {ours}")
    tasks = plan.tasks or family.space.fixed(plan.split, plan.num_tasks)  # type: ignore[arg-type]
    episodes = plan.episodes or max(subject.episodes for subject in subjects)
    sweep = Sweep(family, axes_of(family, plan.sweeps, plan.quick), tasks, episodes, plan.seed)
    if plan.sweeps:  # what was asked for by name is not left out
        for name, reason in sweep.skipped.items():
            raise UserError(f"{name} cannot be swept: {reason}")
    policies = [sweep.play(name, subject, say, strict=bool(plan.sweeps)) for name, subject in named.items()]
    return GapRecord(
        family=first.origin.family,
        split=plan.split,
        num_tasks=len(tasks),
        episodes=episodes,
        control_step=family.control_step,
        episode_steps=_limit(first),
        seed=plan.seed,
        axes=sweep.axes,
        policies=policies,
        skipped=sweep.skipped,
        provenance=provenance(argv),
    )


def _limit(subject: Subject) -> int:
    return subject.origin.episode_steps or subject.family.episode_steps


class Sweep:
    """The points of a family's axes, on the same tasks each."""

    def __init__(self, family: MujocoFamily, axes: Sequence[Axis], tasks: Tasks, episodes: int, seed: int) -> None:
        self.family, self.tasks, self.episodes, self.seed = family, tasks, episodes, seed
        self.skipped: dict[str, str] = {}
        """Axes that the family cannot be swept along, and why."""
        self.axes = [axis for axis in axes if self._can(axis)]

    def play(self, name: str, subject: Subject, say: Say, strict: bool = False) -> Swept:
        """One policy along all axes; `UserError` where it cannot be played at all, or (`strict`) along one of them."""
        single_threaded_math()
        family = subject.family
        assert isinstance(family, MujocoFamily)
        nominal = self._points(subject, family, [(None, 0)])[None, 0]
        found: dict[str, list[Point]] = {}
        for batch in _batches(family, self.axes):
            say(f"{name}: {', '.join(axis.name for axis in batch)}")
            wanted: list[Place] = [
                (axis, place) for axis in batch for place in range(len(axis.values)) if place != axis.own
            ]
            try:
                played = self._batch(subject, family, batch, wanted)
            except UserError as error:
                if strict:
                    raise
                self.skipped |= {axis.name: str(error) for axis in batch}
                continue
            for axis in batch:
                places = range(len(axis.values))
                found[axis.name] = [nominal if place == axis.own else played[axis, place] for place in places]
        return Swept(name, subject.origin, nominal, found)

    def _batch(
        self, subject: Subject, family: MujocoFamily, batch: Sequence[Axis], wanted: list[Place]
    ) -> dict[Place, Point]:
        """Points of axes that one simulator can hold; of another model or back end each in its own."""
        if not (batch[0].options or batch[0].physics):
            return self._points(subject, family, wanted) if wanted else {}
        found: dict[Place, Point] = {}
        for axis, place in wanted:
            assert axis is not None
            physics = axis.physics[place] if axis.physics else "mujoco"
            other = _respecified(family, axis.options[place]) if axis.options else family
            found[axis, place] = self._points(subject, other, [(None, 0)], physics)[None, 0]
        return found

    def _points(
        self, subject: Subject, family: MujocoFamily, wanted: list[Place], physics: str = "mujoco"
    ) -> dict[Place, Point]:
        """Points in one batch of worlds, a row of tasks for each."""
        number, count = len(self.tasks), len(wanted)
        worlds = [one for one in wanted for _ in range(number)]
        swept: Family = family
        axes = list(dict.fromkeys(axis for axis, _ in wanted if axis is not None and axis.knobs))
        if axes:
            swept = with_disturbances(family, self._disturbances(subject, family, axes, worlds))
        record = evaluate(
            subject.policy,
            swept,
            self._tasks_of(worlds),
            self.episodes,
            seed=self.seed,
            origin=subject.origin,
            worlds={"physics": physics, "device": "cpu"},
            streams=torch.arange(number).repeat(count),
        )
        assert record.falls is not None
        rows = [slice(i * number, (i + 1) * number) for i in range(count)]
        return {
            one: Point(record.returns[row], record.falls[row], record.failed[row])
            for one, row in zip(wanted, rows, strict=True)
        }

    def _tasks_of(self, worlds: Sequence[Place]) -> Tasks:
        number = len(self.tasks)
        tasks = self.tasks.select(torch.arange(number).repeat(len(worlds) // number))
        values = {name: value.clone() for name, value in tasks.values.items()}
        for world, (axis, place) in enumerate(worlds):
            if axis is not None and axis.is_task:
                values[axis.name][world] = axis.values[place]
        return Tasks(values)

    def _disturbances(
        self, subject: Subject, family: MujocoFamily, axes: Sequence[Axis], worlds: Sequence[Place]
    ) -> list[Disturbance]:
        """The family's, with the magnitudes of the knobs as each world is to have them."""
        found = list(family.disturbances)
        for axis in axes:
            for knob in self._scaled(subject, axis):
                place = knob.declared(found)
                if place is None:
                    found.append(knob.disturbance)
                    place = len(found) - 1
                own = getattr(found[place], knob.magnitude)
                before = own.values if isinstance(own, EachWorld) else (_known(own, knob),) * len(worlds)
                values = tuple(
                    _setting(knob, axis, at) if one is axis else before[world] for world, (one, at) in enumerate(worlds)
                )
                found[place] = replace(found[place], **{knob.magnitude: EachWorld(values)})
        return found

    def _scaled(self, subject: Subject, axis: Axis) -> list[Knob]:
        """The axis' knobs; of noise each by how much its part varies."""
        if axis.name != "noise":
            return list(axis.knobs)
        spread = self._spread(subject)
        return [replace(knob, factor=spread[knob.disturbance.part]) for knob in axis.knobs]  # type: ignore[attr-defined]

    def _spread(self, subject: Subject) -> Mapping[str, float]:
        """Standard deviation of each part of the observation while the policy acts."""
        options: dict[str, Any] = {"episodes_per_trial": 1, "task_visible": subject.origin.task_visible}
        with make_env(subject.family, len(self.tasks), **options) as env:
            steps = trial_steps(env, subject.policy, self.tasks, seeding.key(self.seed, "evaluate"), True)
            seen = [now.obs for now, _ in zip(steps, range(_SPREAD_STEPS), strict=False)]
            parts = torch.split(torch.cat(seen), [part.size for part in env.info.observation], dim=1)
        named = zip(env.info.observation, parts, strict=True)
        return {part.name: float(value.std(dim=0).mean()) for part, value in named}

    def _can(self, axis: Axis) -> bool:
        """Whether a world of the family can be swept along an axis; why not is kept."""
        altering = [knob for knob in axis.knobs if isinstance(knob.disturbance, Altered)]
        ends = [(min(axis.values), altering), (max(axis.values), altering)] if altering or axis.is_task else []
        try:
            for value, knobs in ends:
                made: Family = self.family
                tasks = {name: own.clone() for name, own in self.tasks.select(torch.tensor([0])).values.items()}
                if axis.is_task:
                    tasks[axis.name][:] = value
                else:
                    ours = [replace(knob.disturbance, value=value) for knob in knobs]  # type: ignore[call-arg]
                    made = with_disturbances(self.family, [*self.family.disturbances, *ours])
                assert isinstance(made, MujocoFamily)
                MujocoEnv(made, 1, threads=1).begin(Tasks(tasks), key=0)
            if axis.name == "timestep":
                for options in axis.options:
                    other = _respecified(self.family, options)
                    other.num_substeps(compile_spec(other.spec()))
        except UserError as error:
            self.skipped[axis.name] = str(error)
            return False
        return True


def _known(own: Any, knob: Knob) -> float:
    """What a declared magnitude is in worlds of other axes: one that is drawn has a batch to itself."""
    return float(own) if isinstance(own, float | int) else knob.neutral


def _setting(knob: Knob, axis: Axis, place: int) -> float:
    return axis.values[place] * knob.factor if knob.constant is None else knob.constant


def _batches(family: MujocoFamily, axes: Sequence[Axis]) -> Iterator[list[Axis]]:
    """Axes that one batch of worlds can be swept along."""
    robot, commands = [], []
    for axis in axes:
        if axis.options or axis.physics or _is_drawn(family, axis):
            yield [axis]
        elif any(isinstance(knob.disturbance, ActionLatency) for knob in axis.knobs):
            commands.append(axis)  # physics goes step by step there, which takes longer
        else:
            robot.append(axis)
    yield from (batch for batch in (robot, commands) if batch)


def _is_drawn(family: MujocoFamily, axis: Axis) -> bool:
    """A disturbance that the axis sets is one that the family draws, which goes on in the worlds of other axes."""
    places = [(knob, knob.declared(family.disturbances)) for knob in axis.knobs]
    declared = [getattr(family.disturbances[i], knob.magnitude) for knob, i in places if i is not None]
    return any(not isinstance(own, float | int) for own in declared)


def _respecified(family: MujocoFamily, options: Mapping[str, Any]) -> MujocoFamily:
    """The family on a model with other options."""

    def spec() -> mujoco.MjSpec:
        made = family.spec()
        for name, value in options.items():
            setattr(made.option, name, value)
        return made

    other = copy.copy(family)
    object.__setattr__(other, "spec", spec)
    return other
