"""The model card: what a policy is, what it was measured to do, what it observes, and how it was made."""

from __future__ import annotations

from pathlib import Path

from metarl.core.files import write_atomic
from metarl.run.records import EvaluationRecord
from metarl.run.run import Run, short

CURVE, FILM = "adaptation.svg", "adaptation.webp"


def card(run: Run, record: EvaluationRecord, title: str) -> str:
    """The page in Markdown, with the front matter that the Hub reads."""
    info, how = run.info, run.provenance()
    family = short(record.family)
    lines = [
        "---",
        "library_name: metarl",
        "pipeline_tag: reinforcement-learning",
        f"tags: [metarl, meta-reinforcement-learning, robotics, mujoco, {short(record.agent)}, {family}]",
        "---",
        f"# {title}",
        "",
        f"A robot policy that was meta-trained by `{short(record.agent)}` on `{family}`, and adapts to its task by an "
        "adaptation state. Nothing here is pickled: weights are safetensors, the rest is JSON, TOML and text.",
        "",
        *([f"![The policy adapting to an unknown task]({FILM})", ""] if (run.path / FILM).exists() else []),
        "## Use",
        "",
        "```",
        f"metarl pull {title} -o policy",
        "metarl eval policy",
        "metarl video policy",
        "```",
        "",
        "`bundle/` is the same without metarl: `metarl deploy policy/bundle`, or its NumPy, C and ONNX programs."
        if (run.path / "bundle").is_dir()
        else "",
        "",
        "## What it was measured to do",
        "",
        f"Return of each episode of a trial on {len(record.tasks)} held-out tasks, mean and 95 % interval, "
        f"{'mean' if record.deterministic else 'sampled'} actions.",
        "",
        f"![Adaptation curve]({CURVE})",
        "",
        "| episode | return |",
        "|---|---|",
    ]
    for episode, point in enumerate(record.summary.adaptation_curve, start=1):
        lines.append(f"| {episode} | {point.value:.1f} [{point.low:.1f}, {point.high:.1f}] |")
    lines += [
        "",
        "## Tasks it was trained for",
        "",
        "| parameter | unit | training range | nominal |",
        "|---|---|---|---|",
    ]
    for own in info.parameters:
        lines.append(f"| {own.name} | {own.unit} | {own.train} | {'' if own.nominal is None else own.nominal} |")
    lines += ["", "Outside these ranges nothing is promised.", "", "## What it observes and commands", ""]
    lines += ["| part | size | unit | elements |", "|---|---|---|---|"]
    for part in info.observation:
        lines.append(f"| {part.name} | {part.size} | {part.unit} | {', '.join(part.elements)} |")
    lines += ["", f"Every {info.control_step:g} s, an action in [-1, 1] for each of: {', '.join(info.actions)}.", ""]
    lines += ["## How it was made", "", "```", str(how.get("command", "not recorded")), "```", ""]
    versions = ", ".join(f"{name} {number}" for name, number in how.get("versions", {}).items())
    seconds = f"{record.train_seconds / 60:.0f} min" if record.train_seconds else "unknown time"
    machine = how.get("machine", {})
    where = f"{machine.get('cpu', 'unknown CPU')}, {machine.get('num_cpus', '?')} cores"
    lines += [f"{record.train_steps:,} steps, seed {record.train_seed}, {seconds} on {where}; {versions}.", ""]
    return "\n".join(lines)


def draw_curve(record: EvaluationRecord, path: Path) -> None:
    """Draw the adaptation curve with its intervals, as SVG without a plotting library."""
    points = record.summary.adaptation_curve
    low, high = min(point.low for point in points), max(point.high for point in points)
    span = (high - low) or 1.0
    wide, tall, edge = 480, 240, 56

    def x(k: int) -> float:
        return edge + (wide - 2 * edge) * (k / (len(points) - 1) if len(points) > 1 else 0.5)

    def y(value: float) -> float:
        return tall - edge + 16 - (tall - 2 * edge + 16) * (value - low) / span

    line = " ".join(f"{x(k):.1f},{y(point.value):.1f}" for k, point in enumerate(points))
    marks = [
        f'<line x1="{x(k):.1f}" x2="{x(k):.1f}" y1="{y(point.low):.1f}" y2="{y(point.high):.1f}" stroke="#9ab"/>'
        f'<circle cx="{x(k):.1f}" cy="{y(point.value):.1f}" r="4" fill="#246"/>'
        f'<text x="{x(k):.1f}" y="{tall - 22}" text-anchor="middle">{k + 1}</text>'
        for k, point in enumerate(points)
    ]
    scale = [f'<text x="{edge - 10}" y="{y(v) + 4:.1f}" text-anchor="end">{v:.0f}</text>' for v in (low, high)]
    write_atomic(
        path,
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {tall}" font-family="sans-serif" font-size="12">'
        f'<rect width="{wide}" height="{tall}" fill="white"/>'
        f'<polyline points="{line}" fill="none" stroke="#246" stroke-width="2"/>{"".join(marks)}{"".join(scale)}'
        f'<text x="{wide / 2}" y="{tall - 6}" text-anchor="middle">episode</text>'
        f'<text x="{edge - 10}" y="16" text-anchor="start">return</text></svg>\n',
    )
