"""The one evaluator: returns per task and episode on fixed tasks, and how two policies compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from metarl.core import seeding
from metarl.core.renamed import old_names
from metarl.core.tasks import Tasks
from metarl.rl.parallel import single_threaded_math
from metarl.rl.policy import Policy, device_of
from metarl.run.collect import trial_steps
from metarl.run.logs import provenance
from metarl.run.records import Against, EvaluationRecord, Origin
from metarl.run.statistics import Interval, probability_of_improvement
from metarl.run.subject import Subject
from metarl.sim.family import Family
from metarl.sim.make import make_env

_NOBODY = Origin()


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
) -> EvaluationRecord:
    """Run one trial of `num_episodes` episodes on each task, all at once; `origin` says whose policy it is.

    `worlds` says what moves the worlds, as `worlds_on`: MuJoCo on the CPU, wherever the policy is, unless told.
    """
    n = len(tasks)
    options: dict[str, Any] = {"episode_steps": origin.episode_steps or None, "task_visible": origin.task_visible}
    options |= worlds or {}
    with make_env(family, n, episodes_per_trial=num_episodes, threads=threads, **options) as env:
        device = device_of(policy) or env.device
        # the last column: episodes beyond K
        returns = torch.zeros(n, num_episodes + 1, dtype=torch.float64, device=device)
        episode = torch.zeros(n, 1, dtype=torch.long, device=device)
        diverged = torch.zeros(n, dtype=torch.long, device=device)
        by_step = torch.zeros(env.trial_steps, dtype=torch.float64, device=device)
        for t, now in enumerate(trial_steps(env, policy, tasks, seeding.key(seed, "evaluate"), deterministic)):
            reward = now.step.reward.double()
            by_step[t] = reward.mean()
            returns.scatter_add_(1, episode, reward[:, None])
            episode = (episode + now.step.ended[:, None]).clamp(max=num_episodes)
            diverged += now.step.diverged
    return EvaluationRecord(
        **vars(origin) | {"episode_steps": len(by_step) // num_episodes},
        tasks=tasks,
        returns=returns[:, :num_episodes].cpu().numpy().copy(),
        reward_by_step=by_step.cpu().numpy(),
        control_step=family.control_step,
        num_diverged=int(diverged.sum()),
        diverged=diverged.cpu().numpy(),
        seed=seed,
        deterministic=deterministic,
        provenance={},
    )


def evaluate_subject(
    subject: Subject,
    tasks: Tasks,
    split: str,
    argv: Sequence[str],
    *,
    episodes: int = 0,
    seed: int = 0,
    deterministic: bool = True,
    threads: int = 0,
    worlds: Mapping[str, Any] | None = None,
) -> EvaluationRecord:
    """Evaluate a run's policy, or one that never trained, on the tasks of a split or of a list of that name.

    `episodes` are as many as in training where 0; `argv` is the command that asks for it. The record is returned, not
    kept: see `Run.write_evaluation`.
    """
    single_threaded_math()
    record = evaluate(
        subject.policy,
        subject.family,
        tasks,
        episodes or subject.episodes,
        seed=seed,
        deterministic=deterministic,
        threads=threads,
        origin=subject.origin,
        worlds=worlds,
    )
    held_out = split == "ood" or (split == "test" and not subject.family.space.is_finite)
    return record.having(split=split, held_out=held_out, provenance=provenance(argv))


def compared(ours: EvaluationRecord, theirs: EvaluationRecord, run: str) -> EvaluationRecord:
    """Ours, with how it compares with theirs, whose run is at `run`; both met the same tasks."""
    return ours.having(against=Against(run, theirs.origin, tuple(improvement(ours, theirs))))


def improvement(ours: EvaluationRecord, theirs: EvaluationRecord) -> list[Interval]:
    """How likely ours does better on a task, per episode; both met the same tasks."""
    columns = zip(ours.returns.T, theirs.returns.T, strict=True)
    return [probability_of_improvement([x], [y]) for x, y in columns]


__getattr__ = old_names(__name__)
