"""`policy.h`: the programs as a header of C99 that depends on nothing but the standard library.

All shapes are known, so that every operation is a plain loop over a fixed number of elements; intermediate values share
a scratch space, in which a place is free again after a value's last use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from metarl.core.errors import UserError
from metarl.export.c_text import BEGIN, KINDS, constant, field_of, flat, index_of, initial, literal, looped
from metarl.export.program import CONST, STATE, Operation, Program, Shape
from metarl.export.trace import Traced

_LETTER = {"float32": "f", "float64": "d", "int64": "i", "bool": "b"}
ARGUMENTS = {
    "act": ("obs", "noise", "action"),
    "observe": ("obs", "action", "reward", "final_obs", "terminated"),
    "end_episode": (),
}
"""Pointers that a function takes after the policy: its inputs, and for `act` the action, which it writes."""
_MOST = 2**26  # bytes of constants and scratch

_UNARY = {
    **{name: f"{name}{{f}}({{0}})" for name in ("exp", "log", "sqrt", "tanh", "sin", "cos", "erf", "floor")},
    "neg": "-{0}",
    "abs": "fabs{f}({0})",
    "rsqrt": "1 / sqrt{f}({0})",
    "reciprocal": "1 / {0}",
    "sigmoid": "1 / (1 + exp{f}(-{0}))",
    "relu": "({0} < 0 ? 0 : {0})",
    "softplus": "({0} > 20 ? {0} : log1p{f}(exp{f}({0})))",
    "logical_not": "!{0}",
}
_BINARY = {
    **{"add": "+", "sub": "-", "mul": "*", "div": "/", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">"},
    **{"ge": ">=", "logical_and": "&&", "logical_or": "||"},
}
_PLAIN = {
    **_UNARY,
    **{name: f"{{0}} {sign} {{1}}" for name, sign in _BINARY.items()},
    "maximum": "({0} > {1} || {0} != {0} ? {0} : {1})",
    "minimum": "({0} < {1} || {0} != {0} ? {0} : {1})",
    "where": "({0} ? {1} : {2})",
    "expand": "{0}",
    "full": "{value}",
    "clamp": "{0}",
    "cast": "{0}",
}
"""Element by element, as an expression of the operands; `{f}` ends the names of functions of floats."""


def header(written: Traced) -> str:
    """The text of `policy.h`; `UserError` where it would be too large for a robot."""
    constants, state = written.constants, written.state
    functions = [_Function(name, written.programs[name], constants) for name in ARGUMENTS]
    used = sorted({c for one in functions for c in one.constants}, key=lambda c: int(c.removeprefix(CONST)))
    sizes = {kind: max(one.scratch[kind] for one in functions) for kind in KINDS}
    total = sum(constants[c].nbytes for c in used) + 8 * sum(sizes.values())
    if total > _MOST:
        raise UserError(f"policy.h is not written: it would need {total:,} bytes, more than {_MOST:,}")
    parts = [BEGIN, "typedef struct {"]
    parts += [f"  {KINDS[x.dtype.name]} {field_of(name)}[{max(1, x.size)}];" for name, x in state.items()]
    parts += [f"  {KINDS[k]} scratch_{_LETTER[k]}[{n}];" for k, n in sizes.items() if n]
    if not state and not any(sizes.values()):
        parts.append("  char nothing;")
    parts += ["} metarl_policy;", "", *(constant(name, constants[name]) for name in used)]
    parts += [
        "/* A new task: forget all. */",
        "static inline void metarl_new_task(metarl_policy *p) {",
        "  memset(p, 0, sizeof *p);",
    ]
    parts += [line for name, x in state.items() for line in initial(field_of(name), x)]
    parts += ["}", "", *(line for one in functions for line in one.text()), "#endif", ""]
    return "\n".join(parts)


class _Function:
    """One program as a function of C."""

    def __init__(self, name: str, program: Program, constants: Mapping[str, np.ndarray]) -> None:
        self.name, self.program = name, program
        self.kinds = program.values(constants)
        self.constants = [n for n in self.kinds if n.startswith(CONST)]
        self.roots: dict[str, str] = {}
        for one in program.operations:  # the same numbers in another shape lie where they are
            if one.op == "reshape":
                self.roots[one.out] = self.roots.get(one.inputs[0], one.inputs[0])
        self.places, self.scratch = _placed(program, self.roots)

    def text(self) -> list[str]:
        """The function."""
        takes = ", ".join(
            f"const {self._kind(a)} *{a}" if a != "action" or self.name != "act" else "float *action"
            for a in ARGUMENTS[self.name]
        )
        lines = [f"static inline void metarl_{self.name}(metarl_policy *p{', ' * bool(takes)}{takes}) {{"]
        lines += [f"  (void){a};" for a in ("p", *ARGUMENTS[self.name])]
        for one in self.program.operations:
            if one.op != "reshape":
                lines += ["  " + line for line in self._operation(one)]
        roots = {name: self.roots.get(value, value) for name, value in self.program.outputs.items()}
        changed = {name: value for name, value in self.program.outputs.items() if roots[name] != name}
        kept = {}
        for value in [value for name, value in changed.items() if roots[name].startswith(STATE)]:
            kept[value] = f"kept_{field_of(value)}"  # a tensor of the state becomes another: until all are written
            lines.append(f"  {self._c(value)} {kept[value]}[{self._size(value)}];")
            lines.append(f"  memcpy({kept[value]}, {self.at(value)}, sizeof {kept[value]});")
        for name, value in changed.items():
            to = f"p->{field_of(name)}" if name.startswith(STATE) else name
            source = kept.get(value, self.at(value))
            lines.append(f"  memcpy({to}, {source}, {self._size(value)} * sizeof({self._c(value)}));")
        return [*lines, "}", ""]

    def at(self, name: str) -> str:
        """Where a value lies, as an expression of C."""
        name = self.roots.get(name, name)
        if name.startswith(STATE):
            return f"p->{field_of(name)}"
        if name.startswith(CONST):
            return f"metarl_c{name.removeprefix(CONST)}"
        if name in self.places:
            kind, first = self.places[name]
            return f"(p->scratch_{_LETTER[kind]} + {first})"
        return name

    def _kind(self, argument: str) -> str:
        return KINDS["bool"] if argument == "terminated" else "float"

    def _c(self, name: str) -> str:
        return KINDS[self.kinds[name][1]]

    def _size(self, name: str) -> int:
        return prod(self.kinds[name][0])

    def _operand(self, name: str, shape: Shape, index: Sequence[str]) -> str:
        """An operand's element at the index of a result of this shape, along which it may be repeated."""
        own = self.kinds[name][0]
        index = index[len(shape) - len(own) :]
        return f"{self.at(name)}[{flat(own, ['0' if n == 1 else i for n, i in zip(own, index, strict=True)])}]"

    def _operation(self, one: Operation) -> list[str]:
        made = {"cat": self._cat, "matmul": self._matmul, "cumsum": self._cumsum}
        if one.op in made:
            return made[one.op](one)
        if one.op in ("sum", "mean", "amax", "amin"):
            return self._reduce(one)
        if one.op == "scatter":
            return self._scatter(one)
        index = index_of(one.shape)
        return looped(one.shape, [f"{self.at(one.out)}[{flat(one.shape, index)}] = {self._element(one, index)};"])

    def _element(self, one: Operation, index: list[str]) -> str:
        """What stands at an index of the result, of operations that copy or compute element by element."""
        a = one.attributes
        if one.op in _PLAIN:
            operands = [self._operand(name, one.shape, index) for name in one.inputs]
            kind = self.kinds[one.inputs[0]][1] if one.inputs else one.dtype
            value = literal(a["value"], one.dtype) if one.op == "full" else ""
            made = _PLAIN[one.op].format(*operands, f="f" if kind == "float32" else "", value=value)
            if one.op == "clamp":
                for bound, sign in ((a["min"], "<"), (a["max"], ">")):
                    if bound is not None:
                        made = f"({made} {sign} {(limit := literal(bound, kind))} ? {limit} : {made})"
            if one.op == "cast":
                made = f"({made} != 0)" if one.dtype == "bool" else f"({KINDS[one.dtype]}){made}"
            return made
        source, own = one.inputs[0], list(index)
        shape = self.kinds[source][0]
        if one.op == "transpose":
            own = [index[a["perm"].index(d)] for d in range(len(shape))]
        elif one.op == "slice":
            own[a["dim"]] = f"{a['start']} + {a['step']} * ({index[a['dim']]})"
        elif one.op == "gather":
            own[a["dim"]] = f"{self.at(one.inputs[1])}[{flat(one.shape, index)}]"
        elif one.op == "index_select":
            own[a["dim"]] = f"{self.at(one.inputs[1])}[{index[a['dim']]}]"
        else:
            raise UserError(f"policy.h is not written: it has no operation '{one.op}'")
        return f"{self.at(source)}[{flat(shape, own)}]"

    def _cat(self, one: Operation) -> list[str]:
        lines, first, d = [], 0, one.attributes["dim"]
        for name in one.inputs:
            shape = self.kinds[name][0]
            index = index_of(shape)
            to = [f"{first} + {i}" if k == d else i for k, i in enumerate(index)]
            lines += looped(
                shape, [f"{self.at(one.out)}[{flat(one.shape, to)}] = {self.at(name)}[{flat(shape, index)}];"]
            )
            first += shape[d]
        return lines

    def _matmul(self, one: Operation) -> list[str]:
        a, b = one.inputs
        batch, (rows, columns), inner = one.shape[:-2], one.shape[-2:], self.kinds[a][0][-1]
        index = index_of(batch)
        shape = (*batch, rows, columns)
        out = f"{self.at(one.out)}[{flat(shape, [*index, 'r', 'c'])}]"
        left = self._operand(a, (*batch, rows, inner), [*index, "r", "k"])
        right = self._operand(b, (*batch, inner, columns), [*index, "k", "c"])
        body = [
            f"for (int r = 0; r < {rows}; r++) {{",
            f"  for (int c = 0; c < {columns}; c++) {out} = 0;",
            f"  for (int k = 0; k < {inner}; k++) {{",
            f"    const {KINDS[one.dtype]} x = {left};",
            f"    for (int c = 0; c < {columns}; c++) {out} += x * {right};",
            "  }",
            "}",
        ]
        return looped(batch, body)

    def _reduce(self, one: Operation) -> list[str]:
        source, a = one.inputs[0], one.attributes
        shape, dims = self.kinds[source][0], a["dim"]
        index = index_of(shape)
        kept = [("0" if d in dims else i) for d, i in enumerate(index)]
        full = tuple(1 if d in dims else n for d, n in enumerate(shape))
        out, now = f"{self.at(one.out)}[{flat(full, kept)}]", f"{self.at(source)}[{flat(shape, index)}]"
        if one.op in ("sum", "mean"):
            lines = [
                f"for (int n = 0; n < {prod(full)}; n++) {self.at(one.out)}[n] = 0;",
                *looped(shape, [f"{out} += {now};"]),
            ]
            if one.op == "mean":
                lines.append(
                    f"for (int n = 0; n < {prod(full)}; n++) {self.at(one.out)}[n] /= {prod(shape) // prod(full)};"
                )
            return lines
        lines = looped(
            full,
            [f"{self.at(one.out)}[{flat(full, index_of(full))}] = {self.at(source)}[{flat(shape, index_of(full))}];"],
        )
        return lines + looped(shape, [f"if ({now} {'>' if one.op == 'amax' else '<'} {out}) {out} = {now};"])

    def _cumsum(self, one: Operation) -> list[str]:
        d, index, source = one.attributes["dim"], index_of(one.shape), one.inputs[0]
        here = flat(one.shape, index)
        before = flat(one.shape, [f"({i} - 1)" if k == d else i for k, i in enumerate(index)])
        out = self.at(one.out)
        added = f"({index[d]} ? {out}[{before}] : 0)" if one.shape[d] > 1 else "0"
        return looped(one.shape, [f"{out}[{here}] = {self.at(source)}[{here}] + {added};"])

    def _scatter(self, one: Operation) -> list[str]:
        source, index_name, new = one.inputs
        shape = self.kinds[index_name][0]
        index = index_of(shape)
        to = list(index)
        to[one.attributes["dim"]] = f"{self.at(index_name)}[{flat(shape, index)}]"
        copy = f"memcpy({self.at(one.out)}, {self.at(source)}, {prod(one.shape)} * sizeof({KINDS[one.dtype]}));"
        return [
            copy,
            *looped(shape, [f"{self.at(one.out)}[{flat(one.shape, to)}] = {self.at(new)}[{flat(shape, index)}];"]),
        ]


def _placed(program: Program, roots: Mapping[str, str]) -> tuple[dict[str, tuple[str, int]], dict[str, int]]:
    """A place in the scratch space of its kind for each value, and the sizes of the spaces."""
    last: dict[str, int] = {}
    for number, one in enumerate(program.operations):
        last.update({roots.get(name, name): number for name in one.inputs})
    last.update({roots.get(name, name): len(program.operations) for name in program.outputs.values()})
    places: dict[str, tuple[str, int]] = {}
    sizes, held = dict.fromkeys(KINDS, 0), dict[str, list[tuple[int, int, int]]]()
    for number, one in enumerate(program.operations):
        if one.op == "reshape":
            continue
        taken = held.setdefault(one.dtype, [])
        taken[:] = sorted(row for row in taken if row[2] >= number)
        first, size = 0, max(1, prod(one.shape))
        for begin, end, _ in taken:
            if begin - first >= size:
                break
            first = max(first, end)
        taken.append((first, first + size, last.get(one.out, number)))
        places[one.out] = one.dtype, first
        sizes[one.dtype] = max(sizes[one.dtype], first + size)
    return places, sizes
