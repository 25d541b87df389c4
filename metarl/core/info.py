"""What a policy has to know of the robot it drives, as plain data: no simulator is needed to read or to use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from metarl.core.errors import UserError


@dataclass(frozen=True)
class Part:
    """A named part of an observation."""

    name: str
    """Name of the part, such as `gyro` or `joint_position`."""
    size: int
    """Numbers in it."""
    unit: str
    """Their unit, as `rad/s`; `1` for ratios, directions and the like."""
    elements: tuple[str, ...] = ()
    """Name of each number, as those of the joints; empty where their index says enough."""
    help: str = ""
    """What it is, in one phrase."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"observation part '{self.name}': size {self.size} is out of range: it must be at least 1")
        if self.elements and len(self.elements) != self.size:
            raise UserError(
                f"observation part '{self.name}' has {self.size} numbers, but {len(self.elements)} names of elements"
            )


def element_names(parts: Sequence[Part]) -> list[str]:
    """The name of every number of the vector, as `gyro.x`, `torso_height` or `contact_force.17`."""
    return [
        part.name if part.size == 1 else f"{part.name}.{part.elements[i] if part.elements else i}"
        for part in parts
        for i in range(part.size)
    ]


def observation_table(parts: Sequence[Part]) -> list[dict[str, str]]:
    """One row per part, in words: its `index` range in the vector, `part`, `elements`, `unit` and `help`."""
    rows, first = [], 0
    for part in parts:
        last = first + part.size - 1
        index = f"{first}-{last}" if part.size > 1 else f"{first}"
        elements = ", ".join(part.elements)
        rows.append({"index": index, "part": part.name, "elements": elements, "unit": part.unit, "help": part.help})
        first += part.size
    return rows


@dataclass(frozen=True)
class ParameterRange:
    """A task parameter as a policy met it in training."""

    name: str
    unit: str
    train: str
    """The distribution of the training tasks, in words."""
    nominal: float | tuple[float, ...] | None
    """The value of the unmodified robot, if there is one."""


Reflection = tuple[tuple[int, int], ...]
"""Of each number of a mirrored vector: the index of the number it is made from, and its sign, 1 or -1."""


@dataclass(frozen=True)
class Mirror:
    """What a robot observes, commands and is told of its task, with left and right exchanged: see `reflect`.

    A step and its mirror image are equally likely, and earn the same reward.
    """

    observation: Reflection
    """Of the vector that the policy sees."""
    action: Reflection
    privileged: Reflection
    """Of the numbers that an oracle is told, `TrialEnv.privileged`."""


@dataclass(frozen=True)
class PolicyInfo:
    """What a policy observes, what it commands, how often, and what it was trained for."""

    observation: tuple[Part, ...]
    """Parts of the observation, in the order in which they stand in the vector that the policy sees."""
    actions: tuple[str, ...]
    """Names of the actuators; an action is in [-1, 1] for each."""
    control_step: float
    """Time between two actions [s]."""
    episode_steps: int
    """Time limit of an episode [control steps]."""
    episodes_per_trial: int
    """Episodes K on one task, after which the adaptation state is to be cleared."""
    parameters: tuple[ParameterRange, ...] = ()
    """Task parameters that it was trained over."""
    samples_first: bool = False
    """It has to sample its actions before it adapts, also where the mean action is asked for."""
    mirror: Mirror | None = None
    """Its robot's symmetry, where the family declares one."""
    privileged: tuple[Part, ...] = ()
    """What `TrialEnv.privileged` says, part by part: the task in numbers. Unknown, and empty, in older files."""
    adapts: bool = True
    """It keeps what it learns of its task within a trial; a policy without memory does not, nor one of a few frames."""

    @property
    def trial_steps(self) -> int:
        """Length of a trial [control steps]."""
        return self.episode_steps * self.episodes_per_trial

    @property
    def observation_size(self) -> int:
        """Length O of an observation."""
        return sum(part.size for part in self.observation)

    @property
    def privileged_size(self) -> int:
        """Length P of the privileged numbers."""
        return sum(part.size for part in self.privileged)

    @property
    def action_size(self) -> int:
        """Length A of an action."""
        return len(self.actions)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @staticmethod
    def from_json(content: Any) -> PolicyInfo:
        """Inverse of `to_json`; `UserError` where the content is something else."""
        try:
            return PolicyInfo(
                observation=_parts(content["observation"]),
                actions=tuple(str(name) for name in content["actions"]),
                control_step=float(content["control_step"]),
                episode_steps=int(content["episode_steps"]),
                episodes_per_trial=int(content["episodes_per_trial"]),
                parameters=tuple(
                    ParameterRange(**row | {"nominal": _hashable(row["nominal"])}) for row in content["parameters"]
                ),
                samples_first=bool(content["samples_first"]),
                mirror=_mirror(content.get("mirror")),
                privileged=_parts(content.get("privileged", [])),
                adapts=bool(content.get("adapts", True)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"this is no description of a policy: {type(error).__name__}: {error}") from None


def _mirror(content: Any) -> Mirror | None:
    if content is None:
        return None
    rows = {name: tuple((int(index), int(sign)) for index, sign in content[name]) for name in Mirror.__match_args__}
    for name, row in rows.items():
        if sorted(index for index, _ in row) != list(range(len(row))) or not {1, -1}.issuperset(s for _, s in row):
            raise ValueError(f"the mirror's '{name}' is no permutation with signs")
    return Mirror(**rows)


def _parts(rows: Any) -> tuple[Part, ...]:
    return tuple(Part(**row | {"elements": tuple(row["elements"])}) for row in rows)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
