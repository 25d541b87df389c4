"""`metarl pull`: a shared policy from the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metarl.cli.parsing import parse


@dataclass(frozen=True)
class PullOptions:
    """Fetch a policy from the Hugging Face Hub as a run's folder: data alone, nothing of it is run."""

    repo: tyro.conf.Positional[str]
    """USER/NAME of the repository."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None
    """The folder, which must not exist; runs/NAME by default."""
    revision: str = "main"
    """A branch, tag or commit."""


def run(words: list[str]) -> int:
    """Fetch, and print what came."""
    options = parse(PullOptions, "pull", words)
    from metarl.hub.share import pull

    found = pull(options.repo, options.output, revision=options.revision)
    values = found.config_values
    print(f"wrote {found.path}: {values['agent']} on {values['family']}; next: metarl eval {found.path}")
    return 0
