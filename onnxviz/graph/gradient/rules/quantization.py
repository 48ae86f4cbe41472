"""Quantised values: what a real number is rounded to moves as the number does, until it leaves the integer's range.

A number is clipped to the range that the integer can represent, then rounded. Rounding is a staircase, whose true
derivative explains nothing: it is 0 almost everywhere. By the straight-through rule (Bengio, Léonard and Courville
2013) it is passed as if it were not there. Clipping keeps its derivative, 1 up to and with the ends of the range and 0
beyond: that is how most quantised networks compute their ReLU and ReLU6. (TensorFlow's fake quantisation has the same
ends; PyTorch's has them half a step further out, so that some of what a ReLU has cut off would count.)

The adjoint of an integer is the derivative by the integer itself, in float32. So it does not matter whether the number
is read with another scale than it was written with, or whether integers of several scales were joined.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from onnxviz.graph.gradient.facts import FLOATS
from onnxviz.graph.gradient.node import Node
from onnxviz.graph.gradient.rules.rule import Adjoints, Rule, first

if TYPE_CHECKING:
    from onnxviz.graph.gradient.backward import Backward

__all__ = ["RULES"]

_RANGES: Mapping[int, tuple[float, float]] = {
    TensorProto.INT4: (-8, 7), TensorProto.UINT4: (0, 15), TensorProto.INT8: (-128, 127), TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-32768, 32767), TensorProto.UINT16: (0, 65535),
    TensorProto.FLOAT8E4M3FN: (-448, 448), TensorProto.FLOAT8E4M3FNUZ: (-240, 240),
    TensorProto.FLOAT8E5M2: (-57344, 57344), TensorProto.FLOAT8E5M2FNUZ: (-57344, 57344),
}  # fmt: skip
"""Smallest and largest number of the types that values are quantised to."""


def _quantize(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, x, scale = first(adjoints), node.inputs[0], _scale(b, node)
    if b.type_of(x) not in FLOATS:
        raise LookupError("integers that are quantised once more")
    if not b.wants(x):
        return [None]
    passed = b.emit("Div", g, _spread(b, node, scale))
    kind = b.type_of(node.outputs[0])
    if kind not in _RANGES:
        raise LookupError(f"values quantised to {TensorProto.DataType.Name(kind).lower()}")
    if node.attribute("saturate", 1):
        low, high = (_spread(b, node, _real(b, node, end, scale)) for end in _RANGES[kind])
        seen = _cast(b, x, b.type_of(x), TensorProto.FLOAT)
        within = b.emit("And", b.emit("GreaterOrEqual", seen, low), b.emit("LessOrEqual", seen, high))
        passed = b.emit("Where", within, passed, b.constant(np.float32(0)))
    return [_cast(b, passed, TensorProto.FLOAT, b.type_of(x))]


def _dequantize(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, scale = first(adjoints), _scale(b, node)
    wide = _cast(b, g, b.adjoint_type(node.outputs[0]), TensorProto.FLOAT)
    return [b.emit("Mul", wide, _spread(b, node, scale))]


def _scale(b: Backward, node: Node) -> str:
    """The scale in float32, the type in which onnxruntime divides by it."""
    scale = node.inputs[1]
    if b.wants(scale):
        raise LookupError("its scale depends on the value that is derived by")
    return b.once("Cast", scale, to=TensorProto.FLOAT) if b.type_of(scale) != TensorProto.FLOAT else scale


def _real(b: Backward, node: Node, integer: float, scale: str) -> str:
    """The real number that an integer stands for; one for each scale."""
    distance = b.constant(np.float32(integer))
    if node.has_input(2):
        distance = b.once("Sub", distance, b.once("Cast", node.inputs[2], to=TensorProto.FLOAT))
    return b.once("Mul", distance, scale)


def _spread(b: Backward, node: Node, steps: str) -> str:
    """A number for each scale as numbers that are broadcast against the value: of one axis, or of blocks along it."""
    x, sides = node.inputs[0], b.sides(node.inputs[1])
    block = node.attribute("block_size", 0)
    if not sides or (sides == (1,) and not block):
        return steps
    axis = node.attribute("axis", 1) % b.rank(x)
    if not block:
        behind = range(1, b.rank(x) - axis)
        return b.once("Unsqueeze", steps, b.integers(behind)) if behind else steps
    end = b.once("Squeeze", b.side(x, axis))
    places = b.once("Range", b.constant(np.int64(0)), end, b.constant(np.int64(1)))
    return b.once("Gather", steps, b.once("Div", places, b.constant(np.int64(block))), axis=axis)


def _cast(b: Backward, value: str, given: int, wanted: int) -> str:
    return value if given == wanted else b.emit("Cast", value, to=wanted)


RULES: Mapping[str, Rule] = {"QuantizeLinear": _quantize, "DequantizeLinear": _dequantize}
