"""Code that a run folder or a configuration file names: it runs where this user trained with that very file, or agrees.

Reading a run is reading data, and its files may be a stranger's. A family or a learner in a file, as
`path/to/file.py:Class`, is code that such data names. What the user names, in Python or on the command line, needs no
leave. Records of files that he trained with lie in his own state folder, by path and checksum.
"""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import suppress
from pathlib import Path

from metarl.core.errors import UserError, printable
from metarl.core.files import read_bytes, read_json, write_json
from metarl.core.registry import MAX_CODE, file_of

_agreed: set[tuple[Path, str]] = set()
"""Files, with the checksums of their content, that this process may run, also where no record can be kept."""


def require(name: str, where: Path | str, trust_code: bool = False) -> None:
    """Raise `UserError` unless the code that `where` names may run; a person at a terminal is asked.

    Names of installed classes are no code that a file brings. A file that is not there is left to whoever imports it.
    """
    found = _identity(name)
    if found is None or trust_code or _is_known(*found) or _person_agrees(*found, where):
        return
    raise UserError(
        f"{where} names code that you have not trained with, or that was changed since: {printable(str(found[0]))}; "
        "it was not run: read it, and add --trust-code (in Python trust_code=True) to run it"
    )


def is_trusted(name: str) -> bool:
    """Whether a name that stands in a file may be followed without asking anybody."""
    found = _identity(name)
    return found is None or _is_known(*found)


def named(*names: str) -> None:
    """Let this process run code that the user has named, also where a file names the same."""
    _agreed.update(found for name in names if (found := _identity(name)) is not None)


def remember(*names: str) -> None:
    """Note that this user trains with the code so named, as it is now, in `$XDG_STATE_HOME/metarl/code`.

    `~/.local/state` stands for the variable where it is not set. A record that cannot be written is no reason not to
    train: the run's code is asked for later.
    """
    named(*names)
    for name in names:
        if (found := _identity(name)) is not None and not (file := _record(*found)).exists():
            with suppress(UserError):
                write_json(file, {"path": str(found[0]), "sha256": found[1]})


def _identity(name: str) -> tuple[Path, str] | None:
    """The file that a name stands for, and the checksum of its content; None where there is no such file."""
    path = file_of(name)
    if path is None or not os.path.isfile(path):
        return None
    return path, hashlib.sha256(read_bytes(path, MAX_CODE)).hexdigest()


def _is_known(path: Path, digest: str) -> bool:
    if (path, digest) in _agreed:
        return True
    with suppress(UserError):
        return read_json(_record(path, digest), 2**16) == {"path": str(path), "sha256": digest}
    return False


def _record(path: Path, digest: str) -> Path:
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():
        state = Path(os.path.expanduser("~/.local/state"))
    named = hashlib.sha256(f"{digest} {path}".encode(errors="surrogateescape")).hexdigest()
    return state / "metarl" / "code" / f"{named}.json"


def _person_agrees(path: Path, digest: str, where: Path | str) -> bool:
    """Ask at a terminal; nobody is there to answer where input or output are piped."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    words = f"{where} names code that you have not trained with as it is now: {path}"
    print(f"{printable(words)}\nSHA-256 {digest}\nRun it, with all your rights? [y/N] ", end="", file=sys.stderr)
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        return False
    remember(f"{path}:")
    return True
