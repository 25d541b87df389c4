"""A report's page: one HTML file without a script, which asks the network for nothing."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from metarl.report.captions import (
    adaptation_caption,
    comparison_sentence,
    facts,
    interval,
    learning_caption,
    number,
    parameter_caption,
)
from metarl.report.figures import Palette, adaptation_figure, learning_figure, parameter_figure
from metarl.report.methods import SAMPLES_FIRST

Content = Mapping[str, Any]
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
"""The browser's own guarantee that nothing is fetched and no script runs, whatever a name contains."""
_STAGES = 6


def page(content: Content, videos: Sequence[tuple[str, str, Path]]) -> str:
    """The whole file; `videos` are run, caption and file."""
    palette = Palette([[method["label"] for method in family["methods"]] for family in content["families"]])
    sections: list[tuple[str, str, str]] = [
        ("results", "Results", _results(content, palette)),
        ("adaptation", "Adaptation", _adaptation(content, palette)),
        ("videos", "Videos", _videos(videos)),
        ("learning", "Learning", _learning(content, palette)),
        ("tasks", "Tasks", _tasks(content, palette)),
        ("time", "Time", _time(content, palette)),
        ("configuration", "Configuration", _configuration(content, palette)),
    ]
    shown = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title, _ in shown)
    body = "".join(f'<section id="{name}"><h2>{title}</h2>{text}</section>' for name, title, text in shown)
    style = files("metarl.report").joinpath("report.css").read_text(encoding="utf-8")
    title = escape(content["title"])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{title} · metarl</title><style>{style}</style></head><body>"
        f"<header><h1>{title}</h1><p>{escape(facts(content))}</p>{_origin(content)}{_remarks(content)}</header>"
        f"<nav><div>{links}</div></nav><main>{body}</main></body></html>\n"
    )


def _origin(content: Content) -> str:
    origin = content["provenance"]
    machine = origin["machine"]
    where = f"{machine['cpu']}, {machine['num_cpus']} CPUs"
    made = f"metarl {origin['versions']['metarl-robotics']}, {origin['started'][:10]}, on {where}"
    return f'<p class="quiet">Report by {escape(made)}. Every number of this page is in the JSON file beside it.</p>'


def _remarks(content: Content) -> str:
    words = "".join(f"<p>{escape(remark)}</p>" for remark in content["remarks"])
    return f'<div class="remarks">{words}</div>' if words else ""


def _legend(labels: Sequence[str], palette: Palette, *notes: str) -> str:
    items = [f"<li>{_chip(label, palette)}</li>" for label in labels]
    return f'<ul class="legend">{"".join(items)}{"".join(f"<li class=quiet>{note}</li>" for note in notes)}</ul>'


def _chip(label: str, palette: Palette) -> str:
    return f'<span class="chip" style="--of:{palette.variable(label)}"></span>{escape(label)}'


def _figure(title: str, svg: str, caption: str = "") -> str:
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure><h4>{escape(title)}</h4>{svg}{words}</figure>"


# ------------------------------------------------------------------------------------------------------- results


def _results(content: Content, palette: Palette) -> str:
    rows = "".join(_result_rows(family, palette) for family in content["families"] if _evaluations(family))
    if not rows:
        return ""
    heads = (
        "seeds",
        "episode 1",
        "last episode",
        "gained",
        "adapts in",
        "mean, last",
        "worst tenth, last",
        "steps",
        "minutes",
    )
    head = "".join(f"<th>{name}</th>" for name in heads)
    note = (
        "Interquartile mean of the return over tasks and seeds, with its 95 % bootstrap interval (tasks resampled "
        "within each seed). Gained: last minus first episode of the same task. Adapts in: the robot's time from which "
        "an episode's length returns 90 % of that gain; – where no gain is sure, nothing where it was not measured. "
        "Mean and worst tenth of the last episode: its mean return on all tasks, and on the tenth of them that went "
        "worst. Steps and minutes: of one training."
    )
    if any(not e["held_out"] for family in content["families"] for e in _evaluations(family)):
        note += " † The family has finitely many tasks: these are the ones it was trained on."
    if any(method["agent"] in SAMPLES_FIRST for family in content["families"] for method in family["methods"]):
        note += (
            f" {' and '.join(SAMPLES_FIRST)} has to sample before it adapts, also where the mean action is asked for: "
            "what it gains by adapting is in its rows of sampled actions."
        )
    sentences = [
        comparison_sentence(family, found) for family in content["families"] for found in family["comparisons"]
    ]
    listed = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    better = f"<h3>Probability of improvement</h3><ul>{listed}</ul>" if sentences else ""
    table = f'<table><thead><tr><th class="text">algorithm, tasks</th>{head}</tr></thead>{rows}</table>'
    return f'<div class="scroll">{table}</div><p class="quiet">{note}</p>{better}'


def _evaluations(family: Content) -> list[Content]:
    return [evaluation for method in family["methods"] for evaluation in method["evaluations"]]


def _result_rows(family: Content, palette: Palette) -> str:
    rows = "".join(_row(method, e, palette) for method in family["methods"] for e in method["evaluations"])
    name = f"{escape(family['name'])}<small>{escape(family['summary'])}</small>"
    return f'<tbody><tr><th colspan="10">{name}</th></tr>{rows}</tbody>'


def _row(method: Content, evaluation: Content, palette: Palette) -> str:
    tasks = f"{evaluation['tasks']} {evaluation['split']} tasks{'' if evaluation['held_out'] else ' †'}"
    actions = ", sampled actions" if evaluation["actions"] == "sampled" else ""
    last = evaluation["episodes"]
    cells = [
        str(len(evaluation["seeds"])),
        _interval_cell(evaluation["iqm"][0]),
        _interval_cell(evaluation["iqm"][-1], f"episode {last}<br>" if last != 2 else ""),
        _interval_cell(evaluation["gain"], signed=True) if last > 1 else "–",
        _adapts(evaluation["time_to_adapt"]),
        number(evaluation["mean"][-1]),
        number(evaluation["worst_decile"]),
        _spread(method["steps"], lambda value: f"{value / 1e6:.3g}\N{NO-BREAK SPACE}M"),
        _spread(method["minutes"], lambda value: f"{value:.3g}"),
    ]
    name = f'<td class="text">{_chip(method["label"], palette)}<small>{escape(tasks + actions)}</small></td>'
    return f"<tr>{name}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _interval_cell(point: Content, before: str = "", signed: bool = False) -> str:
    value, bounds = interval(point, signed)
    return f"{value}<small>{before}{bounds}</small>"


def _adapts(times: Sequence[Mapping[str, float] | None]) -> str:
    """`4.2 s`, with how many of several seeds it is of where some do not surely gain; nothing where none was timed."""
    if not times:
        return ""
    found = [time["seconds"] for time in times if time]
    some = f"<small>{len(found)} of {len(times)}</small>" if found and len(found) < len(times) else ""
    return _spread(found, lambda value: f"{value:.3g}\N{NO-BREAK SPACE}s") + some if found else "–"


def _spread(values: Sequence[int | float], form: Callable[[int | float], str]) -> str:
    low, high = form(min(values)), form(max(values))
    return low if low == high else f"{low} to {high}"


# ------------------------------------------------------------------------------------------------------- figures


def _adaptation(content: Content, palette: Palette) -> str:
    figures, sampled = [], False
    for family in content["families"]:
        for split in dict.fromkeys(evaluation["split"] for evaluation in _evaluations(family)):
            svg = adaptation_figure(family, split, palette)
            figures.append(_figure(f"{family['name']}, {split}", svg, adaptation_caption(family, split)))
        sampled |= any(evaluation["actions"] == "sampled" for evaluation in _evaluations(family))
    if not figures:
        return ""
    notes = ["bars: 95 % intervals", *(["dashed: sampled actions"] if sampled else [])]
    return _legend(content["labels"], palette, *notes) + f'<div class="grid">{"".join(figures)}</div>'


def _learning(content: Content, palette: Palette) -> str:
    grids = []
    for over in ("steps", "minutes"):
        figures = [
            _figure(family["name"], learning_figure(family, over, palette), learning_caption(family))
            for family in content["families"]
            if any(method["learning"] for method in family["methods"])
        ]
        grids.append(f'<div class="grid {over}">{"".join(figures)}</div>')
        if not figures:
            return ""
    notes = ("solid: last episode", "dotted: first episode", "thin lines and band: each seed, and their range")
    choice = (
        '<div class="choice"><input type="radio" name="over" id="by-steps" checked><label for="by-steps">control '
        'steps</label><input type="radio" name="over" id="by-minutes"><label for="by-minutes">minutes</label>'
    )
    words = "<p>On training tasks, with the exploring policy: sampled actions, means of blocks of iterations.</p>"
    return words + _legend(content["labels"], palette, *notes) + choice + "".join(grids) + "</div>"


def _tasks(content: Content, palette: Palette) -> str:
    figures = [
        _figure(f"{family['name']}: {p['name']}", parameter_figure(family, p, palette), parameter_caption(p))
        for family in content["families"]
        for p in family["parameters"]
    ]
    if not figures:
        return ""
    notes = ("shaded: the training range", "dots: test tasks", "diamonds: ood tasks", "lines: means, dotted episode 1")
    words = "<p>Return of the last episode on each task, mean over seeds, against what makes the task.</p>"
    return words + _legend(content["labels"], palette, *notes) + f'<div class="grid">{"".join(figures)}</div>'


def _videos(videos: Sequence[tuple[str, str, Path]]) -> str:
    figures = []
    for name, caption, path in videos:
        data = base64.b64encode(path.read_bytes()).decode()
        film = (
            f'<video controls muted loop playsinline preload="auto" aria-label="{escape(name)}: {escape(caption)}" '
            f'src="data:video/mp4;base64,{data}"></video>'
        )
        figures.append(_figure(name, film, caption))
    return f'<div class="grid">{"".join(figures)}</div>' if figures else ""


# --------------------------------------------------------------------------------------- time and configuration


def _time(content: Content, palette: Palette) -> str:
    methods = [(family, method) for family in content["families"] for method in family["methods"]]
    blocks = "".join(_time_of(family, method, palette) for family, method in methods if method["steps_per_second"])
    words = "<p>Share of the training time, on one machine, all seeds of an algorithm together.</p>"
    return words + blocks if blocks else ""


def _time_of(family: Content, method: Content, palette: Palette) -> str:
    total = sum(method["minutes"])
    rate = f"{total:.3g} min, {method['steps_per_second']:,.0f} control steps per second"
    rate += "" if method["time"] else "; its stages were not timed"
    head = f"<p>{_chip(method['label'], palette)} on {escape(family['name'])} <small>{rate}</small></p>"
    if not method["time"]:
        return f'<div class="time">{head}</div>'
    named = [(name.replace("_", " "), share) for name, share in method["time"].items() if share >= 0.001]
    named = [("everything else" if name == "else" else name, share) for name, share in named]
    spans, words = [], []
    for place, (name, share) in enumerate(named):
        text = f"{escape(name)} {100 * share:.0f} %"
        shown = text if share > 0.16 else ""
        look = f"t{5 if name == 'everything else' else min(place, _STAGES - 2)}"
        spans.append(f'<span class="{look}" style="flex:{share:.4f}" title="{text}">{shown}</span>')
        words.append(text if share >= 0.005 else f"{escape(name)} under 1 %")
    return f'<div class="time">{head}<div class="bar">{"".join(spans)}</div><small>{", ".join(words)}</small></div>'


def _configuration(content: Content, palette: Palette) -> str:
    return _variants(content, palette) + "".join(_run(run) for run in content["runs"])


def _variants(content: Content, palette: Palette) -> str:
    """Where an algorithm ran in several configurations: what differs."""
    items = []
    for family in content["families"]:
        for method in family["methods"]:
            if method["differs"]:
                words = ", ".join(f"{key} = {value}" for key, value in method["differs"].items())
                items.append(f"<li>{_chip(method['label'], palette)}: {escape(words)}</li>")
    return f"<p>Options in which an algorithm's configurations differ:</p><ul>{''.join(items)}</ul>" if items else ""


def _run(run: Content) -> str:
    origin = run["provenance"]
    entries = {
        "command": origin.get("command", ""),
        "started": origin.get("started", ""),
        "trained": f"{run['train_steps']:,} steps in {run['train_seconds'] / 60:.1f} min",
        "commit": origin.get("git_commit") or "",
        "versions": ", ".join(f"{name} {value}" for name, value in origin.get("versions", {}).items()),
        "machine": ", ".join(map(str, origin.get("machine", {}).values())),
        "folder": run["path"],
    }
    entries |= {f"resumed {n}": _resumed(again) for n, again in enumerate(origin.get("resumed", []), start=1)}
    terms = "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in entries.items() if value)
    rows = "".join(
        f'<tr><td class="text"><code>{escape(e["file"])}</code></td><td>{e["train_steps"]:,}</td>'
        f"<td>{' → '.join(number(value) for value in e['mean'])}</td></tr>"
        for e in run["evaluations"]
    )
    head = '<thead><tr><th class="text">evaluation</th><th>after steps</th><th>mean return by episode</th></tr></thead>'
    table = f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>' if rows else ""
    what = escape(f"{run['agent']} on {run['family']}, seed {run['seed']}")
    title = f"{escape(run['name'])} <span class=quiet>{what}</span>"
    return f"<details><summary>{title}</summary><dl>{terms}</dl>{table}<pre>{escape(run['toml'])}</pre></details>"


def _resumed(again: Content) -> str:
    return (
        f"{again.get('command', '')}, {again.get('started', '')}, after iteration {again.get('after_iteration', '?')}"
    )
