"""Several processes that train one policy: torch.distributed under torchrun.

The worlds are cut into a fixed number of shards (`TrainConfig.shards`). Each process simulates its shards and computes
the gradients of its pieces; what was found is gathered in the order of the shards, so that every process goes on from
the same numbers, and the result does not depend on how many processes there are. All-reduce (`TrainConfig.all_reduce`)
sends less, but adds in an order of its own.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from metarl.core.config import TrainConfig, to_toml
from metarl.core.errors import UserError
from metarl.core.graphs import launched
from metarl.rl.parallel import ALONE, Shares
from metarl.run.logs import versions

TIMEOUT = "METARL_TIMEOUT"
"""Environment variable: after how long a process that does not answer counts as hung [s]; 120 in a training."""
MEETING = "METARL_MEETING"
"""Environment variable that `run.launch` sets: a folder of this user's in which the processes meet."""
_all_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # its name before 2.13
_groups = itertools.count()  # of this process, one per training
_TEXT = 4096  # bytes of the longest text that processes tell each other
_SHARDS = 4
"""Shards where several processes are asked for and no number of shards."""
_SAVING = timedelta(hours=1)
"""Time in which the leading process has to evaluate and to save a checkpoint."""
_SIGN_OF_LIFE = 20.0
"""Time in which all others have to show that they are alive, where one is hung [s]."""


class RankLostError(UserError):
    """Another process of the training has ended or hangs: nothing can go on without it."""


def rank() -> int:
    """Number of this process among those that torchrun started; 0 where it is the only one."""
    return int(os.environ.get("RANK", "0")) if num_ranks() > 1 else 0


def num_ranks() -> int:
    """How many processes torchrun started for this training; 1 where it started none."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def restarted() -> bool:
    """Whether torchrun began this process anew, as one of the training's had ended."""
    return num_ranks() > 1 and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def joined(config: TrainConfig[Any]) -> Iterator[Shares]:
    """Join the other processes of the training, if torchrun started any, and leave them at the end.

    Raises `UserError` where they run another version or configuration, or are more than there are shards.
    """
    with together(config.device, num_shards(config, num_ranks()), _fingerprint(config), config.all_reduce) as shares:
        yield shares


@contextmanager
def together(
    device: str, pieces: int, alike: bytes, any_order: bool = False, patience: float = 120.0
) -> Iterator[Shares]:
    """Share out so many pieces of work with the other processes, if there are any, and leave them at the end.

    After `patience` [s] one that does not answer counts as hung, unless the environment says when. Raises `UserError`
    where they are not `alike`: a digest of version, configuration and the like.
    """
    if num_ranks() == 1:
        yield Shares(pieces) if pieces > 1 else ALONE
        return
    try:
        shares = Shares(pieces, rank(), num_ranks(), _Group(device, patience), any_order)
        require_alike(shares, alike, "version or configuration")
        yield shares
    except UserError as error:
        if not isinstance(error, RankLostError):
            note(2, str(error))  # ahead of leaving, which the others notice
        raise
    finally:
        with suppress(Exception):  # the others may be gone
            dist.destroy_process_group()


def note(code: int, words: str = "") -> None:
    """Tell `run.launch` how the training ended, and in which words, unless another process has told it already."""
    if meeting := os.environ.get(MEETING):
        with suppress(FileExistsError), (Path(meeting) / "ending").open("x") as file:
            file.write(f"{code} {words}")


def noted() -> tuple[int, str]:
    """What was told first; 0 where nothing was."""
    place = Path(os.environ.get(MEETING, "")) / "ending"
    if MEETING not in os.environ or not place.exists():
        return 0, ""
    code, _, words = place.read_text().partition(" ")
    return int(code or "1"), words


def num_shards(config: TrainConfig[Any], processes: int) -> int:
    """Shards of the worlds; `UserError` where there are more processes than shards."""
    number = config.shards or (1 if processes == 1 else min(_SHARDS, config.num_worlds))
    if number < processes:
        raise UserError(
            f"shards = {number}: {processes} processes need at least {processes}, of at most num_worlds = "
            f"{config.num_worlds}; results of another number of shards differ in rounding"
        )
    return number


class _Group:
    """The process group: nccl where every process has a GPU of its own, else gloo."""

    def __init__(self, device: str, patience: float) -> None:
        self._on_gpu = device == "cuda" and torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
        if self._on_gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        self._limit = limit = timedelta(seconds=float(os.environ.get(TIMEOUT, patience)))
        place: dict[str, Any] = {}
        if meeting := os.environ.get(MEETING):
            number = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}-{next(_groups)}"
            place = {"init_method": f"file://{meeting}/store-{number}", "rank": rank(), "world_size": num_ranks()}
        else:
            _warn_if_open(os.environ.get("MASTER_ADDR", ""))
        try:
            dist.init_process_group("nccl" if self._on_gpu else "gloo", timeout=limit, **place)
            # Another group works on when an exchange of the first has failed: by it those that are alive answer. And
            # by it they wait for the leading one, which may take its time to evaluate and to save.
            self._living = dist.new_group(backend="gloo", timeout=_SAVING)
        except RuntimeError:
            raise RankLostError(f"not all {num_ranks()} processes of this training met within {limit}") from None

    def gather(self, rows: Tensor) -> Tensor:
        """See `rl.parallel.Group`, as of the other two; `RankLostError` where a process is gone."""
        return self._with_all(_all_gather, rows, rows.new_empty(num_ranks(), *rows.shape))

    def swap(self, rows: Tensor) -> Tensor:
        return self._with_all(dist.all_to_all_single, rows, torch.empty_like(rows))

    def add(self, row: Tensor) -> Tensor:
        return self._with_all(lambda into, own: dist.all_reduce(into.copy_(own)), row, torch.empty_like(row))

    def _with_all(self, collective: Callable[[Tensor, Tensor], object], rows: Tensor, found: Tensor) -> Tensor:
        """`found`, into which a collective of all processes has put what it makes of their rows."""
        launched(partial(self._call, collective, found, rows.contiguous()))
        return found

    def _call(self, collective: Callable[[Tensor, Tensor], object], found: Tensor, rows: Tensor) -> None:
        if rows.dtype == torch.bool:
            found, rows = found.view(torch.uint8), rows.view(torch.uint8)
        through_host = rows.is_cuda and not self._on_gpu
        into = torch.empty_like(found, device="cpu") if through_host else found
        try:
            collective(into.view(-1), (rows.cpu() if through_host else rows).view(-1))
        except RuntimeError as error:
            self._require_all(error)
            raise
        if through_host:
            found.copy_(into)

    def wait(self) -> None:
        """Return once all processes have come here; the leading one may take its time, and waits for none for long."""
        try:
            dist.monitored_barrier(self._living, _SAVING if rank() else self._limit, wait_all_ranks=True)
        except RuntimeError as error:
            self._require_all(error)
            raise

    def _require_all(self, error: RuntimeError) -> None:
        """`RankLostError` where another process is missing, which it names as far as those that are left can tell."""
        text = str(error).lower()
        hung = any(words in text for words in ("timed out", "timeout", "failed to pass")) and "closed" not in text
        fate = f"has not answered for {self._limit.total_seconds():g} s" if hung else "has ended"
        try:
            dist.monitored_barrier(self._living, timedelta(seconds=_SIGN_OF_LIFE), wait_all_ranks=True)
        except RuntimeError as other:
            named = re.search(r"[Rr]anks? ([\d, ]+) failed", f"{other} {error}")
            names = named[1].strip(", ") if named else ""
            which = f"process {names}" if names not in ("", str(rank())) else "another process"
            raise RankLostError(f"{which} of this training {fate}") from None


def require_alike(shares: Shares, digest: bytes, what: str) -> None:
    """`UserError`, in every process, where `digest` is not the same in all; `what` it stands for."""
    if shares.group is None:
        return
    found = shares.group.gather(_on_device(torch.frombuffer(bytearray(digest), dtype=torch.uint8)))
    other = [str(i) for i in range(len(found)) if not torch.equal(found[i], found[0])]
    if other:
        raise UserError(f"processes 0 and {', '.join(other)} differ in {what}: they cannot train together")


def require_same_policy(shares: Shares, policy: object) -> None:
    """`UserError` where the processes do not hold the same policy, bit for bit."""
    if shares.group is not None and isinstance(policy, torch.nn.Module):
        require_alike(shares, digest(policy.state_dict()), "their policies' parameters, which had to be the same")


def agreed(shares: Shares, verdict: int, signal: int) -> tuple[int, int]:
    """The leading process's verdict, and a signal that any process was sent; 0 where none was."""
    if shares.group is None:
        return verdict, signal
    found = shares.group.gather(_on_device(torch.tensor([verdict, signal])))
    return int(found[0, 0]), int(found[:, 1].max())


def of_leader(shares: Shares, text: str) -> str:
    """What the leading process says."""
    if shares.group is None:
        return text
    row = torch.tensor([*text.encode()[:_TEXT].ljust(_TEXT, b"\0")], dtype=torch.uint8)
    return bytes(shares.group.gather(_on_device(row))[0].tolist()).rstrip(b"\0").decode()


def digest(state: Mapping[str, Tensor]) -> bytes:
    """SHA-256 of tensors by name."""
    total = hashlib.sha256()
    for name in sorted(state):
        total.update(name.encode())
        total.update(state[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.digest()


def _on_device(value: Tensor) -> Tensor:
    return value.cuda() if dist.get_backend() == "nccl" else value


def with_versions(text: str) -> bytes:
    """A digest of what must be the same in all processes, versions of what computes included."""
    return hashlib.sha256(f"{sorted(versions().items())}\n{text}".encode()).digest()


def _fingerprint(config: TrainConfig[Any]) -> bytes:
    """Of what must be the same in all processes: versions, configuration, and files of code that it names."""
    total = hashlib.sha256(with_versions(to_toml(config)))
    for name in (config.agent, config.family):
        file = Path(name.rpartition(":")[0])
        if file.is_file():
            total.update(file.read_bytes())
    return total.digest()


def _warn_if_open(host: str) -> None:
    if host not in ("127.0.0.1", "localhost", "::1") and rank() == 0:
        print(
            f"metarl: the processes meet at {host or socket.gethostname()}; torch.distributed asks nobody for a "
            "password and encrypts nothing: only on a network where everybody may run code as you",
            file=sys.stderr,
        )
