"""What there is: the families with their task parameters, the agents, and the policies that come with metarl."""

from __future__ import annotations

import inspect
from typing import Any

from rich.console import Console
from rich.table import Table

from metarl.core.registry import family_names, learner_names, make_family
from metarl.core.tasks import TaskSpace
from metarl.run.pretrained import describe_pretrained


def catalogue(family: str = "") -> dict[str, Any]:
    """Families (all, or the one named), agents and, with all, pretrained policies as plain data."""
    names = [family] if family else family_names()
    found = {"families": [_describe(name) for name in names], "agents": learner_names()}
    return found if family else found | {"pretrained": describe_pretrained()}


def _describe(name: str) -> dict[str, Any]:
    family = make_family(name)
    return {
        "name": name,
        "summary": (inspect.getdoc(type(family)) or "").split("\n")[0],
        "description": inspect.getdoc(type(family)) or "",
        "control_step": family.control_step,
        "episode_steps": family.episode_steps,
        "splits": list(family.space.splits),
        "parameters": _parameters(family.space),
    }


def _parameters(space: TaskSpace) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "unit": parameter.unit,
            "train": parameter.train.describe(),
            "ood": parameter.ood.describe() if parameter.ood is not None else None,
            "nominal": parameter.nominal,
            "help": parameter.help + (f": {', '.join(parameter.labels)}" if parameter.labels else ""),
        }
        for name, parameter in space.parameters.items()
    ]


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
