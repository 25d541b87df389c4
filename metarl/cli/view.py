"""`metarl view`: watch robots adapt in a browser, and interfere."""

from __future__ import annotations

import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metarl.cli.parsing import parse
from metarl.core.parameters import require


@dataclass(frozen=True)
class ViewOptions:
    """Watch robots adapt, live in a browser: change their task, break a motor, push them, switch the policy."""

    run: Path
    """Run folder, pretrained:NAME, or a family: a name of `metarl list`, or path/to/file.py:ClassName."""
    beside: tuple[Path, ...] = ()
    """More runs of the family, whose policies can be switched to; those in the same folder are found anyway."""
    grid: int = 1
    """Robots at once, each on a task of its own."""
    split: Literal["train", "test", "ood"] = "test"
    """Tasks: test (a fixed list, drawn as in training), ood (outside the training range) or train."""
    seed: int = 0
    """Seed of the initial states."""
    host: str = "127.0.0.1"
    """Address to serve the page on; elsewhere than on this machine's own, others can reach it."""
    port: int = 8080
    """Port of the page, or the first free one after it; 0 for any."""
    browser: bool = False
    """Open the page in a browser."""
    plain: bool = False
    """No shadows: ten times as fast in a browser without a graphics processor."""
    trust_code: bool = False
    """Run files of code that the run names, also such as you have not trained with, or that were changed since."""

    def __post_init__(self) -> None:
        require(self, "grid", 1 <= self.grid <= 64, "in [1, 64]")
        require(self, "seed", 0 <= self.seed < 2**32, "in [0, 2^32)")
        require(self, "port", 0 <= self.port < 2**16, "in [0, 65535]")


def run(words: list[str]) -> int:
    """Serve the page until interrupted."""
    options = parse(ViewOptions, "view", words)
    from metarl.viewer import view

    with view(
        options.run,
        options.beside,
        num_worlds=options.grid,
        split=options.split,
        seed=options.seed,
        host=options.host,
        port=options.port,
        plain=options.plain,
        trust_code=options.trust_code,
    ) as viewer:
        print(f"open {viewer.url} in a browser; Ctrl-C ends it", flush=True)
        if options.browser:
            webbrowser.open(viewer.url)
        viewer.wait()
    return 0
