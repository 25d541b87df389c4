"""What a user can get wrong, as one sentence each: the command line prints it and exits with 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user asked for; the message says what, where and what is allowed."""


class Diverged(UserError):  # noqa: N818
    """A learner's loss, gradient or parameters are not finite, again and again: it cannot go on."""


EXTRAS = {
    "stable_baselines3": "baselines",
    "sb3_contrib": "recurrent-ppo",
    "matplotlib": "reports",
    "imageio": "video",
    "imageio_ffmpeg": "video",
}
"""Packages that acting and training do without, each with the extra that brings it."""


def missing_package(error: ModuleNotFoundError) -> UserError | None:
    """One sentence for an optional package that is not installed; None for any other module."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    return UserError(f"this needs {package.replace('_', '-')}: pip install 'metarl-robotics[{EXTRAS[package]}]'")


def printable(text: str) -> str:
    """A text that a terminal shows as it is: what would move its cursor or hide a part of it is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Error for a name that is not in `known`, with the nearest valid one and the full list."""
    names = sorted(known)
    return UserError(f"unknown {kind} '{name}'{did_you_mean(name, names)}; available: {', '.join(names)}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest of the known names as a hint, ` (did you mean 'learning_rate'?)`; empty where none is near.

    Initials count as near: `lr` means learning_rate.
    """
    names, short = {one.strip("-"): one for one in sorted(known)}, name.strip("-")
    if not short:
        return ""
    initials = [n for n in names if "".join(word[:1] for word in n.replace("-", "_").split("_")) == short]
    near = initials or difflib.get_close_matches(short, names, n=1, cutoff=0.5)
    return f" (did you mean '{names[near[0]]}'?)" if near else ""
