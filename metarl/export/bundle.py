"""The folder that a trained policy leaves the house in: written whole, after every runtime was compared with torch."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.numpy
import torch

from metarl.core.errors import UserError
from metarl.core.files import write_atomic
from metarl.export import onnx_file
from metarl.export.c_header import header
from metarl.export.compiled import c_calls, compiler
from metarl.export.contract import INITIAL, bound, contract_of
from metarl.export.parity import AS_TRAINED, ROUNDING, TOLERANCE, Call, Compared, Played, compare, numpy_calls
from metarl.export.program import STATE
from metarl.export.trace import Traced, traced
from metarl.rl.parallel import single_threaded_math
from metarl.rl.policy import unsound
from metarl.run.logs import provenance
from metarl.run.run import Run, env_options
from metarl.run.subject import Subject, trained
from metarl.sim.make import make_env

CONTRACT, TENSORS, HEADER = "contract.json", "policy.safetensors", "policy.h"
_ONNX = {"act": "policy.onnx", "observe": "observe.onnx", "end_episode": "end_episode.onnx"}


@dataclass(frozen=True)
class Exported:
    """What an export has made."""

    path: Path
    """The bundle's folder."""
    played: Played
    """What every runtime was compared on."""
    parity: Mapping[str, Compared]
    """How far each strayed from torch."""
    remarks: tuple[str, ...]
    """What a user has to know, a sentence each: why it is not deployable as it is, and what was left out."""


def export(
    run: Run | str | Path, output: str | Path, *, checkpoint: str | None = None, trust_code: bool = False
) -> Exported:
    """Write a policy as a bundle, a folder that needs neither metarl nor torch nor a simulator.

    Args:
        run: A run, its folder, or `pretrained:NAME`.
        output: The bundle's folder, which must be new or empty.
        checkpoint: `iteration-000120`, or `best`; the newest by default.
        trust_code: Files of code that the run names may run, also such as this user never trained with.

    Returns:
        Where the bundle is, and how close every runtime comes to torch.

    Raises:
        UserError: The folder is taken, the policy's numbers are not finite, it does what no program can, or a runtime
            strays from torch by more than 1e-5.
    """
    single_threaded_math()
    return _export(trained(run, checkpoint, trust_code), Path(output), checkpoint)


def _export(subject: Subject, output: Path, checkpoint: str | None) -> Exported:
    _require_new(output)
    run, policy = subject.run, subject.policy
    assert run is not None
    if bad := unsound(policy):
        raise UserError(f"{run} cannot be exported: {bad}")
    written = traced(policy)
    config = run.config()
    partial = output.parent / f".{output.name}-{os.getpid()}.partial"
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}") from None
    try:
        with make_env(
            subject.family, 1, episodes_per_trial=config.episodes_per_trial, threads=1, **_cpu(env_options(config))
        ) as env:
            env.begin(subject.family.space.nominal(1), key=0)
            terms = tuple(env.step(torch.zeros(1, env.action_size)).reward_terms)
            contract = contract_of(run, policy, env, written, terms)
            contract["run"] = _origin(run, checkpoint)
            runtimes, remarks = runtimes_of(partial, written)
            played, parity = compare(policy, env, runtimes)
        _require_parity(run, parity)
        bound(contract, played.met)
        initial = {INITIAL + name.removeprefix(STATE): value for name, value in written.state.items()}
        write_atomic(partial / TENSORS, safetensors.numpy.save({**written.constants, **initial}))
        _finish(partial, contract, played, parity)
        with suppress(OSError):
            output.rmdir()  # an empty one may be there
        os.rename(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Exported(output, played, parity, (*contract["objections"], *remarks))


def _require_new(output: Path) -> None:
    if os.path.lexists(output) and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"{output} exists already: name a new folder for the bundle")


def _cpu(options: dict[str, Any]) -> dict[str, Any]:
    return options | {"device": "cpu", "physics": None}


def _origin(run: Run, checkpoint: str | None) -> dict[str, Any]:
    """Where the policy comes from, and what exported it."""
    origin, now = run.origin(checkpoint), provenance([])
    return {
        "name": run.name,
        "agent": origin.agent,
        "family": origin.family,
        "seed": origin.train_seed,
        "train_steps": origin.train_steps,
        "trained_by": {key: value for key, value in run.provenance().items() if key in ("git_commit", "versions")},
        "exported_by": {key: now[key] for key in ("git_commit", "versions", "started") if key in now},
    }


def runtimes_of(folder: Path, written: Traced) -> tuple[dict[str, Mapping[str, Call]], list[str]]:
    """Write header and models, and return every runtime that there is; sentences say what is not there, and why."""
    runtimes: dict[str, Mapping[str, Call]] = {"numpy": numpy_calls(written)}
    remarks = []
    try:
        write_atomic(folder / HEADER, header(written))
        if compiler() is None:
            remarks.append("policy.h is written but was not compared: this machine has no C compiler (cc, or $CC)")
        else:
            runtimes["c"] = c_calls(folder, written)
    except UserError as error:
        remarks.append(str(error))
        (folder / HEADER).unlink(missing_ok=True)
    if not onnx_file.has_onnx():
        remarks.append(
            "policy.onnx is not written: it needs onnx and onnxruntime, pip install 'metarl-robotics[export]'"
        )
        return runtimes, remarks
    try:
        models = {name: onnx_file.model_of(name, written) for name in _ONNX if not written.programs[name].idle}
        runtimes["onnxruntime"] = onnx_file.onnx_calls(models)
    except Exception as error:  # whatever these packages raise: the bundle is whole without
        remarks.append(f"policy.onnx is not written: {str(error).splitlines()[0]}")
        return runtimes, remarks
    for name, blob in models.items():
        write_atomic(folder / _ONNX[name], blob)
    return runtimes, remarks


def _require_parity(run: Run, parity: Mapping[str, Compared]) -> None:
    for name, found in parity.items():
        most = ROUNDING if name == AS_TRAINED else TOLERANCE
        for what, worst in (("action", found.action), ("state", found.state)):
            if not worst <= most:
                raise UserError(
                    f"{run} is not exported: run by {name} its {what} strays from torch's by {worst:.1e}, more than "
                    f"{most:.0e}"
                )


def _finish(folder: Path, contract: dict[str, Any], played: Played, parity: Mapping[str, Compared]) -> None:
    """Put parity and hashes into the contract, and write it last; what was made to compare goes."""
    for path in folder.glob("compared.*"):
        path.unlink()
    contract["parity"] = played.to_json() | {name: found.to_json() for name, found in parity.items()}
    told = json.dumps({key: value for key, value in contract.items() if key != "programs"}, ensure_ascii=False)
    for name, file in _ONNX.items():
        if (path := folder / file).exists():
            write_atomic(path, onnx_file.described(path.read_bytes(), {"contract": told, "function": name}))
    contract["files"] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
    write_atomic(folder / CONTRACT, json.dumps(contract, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
