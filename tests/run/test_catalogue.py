"""What `metarl list` says, and that it says it without the time it takes to import torch."""

import json
import subprocess
import sys

import pytest
from families import ALL_FAMILIES, Rail

from metarl.cli.main import main
from metarl.core.info import Part
from metarl.core.registry import make_family
from metarl.core.tasks import Parameter, TaskSpace, Uniform
from metarl.run import catalogue


def test_what_is_kept_is_what_there_is(monkeypatch):
    """After a change of families, parts or pretrained policies: python -m metarl.run.catalogue."""
    kept = catalogue._kept()
    assert kept["families"], "catalogue.json is out of date: run python -m metarl.run.catalogue"
    monkeypatch.setattr(catalogue, "_kept", lambda: {"families": {}, "pretrained": []})
    fresh = json.loads(json.dumps(catalogue.catalogue()))
    assert [kept["families"][family["name"]] for family in fresh["families"]] == fresh["families"]
    assert kept["pretrained"] == fresh["pretrained"]


def test_a_changed_source_or_a_damaged_file_is_no_reason_to_fail(monkeypatch, tmp_path):
    monkeypatch.setattr(catalogue, "_digest", lambda: "another")
    assert catalogue._kept() == {"families": {}, "pretrained": []}
    monkeypatch.setattr(catalogue, "_KEPT", tmp_path / "catalogue.json")
    for content in ("{", "[]", "{}"):
        (tmp_path / "catalogue.json").write_text(content)
        assert catalogue._kept()["families"] == {}


@pytest.mark.parametrize("words", [[], ["quadruped-body"]])
def test_listing_what_comes_with_metarl_imports_no_torch(words):
    code = "import sys; from metarl.cli.main import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "list", *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("name", ALL_FAMILIES)
def test_a_family_s_observation_is_listed_part_by_part(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    assert main(["list", name]) == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    listed = [row[1] for row in rows if len(row) == 4 and row[0][:1].isdigit()]
    assert listed == [part.name for part in make_family(name).observation]


def test_names_are_printed_as_they_are(capsys, monkeypatch):
    class Odd(Rail):
        """Brackets [red] and :swimmer:."""

        space = TaskSpace({"x[red]y": Parameter(Uniform(0.0, 1.0), unit="m")})
        observation = (Part("[bold]", 1, "m"), Part("velocity", 1, "m/s"))

    monkeypatch.setattr(catalogue, "make_family", lambda name: Odd())
    assert main(["list", "odd"]) == 0
    printed = capsys.readouterr().out
    assert all(words in printed for words in ("x[red]y", "[bold]", ":swimmer:"))
