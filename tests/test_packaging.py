"""The wheel as a stranger installs it: in a virtual environment of its own, used from another folder."""

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from metarl.run.pretrained import pretrained_names

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy, so that no build folder is left in the checkout or picked up from it
    skipped = shutil.ignore_patterns(".*", "build", "runs", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, symlinks=True, ignore=skipped)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, source], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """Interpreter of a fresh environment with the wheel; dependencies are borrowed from this one."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel]
    subprocess.run(install, check=True, capture_output=True)
    return folder / "bin" / "python"


def test_the_wheel_holds_each_package_once_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "metarl/envs/half_cheetah.py" in names
    assert "metarl/agents/rl2.py" in names
    assert "metarl/py.typed" in names
    assert "metarl/reports/report.css" in names
    assert "metarl/run/catalogue.json" in names
    for name in pretrained_names():
        for file in ("config.toml", "run.json", "eval/test.json", "eval/repeat.json"):
            assert f"metarl/pretrained/{name}/{file}" in names
    assert not [name for name in names if name.startswith(("envs/", "agents/", "tests/"))]


def test_metarl_list_works_from_another_folder(python, tmp_path):
    command = [python, "-m", "metarl.cli.main", "list", "--json", "list.json"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    (script,) = python.parent.parent.glob("lib/python*/site-packages/bin/metarl")
    subprocess.run([python, script, "list"], check=True, capture_output=True, cwd=tmp_path)
    families = json.loads((tmp_path / "list.json").read_text())["families"]
    assert {"half-cheetah-vel", "half-cheetah-dir", "half-cheetah-body"} <= {family["name"] for family in families}


def test_every_family_of_the_wheel_compiles(python, tmp_path):
    program = """
import metarl, metarl.core.registry as registry
from metarl.sim.mujoco.mujoco_env import compile_spec
print(metarl.__file__)
for name in registry.family_names():
    compile_spec(registry.make_family(name).spec())
"""
    result = subprocess.run([python, "-c", program], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert str(python.parent.parent) in result.stdout, "the checkout was imported instead of the wheel"


def test_a_visitor_has_a_pretrained_policy(python, tmp_path):
    name = pretrained_names()[0]
    words = ["eval", f"pretrained:{name}", "--num-tasks", "2", "--episodes", "1", "--json", "result.json"]
    subprocess.run([python, "-m", "metarl.cli.main", *words], check=True, capture_output=True, cwd=tmp_path)
    assert len(json.loads((tmp_path / "result.json").read_text())["returns"]) == 2
