"""The one evaluator: returns per task and episode on fixed tasks, and how two policies compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from metarl.core import seeding
from metarl.core.errors import UserError
from metarl.core.info import PolicyInfo
from metarl.core.renamed import old_names
from metarl.core.tasks import Tasks
from metarl.rl.parallel import ALONE, Shares, single_threaded_math
from metarl.rl.policy import Policy
from metarl.run.collect import trial_steps
from metarl.run.control import Control, Interfered
from metarl.run.logs import provenance
from metarl.run.records import Against, Controlled, EvaluationRecord, Origin
from metarl.run.recovery import around_onsets
from metarl.run.statistics import Interval, probability_of_improvement, worst_counted
from metarl.run.subject import Subject
from metarl.sim.env import TrialEnv
from metarl.sim.family import Family
from metarl.sim.make import make_env

_NOBODY = Origin()
_BLOCK = 128
"""Tasks that are played at once; a longer list is played in blocks of as many, each by one process."""
_FAULT = "fault"
"""Name of the privileged number that is 1 while a fault is there."""
_SUCCESS = "success"


def evaluate(
    policy: Policy[Any],
    family: Family,
    tasks: Tasks,
    num_episodes: int,
    *,
    seed: int = 0,
    deterministic: bool = True,
    threads: int = 0,
    origin: Origin = _NOBODY,
    worlds: Mapping[str, Any] | None = None,
    streams: Int64[Tensor, "N"] | None = None,
    shares: Shares = ALONE,
) -> EvaluationRecord:
    """Run one trial of `num_episodes` episodes on each task; `origin` says whose policy it is.

    A task in which the physics diverged has failed, and counts as the worst: see `EvaluationRecord.failed`. Where all
    have, the returns are NaN. `worlds` says what moves the worlds, as `worlds_on`: MuJoCo on the CPU, wherever the
    policy is, unless told. `streams`: see `TrialEnv.begin`. `shares` says which other processes take part of a long
    list; the record is the same, and every process has it. Raises `UserError` for a policy whose actions are not
    finite, or for an oracle that is told more or less than these worlds have to tell.
    """
    options: dict[str, Any] = {"episode_steps": origin.episode_steps or None, "task_visible": origin.task_visible}
    options |= worlds or {}
    options |= {"episodes_per_trial": num_episodes, "threads": threads}
    number = torch.arange(len(tasks)) if streams is None else streams

    def played(block: slice) -> dict[str, Tensor]:
        own = tasks.select(torch.arange(len(tasks))[block])
        with make_env(family, len(own), **options) as env:
            if origin.task_visible and policy.info.observation_size != env.info.observation_size:
                raise UserError(
                    f"this policy observes {policy.info.observation_size} numbers, these worlds tell "
                    f"{env.info.observation_size}: an oracle is told of disturbances, and must be trained with them"
                )
            return _played(env, policy, own, (seeding.key(seed, "evaluate"), number[block]), deterministic)

    at_once = isinstance(policy, Interfered) or (worlds or {}).get("device", "cpu") != "cpu"
    size = len(tasks) if at_once else _BLOCK
    kept = _joined(played, [slice(i, min(i + size, len(tasks))) for i in range(0, len(tasks), size)], shares)
    episode_steps, control_step = origin.episode_steps or family.episode_steps, family.control_step
    reward, ended, diverged = kept["reward"], kept["ended"], kept["diverged"]
    reward, count = reward.double(), diverged.sum(dim=0).numpy()
    episode = (ended.long().cumsum(dim=0) - ended.long()).clamp(max=num_episodes)  # the last column: beyond K
    returns = torch.zeros(num_episodes + 1, len(tasks), dtype=torch.float64).scatter_add_(0, episode, reward)
    failed = count > 0
    success = None
    if _SUCCESS in kept:  # at any step of the episode
        won = torch.zeros(num_episodes + 1, len(tasks), dtype=torch.long)
        success = (won.scatter_add_(0, episode, kept[_SUCCESS].cpu().long())[:num_episodes].T > 0).numpy()
    recovery = None
    if _FAULT in kept:
        fault = torch.cat((kept[_FAULT][:1], kept[_FAULT][:-1])).numpy()  # known after a step, for the next one
        recovery = around_onsets(reward.numpy(), fault, ended.numpy(), control_step, episode_steps)
    return EvaluationRecord(
        **vars(origin) | {"episode_steps": episode_steps},
        tasks=tasks,
        returns=worst_counted(returns[:num_episodes].T.numpy().copy(), failed),
        reward_by_step=reward.numpy()[:, ~failed | failed.all()].mean(axis=1),
        control_step=control_step,
        num_diverged=int(count.sum()),
        diverged=count,
        success=success,
        recovery=recovery,
        falls=(kept["terminated"] & ~diverged).sum(dim=0).numpy(),
        seed=seed,
        deterministic=deterministic,
        provenance={},
    )


def _joined(played: Callable[[slice], dict[str, Tensor]], blocks: Sequence[slice], shares: Shares) -> dict[str, Tensor]:
    """What was kept of all blocks, on the CPU; each is played by one process, unless they are fewer than processes."""
    shares = shares if len(blocks) >= shares.size else ALONE
    own = shares.own(len(blocks))
    found = [{name: rows.cpu() for name, rows in played(block).items()} for block in blocks[own.start : own.stop]]
    most, joined = max(block.stop - block.start for block in blocks), {}
    for name in found[0]:
        filled = [torch.nn.functional.pad(each[name], (0, most - each[name].shape[1])) for each in found]
        rows = shares.gather(torch.stack(filled), len(blocks))
        joined[name] = torch.cat([row[:, : cut.stop - cut.start] for row, cut in zip(rows, blocks, strict=True)], dim=1)
    return joined


def _played(
    env: TrialEnv, policy: Policy[Any], tasks: Tasks, draws: tuple[int, Tensor | None], deterministic: bool
) -> dict[str, Tensor]:
    """Reward, ends and divergence of every step and world, and whether a fault was there, where the family has any."""
    rows: dict[str, list[Tensor]] = {"reward": [], "ended": [], "diverged": [], "terminated": []}
    fault = _place_of(_FAULT, env.info)
    for now in trial_steps(env, policy, tasks, draws[0], deterministic, draws[1]):
        for name in ("reward", "ended", "diverged", "terminated"):
            rows[name].append(getattr(now.step, name).clone())
        if fault is not None:
            rows.setdefault(_FAULT, []).append(env.privileged()[:, fault] > 0.5)
        if env.success is not None:
            rows.setdefault(_SUCCESS, []).append(env.success)
    return {name: torch.stack(values) for name, values in rows.items()}


def _place_of(name: str, info: PolicyInfo) -> int | None:
    """Where a privileged part stands; None where there is none of that name."""
    first = 0
    for part in info.privileged:
        if part.name == name:
            return first
        first += part.size
    return None


def evaluate_subject(
    subject: Subject,
    tasks: Tasks,
    split: str,
    argv: Sequence[str],
    *,
    episodes: int = 0,
    seed: int = 0,
    deterministic: bool = True,
    controls: Sequence[Control] = (),
    worlds: Mapping[str, Any] | None = None,
    shares: Shares = ALONE,
) -> EvaluationRecord:
    """Evaluate a run's policy, or one that never trained, on the tasks of a split or of a list of that name.

    `episodes` are as many as in training where 0; `argv` is the command that asks for it. A policy that samples before
    it adapts plays a second trial in which it samples throughout: only its episodes can be compared with each other.
    The `controls` are played by such a policy in the same way. The record is returned, not kept: see
    `Run.write_evaluation`. Raises `UserError` where the physics of every task diverged.
    """
    single_threaded_math()

    def play(tasks: Tasks, deterministic: bool, policy: Policy[Any] = subject.policy) -> EvaluationRecord:
        options = {"seed": seed, "deterministic": deterministic, "origin": subject.origin, "worlds": worlds}
        options["shares"] = shares
        found = evaluate(policy, subject.family, tasks, episodes or subject.episodes, **options)  # type: ignore[arg-type]
        if found.failed.all():
            raise UserError(f"the physics of all {len(tasks)} tasks diverged under this policy: no return is measured")
        return found

    record, throughout = play(tasks, deterministic), deterministic
    if deterministic and subject.origin.samples_first:
        other, throughout = play(tasks, False), False
        record = record.having(sampled=other.returns, reward_by_step=other.reward_by_step)
    control_step, found = subject.family.control_step, []
    for control in controls:
        on = subject.family.space.nominal(len(tasks)) if control.kind == "nominal" else tasks
        played = play(on, throughout, Interfered(subject.policy, control, on, control_step))
        found.append(Controlled(**vars(control), returns=played.returns))
    held_out = split == "ood" or (split == "test" and not subject.family.space.is_finite)
    changes = {"split": split, "held_out": held_out, "controls": tuple(found)}
    return record.having(**changes, provenance=provenance(argv))


def split_name(split: str, disturbances: str) -> str:
    """What a record calls a split under disturbances that the policy did not train with: no report pools the two."""
    if not disturbances:
        return split
    stem = Path(disturbances).stem if disturbances.endswith(".toml") else "python"
    return f"list-{split.removeprefix('list-')}-{stem}"


def compared(ours: EvaluationRecord, theirs: EvaluationRecord, run: str) -> EvaluationRecord:
    """Ours, with how it compares with theirs, whose run is at `run`; both met the same tasks."""
    return ours.having(against=Against(run, theirs.origin, tuple(improvement(ours, theirs))))


def improvement(ours: EvaluationRecord, theirs: EvaluationRecord) -> list[Interval]:
    """How likely ours does better on a task, per episode; both met the same tasks. A failed task loses to all sound."""
    columns = zip(ours.ranked.T, theirs.ranked.T, strict=True)
    return [probability_of_improvement([x], [y]) for x, y in columns]


__getattr__ = old_names(__name__)
