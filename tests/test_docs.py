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
