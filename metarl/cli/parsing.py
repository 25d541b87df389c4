"""Words of the command line into a verb's options, by tyro."""

from __future__ import annotations

from typing import Any

import tyro


def parse(options: Any, verb: str, words: list[str], default: Any = None) -> Any:
    """Parse a verb's words into its options; a mistake prints what is allowed and exits with 2."""
    markers = (
        tyro.conf.PositionalRequiredArgs,
        tyro.conf.PositionalMetavarFromFieldName,
        tyro.conf.OmitArgPrefixes,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.DisallowNone,
    )
    arguments: dict[str, Any] = {"prog": f"metarl {verb}", "args": words, "config": markers}
    if default is not None:
        arguments["default"] = default
    return tyro.cli(options, **arguments)
