"""How Sphinx builds the documentation: `make docs`, offline, with warnings as errors.

Generated are the API reference from docstrings, the command line from `--help`, and llms.txt from the pages.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import itertools
import os
import re
import sys
import textwrap
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]
os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}

import robots  # noqa: E402

import metarl  # noqa: E402
from metarl.cli.main import VERBS, main  # noqa: E402

project, author, copyright = "metarl", "the metarl authors", "Apache-2.0"
version = release = metarl.__version__
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme, html_title = "furo", f"metarl {release}"
html_extra_path = ["_generated/llms.txt"]
html_static_path, html_css_files = ["_static"], ["tables.css"]
html_theme_options = {"source_repository": URLS["Repository"], "source_branch": "main", "source_directory": "docs/"}
templates_path = ["_templates"]
html_sidebars = {
    "**": [
        *("sidebar/brand.html", "sidebar/search.html", "sidebar/scroll-start.html", "sidebar/navigation.html"),
        *("versions.html", "sidebar/scroll-end.html"),
    ]
}
exclude_patterns = ["_build", "_templates", "conf.py", "_generated/llms.txt"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath", "colon_fence"]
suppress_warnings = ["myst.xref_missing"]  # pages link to files of the repository, as they are read there too
autodoc_typehints, autodoc_member_order = "signature", "bysource"
nitpicky = False

MODULES = {
    "What one does": ("metarl.api", "metarl.sketch.sketch"),
    "Tasks": ("metarl.core.tasks", "metarl.core.distributions", "metarl.core.info"),
    "Families": ("metarl.sim.family", "metarl.sim.external.external_env"),
    "Variations": ("metarl.sim.variations", "metarl.sim.actuation", "metarl.sim.motor_faults", "metarl.sim.joints",
                   "metarl.sim.links"),
    "Disturbances": ("metarl.sim.disturbances",),
    "Worlds": ("metarl.sim.env", "metarl.sim.mujoco.physics", "metarl.sim.adapters.gymnasium",
               "metarl.sim.adapters.stable_baselines3"),
    "Policies and learners": ("metarl.rl.policy", "metarl.rl.session", "metarl.rl.learner", "metarl.core.types"),
    "Hyperparameters": ("metarl.core.config", "metarl.agents.configs", "metarl.agents.baseline_configs"),
    "Runs and records": ("metarl.run.run", "metarl.run.records", "metarl.run.statistics"),
}  # fmt: skip
"""The API reference, page by page."""


def field_docs(cls: type) -> dict[str, str]:
    """The docstring under each field of a class, which Python throws away."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return {}
    body = next((node.body for node in tree.body if isinstance(node, ast.ClassDef)), [])
    found = {}
    for line, below in itertools.pairwise(body):
        target = getattr(line, "target", None) or (getattr(line, "targets", None) or [None])[0]
        text = getattr(getattr(below, "value", None), "value", None)
        if isinstance(target, ast.Name) and isinstance(below, ast.Expr) and isinstance(text, str):
            found[target.id] = " ".join(text.split())
    return found


def write(path: Path, text: str) -> None:
    """Only where it differs, so that a second build has nothing to do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def generate() -> None:
    """Write what is generated into `_generated`."""
    place = HERE / "_generated"
    pages = []
    for title, modules in MODULES.items():
        name = title.lower().replace(" ", "-")
        lines = [f"# {title}", ""]
        for module in modules:
            importlib.import_module(module)
            lines += [f"## {module}", "", "```{eval-rst}", f".. automodule:: {module}", "   :members:", "```", ""]
        write(place / "api" / f"{name}.md", "\n".join(lines))
        pages.append(f"{name}")
    write(place / "api" / "index.md", "# Python\n\n```{toctree}\n" + "\n".join(pages) + "\n```\n")
    lines = ["# Command line", "", "What `metarl --help` and `metarl VERB --help` say.", ""]
    for verb in ("", *VERBS):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            main([*([verb] if verb else []), "--help"])
        shown = re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue()).rstrip()
        lines += [f"## metarl {verb}".rstrip(), "", "```text", shown, "```", ""]
    write(place / "cli.md", "\n".join(lines))
    for path, text in robots.pages(place / "robots", (HERE / "families.md").read_text()):
        write(path, text)
    security = (ROOT / "SECURITY.md").read_text().replace("](docs/", "](../")
    write(place / "security.md", security)
    write(place / "llms.txt", llms())


def llms() -> str:
    """The pages in plain text for language models (llmstxt.org): what metarl is, and every page with its first line."""
    lines = [
        "# metarl",
        "",
        "> Meta-reinforcement learning for robots: policies that adapt to unknown tasks.",
        "",
        "## Pages",
        "",
    ]
    for page in sorted(HERE.glob("*.md")):
        text = page.read_text()
        title = next((line[2:] for line in text.splitlines() if line.startswith("# ")), page.stem)
        prose = [line for line in text.splitlines()[1:] if line and line[0].isalpha()]
        lines.append(f"- [{title}]({page.stem}.html): {prose[0] if prose else ''}")
    made = {"Robots": "robots/index", "Security": "security", "Command line": "cli", "Python": "api/index"}
    return "\n".join([*lines, *(f"- [{title}](_generated/{page}.html)" for title, page in made.items()), ""])


def _readable(app, what, name, obj, options, lines):
    """Docstrings are plain English with code in backticks: say so to reStructuredText; and show those of fields."""
    text, fenced, quoted = [], False, False
    for line in lines:
        if line.strip().startswith("```"):
            fenced = not fenced
            text += ["::", ""] if fenced else [""]
            continue
        starts = what == "module" and line.startswith("    ") and not fenced and not quoted
        text += ["::", ""] if starts else []
        quoted = what == "module" and (line.startswith("    ") or (quoted and not line.strip()))
        text.append(f"    {line}" if fenced else line if quoted else _escaped(line))
    fields = field_docs(obj) if what == "class" else {}
    lines[:] = [*text, "", *(f":ivar {field}: {_escaped(words)}" for field, words in fields.items())]


def _escaped(line: str) -> str:
    """Code as code, and nothing else that reStructuredText takes for markup."""
    parts = re.split(r"(`+[^`]+`+)", line)
    parts[1::2] = [f"``{code.strip('`')}``" for code in parts[1::2]]
    parts[::2] = [re.sub(r"([*|\\]|_(?=\W|$))", r"\\\1", words) for words in parts[::2]]
    return "".join(parts)


def _to_the_repository(app, name, source):
    """Links to files beside docs/ lead to the repository; those to the page on security to our copy of it."""
    found = source[0].replace("](../SECURITY.md)", f"]({'../' * name.count('/')}_generated/security.md)")
    source[0] = re.sub(r"(?<!\!)(\[[^\]]*\])\(\.\./([^)]+)\)", rf"\1({URLS['Repository']}/blob/main/\2)", found)


def setup(app):
    """Generate ahead of reading."""
    app.connect("source-read", _to_the_repository)
    app.connect("autodoc-process-docstring", _readable, priority=400)
    generate()
