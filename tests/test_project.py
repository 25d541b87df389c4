"""The habits of the project hold together: workflows call what there is, one version, one address, one benchmark."""

import importlib.util
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import metarl

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_what_there_is(path):
    jobs = yaml.safe_load(path.read_text())["jobs"]
    commands = "\n".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    asked = [target for words in re.findall(r"\bmake ([a-z -]+)", commands) for target in words.split()]
    assert set(asked) <= targets
    for script in re.findall(r"(\.ci/\w+|(?:docs|benchmarks|tests)/[\w/]+\.py)", commands):
        assert (ROOT / script).exists(), script


def test_the_pythons_that_are_promised_are_tested():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


def test_the_project_has_one_address_and_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["repository-code"] == URLS["Repository"] and "version" not in citation
    badges = [re.findall(r"colab.research.google.com/github/([\w./-]+)", path.read_text()) for path in NOTEBOOKS]
    for path, (found,) in zip(NOTEBOOKS, badges, strict=True):
        assert f"https://github.com/{found}" == f"{URLS['Repository']}/blob/main/{path.relative_to(ROOT)}"


NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))


def test_a_release_that_disagrees_is_refused(tmp_path):
    done = subprocess.run([ROOT / ".ci" / "version", "9.9.9"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.strip().endswith(f"metarl/__init__.py {metarl.__version__}")


def test_a_ratio_below_its_floor_is_told():
    spec = importlib.util.spec_from_file_location("track", ROOT / "benchmarks" / "track.py")
    track = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(track)
    known = json.loads(track.HISTORY.read_text().splitlines()[0])["ratios"]
    assert track.below(known) == []
    key = next(key for key in known if "TrialEnv" in key)
    assert track.below(known | {key: 0.5}) == [f"{key}: 0.50 of bare, at least 0.70 expected"]
