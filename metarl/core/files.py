"""Files: written whole or not at all, and read within bounds, whoever made them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from metarl.core.errors import UserError

SEAL = "checksum"
"""Key of the checksum in a JSON object."""
MAX_TEXT = 256 * 2**20
"""No text that this program reads is larger [bytes]."""
_MAX_DIGITS = 30
"""No integer in JSON has more: larger ones overflow whatever they are converted to."""
_LEFTOVER = re.compile(r"\..+-(\d+)(-x[0-9a-f]{8})?\.(partial|part\.mp4)")


def write_atomic(path: Path, content: bytes | str, *, parents: bool = True) -> None:
    """Write a file that has either its old or its new content, whenever the process or the machine stops.

    The content goes to a temporary name in the same folder, is flushed to the disk and renamed. `UserError` where the
    file cannot be written. `parents`: missing folders are made, a device or a pipe is written in place, and a link
    followed; else, as in a run's folder, which may be a stranger's, a link is replaced and not what it leads to.
    """
    blob = content.encode() if isinstance(content, str) else content
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        if not parents:
            _replace(path, blob)
        elif path.exists() and not path.is_file():
            path.write_bytes(blob)
        else:
            _replace(Path(os.path.realpath(path)), blob)  # through a link, which stays one
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    except ValueError as error:  # a NUL in the name, or half a surrogate pair
        raise UserError(f"cannot write {str(path)!r}: {error}") from None


def write_json(path: Path, content: object, *, parents: bool = True) -> None:
    """Write indented JSON with a final newline; see `write_atomic`."""
    write_atomic(path, json.dumps(content, indent=1) + "\n", parents=parents)


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with a checksum of itself, by which `read_json` notices a change."""
    plain = {key: value for key, value in content.items() if key != SEAL}
    return plain | {SEAL: hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()}


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes; `UserError` for whatever cannot be read as that."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a pipe would wait for a writer
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise UserError(f"cannot read {path}: it is not a regular file")
            if found.st_size > limit:
                raise UserError(f"cannot read {path}: it has {found.st_size:,} bytes, more than {limit:,}")
            return file.read(limit)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"cannot read {str(path)!r}: {error}") from None


def read_text(path: Path, limit: int = MAX_TEXT) -> str:
    """The text of a file; `UserError` where it cannot be read, is too large or is not UTF-8."""
    try:
        return read_bytes(path, limit).decode()
    except UnicodeDecodeError:
        raise UserError(f"{path} is damaged: it is not a text in UTF-8") from None


def read_json(path: Path, limit: int = MAX_TEXT) -> dict[str, Any]:
    """The JSON object in a file; `UserError` where it cannot be read, holds something else or has a broken seal."""
    content = parse_json(read_text(path, limit), str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it must be a JSON object")
    if SEAL in content and content[SEAL] != sealed(content)[SEAL]:
        raise UserError(
            f"{path} is damaged, or was edited: it does not match its {SEAL}, which is to go where that was meant"
        )
    return content


def parse_json(text: str, where: str) -> Any:
    """JSON from a text that may be anything; `UserError` names `where` it stands."""
    try:
        return json.loads(text, parse_int=_integer)
    except RecursionError:
        raise UserError(f"{where} is damaged: it is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{where} is damaged: it is not JSON: {error}") from None


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that processes left which ended before they could."""
    for path in folder.glob(".*"):
        found = _LEFTOVER.fullmatch(path.name)
        if found and not _lives(int(found.group(1))):
            with suppress(OSError):
                path.unlink()


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(path: Path, blob: bytes) -> None:
    partial = path.with_name(f".{path.name}-{os.getpid()}-x{secrets.token_hex(4)}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(descriptor)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
