"""What a user can get wrong, as one sentence each: the command line prints it and exits with 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user asked for; the message says what, where and what is allowed."""


class Diverged(UserError):  # noqa: N818 (what happened, as the caller reads it)
    """The losses of a training are not finite any more; its learner is as the last sound update step left it."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Error for a name that is not in `known`, with the nearest valid one and the full list."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    return UserError(f"unknown {kind} '{name}'{hint}; available: {', '.join(names)}")
