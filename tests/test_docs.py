"""The documentation: its links lead somewhere, and Sphinx builds it without a warning."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_between_files_lead_somewhere(page):
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose):
        if not target.startswith(("http", "_generated")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_to_a_place_of_a_page_lead_to_a_heading(page):
    """Letters beyond ASCII make other anchors on GitHub than on the site, so that a linked heading has none."""
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for name, anchor in re.findall(r"\]\(([\w./]*\.md)?#([^)\s]+)\)", prose):
        if name.startswith("_generated"):
            continue
        headings = re.findall(r"^#+ (.+)$", (page.parent / name if name else page).read_text(), re.M)
        anchors = {re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings if each.isascii()}
        assert anchor in anchors, f"{page.name} links to {name}#{anchor}"


def test_every_page_is_found_from_the_first_one():
    index = (ROOT / "docs" / "index.md").read_text()
    shown = [
        line.strip() for block in re.findall(r"```\{toctree\}(.*?)```", index, re.S) for line in block.splitlines()
    ]
    for page in PAGES:
        found = any(entry and page.match(f"docs/{entry}.md") for entry in shown)
        assert found or page.stem == "index", f"{page.name} is in no toctree of index.md"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("sphinx") is None or find_spec("furo") is None, reason="needs the extra docs")
def test_the_site_builds_without_a_warning(tmp_path):
    """Offline; the time limit is against hanging."""
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "half-cheetah" in (tmp_path / "families.html").read_text()
    shown = (tmp_path / "_generated" / "api" / "variations.html").read_text()
    assert "Ratio to the pristine" in shown or "Names; None for every body." in shown, "docstrings of fields are shown"
    assert (tmp_path / "llms.txt").read_text().startswith("# metarl")
