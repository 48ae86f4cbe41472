"""Values of a graph that do not depend on its inputs' numbers: initializers, Constant nodes, arithmetic on shapes."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

__all__ = ["Constants"]

_LIMIT = 1 << 20  # elements: parameters of rules are small, and nothing larger is worth computing here
_DEPTH = 200
_ARITHMETIC = frozenset(
    {
        "Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Concat", "ConstantOfShape", "Div", "Equal", "Expand",
        "Flatten", "Floor", "Gather", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min",
        "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Range", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum",
        "Reshape", "Round", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Trilu", "Unsqueeze",
        "Where",
    }
)  # fmt: skip


class Constants:
    """Looks values up by name and computes those that follow from constants and shapes, on demand.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model; external data need not be loaded (it is left out).
    shapes : mapping of value name to shape
        Concrete shapes, so that ``Shape`` has an answer.
    """

    def __init__(self, proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes = shapes
        self._initializers = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._producers = {name: node for node in proto.graph.node for name in node.output if name}
        self._opsets = list(proto.opset_import)
        self._found: dict[str, NDArray[Any] | None] = {}

    def __call__(self, name: str) -> NDArray[Any] | None:
        """Give the value's array, or None where it depends on data or is not worth computing."""
        return self._look_up(name, _DEPTH)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of an initializer, without its data."""
        tensor = self._initializers.get(name)
        return None if tensor is None else tuple(tensor.dims)

    def _look_up(self, name: str, depth: int) -> NDArray[Any] | None:
        if name not in self._found:
            self._found[name] = self._compute(name, depth)
        return self._found[name]

    def _compute(self, name: str, depth: int) -> NDArray[Any] | None:
        if name in self._initializers:
            return _array(self._initializers[name])
        node = self._producers.get(name)
        if node is None or depth == 0 or node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type == "Constant":
            return _constant(node)
        if node.op_type in ("Shape", "Size"):
            return self._of_shape(node)
        if node.op_type not in _ARITHMETIC or prod(self._shapes.get(name, (0,))) > _LIMIT:
            return None
        feeds = {}
        for used in node.input:
            if used:
                array = self._look_up(used, depth - 1)
                if array is None:
                    return None
                feeds[used] = array
        return self._evaluate(node, feeds, name)

    def _of_shape(self, node: onnx.NodeProto) -> NDArray[Any] | None:
        shape = self._shapes.get(node.input[0]) or self.shape(node.input[0])
        if shape is None:
            return None
        if node.op_type == "Size":
            return np.asarray(prod(shape), np.int64)
        ends = {attribute.name: attribute.i for attribute in node.attribute}
        return np.asarray(shape[ends.get("start", 0) : ends.get("end", len(shape))], np.int64)

    def _evaluate(self, node: onnx.NodeProto, feeds: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any] | None:
        graph = onnx.helper.make_graph(
            [node],
            "constant",
            [onnx.helper.make_value_info(used, onnx.TypeProto()) for used in feeds],
            [onnx.helper.make_value_info(name, onnx.TypeProto())],
        )
        model = onnx.helper.make_model(graph, opset_imports=self._opsets)
        try:
            with np.errstate(all="ignore"):
                found: Any = ReferenceEvaluator(model).run([name], dict(feeds))
        except Exception:
            # The reference implementation raises whatever numpy raises; a constant that it cannot tell is unknown.
            return None
        return np.asarray(found[0])


def _array(tensor: onnx.TensorProto) -> NDArray[Any] | None:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or prod(tensor.dims) > _LIMIT:
        return None
    return numpy_helper.to_array(tensor)


def _constant(node: onnx.NodeProto) -> NDArray[Any] | None:
    for attribute in node.attribute:
        if attribute.name == "value":
            return _array(attribute.t)
        if attribute.name in ("value_float", "value_int"):
            return np.asarray(onnx.helper.get_attribute_value(attribute))
        if attribute.name in ("value_floats", "value_ints"):
            return np.asarray(onnx.helper.get_attribute_value(attribute))
    return None
