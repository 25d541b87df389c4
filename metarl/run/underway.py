"""Trials that are under way where a checkpoint is written, and the way back to them.

A simulator's state is not written. What happens in a trial follows from its key, its task and what is done in it:
worlds that play the same actions again are where they were, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from metarl.core.types import Segment
from metarl.run.checkpoint import UNDERWAY
from metarl.sim.env import TrialEnv


@dataclass(frozen=True)
class Underway:
    """Where worlds are whose trials run on from iteration to iteration: a training's, those of all its processes."""

    iteration: int
    """The one with which the worlds began."""
    number: int
    """Number of the trials on whose tasks they began."""
    steps: int = 0
    """Control steps that each world has taken since."""
    actions: Float32[Tensor, "T N A"] | None = None
    """Those of the last steps: of a trial's length, or of all."""
    state: tuple[Tensor, ...] = ()
    """The tensors of the policy's adaptation state, with a row per world."""
    returns: Float64[Tensor, "N K"] | None = None
    """Of each world's last complete trial."""

    def after(self, segment: Segment, returns: Float64[Tensor, "N K"], trial_steps: int) -> Underway:
        """Where they are after a segment more."""
        actions = segment.action if self.actions is None else torch.cat((self.actions, segment.action))
        state = tuple(segment.final_state or ())
        return replace(
            self,
            steps=self.steps + len(segment.action),
            actions=actions[-trial_steps:],
            state=state,
            returns=returns,
        )

    def of_worlds(self, rows: slice) -> Underway:
        """Of some of the worlds."""
        if self.actions is None or self.returns is None:
            return self
        state = tuple(part[rows] for part in self.state)
        return replace(self, actions=self.actions[:, rows], state=state, returns=self.returns[rows])

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it; nothing of worlds that have not begun."""
        if self.actions is None or self.returns is None:
            return {}
        found = {"begun": torch.tensor([self.iteration, self.number, self.steps]), "actions": self.actions}
        found |= {"returns": self.returns} | {f"state/{i}": part for i, part in enumerate(self.state)}
        return {UNDERWAY + name: value.cpu() for name, value in found.items()}

    @staticmethod
    def of(tensors: Mapping[str, Tensor], worlds: TrialEnv, state: Sequence[Tensor]) -> Underway | None:
        """Inverse of `tensors`; None where there are none.

        Raises `ValueError` where they are not of as many worlds as `state` has rows, each as those of `worlds`, or of a
        policy with another state.
        """
        found = {name.removeprefix(UNDERWAY): value for name, value in tensors.items()}
        if not found:
            return None
        begun, actions = found.get("begun", torch.zeros(0)), found.get("actions", torch.zeros(0))
        if begun.shape != (3,) or begun.dtype != torch.long or bool((begun < 0).any()) or actions.dim() != 3:
            raise ValueError("where its trials under way began is not three counts, or their actions are none")
        iteration, number, steps = begun.tolist()
        num_worlds, kept = actions.shape[1], min(steps, worlds.trial_steps)
        shapes = {
            "begun": (3,),
            "actions": (kept, num_worlds, worlds.action_size),
            "returns": (num_worlds, worlds.episodes_per_trial),
        }
        shapes |= {f"state/{i}": tuple(part.shape) for i, part in enumerate(state)}
        ours = {name: tuple(value.shape) for name, value in found.items()}
        if not kept or ours != shapes:
            raise ValueError(f"its trials under way have {ours}, not {shapes}")
        kept_state = tuple(found[f"state/{i}"] for i in range(len(state)))
        return Underway(iteration, number, steps, actions, kept_state, found["returns"])


@dataclass(frozen=True)
class Clocks:
    """At which steps of their trials worlds are, so many steps after each began at a step `begun` of its first."""

    begun: Int64[Tensor, "N"]
    trial_steps: int
    steps: int

    @property
    def trial(self) -> Int64[Tensor, "N"]:
        """The number of the trial that each world is in, 0 for its first."""
        return (self.begun + self.steps) // self.trial_steps

    @property
    def step(self) -> Int64[Tensor, "N"]:
        """The step of that trial that is next."""
        return (self.begun + self.steps) % self.trial_steps

    @property
    def whole(self) -> Int64[Tensor, "N"]:
        """How many trials each world has played from their first step to their last."""
        return (self.trial - (self.begun > 0).long()).clamp(min=0)

    def turns(self, steps: int | None = None) -> int:
        """How often trials of any world have ended, up to `steps`: each time the worlds are handed new tasks."""
        steps = self.steps if steps is None else steps
        ends = set(((-self.begun) % self.trial_steps).tolist())
        return sum((steps - (end or self.trial_steps)) // self.trial_steps + 1 for end in ends)

    def turn(self) -> Int64[Tensor, "N"]:
        """The turn at which each world was handed the task that it is on; 0 for that of its first trial."""
        since = (self.steps - self.step).tolist()
        first = (self.trial == 0).tolist()
        turns = {at: self.turns(at) for at in set(since) if at >= 0}
        return torch.tensor([0 if new else turns[at] for at, new in zip(since, first, strict=True)])
