"""The graph that onnxruntime writes down when it has optimised one: read, and made ready to be looked into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

__all__ = [
    "blocked_probe",
    "expose_every_value",
    "fix_input_shape",
    "read_graph",
]


def fix_input_shape(model: ModelProto, source: str, shape: Sequence[int]) -> None:
    """State the sides of the image, and leave the batch free: constants that follow from the sides are then folded."""
    for value in model.graph.input:
        if value.name == source:
            sides: list[int | str] = ["N", *shape[1:]]
            value.type.CopyFrom(helper.make_tensor_type_proto(value.type.tensor_type.elem_type, sides))


def read_graph(path: Path) -> ModelProto:
    """Read the graph; weights that lie in the file beside it are left there."""
    return onnx.load(path, load_external_data=False)


def expose_every_value(proto: ModelProto) -> ModelProto:
    """A copy whose outputs are all values that its nodes make."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    copy.graph.output.extend(
        onnx.ValueInfoProto(name=name) for node in proto.graph.node for name in node.output if name
    )
    return copy


def blocked_probe() -> ModelProto:
    """A convolution with 24 output channels: few enough, and odd enough, to tell 8 from 16 channels in a block."""
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "weights"], ["map"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["map"], ["answer"]),
        ],
        "probe",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 8, 6, 6])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["N", 24, 6, 6])],
        [numpy_helper.from_array(np.ones((24, 8, 3, 3), np.float32), "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
