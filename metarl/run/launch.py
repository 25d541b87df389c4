"""Several processes on this machine: torchrun started from here, and what each of them does as one of several.

They meet in a folder of this user's in place of a port, and talk on the loopback interface: nothing of it can be
reached from elsewhere, and two trainings never meet.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from metarl.core.errors import UserError
from metarl.run.ranks import MEETING, RankLostError, note, noted, num_ranks, rank

_RESTARTS = 3
"""How often all processes are begun anew from the last checkpoint, where one has ended."""
_PATIENCE = 600
"""Time that they have to finish an iteration and to save it, once they are told to stop [s]."""
_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
_PDEATHSIG = 1  # of prctl: a signal when the parent ends


def launch(words: Sequence[str], processes: int) -> int:
    """Run `metarl WORDS` in several processes under torchrun, and return the exit code.

    Where one of them ends, all are begun anew, with the same words: `metarl train` then goes on from the last
    checkpoint. A signal is passed on to all.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, parse_args

    heeded = [name for name in _SIGNALS if signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN]  # nohup
    with tempfile.TemporaryDirectory(prefix="metarl-") as meeting:
        options = {
            "nproc-per-node": processes,
            "rdzv-backend": "c10d",
            "rdzv-conf": "store_type=file",
            "rdzv-endpoint": f"{meeting}/rendezvous",
            "rdzv-id": uuid.uuid4().hex,
            "local-addr": "127.0.0.1",
            "max-restarts": _RESTARTS,
            "shutdown-timeout": _PATIENCE,
            "signals-to-handle": ",".join(heeded),
        }
        os.environ |= {MEETING: meeting, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        flags = [f"--{name}={value}" for name, value in options.items()]
        arguments = parse_args([*flags, "--module", "metarl", *words])  # type: ignore[no-untyped-call]
        config, command, rest = config_from_args(arguments)
        try:
            elastic_launch(config, command)(*rest)
            code, words = noted()
        except SignalException as stopped:
            code, words = noted()
            code = code or 128 + stopped.sigval
        except ChildFailedError as failed:
            number, first = failed.get_first_failure()
            fate = f"signal {-first.exitcode}" if first.exitcode < 0 else f"exit code {first.exitcode}"
            code, words = (
                2,
                f"process {number} ended ({fate}), and again after {_RESTARTS} restarts; what was saved is ",
            )
            words += "in the run's folder: `metarl resume` goes on from there"
        finally:
            del os.environ[MEETING]
        if words:
            raise UserError(words)
        return code


def as_one(work: Callable[[], int]) -> int:
    """Do the work of a command, perhaps as one of several processes: only the leading one prints to a person.

    Under `launch` a mistake and a signal are left to it to tell, so that torchrun does not begin anew what would only
    end again.
    """
    if num_ranks() == 1:
        return work()
    end_with_parent()
    if rank() > 0:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (for as long as the process lives)
    try:
        code = work()
    except UserError as error:
        if not isinstance(error, RankLostError):
            note(2, str(error))
        if noted()[0]:
            return 0
        raise
    if code:
        note(code)
    return 0 if noted()[0] else code


def end_with_parent() -> None:
    """Be told to stop when the parent ends without having told it, as by kill -9: no process is left behind."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGTERM)
