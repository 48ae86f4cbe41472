"""A graph and the concrete shapes of its values come in; the multiply-accumulates of one run go out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx

from onnxviz.graph.wiring import attribute

__all__ = ["count_macs", "macs_of_nodes"]

# Where an operator keeps its weights (or right-hand matrix) among its inputs.
_CONVOLUTIONS = {
    "Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3, "NhwcConv": 1, "NhwcFusedConv": 1, "DeformConv": 1,
}  # fmt: skip
_PRODUCTS = {
    "MatMul": 0, "MatMulInteger": 0, "FusedMatMul": 0, "QLinearMatMul": 0, "MatMulIntegerToFloat": 0, "MatMulNBits": 0,
}  # fmt: skip
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def count_macs(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Count the multiply-accumulates of convolutions, matrix products and recurrent layers.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model.
    shapes : mapping of value name to shape
        Concrete shapes of the inputs and the nodes' outputs in the run that is counted; those of weights are read from
        the model.

    Returns
    -------
    int
        Multiply-accumulates of one run: a convolution costs its output's elements × kernel area × input channels per
        group, with padding counted as if it were image. Element-wise work, pooling, bodies of If, Loop and Scan, and
        nodes whose shapes are not given count nothing.
    """
    return sum(macs_of_nodes(proto, shapes))


def macs_of_nodes(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    """Count as :func:`count_macs` does, for each node of the graph by itself."""
    known: dict[str, tuple[int, ...]] = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant" and isinstance(tensor := attribute(node, "value"), onnx.TensorProto):
            known[node.output[0]] = tuple(tensor.dims)
    known.update(shapes)
    return [_macs_of(node, known) for node in proto.graph.node]


def _macs_of(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    out = shapes.get(node.output[0]) if node.output else None
    inputs = [shapes.get(name) if name else None for name in node.input]
    if node.op_type in _CONVOLUTIONS:
        weights = inputs[_CONVOLUTIONS[node.op_type]]
        return math.prod(out) * math.prod(weights[1:]) if out and weights else 0
    if node.op_type in ("ConvTranspose", "QLinearConvTranspose"):
        # Every input element is multiplied with its share of the kernel: (in, out / groups, height, width).
        data, weights = inputs[0], inputs[1 if node.op_type == "ConvTranspose" else 3]
        return math.prod(data) * math.prod(weights[1:]) if data and weights else 0
    if node.op_type in _PRODUCTS:
        left = inputs[0]
        if out is None or left is None or not left:
            return 0
        shared = left[-2] if attribute(node, "transA", 0) and len(left) > 1 else left[-1]
        return math.prod(out) * shared
    if node.op_type in ("Gemm", "QGemm", "FusedGemm"):
        left = inputs[0]
        if out is None or left is None or len(left) != 2:
            return 0
        return math.prod(out) * left[0 if attribute(node, "transA", 0) else 1]
    if node.op_type in _GATES and inputs[0] and len(inputs) > 2 and inputs[1] and inputs[2]:
        # (directions, gates × hidden, inputs) and (directions, gates × hidden, hidden), once per step and sequence.
        return math.prod(inputs[0][:2]) * (math.prod(inputs[1]) + math.prod(inputs[2]))
    if node.op_type == "Einsum":
        return _macs_of_einsum(str(attribute(node, "equation", "")), inputs)
    return 0


def _macs_of_einsum(equation: str, inputs: Sequence[tuple[int, ...] | None]) -> int:
    """The product of all index ranges of a two-operand contraction."""
    terms = equation.replace(" ", "").split("->")[0].split(",")
    if len(terms) != 2 or len(inputs) != 2 or "..." in equation:
        return 0
    ranges: dict[str, int] = {}
    for term, shape in zip(terms, inputs, strict=True):
        if shape is None or len(term) != len(shape):
            return 0
        ranges.update(zip(term, shape, strict=True))
    return math.prod(ranges.values())
