"""What there is: the families with their task parameters, the agents, and the policies that come with metarl.

Describing a family imports torch and MuJoCo, which takes longer than all else that a list needs. `catalogue.json` holds
the descriptions of what comes with metarl, and a digest of the sources they were taken from: where these have changed,
the list is worked out anew. `python -m metarl.run.catalogue` writes it.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from metarl.core.info import observation_table
from metarl.core.registry import family_names, learner_names, make_family

_KEPT = Path(__file__).with_name("catalogue.json")
_ROOT = Path(__file__).parents[1]
_SOURCES = (
    *("envs/*.py", "core/distributions.py", "core/info.py", "core/tasks.py", "sim/family.py", "sim/terrain.py"),
    *("run/catalogue.py", "run/pretrained.py", "pretrained/*/eval/test.json"),
)
"""What the descriptions follow from."""


def catalogue(family: str = "") -> dict[str, Any]:
    """Families (all, or the one named), agents and, with all, pretrained policies as plain data."""
    kept, names = _kept(), [family] if family else family_names()
    families = [kept["families"][name] if name in kept["families"] else _describe(name) for name in names]
    found = {"families": families, "agents": learner_names()}
    return found if family else found | {"pretrained": kept["pretrained"] or _pretrained()}


def keep() -> None:
    """Write `catalogue.json`."""
    own = [name for name in family_names() if type(make_family(name)).__module__.startswith("metarl.envs.")]
    content = {"sources": _digest(), "families": {name: _describe(name) for name in own}}
    _KEPT.write_text(json.dumps(content | {"pretrained": _pretrained()}, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _kept() -> dict[str, Any]:
    """What `catalogue.json` holds, if its sources are those that lie here."""
    try:
        content: dict[str, Any] = json.loads(_KEPT.read_text("utf-8"))
        if content["sources"] == _digest():
            return content
    except (OSError, ValueError, KeyError, TypeError):
        pass  # it only saves time
    return {"families": {}, "pretrained": []}


def _digest() -> str:
    found = hashlib.blake2b(digest_size=16)
    for path in sorted(path for pattern in _SOURCES for path in _ROOT.glob(pattern)):
        found.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def _pretrained() -> list[dict[str, Any]]:
    from metarl.run.pretrained import describe_pretrained

    return describe_pretrained()


def _describe(name: str) -> dict[str, Any]:
    family = make_family(name)
    return {
        "name": name,
        "summary": (inspect.getdoc(type(family)) or "").split("\n")[0],
        "description": inspect.getdoc(type(family)) or "",
        "control_step": family.control_step,
        "episode_steps": family.episode_steps,
        "splits": list(family.space.splits),
        "observation": observation_table(family.observation),
        "parameters": [
            {
                "name": name,
                "unit": parameter.unit,
                "train": parameter.train.describe(),
                "ood": parameter.ood.describe() if parameter.ood is not None else None,
                "nominal": parameter.nominal,
                "help": parameter.help + (f": {', '.join(parameter.labels)}" if parameter.labels else ""),
            }
            for name, parameter in family.space.parameters.items()
        ],
    }


def print_catalogue(content: dict[str, Any], console: Console) -> None:
    """Tables for people; a single family is shown in full."""
    families = content["families"]
    if len(families) == 1:
        console.print(f"{families[0]['name']}\n\n{families[0]['description']}\n", markup=False, soft_wrap=True)
    table = Table(title="families and their task parameters", title_justify="left")
    for column in ("family", "parameter", "unit", "train and test", "ood"):
        table.add_column(column, no_wrap=column in ("family", "parameter", "unit"))
    for family in families:
        for number, parameter in enumerate(family["parameters"]):
            name = family["name"] if number == 0 else ""
            table.add_row(name, parameter["name"], parameter["unit"], parameter["train"], parameter["ood"] or "–")
        table.add_section()
    console.print(table)
    if len(families) == 1:
        if families[0]["observation"]:
            console.print(_observation(families[0]["observation"]))
        family = families[0]
        seconds = family["control_step"] * family["episode_steps"]
        for parameter in family["parameters"]:
            console.print(f"{parameter['name']}: {parameter['help']}", markup=False, soft_wrap=True)
        console.print(f"episode: {family['episode_steps']} steps of {family['control_step']} s, {seconds:g} s")
    else:
        for family in families:
            console.print(f"{family['name']}: {family['summary']}", markup=False, soft_wrap=True)
        console.print(f"agents: {', '.join(content['agents'])}")
        for entry in content["pretrained"]:
            first, last = (f"{entry['adaptation_curve'][k]['mean']:.0f}" for k in (0, -1))
            words = f"{entry['agent']} on {entry['family']}, return {first} in the first episode, {last} in the last"
            console.print(f"pretrained:{entry['name']}: {words}", markup=False, soft_wrap=True)


def _observation(rows: list[dict[str, str]]) -> Table:
    """The parts of an observation; an element's place is counted from the start of the vector that a policy sees."""
    table = Table(title="observation", title_justify="left")
    for column in ("index", "part", "unit", "what"):
        table.add_column(column, no_wrap=column != "what")
    for row in rows:
        what = "; ".join(filter(None, (row["help"], row["elements"])))
        table.add_row(row["index"], row["part"], row["unit"], what)
    return table


if __name__ == "__main__":
    keep()
