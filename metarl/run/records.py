"""Evaluations as records: what was measured of which policy on which tasks, written to JSON and read back checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64
from rich.console import Group

from metarl.core.errors import UserError
from metarl.core.files import read_json, sealed
from metarl.core.tasks import Tasks
from metarl.run.headroom import Headroom, Recovered
from metarl.run.recovery import Recovery
from metarl.run.statistics import AdaptationTime, Interval, Summary, summarize, time_to_adapt

FORMAT = 3
"""Format of the files. Those of metarl 0.1 have no number and are read as format 1."""
_POINTS = 400
"""Number of points that a file keeps of the reward over a trial's time; an episode has at least one."""
_LARGEST = 64 * 2**20
"""No evaluation's file is larger [bytes]."""
_COMPUTED = ("summary", "time_to_adapt")

Role = Literal["memoryless", "adapting", "oracle"]


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
    adapts: bool = True
    """It keeps what it learns of its task within a trial; False where it is the same on every task."""
    samples_first: bool = False
    """It samples its actions before it adapts, also where the mean action is asked for."""
    gradient_steps: int = 0
    """Gradient steps of the training; 0 where they were not recorded."""

    @property
    def role(self) -> Role:
        """What it stands for where headroom is measured."""
        return "oracle" if self.task_visible else "adapting" if self.adapts else "memoryless"

    def title(self, tasks: str) -> str:
        """`rl2 on ant-dir: TASKS, after 320 steps`."""
        learned = f" and {self.gradient_steps:,} gradient steps" if self.gradient_steps else ""
        training = "untrained" if not self.iteration else f"after {self.train_steps:,} steps{learned}"
        return f"{self.agent} on {self.family}: {tasks}, {training}"


@dataclass(frozen=True)
class Against:
    """A policy that was evaluated on the same tasks, and how the two compare."""

    run: str
    """Path of its run, or `pretrained:NAME`."""
    origin: Origin
    chances: tuple[Interval, ...]
    """How likely the evaluated policy does better on a task, per episode."""


@dataclass(frozen=True, eq=False)
class Controlled:
    """The same policy on the same tasks, its adaptation interfered with."""

    kind: str
    seconds: float
    """Time between two interferences, or up to the only one [s]."""
    once: bool
    """It happened once in a trial, and not again and again."""
    returns: Float64[np.ndarray, "N K"]
    """Undiscounted returns; a task whose physics diverged counts as the worst, as in the evaluation itself."""

    @property
    def label(self) -> str:
        """`wipe every 0.5 s`."""
        if self.kind == "nominal":
            return "nominal task"
        return f"{self.kind} {'after' if self.once else 'every'} {self.seconds:g} s"


@dataclass(frozen=True)
class Standing:
    """Where a policy stands between one that knows nothing of the task and one that is shown it."""

    memoryless: tuple[str, ...]
    """The runs of the memoryless policy, a seed each."""
    oracle: tuple[str, ...]
    """Those of the oracle."""
    headroom: Headroom
    recovered: Recovered
    """In the last episode."""
    recovered_first: Recovered
    """In the first."""
    seconds_to_recover: float | None = None
    """From a fault's onset to 90 % of the reward that the oracles reach after it [s]; None without faults, or never."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EvaluationRecord(Origin):
    """Returns of a policy on a list of tasks, one trial of K episodes on each, and all that is known of them."""

    tasks: Tasks
    returns: Float64[np.ndarray, "N K"]
    """Undiscounted return of each task's first K episodes. A failed task counts as the worst: see `failed`."""
    sampled: Float64[np.ndarray, "N K"] | None = None
    """The returns of trials with sampled actions throughout, where those of `returns` are sampled at first only."""
    reward_by_step: Float64[np.ndarray, "T"] | None = None
    """Mean over tasks of the reward at each control step, of `sampled` where there is one, else of `returns`; means of
    stretches where it was read from a file."""
    control_step: float = 0.0
    """Length of one [s]; 0 where it was not recorded."""
    num_diverged: int = 0
    """Control steps in which the physics of a world diverged."""
    diverged: Int64[np.ndarray, "N"] | None = None
    """The same by task; None where it was not recorded."""
    falls: Int64[np.ndarray, "N"] | None = None
    """How often each task's robot ended an episode by the family's rules, in the whole trial; None in older files."""
    success: Bool[np.ndarray, "N K"] | None = None
    """Whether each episode succeeded at any of its steps; None where the environment says nothing of success."""
    split: str = ""
    """`train`, `test`, `ood`, or `list-NAME` for a list of the user's."""
    held_out: bool = False
    """The tasks are not those of training."""
    seed: int = 0
    """Seed of the initial states and actions."""
    deterministic: bool = True
    """The policy took its mean action; else its actions were drawn."""
    against: Against | None = None
    controls: tuple[Controlled, ...] = ()
    standing: Standing | None = None
    recovery: Recovery | None = None
    """What a fault in mid-episode costs, where the family has any."""
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

    @property
    def failed(self) -> Bool[np.ndarray, "N"]:
        """Tasks whose physics diverged.

        Each counts, in every episode, as the worst of the sound ones, or as its own return where that is lower. Where
        two policies are compared it loses to every sound one.
        """
        return np.zeros(len(self.returns), bool) if self.diverged is None else self.diverged > 0

    @property
    def ranked(self) -> Float64[np.ndarray, "N K"]:
        """The returns, for a comparison task by task: a failed task's are below all others."""
        return np.where(self.failed[:, None], -np.inf, self.returns)

    @property
    def paired(self) -> Float64[np.ndarray, "N K"] | None:
        """Returns whose episodes were all played in the same way, so that last − first is what was learnt.

        None for a policy that sampled its first episodes only, where there is no trial that it sampled throughout.
        """
        return self.returns if not (self.samples_first and self.deterministic) else self.sampled

    @property
    def played(self) -> list[str]:
        """How each episode was played: `mean` or `sampled`; `unknown` where an older file does not tell."""
        num_episodes = self.returns.shape[1]
        if self.paired is self.returns:
            return [self.actions] * num_episodes
        if self.sampled is None:
            return ["unknown"] * num_episodes
        alike = (self.returns == self.sampled).all(axis=0)  # noise is a matter of the seed alone
        return ["sampled" if same else "mean" for same in alike]

    @cached_property
    def summary(self) -> Summary:
        """Means, interquartile means and worst deciles per episode, and the gain of the last on the first."""
        return summarize(self.returns, self.paired)

    @cached_property
    def time_to_adapt(self) -> AdaptationTime | None:
        """See `statistics.time_to_adapt`; None too where the interval of the gain does not lie above zero."""
        gain = self.summary.adaptation_delta
        if self.reward_by_step is None or gain is None or not gain.low > 0.0:
            return None
        return time_to_adapt(self.reward_by_step, self.episode_steps, self.control_step)

    def having(self, **changes: Any) -> EvaluationRecord:
        """The same measurement with other labels, as `split`; what was computed of it is kept."""
        other = replace(self, **changes)
        vars(other).update({name: value for name, value in vars(self).items() if name in _COMPUTED})
        return other

    def to_json(self) -> dict[str, Any]:
        """Every return with the summary, as plain data with a checksum of itself."""
        against = self.against
        content = {
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
            "falls": None if self.falls is None else self.falls.tolist(),
            "success": None if self.success is None else self.success.tolist(),
            "control_step": self.control_step,
            "reward_by_step": None if self.reward_by_step is None else self._thinned(self.reward_by_step),
            "tasks": self.tasks.rows(),
            "ids": list(self.tasks.ids),
            "played": self.played,
            "returns": self.returns.tolist(),
            "sampled": None if self.sampled is None else self.sampled.tolist(),
            "controls": [vars(one) | {"returns": one.returns.tolist()} for one in self.controls],
            "standing": None if self.standing is None else asdict(self.standing),
            "recovery": None if self.recovery is None else self.recovery.to_json(),
            "against": None
            if against is None
            else {
                "run": against.run,
                **asdict(against.origin),
                "probability_of_improvement": [chance.to_json() for chance in against.chances],
            },
            "provenance": dict(self.provenance),
        }
        return sealed(content)

    def _thinned(self, reward: Float64[np.ndarray, "T"]) -> dict[str, list[float]]:
        """Reward per step over the trial's time: means of stretches none of which spans two episodes."""
        starts, ends = self.stretches(len(reward))
        means = np.add.reduceat(reward, starts) / (ends - starts)
        return {"seconds": ((starts + ends) / 2 * self.control_step).tolist(), "reward": means.tolist()}

    def stretches(self, length: int) -> tuple[Int64[np.ndarray, "P"], Int64[np.ndarray, "P"]]:
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
            from metarl.run.reading import record_of

            return record_of(content, source)
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
