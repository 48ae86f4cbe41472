"""A graph comes in; who makes and who reads each value, and what its constants hold, goes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxviz.errors import ModelError

__all__ = [
    "PASS_THROUGH",
    "Wiring",
    "attribute",
    "captured_names",
    "default_opset",
    "node_label",
    "real_inputs",
    "subgraphs",
    "tensor_to_array",
]

# Operators that hand their first input on as the same numbers (at inference), in the same or another shape or type.
PASS_THROUGH = frozenset(
    {
        "Identity", "Cast", "CastLike", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "QuantizeLinear",
        "DequantizeLinear",
    }
)  # fmt: skip

# Deterministic operators that a constant may pass through on its way to being used as a weight or a shape.
_FOLDABLE = frozenset(
    {
        "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Concat", "ConstantOfShape", "DequantizeLinear", "Div", "Equal",
        "Exp", "Expand", "Flatten", "Floor", "Gather", "Greater", "Identity", "Less", "Max", "Min", "Mod", "Mul", "Neg",
        "Not", "Or", "Pow", "QuantizeLinear", "Range", "Reciprocal", "ReduceL2", "ReduceMax", "ReduceMin", "ReduceProd",
        "ReduceSum", "Reshape", "Round", "Shape", "Size", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Tile",
        "Transpose", "Unsqueeze", "Where",
    }
)  # fmt: skip
_LARGEST_FOLDED = 1 << 28  # elements: 1 GiB of float32, more than any single weight tensor of a vision network


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The attribute's value as Python or numpy type, or ``default``; strings come as ``str``."""
    for entry in node.attribute:
        if entry.name == name:
            value = helper.get_attribute_value(entry)
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return default


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of an If, Loop or Scan."""
    for entry in node.attribute:
        if entry.type == onnx.AttributeProto.GRAPH:
            yield entry.g
        elif entry.type == onnx.AttributeProto.GRAPHS:
            yield from entry.graphs


def captured_names(node: onnx.NodeProto) -> set[str]:
    """Names that the node's bodies take from the graph around it, bodies inside bodies included."""
    captured: set[str] = set()
    for body in subgraphs(node):
        known = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
        known |= {tensor.values.name for tensor in body.sparse_initializer}
        for inner in body.node:
            captured |= ({name for name in inner.input if name} | captured_names(inner)) - known
            known |= set(inner.output)
        captured |= {value.name for value in body.output} - known
    return captured


def default_opset(proto: onnx.ModelProto) -> int:
    """Version of the standard operator set that the model imports."""
    return max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def real_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The graph inputs that a caller must feed: files of IR version 3 list every weight among the inputs too."""
    stored = {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in stored]


def node_label(node: onnx.NodeProto, position: int) -> str:
    """The node's name, or its operator and position where the exporter gave none."""
    return node.name or f"{node.op_type} #{position}"


def tensor_to_array(tensor: onnx.TensorProto) -> NDArray[Any]:
    """A tensor that lies inside the file as a numpy array; bfloat16 and float8 become float32, int4 becomes int8.

    Raises
    ------
    ModelError
        The stored bytes do not fit the stated shape and type.
    """
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise ModelError(
            "the stored bytes do not fit the stated shape and type", where=f"tensor {tensor.name!r}", got=str(error),
            next_step="The file is damaged; export it anew",
        ) from error  # fmt: skip
    return as_standard_dtype(array)


def as_standard_dtype(array: NDArray[Any]) -> NDArray[Any]:
    """The array in a dtype of numpy itself: types that only ``ml_dtypes`` knows are widened, which loses nothing."""
    name = array.dtype.name
    if name.startswith(("bfloat", "float8", "float4", "float6")):
        return array.astype(np.float32)
    if name in ("int4", "int2"):
        return array.astype(np.int8)
    if name in ("uint4", "uint2"):
        return array.astype(np.uint8)
    return array


class Wiring:
    """Index of one graph: producers, readers and constants by value name.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model; it is not copied and must not change while the index is in use.
    tensors : mapping of name to array
        Constants from outside the file (external data), which :meth:`constant` then knows too.
    """

    def __init__(self, proto: onnx.ModelProto, *, tensors: Mapping[str, NDArray[Any]] | None = None) -> None:
        self.proto = proto
        self.graph = proto.graph
        self.opset = default_opset(proto)
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        self.producer: dict[str, onnx.NodeProto] = {}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        self.inputs = {value.name: value for value in real_inputs(self.graph)}
        for node in self.graph.node:
            for name in {name for name in node.input if name} | captured_names(node):
                self.readers.setdefault(name, []).append(node)
            for name in node.output:
                if name:
                    self.producer[name] = node
        self._tensors = tensors if tensors is not None else {}
        self._folded: dict[str, NDArray[Any] | None] = {}
        self._constant_names: set[str] | None = None

    @property
    def constant_names(self) -> set[str]:
        """Names of all values that depend on no graph input: initializers, and what nodes compute from them alone."""
        if self._constant_names is None:
            names = set(self.initializers) | {tensor.values.name for tensor in self.graph.sparse_initializer}
            for node in self.graph.node:
                drawn = node.op_type.startswith("Random") or node.op_type in ("Multinomial", "Bernoulli")
                if not drawn and all(name in names for name in (*filter(None, node.input), *captured_names(node))):
                    names.update(filter(None, node.output))
            self._constant_names = names
        return self._constant_names

    def constant(self, name: str) -> NDArray[Any] | None:
        """What the value always holds, or None where it depends on an input, lies outside the file or cannot be told.

        Follows initializers and Constant nodes through shape arithmetic, Cast, DequantizeLinear, Transpose and the
        like.
        """
        if name not in self._folded:
            self._folded[name] = None  # a cycle, which the loader refuses, then ends here instead of recursing
            self._folded[name] = self._fold(name)
        return self._folded[name]

    def _fold(self, name: str) -> NDArray[Any] | None:
        if name in self._tensors:
            return as_standard_dtype(self._tensors[name])
        tensor = self.initializers.get(name)
        if tensor is not None:
            return None if tensor.data_location == onnx.TensorProto.EXTERNAL else tensor_to_array(tensor)
        node = self.producer.get(name)
        if node is None or name not in self.constant_names or node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type == "Constant":
            return _constant_node(node)
        if node.op_type not in _FOLDABLE:
            return None
        operands = [self.constant(operand) if operand else None for operand in node.input]
        if any(operand is None and given for operand, given in zip(operands, node.input, strict=True)):
            return None
        return evaluate(node, operands, opset=self.opset).get(name)

    def data_input(self, node: onnx.NodeProto) -> str:
        """The node's input that carries data: the first that is not a constant (``""`` where all are)."""
        return next((name for name in node.input if name and name not in self.constant_names), "")

    def depends_on(self, sources: set[str]) -> set[str]:
        """The sources themselves and every value computed from them."""
        reached = set(sources)
        for node in self.graph.node:
            if any(name in reached for name in node.input) or not reached.isdisjoint(captured_names(node)):
                reached.update(filter(None, node.output))
        return reached


def _constant_node(node: onnx.NodeProto) -> NDArray[Any] | None:
    for entry in node.attribute:
        value = helper.get_attribute_value(entry)
        if entry.name == "value":
            return None if value.data_location == onnx.TensorProto.EXTERNAL else tensor_to_array(value)
        if entry.name in ("value_float", "value_floats"):
            return np.asarray(value, np.float32)
        if entry.name in ("value_int", "value_ints"):
            return np.asarray(value, np.int64)
    return None


def evaluate(node: onnx.NodeProto, operands: list[NDArray[Any] | None], *, opset: int) -> dict[str, NDArray[Any]]:
    """What one deterministic operator makes of constants, by output name; empty where it cannot be told.

    The arithmetic is that of the reference implementation in ``onnx``. Results above a fixed size are refused, so that
    a file cannot make the caller allocate without bound.
    """
    if _result_size(node, operands) > _LARGEST_FOLDED:
        return {}
    if node.op_type == "DequantizeLinear":
        return {node.output[0]: _dequantize(node, operands)}
    from onnx.reference import ReferenceEvaluator

    named = {f"operand {i}": operand for i, operand in enumerate(operands) if operand is not None}
    lone = onnx.NodeProto()
    lone.CopyFrom(node)
    del lone.input[:]
    lone.input.extend("" if operand is None else f"operand {i}" for i, operand in enumerate(operands))
    outputs = [name for name in lone.output if name]
    graph = helper.make_graph(
        [lone], "lone", [onnx.ValueInfoProto(name=name) for name in named],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        results = ReferenceEvaluator(model).run(None, named)
    except Exception:  # the reference implementation raises whatever numpy raised; a constant unknown is no failure
        return {}
    return {name: np.asarray(result) for name, result in zip(outputs, results, strict=True)}


def _result_size(node: onnx.NodeProto, operands: list[NDArray[Any] | None]) -> int:
    sizes = [operand.size for operand in operands if operand is not None]
    shape = operands[-1] if node.op_type in ("Expand", "ConstantOfShape", "Tile") and operands else None
    if shape is not None:
        factor = 1
        for side in shape.ravel().tolist():
            factor *= max(int(side), 1)
        return factor * (sizes[0] if node.op_type == "Tile" else 1)
    if node.op_type == "Range" and len(sizes) == 3:
        start, limit, delta = (float(np.ravel(operand)[0]) for operand in operands if operand is not None)
        return int(abs(limit - start) / abs(delta)) if delta else _LARGEST_FOLDED + 1
    if node.op_type == "Concat":
        return sum(sizes)
    return max(sizes, default=0)


def _dequantize(node: onnx.NodeProto, operands: list[NDArray[Any] | None]) -> NDArray[Any]:
    """ONNX DequantizeLinear: (stored - zero point) × scale, per tensor, per axis or per block (opset 21)."""
    stored, scale = operands[0], operands[1]
    assert stored is not None
    assert scale is not None
    zero_point = operands[2] if len(operands) > 2 else None
    axis = int(attribute(node, "axis", 1))
    block = int(attribute(node, "block_size", 0))

    def spread(parameter: NDArray[Any]) -> NDArray[Any]:
        if parameter.size == 1:
            return parameter.reshape(())
        if block:
            return np.repeat(parameter, block, axis=axis)
        sides = [1] * stored.ndim
        sides[axis] = -1
        return parameter.reshape(sides)

    shifted = stored.astype(np.float32)
    if zero_point is not None:
        shifted = shifted - spread(zero_point.astype(np.float32))
    return np.asarray(shifted * spread(scale.astype(np.float32)), np.float32)
