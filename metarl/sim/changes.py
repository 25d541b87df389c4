"""Task parameters that change within an episode: faults, conditions that are drawn anew, drifts."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from metarl.core.distributions import Choice, Distribution, LogUniform, Uniform
from metarl.core.errors import UserError
from metarl.core.info import Part
from metarl.core.tasks import Parameter, Tasks
from metarl.sim.altered import Altered, hidden_name
from metarl.sim.disturbances import Drift, Fault, OfParameters, Redrawn, drawn
from metarl.sim.episode import Episode, Timer
from metarl.sim.task_code import code_of, code_parts
from metarl.sim.variation import Variator

_GROWS = 0.5  # [s] between two steps of what grows
_ROW = 1 << 20  # cells of the ground in a row: more than any robot walks


class Changes:
    """Keeps the present tasks of the worlds, and their models as those say."""

    def __init__(self, episode: Episode, variator: Variator) -> None:
        self._episode, self._variator = episode, variator
        self._space = episode.family.space
        self._all: list[tuple[int, OfParameters | Altered]] = [*episode.all(OfParameters), *episode.all(Altered)]
        self._stage = [torch.zeros_like(episode.age) for _ in self._all]  # a change is another stage
        self._timers = {
            i: Timer(episode, i, "every") for i, one in self._all if isinstance(one, Redrawn) and one.of == "time"
        }
        self._window = {
            i: (torch.zeros_like(episode.age), torch.zeros_like(episode.age))
            for i, one in self._all
            if isinstance(one, Fault | Altered)
        }
        constant = [
            isinstance(one, Altered) and not one.is_fault and episode.is_zero(i, "over") for i, one in self._all
        ]
        self._constant = all(constant)  # nothing changes within an episode
        self._grows = max(1, round(_GROWS / episode.family.control_step))
        if any(isinstance(one, Redrawn) and one.of == "distance" for _, one in self._all):
            require_free(episode, "ground that changes with the distance")
        self._faults = [isinstance(one, Fault) or (isinstance(one, Altered) and one.is_fault) for _, one in self._all]
        changed = {name for _, one in self._all if isinstance(one, Drift | Redrawn) for name in one.parameters}
        self._shown = [name for name in self._space.parameters if name in changed]
        nominal = self._space.nominal()
        self._nominal = {
            name: nominal[name].to(episode.device, episode.dtype)
            for _, one in self._all
            if isinstance(one, Fault)
            for name in one.parameters
        }

    def __bool__(self) -> bool:
        """There is something that may change."""
        return bool(self._all)

    def begin(self, mask: Bool[Tensor, "N"], tasks: Tasks) -> None:
        """Put the worlds of `mask` where an episode on `tasks` begins."""
        for timer in self._timers.values():
            timer.begin(mask)
        for i, one in self._all:
            if isinstance(one, Fault | Altered):
                start = self._episode.steps(self._episode.value(i, "onset")[:, 0])
                early = self._episode.random(i, "at_start").uniform(0.0, 1.0, 1)[:, 0] < one.at_start
                start = torch.where(early, 0, start)
                self._window[i][0].copy_(start)
                self._window[i][1].copy_(start + self._episode.steps(self._episode.value(i, "duration")[:, 0]))
        for stage, (i, one) in zip(self._stage, self._all, strict=True):
            stage.copy_(self._now(i, one))
        self.put(mask, tasks)

    def tick(self, tasks: Tasks, looks: bool) -> None:
        """Let happen what the next control step is taken under. `looks`: see `TrialEnv`."""
        if self._constant:
            return
        for timer in self._timers.values():
            timer.tick()
        now = [self._now(i, one) for i, one in self._all]
        changed = torch.stack([new != old for new, old in zip(now, self._stage, strict=True)]).any(dim=0)
        for stage, new in zip(self._stage, now, strict=True):
            stage.copy_(new)
        if not looks or changed.numpy().any():
            self.put(changed, tasks)

    def parts(self) -> tuple[Part, ...]:
        """What `hidden` says."""
        number = sum(self._faults)
        fault = [Part("fault", 1, "1", help="1 while one is on")] if number else []
        fault += [Part("faults", number, "1", help="1 while it is on, of each")] if number > 1 else []
        own = {part.name: part for part in code_parts(self._space)}
        shown = (Part(f"present_{name}", own[name].size, "1", own[name].elements) for name in self._shown)
        return (*fault, *shown)

    def hidden(self) -> list[Tensor]:
        """Which faults are on, and present values of whatever else changes."""
        on = [(stage > 0).long() for stage, fault in zip(self._stage, self._faults, strict=True) if fault]
        codes = (code_of(self._space.parameters[name], self._episode.tasks[name]) for name in self._shown)
        found = [torch.stack(on, dim=1).amax(dim=1, keepdim=True)] if on else []
        found += [torch.stack(on, dim=1)] if len(on) > 1 else []
        return found + [code if code.dim() > 1 else code[:, None] for code in codes]

    def _now(self, i: int, one: OfParameters | Altered) -> Int64[Tensor, "N"]:
        """The stage that a disturbance is in."""
        age = self._episode.age
        match one:
            case Fault() | Altered():
                start, stop = self._window[i]
                on = ((age >= start) & (age < stop)).long()
                if isinstance(one, Fault) or self._episode.is_zero(i, "over"):
                    return on
                growing = self._episode.steps(self._episode.value(i, "over")[:, 0])  # then it is there
                return on * (1 + (age - start).clamp(min=0).minimum(growing + self._grows - 1) // self._grows)
            case Drift():
                return age // max(1, round(one.every / self._episode.family.control_step))
            case Redrawn(of="time"):
                return self._timers[i].count
        place = self._episode.physics.bind("qpos")[:, :2]
        cell = (place / self._episode.value(i, "every") + 0.5).floor().nan_to_num().clamp(-_ROW / 4, _ROW / 4).long()
        return torch.where(age == 0, 0, cell[:, 0] * _ROW + cell[:, 1])  # before its reset a robot is nowhere

    def put(self, mask: Bool[Tensor, "N"], tasks: Tasks) -> None:
        """Work out the present tasks, and pose those of the worlds in `mask`."""
        values, altered = dict(tasks.values), {}
        for stage, (i, one) in zip(self._stage, self._all, strict=True):
            if isinstance(one, Altered):
                altered[i, one] = self._share(i, stage)
                continue
            for number, name in enumerate(one.parameters):
                own = values[name]
                wide = own if own.dim() > 1 else own[:, None]
                now = self._changed(i, one, number, wide, stage)
                values[name] = now if own.dim() > 1 else now[:, 0]
        self._episode.put(Tasks(values))
        posed = dict(self._episode.tasks.values)
        for (i, one), share in altered.items():
            posed[hidden_name(i)] = one.nominal + (self._episode.value(i, "value")[:, 0] - one.nominal) * share
        self._variator.apply(Tasks(posed), mask)

    def _share(self, i: int, stage: Int64[Tensor, "N"]) -> Float[Tensor, "N"]:
        """How much of an alteration is there, from 0 to 1."""
        if self._episode.is_zero(i, "over"):
            return stage.to(self._episode.dtype)
        growing = self._episode.steps(self._episode.value(i, "over")[:, 0])
        there = (stage - 1) * self._grows / growing.clamp(min=1)
        return torch.where(stage == 0, 0.0, torch.where(growing == 0, 1.0, there.clamp(0.0, 1.0)))

    def _changed(
        self, i: int, one: OfParameters, number: int, own: Float[Tensor, "N d"], stage: Int64[Tensor, "N"]
    ) -> Float[Tensor, "N d"]:
        """What a disturbance makes of its parameter `number`."""
        name = one.parameters[number]
        match one:
            case Fault():
                return torch.where(stage[:, None] == 1, own, self._nominal[name])
            case Drift():
                seconds = stage[:, None] * (round(one.every / self._episode.family.control_step) or 1)
                share = seconds * self._episode.family.control_step / self._episode.value(i, "seconds")
                return own + (self._episode.value(i, "to") - own) * share.clamp(0.0, 1.0)
        random = self._episode.random(i, "parameters", stage * len(one.parameters) + number)
        other = _of_the_same_split(self._space.parameters[name], own, random.uniform(0.0, 1.0, own.shape[1]))
        return torch.where(stage[:, None] == 0, own, other)


def _of_the_same_split(
    parameter: Parameter, own: Float[Tensor, "N d"], unit: Float[Tensor, "N d"]
) -> Float[Tensor, "N d"]:
    """Draws from the distribution that the task's own value is of."""
    value = drawn(parameter.train, unit)
    if parameter.ood is None:
        return value
    return torch.where(_contains(parameter.train, own), value, drawn(parameter.ood, unit))


def _contains(support: Distribution, value: Float[Tensor, "N d"]) -> Bool[Tensor, "N 1"]:
    match support:
        case Uniform(low=low, high=high) | LogUniform(low=low, high=high):
            margin = 1e-6 * max(1.0, abs(low), abs(high))  # tasks may be in single precision
            return ((value >= low - margin) & (value <= high + margin)).all(dim=1, keepdim=True)
        case Choice(values=values):
            return torch.stack([(value - one).abs() < 1e-6 for one in values]).any(dim=0).all(dim=1, keepdim=True)
    raise UserError(f"{support.describe()} cannot be redrawn")


def require_free(episode: Episode, what: str) -> None:
    """`UserError` for a robot that does not begin with a free joint."""
    model = episode.physics.model
    if model.njnt == 0 or model.jnt_type[0] != 0:
        raise UserError(f"{what} needs a robot that moves freely: the model's first joint must be a free joint")
