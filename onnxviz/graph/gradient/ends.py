"""The name of an integer input or output comes in; the nearest value that holds real numbers goes out."""

from __future__ import annotations

import onnx

from onnxviz.graph.gradient.facts import FLOATS
from onnxviz.graph.values import infer_types
from onnxviz.graph.wiring import PASS_THROUGH, Wiring

__all__ = ["real_value_before", "real_value_behind"]


def real_value_behind(proto: onnx.ModelProto, name: str) -> str | None:
    """The first value computed from ``name`` that holds real numbers: ``name`` itself where it does.

    None where none is a plain copy of it in another type or shape.
    """
    types, wiring = _element_types(proto), Wiring(proto)
    while types.get(name) not in FLOATS:
        behind = [
            node.output[0]
            for node in wiring.readers.get(name, ())
            if node.op_type in PASS_THROUGH | {"Transpose"} and node.input[0] == name
        ]
        if not behind:
            return None
        name = behind[0]
    return name


def real_value_before(proto: onnx.ModelProto, name: str) -> str | None:
    """The last value before ``name`` that holds real numbers: ``name`` itself where it does."""
    types, wiring = _element_types(proto), Wiring(proto)
    while types.get(name) not in FLOATS:
        node = wiring.producer.get(name)
        if node is None or node.op_type not in PASS_THROUGH | {"Transpose", "Clip"}:
            return None
        name = node.input[0]
    return name


def _element_types(proto: onnx.ModelProto) -> dict[str, int]:
    return {name: found.tensor_type.elem_type for name, found in infer_types(proto).items()}
