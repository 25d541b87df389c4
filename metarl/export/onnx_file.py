"""Programs as ONNX models, opset 18: one file per function, the adaptation state in and out.

An input `state.x` comes out as `next_state.x` where the function changes it. Models are written node by node of the
program's operations, and need neither torch nor its exporter.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metarl.export.parity import Call
from metarl.export.program import CONST, STATE, Operation, Program
from metarl.export.trace import Traced

OPSET = 18
_SAME = {
    **{"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "neg": "Neg", "abs": "Abs", "exp": "Exp", "log": "Log"},
    **{"sqrt": "Sqrt", "reciprocal": "Reciprocal", "tanh": "Tanh", "sigmoid": "Sigmoid", "relu": "Relu", "sin": "Sin"},
    **{"cos": "Cos", "erf": "Erf", "floor": "Floor", "softplus": "Softplus", "maximum": "Max", "minimum": "Min"},
    **{"eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "where": "Where"},
    **{"logical_and": "And", "logical_or": "Or", "logical_not": "Not", "matmul": "MatMul"},
}
"""Operations that ONNX has as they are."""
_ALONG = {"cat": "Concat", "gather": "GatherElements", "index_select": "Gather", "scatter": "ScatterElements"}
_TWO = {"ne": ("Equal", "Not"), "rsqrt": ("Sqrt", "Reciprocal")}
_REDUCE = {"sum": "ReduceSum", "mean": "ReduceMean", "amax": "ReduceMax", "amin": "ReduceMin"}


def has_onnx() -> bool:
    """Whether the extra `export` is installed.

    onnxruntime is told not to report its use: where it is first imported, it would write a database of events and an
    identifier of this machine into `~/.cache`, and its function `disable_telemetry_events` comes too late for that.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnx
        import onnxruntime  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        return False
    return bool(onnx and onnxruntime)


def model_of(name: str, written: Traced) -> bytes:
    """The file of one function."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    program, constants = written.programs[name], written.constants
    kinds = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "int64": TensorProto.INT64}
    kinds["bool"] = TensorProto.BOOL
    values = program.values(constants)
    nodes = _Nodes(program, constants)
    results = []
    for output, value in program.outputs.items():
        if output != value:
            nodes.add("Identity", [value], out_name(output))
            results.append(helper.make_tensor_value_info(out_name(output), kinds[values[value][1]], values[value][0]))
    graph = helper.make_graph(
        [helper.make_node(op, ins, [out], **attributes) for op, ins, out, attributes in nodes.made],
        name,
        [helper.make_tensor_value_info(slot.name, kinds[slot.dtype], slot.shape) for slot in program.inputs],
        results,
        [numpy_helper.from_array(value, key) for key, value in nodes.tensors.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="metarl", ir_version=9
    )
    onnx.checker.check_model(model, full_check=True)
    made: bytes = model.SerializeToString()
    return made


def described(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """The file with these in its `metadata_props`."""
    import onnx

    model = onnx.load_from_string(content)
    for key, text in metadata.items():
        model.metadata_props.add(key=key, value=text)
    told: bytes = model.SerializeToString()
    return told


def out_name(name: str) -> str:
    """What an output is called, as a model's inputs and outputs may not share a name."""
    return f"next_{name}" if name.startswith(STATE) else name


def onnx_calls(models: Mapping[str, bytes]) -> dict[str, Call]:
    """The models run by onnxruntime, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return {
        name: _call(onnxruntime.InferenceSession(blob, options, ["CPUExecutionProvider"]))
        for name, blob in models.items()
    }


def _call(session: Any) -> Call:
    taken = [one.name for one in session.get_inputs()]
    made = [one.name for one in session.get_outputs()]

    def call(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = session.run(made, {name: inputs[name] for name in taken})
        return {name.removeprefix("next_"): value for name, value in zip(made, found, strict=True)}

    return call


class _Nodes:
    """Nodes (operator, inputs, output, attributes) and constant tensors of a graph."""

    def __init__(self, program: Program, constants: Mapping[str, np.ndarray]) -> None:
        self.made: list[tuple[str, list[str], str, dict[str, Any]]] = []
        self.tensors = {n: constants[n] for n in program.values(constants) if n.startswith(CONST)}
        for one in program.operations:
            self._operation(one)

    def add(self, op: str, inputs: Sequence[str], out: str, **attributes: Any) -> None:
        """One node."""
        self.made.append((op, list(inputs), out, attributes))

    def _tensor(self, values: Any, dtype: str = "int64") -> str:
        """A constant of the graph."""
        name = f"shape.{len(self.tensors)}"
        self.tensors[name] = np.array(values, dtype)
        return name

    def _operation(self, one: Operation) -> None:
        a, x, out = one.attributes, list(one.inputs), one.out
        if one.op == "where" and one.dtype == "bool":  # onnxruntime has no choice between flags
            self.add("And", x[:2], f"{out}.chosen")
            self.add("Not", x[:1], f"{out}.not")
            self.add("And", [f"{out}.not", x[2]], f"{out}.other")
            self.add("Or", [f"{out}.chosen", f"{out}.other"], out)
        elif one.op in _SAME:
            self.add(_SAME[one.op], x, out)
        elif one.op in _ALONG:
            self.add(_ALONG[one.op], x, out, axis=a["dim"])
        elif one.op in _TWO:
            self.add(_TWO[one.op][0], x, f"{out}.first")
            self.add(_TWO[one.op][1], [f"{out}.first"], out)
        elif one.op in _REDUCE:
            self.add(_REDUCE[one.op], [*x, self._tensor(a["dim"])], out, keepdims=int(a["keepdim"]))
        elif one.op in ("reshape", "expand"):
            self.add(one.op.capitalize(), [*x, self._tensor(list(one.shape))], out)
        else:
            getattr(self, f"_{one.op}")(x, out, one)

    def _clamp(self, x: list[str], out: str, one: Operation) -> None:
        bounds = [one.attributes[key] for key in ("min", "max")]
        self.add("Clip", [*x, *("" if b is None else self._tensor(b, one.dtype) for b in bounds)], out)

    def _transpose(self, x: list[str], out: str, one: Operation) -> None:
        self.add("Transpose", x, out, perm=one.attributes["perm"])

    def _slice(self, x: list[str], out: str, one: Operation) -> None:
        self.add("Slice", [*x, *(self._tensor([one.attributes[k]]) for k in ("start", "end", "dim", "step"))], out)

    def _cumsum(self, x: list[str], out: str, one: Operation) -> None:
        self.add("CumSum", [*x, self._tensor(one.attributes["dim"])], out)

    def _cast(self, x: list[str], out: str, one: Operation) -> None:
        self.add("Cast", x, out, to={"float32": 1, "float64": 11, "int64": 7, "bool": 9}[one.dtype])

    def _full(self, x: list[str], out: str, one: Operation) -> None:
        self.add("Expand", [self._tensor(one.attributes["value"], one.dtype), self._tensor(list(one.shape))], out)
