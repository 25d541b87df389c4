"""What `eval` and `video` are given to look at: a run, or with `--agent` a family that nobody trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from metarl.core.errors import UserError, unknown_name

if TYPE_CHECKING:
    from metarl.run.subject import Subject

_UNTRAINED = ("zero", "random")


@runtime_checkable
class SubjectOptions(Protocol):
    """The options that name it."""

    @property
    def run(self) -> Path:
        """Run folder, or a family's name."""
        ...

    @property
    def agent(self) -> str | None:
        """One of those that never train, or None for a run's own."""
        ...

    @property
    def checkpoint(self) -> str | None:
        """A run's checkpoint; None for the newest."""
        ...


def subject_of(options: SubjectOptions) -> Subject:
    """The run's policy, or an untrained one on the family in its place."""
    from metarl.run.subject import trained, untrained

    return untrained(options.agent, str(options.run)) if options.agent else trained(options.run, options.checkpoint)


def require_untrained(agent: str | None, given: Mapping[str, object]) -> None:
    """`UserError` where `--agent` is none of those that never train, or stands beside an option of those that did."""
    if agent is None:
        return
    if agent not in _UNTRAINED:
        raise unknown_name("agent without training", agent, _UNTRAINED)
    for option, value in given.items():
        if value:
            raise UserError(f"--agent {agent} never trained and takes no {option}: leave one of the two out")
