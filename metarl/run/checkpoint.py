"""Checkpoints: safetensors and a JSON manifest, checksummed, written atomically, never executing what they hold.

`checkpoints/iteration-000120/` holds `tensors.safetensors` and `manifest.json`. A checkpoint is written under a
temporary name, flushed to disk and renamed, so an interrupted or failed save leaves the previous one untouched.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors, save as dump_tensors
from torch import Tensor

from metarl.core.errors import UserError, unknown_name

FORMAT = 1
KEEP = 2
"""Checkpoints kept in a run; older ones are removed once a newer one is complete."""

_TENSORS, _MANIFEST = "tensors.safetensors", "manifest.json"


class CheckpointError(UserError):
    """A checkpoint cannot be written, or is damaged, incomplete or foreign."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says of itself."""

    format: int
    iteration: int
    """Iterations completed."""
    total_steps: int
    """Control steps taken, over all worlds."""
    elapsed: float
    """Training time so far [s]."""
    sha256: str
    """Checksum of the tensors file."""


def save(folder: Path, state: Mapping[str, Tensor], iteration: int, total_steps: int, elapsed: float) -> Path:
    """Write a checkpoint into `folder`, then drop all but the newest `KEEP`. Raises `CheckpointError`."""
    blob = dump_tensors({name: value.contiguous() for name, value in state.items()})
    manifest = Manifest(FORMAT, iteration, total_steps, elapsed, hashlib.sha256(blob).hexdigest())
    target = folder / f"iteration-{iteration:06d}"
    staging = folder / f".{target.name}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        _write(staging / _TENSORS, blob)
        _write(staging / _MANIFEST, (json.dumps(asdict(manifest), indent=1) + "\n").encode())
        _swap(staging, target)
        _sync(folder)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise CheckpointError(
            f"cannot save {target} ({len(blob):,} bytes): {error.strerror}; earlier checkpoints are intact"
        ) from None
    for old in existing(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def set_aside_after(folder: Path, iteration: int) -> None:
    """Take the checkpoints after `iteration` out of the way (as `abandoned-...`): training goes on from that one."""
    try:
        for path in existing(folder):
            if _iteration(path) > iteration:
                shutil.rmtree(abandoned := path.with_name(f"abandoned-{path.name}"), ignore_errors=True)
                os.replace(path, abandoned)
    except OSError as error:
        raise CheckpointError(f"cannot set aside newer checkpoints in {folder}: {error.strerror}") from None


def existing(folder: Path) -> list[Path]:
    """Complete checkpoints in `folder`, oldest first."""
    named = [path for path in folder.glob("iteration-*") if path.name.removeprefix("iteration-").isdecimal()]
    return sorted((path for path in named if (path / _MANIFEST).is_file()), key=_iteration)


def find(folder: Path, name: str | None = None) -> Path:
    """The checkpoint called `name`, the newest by default."""
    found = {path.name: path for path in existing(folder)}
    if not found:
        raise CheckpointError(f"there is no checkpoint in {folder}")
    if name is None:
        return list(found.values())[-1]
    if name not in found:
        raise CheckpointError(str(unknown_name("checkpoint", name, found)))
    return found[name]


def _iteration(path: Path) -> int:
    return int(path.name.removeprefix("iteration-"))


def load(path: Path) -> tuple[dict[str, Tensor], Manifest]:
    """Read and verify a checkpoint. Raises `CheckpointError` in one line where it is damaged or foreign."""
    try:
        blob = (path / _TENSORS).read_bytes()
        text = (path / _MANIFEST).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise CheckpointError(f"{path} is not a checkpoint: {reason}") from None
    manifest = _parse_manifest(path, text)
    if hashlib.sha256(blob).hexdigest() != manifest.sha256:
        others = [other.name for other in existing(path.parent) if other != path]
        hint = f"; try --checkpoint {others[-1]}" if others else ""
        raise CheckpointError(f"{path} is damaged: {_TENSORS} does not match its checksum{hint}")
    try:
        return load_tensors(blob), manifest
    except SafetensorError as error:
        raise CheckpointError(f"{path / _TENSORS} is not a safetensors file: {error}") from None


def _parse_manifest(path: Path, text: str) -> Manifest:
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise CheckpointError(f"{path / _MANIFEST} is not a manifest of this program")
    if content["format"] != FORMAT:
        raise CheckpointError(f"{path} has format {content['format']}, this version reads format {FORMAT}")
    kinds: dict[str, Any] = {
        "format": int,
        "iteration": int,
        "total_steps": int,
        "elapsed": (int, float),
        "sha256": str,
    }
    if content.keys() != kinds.keys() or not all(isinstance(content[name], kind) for name, kind in kinds.items()):
        raise CheckpointError(f"{path / _MANIFEST} is not a manifest of this program")
    return Manifest(**content | {"elapsed": float(content["elapsed"])})


def _swap(staging: Path, target: Path) -> None:
    """Give a complete folder its name; one that has the name already goes only after that."""
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        os.replace(target, old)
    try:
        os.replace(staging, target)
    except OSError:
        if old.exists():
            os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
