"""`metarl check`: test a family against the contract, or a MJCF file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from metarl.cli.parsing import parse
from metarl.core.errors import UserError


@dataclass(frozen=True)
class CheckOptions:
    """Test a family, or with --agent a learner, against what every one of them has to do; or a bare MJCF file."""

    family: tyro.conf.Positional[str] = ""
    """A name from `metarl list`, path/to/file.py:ClassName, or a MJCF file (.xml or .mjcf)."""
    agent: str = ""
    """Test this learner: a name from `metarl list`, or path/to/file.py:ClassName."""
    disturbances: str = ""
    """For a family: a TOML file of what a real robot adds to it, see docs/disturbances.md."""
    physics: str = ""
    """Say how far one control step of the family in this back end is from MuJoCo's on the CPU, as warp."""
    device: Literal["cpu", "cuda"] = "cpu"
    """For --physics: where it runs."""
    folder: Path | None = None
    """For a MJCF file: the folder in which the files it refers to may lie, instead of its own."""
    memory: float = 2.0
    """For a MJCF file: the memory that the model may use [GiB]."""
    json: Path | None = None
    """Also write the findings to this file."""

    def __post_init__(self) -> None:
        if bool(self.family) == bool(self.agent):
            raise UserError("check needs a family, a MJCF file, or --agent AGENT: metarl check FAMILY")


def run(words: list[str]) -> int:
    """Print the findings; 2 where there is a problem."""
    options = parse(CheckOptions, "check", words)
    from metarl.check.check import Finding, check_family, verdict
    from metarl.check.learner import check_learner
    from metarl.check.mjcf_file import check_mjcf
    from metarl.core.config import disturbances_text
    from metarl.core.files import write_json
    from metarl.core.registry import make_family

    path = Path(options.family)
    if options.physics:
        return _compare(options)
    if options.agent:
        tried = check_learner(options.agent)
        findings = [Finding(what, None if right else words, words if right else None) for what, right, words in tried]
    elif path.suffix.lower() in (".xml", ".mjcf", ".urdf"):
        findings = check_mjcf(path, options.folder, round(options.memory * 2**30))
    else:
        findings = check_family(make_family(options.family, disturbances_text(options.disturbances)))
    for line in verdict(options.agent or options.family, findings):
        print(line)
    if options.json is not None:
        write_json(options.json, [dataclasses.asdict(finding) for finding in findings])
    return 2 if any(finding.problem is not None for finding in findings) else 0


def _compare(options: CheckOptions) -> int:
    """Print how far a back end is from MuJoCo on the CPU: numbers to be judged by who reads them."""
    from metarl.check.agreement import agreement, table
    from metarl.core.files import write_json
    from metarl.core.registry import make_family

    differences = agreement(make_family(options.family), options.physics, options.device)
    for line in table(differences):
        print(line)
    if options.json is not None:
        write_json(options.json, [dataclasses.asdict(each) for each in differences])
    return 0
