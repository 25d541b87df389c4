"""`metarl list`: families with their task parameters, and agents."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from metarl.cli.parsing import parse


@dataclass(frozen=True)
class ListOptions:
    """Families with their task parameters, and agents."""

    family: tyro.conf.Positional[str] = ""
    """Show this family only."""
    json: Path | None = None
    """Also write the list to this file."""


def run(words: list[str]) -> int:
    """Print what there is."""
    options = parse(ListOptions, "list", words)
    from rich.console import Console

    from metarl.core.files import write_json
    from metarl.run.catalogue import catalogue, print_catalogue

    content = catalogue(options.family)
    print_catalogue(content, Console(file=sys.stdout, highlight=False, markup=False, emoji=False))
    if options.json is not None:
        write_json(options.json, content)
    return 0
