"""What a traced policy becomes: a short list of operations on named tensors of fixed shapes, as plain data.

`metarl/export/runtime` defines what each operation does, in NumPy; `c_header.py` and `onnx_file.py` write the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from metarl.export.runtime import Tensor

Shape = tuple[int, ...]
CONST = "const."
"""Begins the names of constants, which are tensors of `policy.safetensors`."""
STATE = "state."
"""Begins the names of the adaptation state's tensors."""


@dataclass(frozen=True)
class Operation:
    """One step of a program."""

    op: str
    """Its name in the table of operations."""
    inputs: tuple[str, ...]
    """Names of values: of inputs, constants, or of what operations before made."""
    out: str
    """Name of what it makes."""
    shape: Shape
    """Shape of that."""
    dtype: str
    """Kind of its numbers."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What else tells how: `dim`, `perm`, `min`, ..."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        told = {"shape": list(self.shape)} if self.op in ("reshape", "expand", "full") else {}
        kind = {"dtype": self.dtype} if self.op in ("cast", "full") else {}
        return {"op": self.op, "in": list(self.inputs), "out": self.out, **told, **kind, **self.attributes}


@dataclass(frozen=True)
class Program:
    """A function of a policy, for one world."""

    inputs: tuple[Tensor, ...]
    """What it depends on, and nothing else."""
    outputs: Mapping[str, str]
    """Name of each result, and of the value that it is: an input may pass unchanged."""
    operations: tuple[Operation, ...]
    """In the order of their work."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        inputs = [{"name": x.name, "shape": list(x.shape), "dtype": x.dtype} for x in self.inputs]
        outputs = [{"name": name, "value": value} for name, value in self.outputs.items()]
        return {"inputs": inputs, "outputs": outputs, "operations": [one.to_json() for one in self.operations]}

    def values(self, constants: Mapping[str, Any]) -> dict[str, tuple[Shape, str]]:
        """Shape and dtype of every value; `constants` are arrays by name."""
        known = {x.name: (x.shape, x.dtype) for x in self.inputs}
        used = {name for one in self.operations for name in one.inputs} | set(self.outputs.values())
        known |= {n: (tuple(constants[n].shape), str(constants[n].dtype)) for n in used if n.startswith(CONST)}
        return known | {one.out: (one.shape, one.dtype) for one in self.operations}

    def output_shapes(self) -> dict[str, Shape]:
        """Shape of each result that an operation made."""
        made = {one.out: one.shape for one in self.operations}
        return {name: made[value] for name, value in self.outputs.items() if value in made}

    @property
    def idle(self) -> bool:
        """Whether it leaves everything as it is."""
        return all(name == value for name, value in self.outputs.items())

    def needs(self, name: str) -> bool:
        """Whether its results depend on this input."""
        return any(slot.name == name for slot in self.inputs)


def pruned(program: Program) -> Program:
    """The program without what no result depends on."""
    needed, kept = set(program.outputs.values()), []
    for one in reversed(program.operations):
        if one.out in needed:
            needed.update(one.inputs)
            kept.append(one)
    inputs = tuple(slot for slot in program.inputs if slot.name in needed)
    return Program(inputs, program.outputs, tuple(reversed(kept)))
