"""Checkpoints: safetensors and a JSON manifest, checksummed, written atomically, never executing what they hold.

`checkpoints/iteration-000120/` holds `tensors.safetensors` and `manifest.json`. A checkpoint is written under a
temporary name, flushed to disk and renamed, so an interrupted or failed save leaves the previous one untouched.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors, save as dump_tensors
from torch import Tensor

from metarl.core.errors import UserError, unknown_name
from metarl.core.files import SEAL, read_bytes, read_json, sealed, sync_folder, write_atomic
from metarl.core.machine import available_memory
from metarl.core.parameters import memory_text

FORMAT = 2
KEEP = 2
"""Newest checkpoints kept in a run, beside the best; others are removed once a newer one is complete."""
BEST = "best"
"""Stands for the checkpoint of the highest validation return; the newest where none was validated."""
UNDERWAY = "underway/"
"""How the names of tensors begin that are of trials under way, and not of the learner."""
MAX_BYTES = 16 * 2**30
"""No tensors file is larger."""

_TENSORS, _MANIFEST = "tensors.safetensors", "manifest.json"
_NAME = re.compile(r"iteration-\d+|\.iteration-\d+\.(partial|old)")
_HUGE = 10**15
"""Beyond every count and time of a training."""


class CheckpointError(UserError):
    """A checkpoint cannot be written, or is damaged, incomplete or foreign."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says of itself."""

    iteration: int
    """Iterations completed."""
    total_steps: int
    """Control steps taken, over all worlds."""
    elapsed: float
    """Training time so far [s]."""
    sha256: str
    """Checksum of the tensors file."""
    size: int | None = None
    """Length of the tensors file [bytes]; None in a manifest of format 1."""
    validation: float | None = None
    """Mean return of the last episode on the run's validation tasks; None where it was not measured."""

    def to_json(self) -> dict[str, Any]:
        """Plain data with a checksum of its own."""
        return sealed({"format": FORMAT, **asdict(self)})


def save(
    folder: Path, state: Mapping[str, Tensor], *, iteration: int, total_steps: int, elapsed: float,
    validation: float | None = None,
) -> Path:  # fmt: skip
    """Write a checkpoint into `folder`, then drop all but the newest `KEEP` and the best. Raises `CheckpointError`.

    A state with a number that is not finite is refused: what it would have trained on is lost already. The folder that
    `folder` lies in must exist.
    """
    target = folder / f"iteration-{iteration:06d}"
    require_finite(state, target)
    blob = dump_tensors({name: value.contiguous() for name, value in state.items()})
    manifest = Manifest(iteration, total_steps, elapsed, hashlib.sha256(blob).hexdigest(), len(blob), validation)
    staging = folder / f".{target.name}.partial"
    try:
        folder.mkdir(exist_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        write_atomic(staging / _TENSORS, blob, parents=False)
        write_atomic(staging / _MANIFEST, json.dumps(manifest.to_json(), indent=1) + "\n", parents=False)
        _swap(staging, target)
        sync_folder(folder)
    except (OSError, UserError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        reason = error.strerror if isinstance(error, OSError) else str(error).rsplit(": ", 1)[-1]
        raise CheckpointError(f"cannot save {target} ({len(blob):,} bytes): {reason}{what_there_is(folder)}") from None
    kept = {*existing(folder)[-KEEP:], _best(existing(folder))}
    for old in existing(folder):
        if old not in kept:
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


def remove_incomplete(folder: Path) -> None:
    """Remove what a save left that was cut short. Only for whoever holds the run."""
    for path in folder.glob(".iteration-*.old"):  # the machine stopped between the two renames of `_swap`
        target = folder / path.name[1:].removesuffix(".old")
        if not target.exists() and (path / _MANIFEST).is_file():
            os.replace(path, target)
    complete = existing(folder)
    for path in [*folder.glob(".iteration-*"), *folder.glob("iteration-*")]:
        if _NAME.fullmatch(path.name) and path not in complete and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def existing(folder: Path) -> list[Path]:
    """Complete checkpoints in `folder`, oldest first."""
    named = [path for path in folder.glob("iteration-*") if path.name.removeprefix("iteration-").isdecimal()]
    return sorted((path for path in named if (path / _MANIFEST).is_file()), key=_iteration)


def find(folder: Path, name: str | None = None) -> Path:
    """The checkpoint called `name`, or the `best`; the newest by default."""
    found = {path.name: path for path in existing(folder)}
    if not found:
        raise CheckpointError(f"there is no checkpoint in {folder}")
    if name is None:
        return list(found.values())[-1]
    if name == BEST:
        for path in found.values():
            read_manifest(path)  # of a damaged one nobody knows whether it is the best
        return _best(found.values())
    if name not in found:
        raise CheckpointError(str(unknown_name("checkpoint", name, [*found, BEST])))
    return found[name]


def require_finite(state: Mapping[str, Tensor], target: Path) -> None:
    """Raise `CheckpointError` where a state that is to be saved as `target` holds a number that is not finite."""
    if bad := _not_finite(state):
        raise CheckpointError(f"{target} is not saved: {bad}{what_there_is(target.parent)}")


def load(path: Path) -> tuple[dict[str, Tensor], Manifest]:
    """Read and verify a checkpoint. Raises `CheckpointError` in one line where it is damaged or foreign.

    The line names the newest other checkpoint that is sound.
    """
    manifest = read_manifest(path)
    try:
        return _tensors(path, manifest), manifest
    except _DamagedError as error:
        other = last_good(path.parent, path)
        raise CheckpointError(f"{error}; try --checkpoint {other.name}" if other else str(error)) from None


def parted(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A checkpoint's tensors: the learner's, and those of the trials that were under way."""
    found: tuple[dict[str, Tensor], dict[str, Tensor]] = {}, {}
    for name, value in state.items():
        found[name.startswith(UNDERWAY)][name] = value
    return found


def last_good(folder: Path, but: Path | None = None) -> Path | None:
    """The newest checkpoint that can be read, of those that are not `but`: reads them, from the newest on."""
    for path in reversed(existing(folder)):
        with suppress(CheckpointError):
            if path != but:
                _tensors(path, read_manifest(path))
                return path
    return None


class _DamagedError(CheckpointError):
    """Another checkpoint may be sound."""


def _tensors(path: Path, manifest: Manifest) -> dict[str, Tensor]:
    left = available_memory()
    if left is not None and (manifest.size or 0) > left:
        size = f"it has {memory_text(manifest.size or 0)}, and {memory_text(left)} of memory are left"
        raise CheckpointError(f"{path} cannot be loaded here: {size}")
    try:
        blob = read_bytes(path / _TENSORS, MAX_BYTES if manifest.size is None else manifest.size)
    except UserError as error:
        raise _DamagedError(f"{path} is damaged: {error}") from None
    if hashlib.sha256(blob).hexdigest() != manifest.sha256:
        raise _DamagedError(f"{path} is damaged: {_TENSORS} does not match its checksum")
    try:
        state: dict[str, Tensor] = load_tensors(blob)
    except SafetensorError as error:
        raise _DamagedError(f"{path / _TENSORS} is not a safetensors file: {error}") from None
    if bad := _not_finite(state):
        raise _DamagedError(f"{path} cannot be used: {bad}")
    return state


def read_manifest(path: Path) -> Manifest:
    """What the checkpoint at `path` says of itself; `CheckpointError` where it is damaged or foreign."""
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a checkpoint: there is no such folder")
    try:
        content = read_json(path / _MANIFEST, 2**16)
    except UserError as error:
        raise CheckpointError(f"{path / _MANIFEST} is not a manifest of this program: {error}") from None
    number = content.pop("format", None)
    if isinstance(number, int) and not isinstance(number, bool) and number not in (1, FORMAT):
        raise CheckpointError(f"{path} has format {number}, this version reads formats 1 and {FORMAT}")
    fields = Manifest.__dataclass_fields__
    wanted = {"iteration", "total_steps", "elapsed", "sha256"} if number == 1 else {*fields, SEAL}
    if content.keys() != wanted or (content.pop(SEAL, None) is None and number != 1) or not _plausible(content):
        raise CheckpointError(f"{path / _MANIFEST} is not a manifest of this program, or is damaged")
    manifest = Manifest(**content | {"elapsed": float(content["elapsed"])})
    named = path.name.rsplit("-", 1)[-1]
    if named.isdecimal() and int(named) != manifest.iteration:
        raise CheckpointError(f"{path / _MANIFEST} is damaged: it is of iteration {manifest.iteration}")
    return manifest


def _plausible(content: Mapping[str, Any]) -> bool:
    """Whether the fields are of their types and in their ranges; `true` is no number."""
    counts = [content[name] for name in ("iteration", "total_steps", "size") if content.get(name) is not None]
    validation = content.get("validation")
    return (
        all(type(count) is int and 0 <= count < _HUGE for count in counts)
        and type(content["elapsed"]) in (int, float)
        and 0 <= content["elapsed"] < _HUGE
        and type(content["sha256"]) is str
        and (validation is None or (type(validation) in (int, float) and math.isfinite(validation)))
    )


def _not_finite(state: Mapping[str, Tensor]) -> str:
    """What is wrong with a state that holds NaN or infinite numbers; empty where nothing is."""
    bad = [name for name, value in state.items() if value.is_floating_point() and not bool(torch.isfinite(value).all())]
    return f"{len(bad)} of its {len(state)} tensors hold NaN or infinite numbers, as {bad[0]}" if bad else ""


def what_there_is(folder: Path) -> str:
    """Which checkpoint a training that fails leaves, as the end of a sentence."""
    found = last_good(folder)
    return f"; {found.name} is intact" if found else "; there is no earlier checkpoint"


def _best(found: Iterable[Path]) -> Path:
    def validation(path: Path) -> float:
        try:
            value = read_manifest(path).validation
        except CheckpointError:
            value = None
        return -math.inf if value is None else value

    return max(found, key=lambda path: (validation(path), _iteration(path)))


def _iteration(path: Path) -> int:
    return int(path.name.removeprefix("iteration-"))


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
