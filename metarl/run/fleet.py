"""The worlds of a training, in shards: those of this process, and what all processes' worlds did.

A shard is a batch of worlds of its own, the same wherever it is simulated. That makes results independent of the number
of processes: the matrix products of a policy that acts in 16 worlds may round otherwise than those of one in 32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from metarl.core import seeding
from metarl.core.config import TrainConfig
from metarl.core.errors import Diverged
from metarl.core.tasks import Tasks
from metarl.core.types import Segment, episode_returns
from metarl.rl.learner import Learner
from metarl.rl.parallel import Shares
from metarl.rl.policy import Policy, unsound
from metarl.run.collect import Stepper
from metarl.run.run import env_options
from metarl.run.underway import Clocks, Underway
from metarl.sim.env import TrialEnv
from metarl.sim.family import Family
from metarl.sim.faults import Dropped, chosen
from metarl.sim.make import make_env

Draw = Callable[[int], tuple[Tasks, Int64[Tensor, "N"]]]
"""Tasks of all worlds' trials of a number, and their numbers."""
Leaves = list[tuple[Tensor, int]]
"""Tensors, each with the dimension that stands for the worlds."""


class Fleet:
    """Collects segments in this process's shards, and joins them with those of the other processes."""

    def __init__(self, family: Family, config: TrainConfig[Any], shares: Shares) -> None:
        self._config, self._shares = config, shares
        number, worlds = shares.pieces, config.num_worlds
        self._sizes = [worlds * (i + 1) // number - worlds * i // number for i in range(number)]
        self._rows = [slice(worlds * i // number, worlds * (i + 1) // number) for i in shares.own(number)]
        self._steppers: list[Stepper] = []
        self._earned: list[tuple[Tensor, Tensor]] = []  # rewards of a trial's segments so far, and where episodes start
        self._underway: Underway | None = None
        self._collected: Underway | None = None
        self.envs: list[TrialEnv] = []
        with ExitStack() as stack:
            for rows in self._rows:
                env = make_env(
                    family,
                    rows.stop - rows.start,
                    episodes_per_trial=config.episodes_per_trial,
                    threads=config.threads,
                    **env_options(config),
                )
                self.envs.append(stack.enter_context(env))
            self._stack = stack.pop_all()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def parts(self, segment_steps: int | None) -> int:
        """Segments of an iteration: those of a trial that all worlds begin with it, or one where trials run on."""
        if segment_steps is None or self._runs_on(segment_steps):
            return 1
        return self.envs[0].trial_steps // segment_steps

    def steps(self, segment_steps: int | None) -> int:
        """Control steps of each world in an iteration."""
        return self.parts(segment_steps) * (segment_steps or self.envs[0].trial_steps)

    def _runs_on(self, segment_steps: int) -> bool:
        """Whether trials go on from an iteration to the next."""
        return self.places(segment_steps) > 1 or self.envs[0].trial_steps % segment_steps != 0

    def collect(
        self, learner: Learner, iteration: int, total_steps: int, draw: Draw, part: int = 0
    ) -> tuple[Segment, Float64[Tensor, "N K"], Dropped]:
        """What an update learns from, the returns of complete trials, and what went amiss in it, of all worlds.

        `part` is the segment's number in the iteration. Where trials run on and none is complete yet, the returns are
        zeros; else they are of all that an iteration's trial has earned so far.
        """
        policy = learner.behaviour
        if bad := unsound(policy) or unsound(learner.policy):  # a student learns before it acts
            raise Diverged(f"the training diverged: {bad}")
        if part == 0:
            self._begin(policy, learner.segment_steps, iteration, total_steps, draw)
        kept, steps = getattr(learner, "kept_every", None), learner.segment_steps or self.envs[0].trial_steps
        known, record = learner.wants_privileged, learner.record
        found = [s.segment(policy, steps, record, privileged=known, every=kept) for s in self._steppers]
        leaves = [
            [*_leaves(segment), (stepper.returns, 0), (stepper.completed, 0), (_counts(env), 0)]
            for segment, stepper, env in zip(found, self._steppers, self.envs, strict=True)
        ]
        joined = self._joined(leaves)
        segment, (returns, completed, counts) = _rebuilt(found[0], joined[:-3]), joined[-3:]
        if self._underway is not None:
            self._collected = self._underway.after(segment, returns, self.envs[0].trial_steps)
        lost, limited = counts.sum(dim=0).tolist()
        if learner.segment_steps is None or not self._runs_on(learner.segment_steps):
            self._earned = [*(self._earned if part else []), (segment.reward.clone(), segment.episode_start.clone())]
            reward, starts = (torch.cat(rows) for rows in zip(*self._earned, strict=True))
            returns = episode_returns(reward, starts, self._config.episodes_per_trial)
        elif completed.any():
            returns = returns[completed]
        return segment, returns, Dropped(lost, limited)

    @property
    def seconds_to_compile(self) -> float:
        """What it took to make what simulates ready [s]."""
        return sum(env.seconds_to_compile for env in self.envs)

    def _begin(
        self, policy: Policy[Any], segment_steps: int | None, iteration: int, total_steps: int, draw: Draw
    ) -> None:
        """New trials in all worlds; those that run on from segment to segment begin once, or where they are."""
        runs_on = segment_steps is not None and self._runs_on(segment_steps)
        if runs_on and self._steppers:
            return
        if not runs_on:
            key, worlds = seeding.key(self._config.seed, "collect", iteration, 0), torch.arange(self._config.num_worlds)
            tasks, numbers = draw(iteration)
            for i, rows in enumerate(self._rows):
                own, streams = tasks.select(worlds[rows]), self._streams(rows)
                if len(self._steppers) == i:
                    stepper = Stepper(self.envs[i], policy, own, key, streams=streams, task_number=numbers[rows])
                    self._steppers.append(stepper)
                else:
                    self._steppers[i].begin(policy, own, key, streams=streams, task_number=numbers[rows])
            return
        assert segment_steps is not None
        number = self.places(segment_steps) * total_steps // (self._config.num_worlds * self.envs[0].trial_steps)
        self._run_on(policy, self._underway or Underway(iteration, number), segment_steps, draw)

    def _run_on(self, policy: Policy[Any], underway: Underway, segment_steps: int, draw: Draw) -> None:
        """Trials that run on, from their beginning or from where they are under way.

        There what was done in the last trial's length is played again: all that each world has done in its trial. What
        it did before that, at the end of another trial, it does now from another state, of which nothing is left.
        """
        worlds, trial_steps = torch.arange(self._config.num_worlds), self.envs[0].trial_steps
        begun = worlds % self.places(segment_steps) * segment_steps
        again = 0 if underway.actions is None else len(underway.actions)
        key = seeding.key(self._config.seed, "collect", underway.iteration, 0)
        for env, rows in zip(self.envs, self._rows, strict=True):  # which are handed tasks by turns of their own
            before, after = (
                Clocks(begun[rows], trial_steps, steps) for steps in (underway.steps - again, underway.steps)
            )
            tasks, numbers = _drawn(draw, underway.number, before.turn(), worlds[rows])
            stepper = Stepper(
                env,
                policy,
                tasks,
                key,
                streams=self._streams(rows),
                task_number=numbers,
                next_tasks=_Following(draw, underway.number + before.turns(), worlds[rows]),
                clock=before.step,
                trial=before.trial,
            )
            if again:
                stepper.play_again(policy, underway.of_worlds(rows), after)
            self._steppers.append(stepper)
        self._underway = underway if self.envs[0].device.type == "cpu" else None  # what a GPU does is not done again

    def learnt(self) -> None:
        """Take note that what was collected was learnt from: before that, it is to be collected again."""
        self._underway = self._collected

    def underway(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of trials that run on from an iteration to the next; on a GPU nothing."""
        return {} if self._underway is None else self._underway.tensors()

    def go_on(self, learner: Learner, tensors: Mapping[str, Tensor]) -> None:
        """Begin where trials were under way; without tensors, anew. `ValueError` where they are of other worlds."""
        state = learner.behaviour.initial_state(self._config.num_worlds, self.envs[0].device)
        self._underway = Underway.of(tensors, self.envs[0], tuple(state or ()))

    def _streams(self, rows: slice) -> Int64[Tensor, "n"] | None:
        """What a shard's worlds draw from: their numbers among all worlds."""
        return torch.arange(rows.start, rows.stop) if self._shares.pieces > 1 else None

    def places(self, segment_steps: int | None) -> int:
        """Places of a trial at which worlds are at once."""
        return max(1, self.envs[0].trial_steps // (segment_steps or 1)) if self._config.staggered else 1

    def _joined(self, shards: Sequence[Leaves]) -> list[Tensor]:
        """The tensors of all shards of all processes, one after the other along their worlds."""
        if self._shares.pieces == 1:
            return [leaf for leaf, _ in shards[0]]
        alone = self._shares.size == 1
        found = [[leaf for leaf, _ in shard] for shard in shards] if alone else self._exchanged(shards)
        dims = [dim for _, dim in shards[0]]
        return [torch.cat(parts, dim=dim) for *parts, dim in zip(*found, dims, strict=True)]

    def _exchanged(self, shards: Sequence[Leaves]) -> list[list[Tensor]]:
        """The tensors of all shards, as every process has them after one exchange."""
        like, own = shards[0], self._rows[0].stop - self._rows[0].start
        device = like[0][0].device

        def num_bytes(leaf: Tensor, worlds: int) -> int:
            return leaf.numel() // own * worlds * leaf.element_size()

        def places(worlds: int) -> list[slice]:
            """Where the leaves of a shard lie in its row, each at a multiple of eight bytes."""
            starts = [0, *accumulate(-(-num_bytes(leaf, worlds) // 8) * 8 for leaf, _ in like)]
            return [slice(at, at + num_bytes(leaf, worlds)) for at, (leaf, _) in zip(starts, like, strict=False)]

        longest = -(-places(max(self._sizes))[-1].stop // 8) * 8
        rows = torch.empty(len(shards), longest, dtype=torch.uint8, device=device)
        for row, shard, worlds in zip(rows, shards, self._rows, strict=True):
            for place, (leaf, _) in zip(places(worlds.stop - worlds.start), shard, strict=True):
                row[place] = leaf.to(device).contiguous().view(-1).view(torch.uint8)
        return [
            [
                row[place].view(leaf.dtype).view(*leaf.shape[:dim], worlds, *leaf.shape[dim + 1 :]).to(leaf.device)
                for place, (leaf, dim) in zip(places(worlds), like, strict=True)
            ]
            for row, worlds in zip(self._shares.gather(rows, len(self._sizes)), self._sizes, strict=True)
        ]


def _drawn(
    draw: Draw, first: int, turns: Int64[Tensor, "n"], worlds: Int64[Tensor, "n"]
) -> tuple[Tasks, Int64[Tensor, "n"]]:
    """The tasks that some worlds are on, each handed at a turn of its own, and their numbers."""
    tasks, numbers = draw(first)
    tasks, numbers = tasks.select(worlds), numbers[worlds]
    for turn in sorted(set(turns.tolist()) - {0}):
        other, others = draw(first + turn)
        tasks = chosen(turns == turn, other.select(worlds), tasks)
        numbers = torch.where(turns == turn, others[worlds], numbers)
    return tasks, numbers


class _Following:
    """The next trials' tasks of some worlds, one call after the other."""

    def __init__(self, draw: Draw, trial: int, worlds: Int64[Tensor, "n"]) -> None:
        self._draw, self._trial, self._worlds = draw, trial, worlds

    def __call__(self) -> tuple[Tasks, Int64[Tensor, "n"]]:
        self._trial += 1
        tasks, numbers = self._draw(self._trial)
        return tasks.select(self._worlds), numbers[self._worlds]


def _counts(env: TrialEnv) -> Int64[Tensor, "N 2"]:
    """What the worlds of a shard dropped, in its first row."""
    counts = torch.zeros(env.num_worlds, 2, dtype=torch.long)
    dropped = env.dropped()
    counts[0] = torch.tensor([dropped.lost, dropped.limited])
    return counts


def _leaves(segment: Segment) -> Leaves:
    """All tensors of a segment."""
    found: Leaves = []
    for name, value in vars(segment).items():
        if isinstance(value, Tensor):
            found.append((value, 0 if name == "next_obs" else 1))
        elif name == "extras":
            found += [(part, 1) for part in value.values()]
        elif value is not None:  # an adaptation state
            found += [(part, 0) for part in value]
    return found


def _rebuilt(like: Segment, leaves: Sequence[Tensor]) -> Segment:
    """A segment of other tensors, in the order of `_leaves`."""
    left, made = iter(leaves), dict[str, Any]()
    for name, value in vars(like).items():
        if isinstance(value, Tensor):
            made[name] = next(left)
        elif name == "extras":
            made[name] = {key: next(left) for key in value}
        elif value is not None:
            made[name] = type(value)(*(next(left) for _ in value))
    return replace(like, **made)
