"""The page of a report: one HTML file without scripts that requests nothing from the network."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from metarl.reports.captions import (
    Content,
    adaptation_caption,
    comparison_sentence,
    control_sentence,
    error_caption,
    facts,
    headroom_sentence,
    interval,
    learning_caption,
    number,
    parameter_caption,
    recovery_caption,
    reward_caption,
)
from metarl.reports.charts import Palette, adaptation_figure, learning_figure, parameter_figure
from metarl.reports.moment_charts import (
    error_figure,
    recovered_figure,
    recovery_figure,
    reward_figure,
    surface_figure,
)

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
"""Makes the browser refuse every request and script, whatever a name contains."""
_HEADS = "seeds|episode 1|last episode|gained|adapts in|mean, last|worst tenth, last|steps|minutes"
_NOTE = (
    "Interquartile mean of the return over tasks and seeds, with its 95 % bootstrap interval over seeds and tasks. "
    "Gained: last minus first episode of the same task. Adapts in: the robot's time from which an episode's length "
    "returns 90 % of that gain; – where no gain is sure, nothing where it was not measured. Mean and worst tenth of "
    "the last episode: its mean return on all tasks, each seed's below it, and on the tenth of the tasks that went "
    "worst. Steps and minutes: of one training, with its gradient steps where they are known. Headroom: the return of "
    "the best oracle in the last episode, less that of the best memoryless policy."
)


def page(content: Content, videos: Sequence[tuple[str, str, Path]], more: Mapping[str, str] | None = None) -> str:
    """The content of the HTML file; `videos` are run, caption and file each, `more` are sections of others."""
    palette = Palette([[method["label"] for method in family["methods"]] for family in content["families"]])
    sections = {
        "Recovered": _recovered(content, palette),
        "Results": _results(content, palette),
        "Adaptation": _adaptation(content, palette),
        "Moments": _moments(content, palette),
        "Videos": _videos(videos),
        "Learning": _learning(content, palette),
        "Tasks": _tasks(content, palette),
        "Time": _time(content, palette),
        **(more or {}),
        "Configuration": _variants(content, palette) + "".join(_run(run) for run in content["runs"]),
    }
    remarks = "".join(f"<p>{escape(remark)}</p>" for remark in content["remarks"])
    return document(content["title"], facts(content), content["provenance"], sections, remarks)


def document(title: str, facts: str, origin: Content, sections: Mapping[str, str], remarks: str = "") -> str:
    """A whole HTML file of sections by their headings, of which empty ones are left out."""
    shown = {title: text for title, text in sections.items() if text}
    links = "".join(f'<a href="#{title.lower()}">{title}</a>' for title in shown)
    body = "".join(f'<section id="{t.lower()}"><h2>{t}</h2>{text}</section>' for t, text in shown.items())
    style = files("metarl.reports").joinpath("report.css").read_text(encoding="utf-8")
    made = (
        f"Made by metarl {origin['versions']['metarl-robotics']}, {origin['started'][:10]}, on "
        f"{origin['machine']['cpu']}, {origin['machine']['num_cpus']} CPUs"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)} · metarl</title><style>{style}</style></head><body>"
        f'<header><h1>{escape(title)}</h1><p>{escape(facts)}</p><p class="quiet">{escape(made)}. Every number of this '
        f"page is in the JSON file beside it.</p>{remarks and f'<div class=remarks>{remarks}</div>'}</header>"
        f"<nav><div>{links}</div></nav><main>{body}</main></body></html>\n"
    )


def _chip(label: str, palette: Palette) -> str:
    return f'<span class="chip" style="--of:{palette.variable(label)}"></span>{escape(label)}'


def legend(labels: Sequence[str], palette: Palette, *notes: str) -> str:
    """Methods with their colours, and what else stands in the figures."""
    items = [f"<li>{_chip(label, palette)}</li>" for label in labels]
    items += [f"<li class=quiet>{note}</li>" for note in notes if note]
    return f'<ul class="legend">{"".join(items)}</ul>'


def grid(figures: Sequence[str], kind: str = "") -> str:
    """Figures beside each other."""
    return f'<div class="{f"grid {kind}".strip()}">{"".join(figures)}</div>' if figures else ""


def figure(title: str, picture: str, caption: str = "") -> str:
    """A picture with its heading."""
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure><h4>{escape(title)}</h4>{picture}{words}</figure>"


def table(head: str, rows: str) -> str:
    """A table, which scrolls where it is too wide."""
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>{rows}</table></div>'


# ------------------------------------------------------------------------------------------------------- results


def _results(content: Content, palette: Palette) -> str:
    families = [family for family in content["families"] if _evaluations(family)]
    if not families:
        return ""
    rows = ""
    for family in families:
        name = f"{escape(family['name'])}<small>{escape(family['summary'])}</small>"
        lines = [_row(method, evaluation, palette) for method, evaluation in _evaluations(family)]
        rows += f'<tbody><tr><th colspan="10">{name}</th></tr>{"".join(lines)}</tbody>'
    note, found = _NOTE, [pair for family in families for pair in _evaluations(family)]
    if any(not evaluation["held_out"] for _, evaluation in found):
        note += " † The family has finitely many tasks: these are the ones it was trained on."
    first = sorted({method["agent"] for method, _ in found if method["samples_first"]})
    if first:
        note += (
            f" {' and '.join(map(escape, first))} has to sample before it adapts, also where the mean action is asked "
            "for: what it gains by adapting is the difference of episodes that are both sampled."
        )
    if failed := sum(evaluation["failed"] for _, evaluation in found):
        note += f" {failed} tasks failed, as their physics diverged: each counts as the worst of the others."
    listed = "".join(f"<li>{escape(comparison_sentence(f, one))}</li>" for f in families for one in f["comparisons"])
    better = f"<details><summary>Probability of improvement</summary><ul>{listed}</ul></details>" if listed else ""
    played = "".join(
        f"<li>{escape(control_sentence(method, evaluation, control))}</li>"
        for method, evaluation in found
        for control in evaluation["controls"]
    )
    controls = f"<h3>Controls</h3><ul>{played}</ul>" if played else ""
    head = '<th class="text">algorithm, tasks</th>' + "".join(f"<th>{name}</th>" for name in _HEADS.split("|"))
    return f'{table(head, rows)}<p class="quiet">{note}</p>{better}{controls}'


def _recovered(content: Content, palette: Palette) -> str:
    families = [family for family in content["families"] if family["headroom"]]
    if not families:
        return ""
    words = (
        "<p>What a method recovers of its family's headroom, which is what knowing the task is worth: 0 is the best "
        "memoryless policy, 100 % the best oracle. Last episode of the test tasks, with 95 % intervals over seeds and "
        "tasks; ticks are seeds.</p>"
    )
    placed = [f for f in families if any(own["value"] for own in f["headroom"]["recovered"].values())]
    drawn = f'<figure class="wide">{recovered_figure(placed, palette)}</figure>' if placed else ""
    rooms = "".join(f"<li>{escape(headroom_sentence(family))}</li>" for family in families)
    return f"{words}{drawn}<ul>{rooms}</ul>"


def _evaluations(family: Content) -> list[tuple[Content, Content]]:
    return [(method, evaluation) for method in family["methods"] for evaluation in method["evaluations"]]


def _row(method: Content, evaluation: Content, palette: Palette) -> str:
    last, times = evaluation["episodes"], evaluation["time_to_adapt"]
    surely = [time["seconds"] for time in times if time]
    adapts = _spread(surely, lambda value: f"{value:.3g}\N{NO-BREAK SPACE}s") if surely else "–" if times else ""
    cells = [
        str(len(evaluation["seeds"])),
        _cell(*interval(evaluation["iqm"][0])),
        _cell(*interval(evaluation["iqm"][-1]), f"episode {last}<br>" if last != 2 else ""),
        _cell(*interval(evaluation["gain"], signed=True)) if last > 1 and evaluation["gain"] else "–",
        adapts + (f"<small>{len(surely)} of {len(times)}</small>" if 0 < len(surely) < len(times) else ""),
        _cell(number(evaluation["mean"][-1]), _seeds(evaluation["by_seed"])),
        number(evaluation["worst_decile"]),
        _cell(_spread(method["steps"], _million), _gradient_steps(evaluation["gradient_steps"])),
        _spread(method["minutes"], lambda value: f"{value:.3g}"),
    ]
    tasks = f"{evaluation['tasks']} {evaluation['split']} tasks{'' if evaluation['held_out'] else ' †'}"
    tasks += ", sampled actions" if evaluation["actions"] == "sampled" else ""
    name = f'<td class="text">{_chip(method["label"], palette)}<small>{escape(tasks)}</small></td>'
    return f"<tr>{name}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _cell(value: str, bounds: str, before: str = "") -> str:
    return f"{value}<small>{before}{bounds}</small>"


def _seeds(means: Sequence[float]) -> str:
    return ", ".join(number(mean) for mean in means) if len(means) > 1 else ""


def _million(value: int | float) -> str:
    return f"{value / 1e6:.3g}\N{NO-BREAK SPACE}M"


def _gradient_steps(values: Sequence[int]) -> str:
    return f"{_spread(values, lambda value: f'{value:,}')} gradient" if all(values) else ""


def _spread(values: Sequence[int | float], form: Callable[[int | float], str]) -> str:
    low, high = form(min(values)), form(max(values))
    return low if low == high else f"{low} to {high}"


# ------------------------------------------------------------------------------------------------------- figures


def _adaptation(content: Content, palette: Palette) -> str:
    figures, sampled = [], ""
    for family in content["families"]:
        for split in dict.fromkeys(evaluation["split"] for _, evaluation in _evaluations(family)):
            svg = adaptation_figure(family, split, palette)
            figures.append(figure(f"{family['name']}, {split}", svg, adaptation_caption(family, split)))
        if any(evaluation["actions"] == "sampled" for _, evaluation in _evaluations(family)):
            sampled = "dashed: sampled actions"
    return legend(content["labels"], palette, "bars: 95 % intervals", sampled) + grid(figures) if figures else ""


def _moments(content: Content, palette: Palette) -> str:
    """What happens within an episode: reward, recovery from faults, and what a policy comes to believe."""
    kinds = (
        ("rewards", reward_figure, "the first seconds", reward_caption),
        ("recoveries", recovery_figure, "a fault in mid-episode", recovery_caption),
        ("errors", error_figure, "what it believes of its task", error_caption),
    )
    figures = [
        figure(f"{family['name']}: {what}", draw(family, palette), caption(family[key]))
        for family in content["families"]
        for key, draw, what, caption in kinds
        if family[key]
    ]
    notes = ("solid: first episode on a task", "dotted: last episode", "means over test tasks and seeds")
    return legend(content["labels"], palette, *notes) + grid(figures) if figures else ""


def _learning(content: Content, palette: Palette) -> str:
    families = [family for family in content["families"] if any(method["learning"] for method in family["methods"])]
    grids = [
        grid([figure(f["name"], learning_figure(f, over, palette), learning_caption(f)) for f in families], over)
        for over in ("steps", "minutes")
    ]
    notes = ("solid: last episode", "dotted: first episode", "thin lines and band: each seed, and their range")
    words = "<p>On training tasks, with the exploring policy: sampled actions, means of blocks of iterations.</p>"
    choice = (
        '<div class="choice"><input type="radio" name="over" id="by-steps" checked><label for="by-steps">control '
        'steps</label><input type="radio" name="over" id="by-minutes"><label for="by-minutes">minutes</label>'
    )
    return words + legend(content["labels"], palette, *notes) + choice + "".join(grids) + "</div>" if families else ""


def _tasks(content: Content, palette: Palette) -> str:
    figures = [
        figure(f"{family['name']}: {p['name']}", parameter_figure(family, p, palette), parameter_caption(p))
        for family in content["families"]
        for p in family["parameters"]
    ]
    notes = ("shaded: the training range", "dots: test tasks", "diamonds: ood tasks", "lines: means, dotted episode 1")
    words = "<p>Return of the last episode on each task, mean over seeds, against what makes the task.</p>"
    maps = [
        figure(f"{family['name']}: {one['label']}", surface_figure(family, number))
        for family in content["families"]
        if family["surface"]
        for number, one in enumerate(family["surface"]["maps"])
    ]
    over = (
        "<h3>Over two parameters at once</h3><p>The two on which return depends most, test and ood tasks; empty: no "
        "task there.</p>"
    )
    both = over + grid(maps) if maps else ""
    return words + legend(content["labels"], palette, *notes) + grid(figures) + both if figures else ""


def _videos(videos: Sequence[tuple[str, str, Path]]) -> str:
    figures = []
    for name, caption, path in videos:
        film = (
            f'<video controls muted loop playsinline preload="auto" aria-label="{escape(name)}: {escape(caption)}" '
            f'src="data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"></video>'
        )
        figures.append(figure(name, film, caption))
    return grid(figures)


# --------------------------------------------------------------------------------------- time and configuration


def _time(content: Content, palette: Palette) -> str:
    methods = [(family, method) for family in content["families"] for method in family["methods"]]
    blocks = "".join(_time_of(family, method, palette) for family, method in methods if method["steps_per_second"])
    words = "<p>Share of the training time, on one machine, all seeds of an algorithm together.</p>"
    return words + blocks if blocks else ""


def _time_of(family: Content, method: Content, palette: Palette) -> str:
    rate = f"{sum(method['minutes']):.3g} min, {method['steps_per_second']:,.0f} control steps per second"
    spans, words = [], []
    for place, (key, share) in enumerate((k, v) for k, v in (method["time"] or {}).items() if v >= 0.001):
        name = "everything else" if key == "else" else escape(key.replace("_", " "))
        text = f"{name} {100 * share:.0f} %"
        look, shown = f"t{5 if key == 'else' else min(place, 4)}", text if share > 0.16 else ""
        spans.append(f'<span class="{look}" style="flex:{share:.4f}" title="{text}">{shown}</span>')
        words.append(text if share >= 0.005 else f"{name} under 1 %")
    rate += "" if spans else "; its stages were not timed"
    head = f"<p>{_chip(method['label'], palette)} on {escape(family['name'])} <small>{rate}</small></p>"
    bar = f'<div class="bar">{"".join(spans)}</div><small>{", ".join(words)}</small>' if spans else ""
    return f'<div class="time">{head}{bar}</div>'


def _variants(content: Content, palette: Palette) -> str:
    """A list of the options in which the configurations of an algorithm differ."""
    items = [
        f"<li>{_chip(m['label'], palette)}: {escape(', '.join(f'{k} = {v}' for k, v in m['differs'].items()))}</li>"
        for family in content["families"]
        for m in family["methods"]
        if m["differs"]
    ]
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
    for n, again in enumerate(origin.get("resumed", []), start=1):
        after = f"after iteration {again.get('after_iteration', '?')}"
        entries[f"resumed {n}"] = f"{again.get('command', '')}, {again.get('started', '')}, {after}"
    terms = "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in entries.items() if value)
    rows = "".join(
        f'<tr><td class="text"><code>{escape(e["file"])}</code></td><td>{e["train_steps"]:,}</td>'
        f"<td>{' → '.join(number(value) for value in e['mean'])}</td></tr>"
        for e in run["evaluations"]
    )
    head = '<th class="text">evaluation</th><th>after steps</th><th>mean return by episode</th>'
    evaluated = table(head, f"<tbody>{rows}</tbody>") if rows else ""
    what = escape(f"{run['agent']} on {run['family']}, seed {run['seed']}")
    title = f"{escape(run['name'])} <span class=quiet>{what}</span>"
    return f"<details><summary>{title}</summary><dl>{terms}</dl>{evaluated}<pre>{escape(run['toml'])}</pre></details>"
