"""Pieces of C: loops over shapes, places in memory, numbers and tables of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from metarl.export.program import CONST, STATE

KINDS = {"float32": "float", "float64": "double", "int64": "int64_t", "bool": "unsigned char"}
"""Types of C by kind of number."""


def index_of(shape: Sequence[int]) -> list[str]:
    """Names of the loops' variables; along a dimension of one element there is no loop."""
    return ["0" if n == 1 else f"i{d}" for d, n in enumerate(shape)]


def flat(shape: Sequence[int], index: Sequence[str]) -> str:
    """The place of an element in memory."""
    terms = []
    for d, i in enumerate(index):
        stride = prod(shape[d + 1 :])
        if i != "0":
            terms.append(f"({i})" if stride == 1 else f"({i}) * {stride}")
    return " + ".join(terms) or "0"


def looped(shape: Sequence[int], body: list[str]) -> list[str]:
    """The body for every index of a shape."""
    heads = [f"for (int i{d} = 0; i{d} < {n}; i{d}++)" for d, n in enumerate(shape) if n != 1]
    if len(body) == 1 and heads:
        return [f"{' '.join(heads)} {body[0]}"]
    return [" ".join([*heads, "{"]), *("  " + line for line in body), "}"]


def field_of(name: str) -> str:
    """The name of a state's tensor as C may have it."""
    return re.sub(r"\W", "_", name.removeprefix(STATE))


def literal(value: Any, dtype: str) -> str:
    """A number as it is written in C, so that it is read as the same."""
    if dtype in ("int64", "bool"):
        return str(int(value))
    text = f"{float(value):.9g}" if dtype == "float32" else f"{float(value):.17g}"
    return text + ".0" * (not re.search(r"[.en]", text)) + "f" * (dtype == "float32")


def constant(name: str, value: np.ndarray) -> str:
    """A table of numbers."""
    numbers = ", ".join(literal(x, value.dtype.name) for x in value.ravel())
    kind = KINDS[value.dtype.name]
    return f"static const {kind} metarl_c{name.removeprefix(CONST)}[{max(1, value.size)}] = {{{numbers}}};"


def initial(field: str, value: np.ndarray) -> list[str]:
    """How a tensor of the state begins: all zeros already."""
    if not value.any():
        return []
    if (value == value.flat[0]).all():
        first = literal(value.flat[0], value.dtype.name)
        return [f"  for (int n = 0; n < {value.size}; n++) p->{field}[n] = {first};"]
    numbers = ", ".join(literal(x, value.dtype.name) for x in value.ravel())
    kind = KINDS[value.dtype.name]
    return [
        f"  static const {kind} first_{field}[{value.size}] = {{{numbers}}};",
        f"  memcpy(p->{field}, first_{field}, sizeof first_{field});",
    ]


BEGIN = """\
/* A policy for one robot, written by metarl: contract.json beside it says what its numbers mean.

   static metarl_policy policy;
   metarl_new_task(&policy);                       once per task
   metarl_act(&policy, obs, noise, action);        each control step; clip the action to [-1, 1]
   metarl_observe(&policy, obs, action, &reward, final_obs, &terminated);
   metarl_end_episode(&policy);                    the robot is back at its start, on the same task

   C99; link with -lm. Nothing is allocated, and nothing is shared but constants. */
#ifndef METARL_POLICY_H
#define METARL_POLICY_H
#include <math.h>
#include <stdint.h>
#include <string.h>
"""
