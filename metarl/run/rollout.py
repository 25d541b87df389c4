"""Segments whose control steps are captured once and replayed: worlds, policy and what is kept are on one device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from metarl.core.graphs import Replay
from metarl.core.types import Segment, Step
from metarl.rl.policy import Policy
from metarl.rl.state import copied

if TYPE_CHECKING:
    from metarl.run.collect import Stepper

OWN = ("obs", "action", "episode_start", "trial_start")
"""What a segment holds of a `TrialStep`."""
STEP = ("final_obs", "reward", "terminated", "truncated", "diverged", "lost")
"""What it holds of its `Step`."""

Record = Callable[[Tensor, Any, Tensor, Tensor, Any], Mapping[str, Tensor]]
"""See `Learner.record`."""


@dataclass(frozen=True)
class TrialStep:
    """One control step of all worlds, with what the policy saw and did."""

    obs: Float32[Tensor, "N O"]
    """What the policy acted on."""
    episode_start: Bool[Tensor, "N"]
    """`obs` is the first observation of an episode."""
    trial_start: Bool[Tensor, "N"]
    """`obs` is the first observation of a trial."""
    noise: Float32[Tensor, "N Z"]
    """What the policy drew from."""
    action: Float32[Tensor, "N A"]
    step: Step
    """What the action led to."""
    before: Any
    """The policy's adaptation state when it acted."""
    state: Any
    """And after the step, as if its episode went on."""


@dataclass(frozen=True)
class Wanted:
    """What is to be kept of a segment; see `Stepper.segment`."""

    num_steps: int
    record: Record | None
    deterministic: bool
    privileged: bool
    every: Mapping[str, int]


class Room:
    """Rows by name, one per step or per so many steps, made when the first value comes."""

    def __init__(self, num_steps: int, every: Mapping[str, int]) -> None:
        self._num_steps, self._every = num_steps, every
        self.rows: dict[str, Tensor] = {}

    def put(self, step: int | Tensor, values: Mapping[str, Tensor]) -> None:
        """Write the values of a step, whose number may be on the device, shape (1,); later ones of a row stay."""
        for name, value in values.items():
            every = self._every.get(name, 1)
            if name not in self.rows:
                self.rows[name] = value.new_empty((-(-self._num_steps // every), *value.shape))
            if isinstance(step, int):
                self.rows[name][step // every] = value
            else:
                self.rows[name].index_copy_(0, step // every, value[None])


class Rollout:
    """Segments of one length by one policy, written to the same place each.

    A step in which no trial ends is the same work each time, and is replayed; the others are done as ever.
    """

    def __init__(self, stepper: Stepper, policy: Policy[Any], wanted: Wanted) -> None:
        self._stepper, self._policy, self._wanted = stepper, policy, wanted
        self._place = torch.zeros(1, dtype=torch.long, device=stepper.device)
        self._room, self._extras = Room(wanted.num_steps, {}), Room(wanted.num_steps, wanted.every)
        self._replay = Replay(self._work, stepper.device, "the control step", put_back=stepper.put_back)

    def segment(self) -> Segment:
        """The next steps."""
        stepper, policy = self._stepper, self._policy
        stepper.settle()
        initial, numbers = copied(stepper.state), []
        self._place.zero_()
        for _ in range(self._wanted.num_steps):
            stepper.draw(policy.noise_size)
            stepper.env.count()
            numbers.append(stepper.task_number)
            (self._work if stepper.env.trial_ended else self._replay)()
        stepper.env.check()
        rows = dict(self._room.rows)
        return Segment(
            **{name: rows[name] for name in (*OWN, *STEP, "trial_end")},
            task_number=torch.stack(numbers),
            extras=self._extras.rows,
            next_obs=stepper.obs,
            initial_state=initial,
            final_state=stepper.state,
            privileged=rows.get("privileged"),
        )

    def _work(self) -> None:
        """One step."""
        stepper, policy, wanted = self._stepper, self._policy, self._wanted
        if wanted.privileged:
            self._room.put(self._place, {"privileged": stepper.env.privileged()})
        now = stepper.act(policy, stepper.next_noise(policy.noise_size), wanted.deterministic, stepper.env.advance)
        own, led = {name: getattr(now, name) for name in OWN}, {name: getattr(now.step, name) for name in STEP}
        self._room.put(self._place, own | led | {"trial_end": now.step.trial_start})
        if wanted.record is not None:
            self._extras.put(self._place, wanted.record(now.obs, now.before, now.noise, now.action, now.state))
        stepper.go_on(policy, now)
        stepper.settle()
        self._place.add_(1)
