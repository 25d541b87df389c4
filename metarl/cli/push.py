"""`metarl push`: a trained policy onto the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from metarl.cli.parsing import parse


@dataclass(frozen=True)
class PushOptions:
    """Publish a policy on the Hugging Face Hub: weights, bundle, evaluation, and a model card with curve and film."""

    run: tyro.conf.Positional[Path]
    """A run's folder, or pretrained:NAME."""
    repo: tyro.conf.Positional[str]
    """USER/NAME of the repository; you are who `hf auth login` or HF_TOKEN says."""
    checkpoint: str | None = None
    """Its checkpoint, as iteration-000120 or best; the newest by default."""
    private: bool = False
    """Make the repository for your eyes only."""
    no_film: bool = False
    """Publish without a film."""
    trust_code: bool = False
    """Run the files of code that the run names, also such as you never trained with."""


def run(words: list[str]) -> int:
    """Write the package, publish it, and print where it is."""
    options = parse(PushOptions, "push", words)
    from metarl.hub.share import push

    address = push(
        options.run,
        options.repo,
        checkpoint=options.checkpoint,
        private=options.private,
        film=not options.no_film,
        trust_code=options.trust_code,
        say=lambda what: print(f"note: {what}"),
    )
    print(f"published {address}")
    return 0
