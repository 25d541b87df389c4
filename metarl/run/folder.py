"""A run's folder while it trains: taken by one process alone, held, written to, and given up without a trace."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarl.core import trust
from metarl.core.config import TrainConfig, to_toml
from metarl.core.errors import UserError
from metarl.core.files import remove_leftovers, sealed, write_atomic, write_json
from metarl.core.info import PolicyInfo
from metarl.core.renamed import old_names
from metarl.run import checkpoint
from metarl.run.described import Described
from metarl.run.logs import provenance
from metarl.run.run import CONFIG, FAMILY, INFO, PROVENANCE, Run

if TYPE_CHECKING:
    from metarl.sim.family import Family

_LOCK = ".lock"


def create(path: Path | None, config: TrainConfig[Any], argv: Sequence[str]) -> Run:
    """Make a new run folder, under a name of its own unless told; `UserError` where something is there already."""
    text = to_toml(config)
    run = Run(_claim(path) if path is not None else _claim_new(config))
    try:
        write_atomic(run.path / CONFIG, text, parents=False)
        write_json(run.path / PROVENANCE, sealed(provenance(argv)), parents=False)
        trust.remember(config.agent, config.family)
    except BaseException:  # a signal too
        discard(run)
        raise
    return run


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process: two trainings in it would destroy each other's files."""
    try:
        file = (folder / _LOCK).open("a")
    except OSError as error:
        raise UserError(f"cannot train in {folder}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{folder} is in use: another process trains in it") from None
        yield


def require_there(run: Run) -> None:
    """`UserError` where the folder was deleted or renamed since it was taken."""
    if not (run.path / CONFIG).exists():
        raise UserError(f"{run.path} is gone: it was deleted or renamed during the training, which cannot be saved")


def note_resumption(run: Run, argv: Sequence[str], config: TrainConfig[Any], iteration: int) -> None:
    """Write down what, where and from which iteration the run goes on, and its total steps if they are new."""
    path, content = run.path / PROVENANCE, run.provenance()
    before = content.get("resumed", [])
    if path.exists() and not content:  # damaged: kept for whoever can read it by eye
        with suppress(OSError):
            os.replace(path, path.with_name(f"damaged-{PROVENANCE}"))
    entry = provenance(argv) | {"after_iteration": iteration, "total_steps": config.total_steps}
    content |= {"resumed": [*(before if isinstance(before, list) else []), entry]}
    write_json(path, sealed(content), parents=False)
    trust.remember(config.agent, config.family)
    if config != run.config():
        write_atomic(run.path / CONFIG, to_toml(config), parents=False)


def write_info(run: Run, info: PolicyInfo, family: Family) -> None:
    """Keep what the policy observes and commands, and what the family is, unless it is known."""
    for name, known in ((INFO, info), (FAMILY, Described.of(family))):
        if not (run.path / name).exists():
            write_json(run.path / name, sealed(known.to_json()), parents=False)


def clean(run: Run) -> None:
    """Remove what processes left that ended before they could. Only for whoever holds the run."""
    for folder in (run.path, run.path / "eval", run.path / "videos"):
        remove_leftovers(folder)
    checkpoint.remove_incomplete(run.checkpoints)


def discard(run: Run) -> None:
    """Remove what `create` and a training without an iteration made; whatever else is in the folder stays."""
    shutil.rmtree(run.path / "tensorboard", ignore_errors=True)
    with suppress(OSError):
        for name in (CONFIG, PROVENANCE, INFO, FAMILY, "metrics.jsonl", _LOCK):
            (run.path / name).unlink(missing_ok=True)
        run.path.rmdir()


def _claim(path: Path) -> Path:
    """A folder that is this process's alone: of several that ask for it at once, one gets it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not any(path.iterdir()):
            os.close(os.open(path / _LOCK, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            return path
    except FileExistsError:
        pass
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}") from None
    except ValueError as error:  # a NUL in the name
        raise UserError(f"cannot write to {str(path)!r}: {error}") from None
    raise UserError(f"{path} exists and is not empty: choose another --output, or `metarl resume {path}`")


def default_path(config: TrainConfig[Any]) -> Path:
    """`runs/FAMILY-AGENT-sSEED-TIME`."""
    family, agent = (name.rsplit(":", 1)[-1] for name in (config.family, config.agent))
    return Path("runs") / f"{family}-{agent}-s{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"


def _claim_new(config: TrainConfig[Any]) -> Path:
    """The default folder; of trainings that start within a second, later ones have `-2` behind its name."""
    first = default_path(config)
    for number in range(1, 100):
        with suppress(UserError):
            return _claim(first if number == 1 else first.with_name(f"{first.name}-{number}"))
    return _claim(first)


__getattr__ = old_names(__name__)
