"""Who may import whom: read from the source, so that the design cannot erode unnoticed."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

BASE = {"distributions", "errors", "seeding", "tasks", "types"}
ALLOWED = {
    "sim": BASE | {"sim"},
    "rl": BASE | {"rl"},
    "run": BASE | {"sim", "rl", "run", "config", "registry", "search"},
    "envs": BASE | {"envs", "sim.family", "sim.physics", "sim.variations", "sim.terrain"},
    "agents": BASE | {"agents", "rl", "config", "search"},
    "tasks": BASE,
    "types": BASE,
    "seeding": BASE,
    "distributions": {"errors"},
    "search": {"errors"},
    "errors": set(),
}
EXCEPTIONS = {
    ("bench/learners.py", "agents.configs"),  # the benchmark measures learners by name
    ("bench/learners.py", "agents.maml_trpo"),
    ("bench/learners.py", "agents.pearl"),
    ("bench/learners.py", "agents.rl2"),
    ("bench/plain_pearl.py", "agents.configs"),
}


def sources():
    for folder in ("metarl", "envs", "agents"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).parts
            if parts[:2] not in (("metarl", "envs"), ("metarl", "agents")):  # the links to the folders themselves
                yield path, "/".join(parts[1:] if parts[0] == "metarl" else parts)


def imported(path):
    """Modules of ours that a file imports, without the leading `metarl.`; type-checking imports count too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("metarl"):
            module = node.module.removeprefix("metarl").removeprefix(".")
            if not module or (ROOT / "metarl" / module.replace(".", "/")).is_dir():
                yield from (f"{module}.{alias.name}".strip(".") for alias in node.names)
            else:
                yield module
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("metarl.") for a in node.names if a.name.startswith("metarl."))


@pytest.mark.parametrize(("path", "name"), list(sources()), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_follow_the_layers(path, name):
    layer = name.split("/")[0].removesuffix(".py")
    allowed = ALLOWED.get(layer)
    if allowed is None:  # cli, options, config, registry: the top, which wires everything
        return
    for module in imported(path):
        fits = any(module == entry or module.startswith(f"{entry}.") for entry in allowed)
        assert fits or (name, module) in EXCEPTIONS, f"{name} imports metarl.{module}"


def test_the_rule_sees_a_violation(tmp_path):
    """The test above can fail: a file of `rl` that imports the simulator is caught."""
    file = tmp_path / "bad.py"
    file.write_text("from metarl.sim import trials\nfrom metarl.sim.cpu import CpuPhysics\nimport metarl.run.train\n")
    found = list(imported(file))
    assert found == ["sim.trials", "sim.cpu", "run.train"]
    assert not any(module.split(".")[0] in ALLOWED["rl"] for module in found)


def test_no_module_is_too_long_to_read():
    long = {name: lines for path, name in sources() if (lines := len(path.read_text().splitlines())) > 350}
    assert not long
