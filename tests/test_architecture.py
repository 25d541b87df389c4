"""Who may import whom: read from the source, so that the design cannot erode unnoticed."""

import ast
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent

CORE = {
    "core.distributions",
    "core.errors",
    "core.files",
    "core.graphs",
    "core.machine",
    "core.mirror",
    "core.renamed",
    "core.info",
    "core.seeding",
    "core.tasks",
    "core.types",
    "core.parameters",
    "core.config",
}
MODEL = CORE | {
    *("sim.family", "sim.observations", "sim.variations", "sim.disturbances", "sim.terrain", "sim.mujoco.physics"),
}
ENGINE = {"core", "sim", "rl", "run"}
ALLOWED = {
    "core": {"core"},
    "core/registry": {
        "core",
        "agents",
        "envs",
        "sim.external.metaworld_suite",
        "sim.declarations",
        "sim.extended",
        "sim.family",
        "rl.learner",
    },
    "sim": CORE | {"sim"},
    "rl": CORE | {"rl"},
    "run": ENGINE,
    "video": ENGINE | {"video"},
    "sysid": {"core", "sim", "sysid"},
    "check": ENGINE | {"check"},
    "bench": ENGINE | {"bench", "agents"},
    "export": ENGINE | {"export"},
    "export/runtime": set(),
    "sweeps": ENGINE | {"sweeps", "export.runtime"},
    "reports": ENGINE | {"video", "sweeps", "reports"},
    "hub": ENGINE | {"video", "export", "hub"},
    "viewer": ENGINE | {"video", "viewer"},
    "sketch": ENGINE | {"check", "sketch"},
    "cli": ENGINE | {"video", "check", "bench", "reports", "viewer", "export", "sketch", "sysid", "hub", "cli", "api"},
    "envs": MODEL | {"envs"},
    "agents": CORE | {"rl", "agents"},
    "experiments": ENGINE | {"video", "check", "reports", "hub", "sysid", "export", "api", "envs", "cli"},
}
"""What the modules of a folder may import of ours: whole folders, or modules of them. `core` knows nothing above it."""
FOLDERS = {path.stem for path in (ROOT / "metarl").iterdir()}
"""What `from metarl import ...` may name beside the public API."""
TOP = {"__init__", "__main__", "api", "gym"}
"""Modules that wire the house, and may import anything."""


def sources():
    for folder in ("metarl", "envs", "agents", "experiments"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).parts
            if parts[:2] not in (
                ("metarl", "envs"),
                ("metarl", "agents"),
                ("metarl", "pretrained"),
            ):  # the links to the folders themselves
                yield path, "/".join(parts[1:] if parts[0] == "metarl" else parts)


def imported(path):
    """Modules of ours that a file imports, without the leading `metarl.`; type-checking imports count too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("metarl"):
            module = node.module.removeprefix("metarl").removeprefix(".")
            if not module or (ROOT / "metarl" / module.replace(".", "/")).is_dir():
                names = (f"{module}.{alias.name}".strip(".") for alias in node.names)
                yield from (name if module or name in FOLDERS else "api" for name in names)
            else:
                yield module
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("metarl.") for a in node.names if a.name.startswith("metarl."))


@pytest.mark.parametrize(("path", "name"), list(sources()), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_follow_the_layers(path, name):
    layer = name.split("/")[0].removesuffix(".py")
    if layer in TOP:
        return
    places = [name.removesuffix(".py"), *map(str, PurePosixPath(name).parents), layer]
    allowed = next(ALLOWED[place] for place in places if place in ALLOWED)  # a new folder has to be placed first
    for module in imported(path):
        fits = any(module == entry or module.startswith(f"{entry}.") for entry in allowed)
        assert fits, f"{name} imports metarl.{module}"


def test_the_rule_sees_a_violation(tmp_path):
    """The test above can fail: a file of `rl` that imports the simulator is caught."""
    file = tmp_path / "bad.py"
    file.write_text(
        "from metarl.sim import make\nfrom metarl.sim.mujoco.cpu import CpuPhysics\nimport metarl.run.train\n"
    )
    found = list(imported(file))
    assert found == ["sim.make", "sim.mujoco.cpu", "run.train"]
    assert not any(module.split(".")[0] in ALLOWED["rl"] for module in found)


WHOLE = {"export/runtime/__init__.py": 700}
"""Longer by their purpose: what runs a policy is one file, which needs no other."""


def test_no_module_is_too_long_to_read():
    lines = {name: len(path.read_text().splitlines()) for path, name in sources()}
    assert not {name: found for name, found in lines.items() if found > WHOLE.get(name, 350)}
