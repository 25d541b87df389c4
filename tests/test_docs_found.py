"""What a reader asks is found in two clicks from the first page, and each link leads to a place that is there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
ROWS = re.findall(r"^\| ([^|]+\?) \| (.+) \|$", (DOCS / "index.md").read_text(), flags=re.M)
LINK = re.compile(r"\]\(([^)\s#]+)(?:#([\w-]+))?\)")
GENERATED = {"robots/index", "security", "cli", "api/index"}
"""Pages that docs/conf.py writes."""


def test_there_are_twenty_questions():
    assert len(ROWS) >= 20 and len({question for question, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("question", "answer"), ROWS, ids=[question for question, _ in ROWS])
def test_an_answer_is_one_click_away_and_its_heading_is_there(question, answer):
    links = LINK.findall(answer)
    assert links, question
    for page, heading in links:
        if page.startswith("_generated/"):
            assert page.removeprefix("_generated/").removesuffix(".md") in GENERATED
            continue
        titles = re.findall(r"^#+ (.+)$", (DOCS / page).read_text(), flags=re.M)
        slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
        assert not heading or heading in slugs, f"{page} has no heading #{heading}"


def test_the_readme_leads_to_the_pages():
    linked = set(re.findall(r"\]\(docs/(\w+)\.md\)", (ROOT / "README.md").read_text()))
    assert {"start", "families", "own_robot", "plug_in", "results", "gpu", "export", "reliability"} <= linked


def test_versions_lie_beside_each_other_and_the_newest_release_is_first(tmp_path):
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "index.html").write_text("a page")
    pages = tmp_path / "pages"
    pages.mkdir()
    for name in ("latest", "v0.9.0", "v0.10.0"):
        subprocess.run([sys.executable, DOCS / "versions.py", pages, name, tmp_path / "build"], check=True)
    assert json.loads((pages / "versions.json").read_text()) == ["v0.10.0", "v0.9.0", "latest"]
    assert "url=v0.10.0/index.html" in (pages / "index.html").read_text()
    assert (pages / "v0.9.0" / "index.html").read_text() == "a page"
    odd = [sys.executable, DOCS / "versions.py", pages, "../elsewhere", tmp_path / "build"]
    assert subprocess.run(odd, capture_output=True).returncode != 0
