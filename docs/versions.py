"""Put a built documentation beside those of other versions.

    docs/versions.py PAGES NAME BUILD

PAGES/NAME is replaced by BUILD; PAGES/versions.json lists the versions, newest first, for the switch in the sidebar,
and PAGES/index.html leads to the newest release, or to `latest` before there is one.
"""

import json
import re
import shutil
import sys
from pathlib import Path


def publish(pages: Path, name: str, build: Path) -> list[str]:
    """Returns the versions that there are now."""
    if re.fullmatch(r"latest|v\d+(\.\d+)*\w*", name) is None:
        raise SystemExit(f"'{name}' is no version: latest, or v and a number")
    shutil.rmtree(pages / name, ignore_errors=True)
    shutil.copytree(build, pages / name, ignore=shutil.ignore_patterns(".doctrees"))
    (pages / ".nojekyll").touch()  # folders that begin with an underscore are pages too
    numbers = [path.name for path in pages.glob("v*") if path.is_dir()]
    numbers.sort(key=lambda one: [int(digits) for digits in re.findall(r"\d+", one)], reverse=True)
    names = [*numbers, *(["latest"] if (pages / "latest").is_dir() else [])]
    (pages / "versions.json").write_text(json.dumps(names))
    first = (
        f'<meta http-equiv="refresh" content="0; url={names[0]}/index.html"><a href="{names[0]}/index.html">metarl</a>'
    )
    (pages / "index.html").write_text(f"<!doctype html><title>metarl</title>{first}\n")
    return names


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    print(*publish(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
