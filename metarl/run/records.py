"""Evaluations as records: what was measured of which policy on which tasks, written to JSON and read back checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from rich.console import Group

from metarl.core.errors import UserError
from metarl.core.files import read_json
from metarl.core.tasks import Tasks
from metarl.run.statistics import AdaptationTime, Interval, Summary, summarize, time_to_adapt

FORMAT = 2
"""Format of the files. Those of metarl 0.1 have no number and are read as format 1."""
_POINTS = 400
"""Number of points that a file keeps of the reward over a trial's time; an episode has at least one."""
_LARGEST = 64 * 2**20
"""No evaluation's file is larger [bytes]."""
_PROVENANCE = ("command", "started", "versions", "git_commit", "machine")
_COMPUTED = ("summary", "time_to_adapt")
_HUGE, _LONGEST = 10**15, 10**7


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Which policy: an agent on a family, after how much training, and the episodes it was trained in."""

    agent: str = ""
    """The learner by name, or `zero` and `random`, which never trained."""
    family: str = ""
    """Name of the family; a user's own file is named by its full path."""
    train_seed: int | None = None
    """Seed of the training; None for a policy that never trained."""
    train_steps: int = 0
    """Control steps of the training, over all worlds."""
    train_seconds: float = 0.0
    """Length of the training [s]."""
    iteration: int = 0
    """Training iterations behind the policy."""
    episode_steps: int = 0
    """Time limit of an episode [control steps]; 0 for the family's own, or where it was not recorded."""
    task_visible: bool = False
    """The policy is an oracle: the task's numbers stand behind its observations."""

    def title(self, tasks: str) -> str:
        """`rl2 on ant-dir: TASKS, after 320 steps`."""
        training = "untrained" if not self.iteration else f"after {self.train_steps:,} steps"
        return f"{self.agent} on {self.family}: {tasks}, {training}"


@dataclass(frozen=True)
class Against:
    """A policy that was evaluated on the same tasks, and how the two compare."""

    run: str
    """Path of its run, or `pretrained:NAME`."""
    origin: Origin
    chances: tuple[Interval, ...]
    """How likely the evaluated policy does better on a task, per episode."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EvaluationRecord(Origin):
    """Returns of a policy on a list of tasks, one trial of K episodes on each, and all that is known of them."""

    tasks: Tasks
    returns: Float64[np.ndarray, "N K"]
    """Undiscounted return of each task's first K episodes."""
    reward_by_step: Float64[np.ndarray, "T"] | None = None
    """Mean over tasks of the reward at each control step; means of stretches where it was read from a file."""
    control_step: float = 0.0
    """Length of one [s]; 0 where it was not recorded."""
    num_diverged: int = 0
    """Control steps in which the physics of a world diverged."""
    diverged: Int64[np.ndarray, "N"] | None = None
    """The same by task; None where it was not recorded."""
    split: str = ""
    """`train`, `test`, `ood`, or `list-NAME` for a list of the user's."""
    held_out: bool = False
    """The tasks are not those of training."""
    seed: int = 0
    """Seed of the initial states and actions."""
    deterministic: bool = True
    """The policy took its mean action; else its actions were drawn."""
    against: Against | None = None
    provenance: Mapping[str, Any]
    """Command, versions, git commit and machine of the evaluation."""
    source: Path | None = None
    """The file it was read from."""

    @property
    def actions(self) -> str:
        """What the policy did with its distribution: `mean` or `sampled`."""
        return "mean" if self.deterministic else "sampled"

    @property
    def origin(self) -> Origin:
        """Which policy was evaluated."""
        return Origin(**{field.name: getattr(self, field.name) for field in fields(Origin)})

    @property
    def name(self) -> str:
        """Name of its file in the run's folder, which distinguishes it from the run's other evaluations."""
        mode = "deterministic" if self.deterministic else "stochastic"
        size = f"{self.returns.shape[0]}x{self.returns.shape[1]}"
        return f"{self.split}-{size}-{mode}-seed{self.seed}-iteration{self.iteration}.json"

    @property
    def file(self) -> str:
        """Name of the file it was read from, or is to be written to."""
        return self.source.name if self.source is not None else self.name

    @cached_property
    def summary(self) -> Summary:
        """Means, interquartile means and worst deciles per episode, and the gain of the last on the first."""
        return summarize(self.returns)

    @cached_property
    def time_to_adapt(self) -> AdaptationTime | None:
        """See `statistics.time_to_adapt`; None too where the interval of the gain does not lie above zero."""
        if self.reward_by_step is None or not self.summary.adaptation_delta.low > 0.0:
            return None
        return time_to_adapt(self.reward_by_step, self.episode_steps, self.control_step)

    def having(self, **changes: Any) -> EvaluationRecord:
        """The same measurement with other labels, as `split`; what was computed of it is kept."""
        other = replace(self, **changes)
        vars(other).update({name: value for name, value in vars(self).items() if name in _COMPUTED})
        return other

    def to_json(self) -> dict[str, Any]:
        """Every return with the summary, as plain data."""
        against = self.against
        return {
            "format": FORMAT,
            **asdict(self.origin),
            "split": self.split,
            "held_out": self.held_out,
            "seed": self.seed,
            "deterministic": self.deterministic,
            **self.summary.to_json(),
            "time_to_adapt": None if self.time_to_adapt is None else asdict(self.time_to_adapt),
            "num_diverged": self.num_diverged,
            "diverged": None if self.diverged is None else self.diverged.tolist(),
            "control_step": self.control_step,
            "reward_by_step": None if self.reward_by_step is None else self._thinned(self.reward_by_step),
            "tasks": self.tasks.rows(),
            "ids": list(self.tasks.ids),
            "returns": self.returns.tolist(),
            "against": None
            if against is None
            else {
                "run": against.run,
                **asdict(against.origin),
                "probability_of_improvement": [chance.to_json() for chance in against.chances],
            },
            "provenance": dict(self.provenance),
        }

    def _thinned(self, reward: Float64[np.ndarray, "T"]) -> dict[str, list[float]]:
        """Reward per step over the trial's time: means of stretches none of which spans two episodes."""
        starts, ends = self._stretches(len(reward))
        means = np.add.reduceat(reward, starts) / (ends - starts)
        return {"seconds": ((starts + ends) / 2 * self.control_step).tolist(), "reward": means.tolist()}

    def _stretches(self, length: int) -> tuple[Int64[np.ndarray, "P"], Int64[np.ndarray, "P"]]:
        """Return where each stretch begins and ends, the end excluded [control steps]."""
        num_episodes = self.returns.shape[1]
        steps = length // num_episodes
        per_episode = min(steps, max(1, _POINTS // num_episodes))
        cuts = np.arange(per_episode) * steps // per_episode
        starts = (np.arange(num_episodes)[:, None] * steps + cuts).ravel()
        return starts, np.append(starts[1:], num_episodes * steps)

    @staticmethod
    def from_json(content: Any, where: str = "this", source: Path | None = None) -> EvaluationRecord:
        """Inverse of `to_json`, also for files of metarl 0.1; `UserError` says what is wrong with the content."""
        try:
            if type(number := content.get("format", 1)) is not int or not 1 <= number <= FORMAT:
                raise ValueError(f"its format is {number!r}, this version reads formats 1 to {FORMAT}")
            return _record(content, source)
        except KeyError as error:
            reason = f"it has no {error}"
        except (TypeError, ValueError, AttributeError, RuntimeError, OverflowError, RecursionError) as error:
            reason = str(error).split("\n")[0]
        raise UserError(f"{where} is no evaluation: {reason}")

    @staticmethod
    def read(path: Path) -> EvaluationRecord:
        """The record in a file; `UserError` where it cannot be read or holds none."""
        content = read_json(path, _LARGEST)
        if "iteration" not in content and (found := re.search(r"-iteration(\d{1,12})\.json$", path.name)):
            content["iteration"] = int(found.group(1))  # in format 1 the name alone has it
        return EvaluationRecord.from_json(content, str(path), path)

    def __repr__(self) -> str:
        curve = " → ".join(f"{point.value:.4g}" for point in self.summary.adaptation_curve)
        return f"EvaluationRecord({self.agent} on {self.family}, {len(self.tasks)} {self.split} tasks: {curve})"

    def __rich__(self) -> Group:
        from metarl.run.tables import record_table

        return record_table(self)

    def _repr_html_(self) -> str:
        from metarl.run.tables import html

        return html(self)


def _record(content: Mapping[str, Any], source: Path | None) -> EvaluationRecord:
    returns = np.array(content["returns"], np.float64)
    rows = content["tasks"]
    if returns.ndim != 2 or 0 in returns.shape or not np.isfinite(returns).all() or len(rows) != len(returns):
        raise ValueError("returns must hold a row of finite numbers for each task, and one number per episode")
    version = content.get("format", 1)
    diverged = content.get("diverged")
    record = EvaluationRecord(
        **vars(_origin(content)),
        tasks=Tasks.from_rows(rows),
        returns=returns,
        control_step=_number(content, "control_step"),
        num_diverged=_count(content, "num_diverged"),
        diverged=None if diverged is None else np.array(diverged, np.int64).reshape(len(returns)),
        split=_text(content, "split"),
        held_out=_flag(content, "held_out"),
        seed=_count(content, "seed"),
        deterministic=_flag(content, "deterministic"),
        against=_against(content["against"]) if content.get("against") else None,
        provenance={key: content[key] for key in _PROVENANCE if key in content}
        if version == 1
        else dict(content["provenance"]),
        source=source,
    )
    known: dict[str, Any] = {}
    if reward := content.get("reward_by_step"):
        if (length := record.episode_steps * returns.shape[1]) > _LONGEST:
            raise ValueError(f"a trial of {length:,} steps is too long")
        starts, ends = record._stretches(length)
        known["reward_by_step"] = np.repeat(np.array(reward["reward"], np.float64), ends - starts)
        time = content["time_to_adapt"]
        known["time_to_adapt"] = time and AdaptationTime(
            float(time["episodes"]), int(time["steps"]), float(time["seconds"])
        )
    if "iqm" in content:
        known["summary"] = Summary.from_json(content)
    vars(record).update(known)  # as measured: not to be computed again, and from thinned data
    return record


def _origin(content: Mapping[str, Any]) -> Origin:
    return Origin(
        agent=str(content.get("agent", "")),
        family=str(content.get("family", "")),
        train_seed=_count(content, "train_seed") if content.get("train_seed") is not None else None,
        train_steps=_count(content, "train_steps"),
        train_seconds=_number(content, "train_seconds"),
        iteration=_count(content, "iteration"),
        episode_steps=_count(content, "episode_steps"),
        task_visible=bool(content.get("task_visible", False)),
    )


def _against(content: Mapping[str, Any]) -> Against:
    chances = tuple(Interval.from_json(chance) for chance in content["probability_of_improvement"])
    return Against(str(content["run"]), _origin(content), chances)


def _count(content: Mapping[str, Any], name: str) -> int:
    return int(_number(content, name))


def _number(content: Mapping[str, Any], name: str) -> float:
    value = content.get(name, 0)
    return float(_checked(name, value, type(value) in (int, float) and 0 <= value < _HUGE, "a number of at least 0"))


def _text(content: Mapping[str, Any], name: str) -> str:
    return str(_checked(name, content[name], isinstance(content[name], str), "a text"))


def _flag(content: Mapping[str, Any], name: str) -> bool:
    return bool(_checked(name, content[name], isinstance(content[name], bool), "true or false"))


def _checked(name: str, value: Any, holds: bool, allowed: str) -> Any:
    if not holds:
        raise ValueError(f"{name} must be {allowed}, and is {value!r}")
    return value
