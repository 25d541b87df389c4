"""`policy.h` compiled by this machine's C compiler, to be compared with the policy that it was written from."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metarl.core.errors import UserError
from metarl.export.c_header import ARGUMENTS
from metarl.export.parity import Call
from metarl.export.program import Shape
from metarl.export.trace import Traced

_SOURCE = """\
#include "policy.h"
{entries}
unsigned long size(void) {{ return sizeof(metarl_policy); }}
"""


def compiler() -> str | None:
    """The C compiler of this machine, if it has one: `$CC`, or cc."""
    return shutil.which(os.environ.get("CC", "cc"))


def c_calls(folder: Path, written: Traced) -> dict[str, Call]:
    """The functions of `folder/policy.h`, compiled in that folder."""
    takes = {"act": "const float *a, const float *b, float *c", "end_episode": ""}
    takes["observe"] = "const float *a, const float *b, const float *c, const float *d, const unsigned char *e"
    given = {name: ", ".join(["p", *"abcde"[: len(ARGUMENTS[name])]]) for name in ARGUMENTS}
    entries = [
        f"void run_{name}(metarl_policy *p{', ' * bool(takes[name])}{takes[name]}) {{ metarl_{name}({given[name]}); }}"
        for name in ARGUMENTS
    ]
    source, library = folder / "compared.c", folder / "compared.so"
    source.write_text(_SOURCE.format(entries="\n".join(entries)))
    words = [str(compiler()), "-std=c99", "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-lm"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"policy.h does not compile with {words[0]}: {done.stderr.strip().splitlines()[0]}")
    loaded = ctypes.CDLL(str(library))
    room = ctypes.create_string_buffer(int(loaded.size()))
    offsets, first = {}, 0
    for name, value in written.state.items():
        first = -(-first // value.itemsize) * value.itemsize
        offsets[name] = first
        first += value.nbytes
    actions = written.programs["act"].output_shapes()["action"]
    return {name: _Call(getattr(loaded, f"run_{name}"), name, actions, room, offsets) for name in ARGUMENTS}


class _Call:
    """A function of the header, on a state that is copied in and out."""

    spent = 0.0
    """Time of the function itself in the last call [s]."""

    def __init__(self, function: Any, name: str, action: Shape, room: Any, offsets: Mapping[str, int]) -> None:
        self._function, self._name, self._action, self._room, self._offsets = function, name, action, room, offsets

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Call`."""
        base, made, arrays = ctypes.addressof(self._room), dict[str, np.ndarray](), []
        held = {name: np.ascontiguousarray(inputs[name]) for name in self._offsets}
        for name, value in held.items():
            ctypes.memmove(base + self._offsets[name], value.ctypes.data, value.nbytes)
        for name in ARGUMENTS[self._name]:
            if self._name == "act" and name == "action":
                made[name] = np.zeros(self._action, np.float32)
            kind = np.uint8 if name == "terminated" else np.float32
            arrays.append(made[name] if name in made else np.ascontiguousarray(inputs[name], kind))
        begun = time.perf_counter()
        self._function(self._room, *(ctypes.c_void_p(array.ctypes.data) for array in arrays))
        self.spent = time.perf_counter() - begun
        for name, value in held.items():
            made[name] = np.empty_like(value)
            ctypes.memmove(made[name].ctypes.data, base + self._offsets[name], value.nbytes)
        return made
